package verdict

import (
	"maps"
	"testing"
)

// Wordings of whole classes, such as other servers and other languages put them, in
// which a mistake would be severe. They are nobody's replies in particular.
func TestClasses(t *testing.T) {
	t.Parallel()
	r := defaultRules(t)
	all := classes()
	maps.Copy(all, meanings())
	for name, class := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, text := range class.texts {
				for _, stage := range class.stages {
					got := r.Judge(Input{Stage: stage, Code: class.code, Enhanced: class.enhanced, Text: text})
					if got.Action != class.want && got.Action != class.or {
						t.Errorf("%s %d %q: %s by %s, want %s", stage, class.code, text, got.Action, got.Rule, class.want)
					}
				}
			}
		})
	}
}

type class struct {
	code     int
	enhanced string
	stages   []Stage
	want, or Action // or: the other action that would be as right
	texts    []string
}

func classes() map[string]class {
	rcpt, eod := []Stage{Rcpt}, []Stage{EOD}
	session := []Stage{Connect, EHLO, Mail}
	return map[string]class{
		"nobody": {550, "", rcpt, Suppress, "", []string{
			"5.1.1 The user does not exist here", "User is not known", "The mailbox does not exist on this server", "Unknown e-mail address",
			"No such account", "Recipient is not on file", "This mailbox does not exist", "The addressee is unknown", "no user with that name here",
			"Bad recipient", "Address not recognized by this server", "The recipient was not found", "sorry, this user is not hosted here",
			"nobody@example.com is not a valid mailbox", "Recipient address rejected: no such mailbox", "user not registered",
			"That email address does not exist", "This email account does not exist", "mailbox not known", "account not found",
			"There is no mailbox by that name", "The name was not found", "unknown user account",
			"invalid mailbox", "no mailbox", "Recipient does not exist on this system", "Unable to find recipient", "could not find the user",
		}},
		"nobody in other languages": {550, "", rcpt, Suppress, "", []string{
			"사용자를 찾을 수 없습니다", "존재하지 않는 메일 주소입니다", "없는 계정입니다", "수신자 주소가 존재하지 않습니다", "등록되지 않은 사용자입니다", "해당 사용자가 없습니다", "존재하지 않는 계정", "알 수 없는 사용자",
			"ユーザーが見つかりません", "宛先のメールアドレスは存在しません", "該当するユーザーが存在しません", "そのアドレスは存在しない", "宛先不明です", "不明な宛先です", "ユーザが存在しません",
			"用户不存在", "收件人不存在", "邮箱不存在", "该用户不存在", "没有此用户", "无此用户", "收件人地址不存在", "帐号不存在", "找不到用户", "收件者不存在", "使用者不存在", "信箱不存在", "未知用户",
			"Benutzer existiert nicht", "Empfänger unbekannt", "Unbekannter Empfänger", "Adresse existiert nicht", "Postfach existiert nicht", "Empfängeradresse unbekannt", "Kein solcher Benutzer", "Der Empfänger wurde nicht gefunden",
			"Utilisateur inconnu", "Destinataire inconnu", "Adresse inexistante", "Cette adresse n'existe pas", "Boîte aux lettres inexistante", "L'utilisateur n'existe pas",
			"Пользователь не найден", "Пользователь не существует", "Такого пользователя не существует", "Нет такого пользователя", "Почтовый ящик не существует", "Получатель не найден", "Неизвестный пользователь", "Адрес не существует", "Ящик не найден",
			"Usuario desconocido", "El usuario no existe", "Destinatario desconocido", "La dirección no existe", "Utente sconosciuto", "Destinatario inesistente", "Indirizzo inesistente", "Usuário inexistente", "Usuário não encontrado", "Nieznany użytkownik", "Użytkownik nie istnieje", "Onbekende gebruiker", "Gebruiker onbekend", "Gebruiker bestaat niet",
		}},
		"dead mailbox": {550, "", rcpt, Suppress, "", []string{
			"Mailbox disabled", "This mailbox has been disabled", "Account is inactive", "User inactive", "The account has been closed", "Account deactivated", "mailbox deactivated",
			"This account is no longer active", "Email address is no longer in use", "account has been deleted", "mailbox has been deleted", "Account terminated", "user has been disabled",
			"The email address has expired", "Mailbox has been suspended due to inactivity", "User account is disabled", "recipient is disabled", "mailbox suspended",
			"휴면 계정입니다", "정지된 계정입니다", "탈퇴한 사용자입니다", "사용이 중지된 메일함입니다", "退会済みのユーザーです", "帐号已停用", "邮箱已停用", "邮箱已被禁用", "帐户已冻结", "账户被禁用",
			"Postfach deaktiviert", "Das Konto ist deaktiviert", "Compte désactivé", "Boîte désactivée", "Ящик заблокирован", "Почтовый ящик отключен", "Аккаунт удалён", "Cuenta desactivada", "Conta desativada",
		}},
		"full": {552, "", []Stage{Rcpt, EOD}, Fail, "", []string{
			"Mailbox full", "The mailbox is full", "User over quota", "mailbox quota exceeded", "Recipient's mailbox is over its storage limit", "Not enough space in mailbox", "Mailbox has exceeded its quota",
			"메일함이 가득 찼습니다", "용량 초과", "수신자의 메일 용량이 부족합니다", "メールボックスがいっぱいです", "容量オーバー", "邮箱已满", "邮箱空间不足", "收件人邮箱空间已满", "信箱已滿", "超出配额",
			"Postfach voll", "Das Postfach ist voll", "Boîte pleine", "Quota dépassé", "Почтовый ящик переполнен", "Ящик переполнен", "Превышена квота", "Buzón lleno", "Casella piena", "Caixa cheia", "Skrzynka pełna",
		}},
		"full for now": {452, "4.2.2", rcpt, RetrySlow, "", []string{"Mailbox full", "over quota", "邮箱已满", "Почтовый ящик переполнен", "메일함이 가득 찼습니다"}},
		"relay denied": {554, "5.7.1", rcpt, Fail, "", []string{
			"Relay access denied", "Relaying denied", "relaying not allowed", "We do not relay", "not permitted to relay", "Relaying is prohibited", "relay not permitted", "This server does not relay", "no relaying", "Relaying mail to this domain is not allowed", "unauthorized relay",
			"릴레이가 허용되지 않습니다", "中継は許可されていません", "不允许转发", "禁止转发", "拒绝中继",
		}},
		"relay denied with 4xx": {454, "4.7.1", rcpt, Fail, "", []string{"Relay access denied", "Relaying denied", "relay not permitted"}},
		"sender refused": {550, "", []Stage{Mail, EOD}, PauseConfig, "", []string{
			"Sender address rejected: Domain not found", "Sender domain does not exist", "Sender verify failed", "SPF fail", "SPF validation failed", "Message failed DMARC", "DKIM signature verification failed", "DMARC policy violation", "The sender domain has no MX record",
			"Sender address is not valid", "invalid sender domain", "Domain of sender address does not resolve", "Your domain has no SPF record", "You are not allowed to use this sender address", "From address not verified", "발신자 인증에 실패했습니다", "발신 도메인이 인증되지 않았습니다",
		}},
		"sender refused for now": {450, "4.7.1", []Stage{Mail, Rcpt, EOD}, PauseConfig, "", []string{
			"Sender address rejected: Domain not found", "SPF check failed", "Client host rejected: cannot find your hostname", "Your IP has no PTR record", "Helo command rejected: Host not found", "DMARC policy failed", "This message is not authenticated: SPF and DKIM did not pass", "reverse DNS does not match", "Your domain must have a DMARC record", "sender domain must have an MX or A record",
		}},
		"hello": {501, "", []Stage{EHLO}, PauseConfig, "", []string{"Invalid HELO name", "Syntactically invalid EHLO argument(s)", "HELO requires a valid hostname", "bad hostname", "5.5.4 Invalid domain name"}},
		"listed": {554, "", []Stage{Connect, Mail, Rcpt, EOD}, PauseBlocked, "", []string{
			"Your IP is listed on zen.spamhaus.org", "blocked by bl.spamcop.net", "Client host [192.0.2.1] blocked using b.barracudacentral.org", "IP listed at dnsbl.sorbs.net", "rejected because 192.0.2.1 is in a black list at ix.dnsbl.manitu.net", "your IP is on our blocklist", "Your server has been blacklisted", "Sender IP found in UCEPROTECT-Level1",
			"IP가 차단되었습니다", "스팸 IP로 등록되어 차단되었습니다", "ブラックリストに登録されています", "您的IP已被列入黑名单", "IP被封禁", "Ihre IP-Adresse ist gesperrt", "Votre adresse IP est bloquée", "Ваш IP находится в черном списке", "IP заблокирован", "Su IP está bloqueada",
		}},
		"listed for now": {421, "4.7.1", []Stage{Connect, Mail, Rcpt, EOD}, PauseBlocked, "", []string{
			"Your IP is listed on zen.spamhaus.org", "Service unavailable; Client host [192.0.2.1] blocked using bl.spamcop.net", "IP blacklisted, try again later", "Access denied: your IP is on our block list", "Your IP has been blocked for spamming",
		}},
		"content": {554, "", eod, PauseBlocked, "", []string{
			"Message content rejected", "Message rejected due to content", "This message looks like spam", "Rejected as spam", "Spam message rejected", "Mail rejected for policy reasons", "Blocked by our content filter", "This mail is considered spam", "message contains spam", "Message blocked as junk",
			"스팸으로 분류되었습니다", "스팸메일로 판단되어 차단", "迷惑メールとして拒否されました", "垃圾邮件", "邮件内容被拒绝", "疑似垃圾邮件", "Nachricht als Spam abgelehnt", "Message considéré comme spam", "Сообщение похоже на спам", "Письмо отклонено как спам", "Mensaje rechazado por spam",
		}},
		"rate by hour or day": {450, "4.7.1", []Stage{Mail, Rcpt, EOD}, RetrySlow, "", []string{
			"Too many messages from your IP in the last hour", "Hourly message limit exceeded", "You have exceeded your daily sending limit", "Sending limit exceeded", "Rate limit exceeded", "message rate exceeded", "Your quota of 500 messages per day has been reached", "Quota exceeded for today: 1000 recipients", "too many recipients today",
			"일일 발송 한도를 초과했습니다", "시간당 발송량 초과", "送信数の上限を超えました", "发送频率超过限制", "发信数量超过当日限制", "超过每日发送限制",
		}},
		"rate with 5xx": {550, "5.7.1", []Stage{Mail, Rcpt, Data, EOD}, RetrySlow, "", []string{
			"Daily sending quota exceeded", "You have reached the maximum number of messages per hour", "Hourly limit exceeded, try later", "Rate limit exceeded", "Sending limit reached for today", "Too many messages, slow your sending", "发送频率超过限制",
		}},
		"sessions": {421, "4.7.0", []Stage{Connect, EHLO, Mail}, ThrottleConnection, "", []string{
			"Too many connections from your IP", "Too many concurrent sessions", "Connection limit exceeded", "connection rate limit exceeded", "Maximum number of connections reached", "too many simultaneous connections", "Too many messages in this session", "Maximum messages per connection exceeded", "Too many errors, closing connection", "동시 접속 수를 초과했습니다", "接続数の上限に達しました", "连接数过多", "并发连接数超过限制", "Zu viele Verbindungen", "Trop de connexions",
		}},
		"greylisted":             {451, "4.7.1", rcpt, RetrySlow, "", []string{"Greylisting in action, please come back later", "You have been greylisted", "Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/", "Greylisted, please try again in 300 seconds", "temporarily greylisted", "Graylisted"}},
		"login":                  {535, "5.7.8", []Stage{Auth}, PauseConfig, "", []string{"Authentication failed", "Invalid login or password", "Error: authentication failed: UGFzc3dvcmQ6", "Username and Password not accepted", "API key is invalid", "access denied", "인증 실패", "비밀번호가 올바르지 않습니다", "認証に失敗しました", "认证失败", "用户名或密码错误", "Authentifizierung fehlgeschlagen", "Ошибка авторизации"}},
		"login wanted":           {530, "", []Stage{Mail, Rcpt}, PauseConfig, "", []string{"Authentication required", "5.7.0 Must authenticate first", "SMTP authentication is required", "Login required", "You must log in to send mail", "인증이 필요합니다", "認証が必要です", "需要认证"}},
		"login later":            {454, "4.7.0", []Stage{Auth}, Retry, "", []string{"Temporary authentication failure", "Authentication server unavailable", "Internal authentication error", "auth backend timeout"}},
		"login quota":            {454, "4.7.0", []Stage{Auth}, ThrottleConnection, "", []string{"Too many login attempts, please try again later", "too many authentication failures", "Login rate limit exceeded"}},
		"size":                   {552, "5.3.4", []Stage{Mail, EOD}, Fail, "", []string{"Message size exceeds fixed limit", "Message too big", "message exceeds maximum size", "Message is larger than permitted", "메일 크기가 제한을 초과했습니다", "メールサイズが上限を超えています", "邮件过大", "邮件大小超过限制", "Nachricht zu groß", "Message trop volumineux"}},
		"tls":                    {530, "5.7.0", session, PauseConfig, "", []string{"Must issue a STARTTLS command first", "TLS required", "Encryption is required", "This server requires TLS"}},
		"tls for now":            {451, "4.7.0", session, PauseConfig, "", []string{"TLS required for this domain", "You must use TLS encryption", "SSL/TLS connection required"}},
		"their trouble":          {451, "4.3.0", []Stage{Connect, Mail, Rcpt, Data, EOD}, Retry, "", []string{"Temporary local problem", "Internal server error", "Error in processing", "Local error", "database unavailable", "Service temporarily unavailable", "disk full", "Out of memory", "Temporary lookup failure", "일시적인 오류", "시스템 오류입니다. 잠시 후 다시 시도하세요", "一時的なエラー", "系统繁忙", "服务暂时不可用"}},
		"their trouble with 5xx": {554, "5.3.0", []Stage{Rcpt, Data, EOD}, RetrySlow, Retry, []string{"Temporary failure, please try again later", "Service temporarily unavailable", "Temporary system problem", "server busy, try again", "internal error, please retry"}},
		"no mail here":           {550, "5.1.10", rcpt, Suppress, "", []string{"Recipient domain has a null MX", "Domain does not accept mail", "Recipient domain does not accept mail (nullMX)", "This domain never accepts mail"}},
		"loop":                   {554, "5.4.6", []Stage{Rcpt, EOD}, Fail, "", []string{"Too many hops", "Mail loop detected", "Routing loop detected", "hop count exceeded", "mail loops back to myself", "This message is looping"}},
		"filter of the user":     {550, "", []Stage{Rcpt, EOD}, Fail, "", []string{"Blocked by recipient", "You have been blocked by this user", "Recipient has rejected your mail", "Rejected by user's filter", "The user does not want mail from you", "The recipient only accepts mail from known senders", "수신 거부된 발신자입니다", "受信者が拒否しています", "被收件人拒收", "收件人拒收"}},
	}
}
