package verdict

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestPlainText(t *testing.T) {
	t.Parallel()
	hosts := map[string]bool{"spamhaus": true, "dnsbl": true}
	tests := []struct{ in, text, enhanced string }{
		{"", " ", ""},
		{"User unknown", " user unknown ", ""},
		{"Sorry,  I can't!", " sorry i cant ", ""},
		{"<u@example.com>: User unknown.", " user unknown ", ""},
		{"no-such-user SPAM_SUSPECT", " no such user spam suspect ", ""},
		{"(#5.1.1) and 5.7.1", " and ", "5.1.1"},
		{"client [192.0.2.1] 127.0.0.4 2.0.0", " client ", ""},
		{"4.1000.1 5.1.1.1", " ", ""},
		{"mx1.example.com said", " said ", ""},
		{"see zen.spamhaus.org and http://dnsbl-2.example.net/lookup?spam", " see spamhaus and dnsbl ", ""},
		{"denied.Please call", " denied please call ", ""},
		{"marked as invalid.", " marked as invalid ", ""},
		{"hours.After example.com", " hours after ", ""},
		{"E-mail, e mail, email, the mail", " email email email the mail ", ""},
		{"Boîte pleine, für Größe", " boite pleine fur grose ", ""},
		{"존재하지 않는 사용자 입니다", " 존재하지않는사용자입니다 ", ""},
		{"5분 후 and 宛先 不明", " 5분후 and 宛先不明 ", ""},
		{"a\xffb \xff", " a b ", ""},
		{"ユーザー", " ユーザー ", ""},
		{"https://", " ", ""},
		{"'quoted'", " quoted ", ""},
	}
	for _, tt := range tests {
		text, enhanced := plainText(tt.in, hosts)
		if strings.Trim(tt.text, " ") == "" && strings.Trim(text, " ") == "" {
			text = tt.text
		}
		if text != tt.text || enhanced != tt.enhanced {
			t.Errorf("%q: %q, %q; want %q, %q", tt.in, text, enhanced, tt.text, tt.enhanced)
		}
	}
}

func FuzzPlainText(f *testing.F) {
	f.Add("550-5.1.1 <a@b>: Größe 존재 e-mail http://x.y/ a.b.c. '")
	f.Fuzz(func(t *testing.T, s string) {
		text, enhanced := plainText(s, map[string]bool{"spamhaus": true})
		if !strings.HasPrefix(text, " ") || !strings.HasSuffix(text, " ") || strings.Contains(text, "  ") || !utf8.ValidString(text) ||
			strings.ContainsAny(text, "@.<>\r\n\x00") {
			t.Errorf("%q", text)
		}
		if enhanced != "" && !isEnhanced(enhanced) {
			t.Errorf("enhanced %q", enhanced)
		}
		if len(text) > 2*maxText+2 {
			t.Errorf("%d bytes of %d", len(text), len(s))
		}
	})
}

func TestPauseIn(t *testing.T) {
	t.Parallel()
	tests := map[string]time.Duration{
		"try again in 5 minutes":                5 * time.Minute,
		"Please retry after 3600 seconds.":      time.Hour,
		"wait 1 hour":                           time.Hour,
		"Greylisted for 60 seconds by ZEROSPAM": time.Minute,
		"greylisted, please retry in 300s":      5 * time.Minute,
		"come back in 00:05:00":                 5 * time.Minute,
		"Retry-After: 120":                      2 * time.Minute,
		"please try again in an hour":           time.Hour,
		"blocked for 15 min":                    15 * time.Minute,
		"not allowed to send more within 24 hours.After 24 hours,you can": 24 * time.Hour,
		"try again in 10 minutes or in 2 hours":                           2 * time.Hour,
		"try again in 30 days":                                            24 * time.Hour,
		"try again in 99999999999999 seconds":                             24 * time.Hour,
		"5분 후 다시 시도해 주십시오":                                                5 * time.Minute,
		"1시간 후에":                                                          time.Hour,
		"30秒後に再送してください":                                                   30 * time.Second,
		"2時間後に":                                                           2 * time.Hour,

		"":                0,
		"try again later": 0,
		"200 messages per 5 minutes, try again later": 0,
		"at most 100 messages in 24 hours":            0,
		"Timeout after 300 seconds":                   0,
		"exceeded 50 in the last 10 minutes, retry":   0,
		"try again in 5 apples":                       0,
		"try again in a while":                        0,
		"AS(201806281) in 5 minutes":                  0,
		"5분 이내":                                       0,
	}
	for in, want := range tests {
		text, _ := plainText(in, nil)
		if got := pauseIn(text); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

func TestParseReply(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want Input
	}{
		{"550 5.1.1 No such user", Input{Any, 550, "5.1.1", "No such user", nil, ""}},
		{"550 No such user", Input{Any, 550, "", "No such user", nil, ""}},
		{`"550 5.1.1 No such user"`, Input{Any, 550, "5.1.1", "No such user", nil, ""}},
		{"421", Input{Any, 421, "", "", nil, ""}},
		{"550-5.7.1 one\n550-5.7.1 two\n550 5.7.1 three", Input{Any, 550, "5.7.1", "one two three", nil, ""}},
		{"550-5.7.1 one\r\n550 5.7.1 two\r\n", Input{Any, 550, "5.7.1", "one two", nil, ""}},
		{`550-5.7.1 one\n550 5.7.1 two`, Input{Any, 550, "5.7.1", "one two", nil, ""}},
		{"550-5.7.1 one 550-5.7.1 two 550 5.7.1 three", Input{Any, 550, "5.7.1", "one two three", nil, ""}},
		{"550-one\n550 two", Input{Any, 550, "", "one two", nil, ""}},
		{"smtp; 550 5.1.1 No such user", Input{Any, 550, "5.1.1", "No such user", nil, ""}},
		{"SMTP;421 4.7.0 Later", Input{Any, 421, "4.7.0", "Later", nil, ""}},
		{"host mx.example.com[192.0.2.1] said: 550 5.1.1 User unknown (in reply to RCPT TO command)", Input{Rcpt, 550, "5.1.1", "User unknown", nil, ""}},
		{"554 5.7.1 Spam (in reply to end of DATA command)", Input{EOD, 554, "5.7.1", "Spam", nil, ""}},
		{"450 4.1.8 No (in reply to MAIL FROM command)", Input{Mail, 450, "4.1.8", "No", nil, ""}},
		{"450 No (in reply to DATA command)", Input{Data, 450, "", "No", nil, ""}},
		{"450 No (in reply to EHLO command)", Input{EHLO, 450, "", "No", nil, ""}},
		{"535 No (in reply to AUTH command)", Input{Auth, 535, "", "No", nil, ""}},
		{"5.1.1 No such user", Input{Any, 0, "5.1.1", "No such user", nil, ""}},
		{"No such user", Input{Any, 0, "", "No such user", nil, ""}},
		{"5501 is a number", Input{Any, 0, "", "5501 is a number", nil, ""}},
		{"  ", Input{Any, 0, "", "", nil, ""}},
	}
	for _, tt := range tests {
		if got := ParseReply(tt.in); got != tt.want {
			t.Errorf("%q:\ngot  %+v\nwant %+v", tt.in, got, tt.want)
		}
	}
}

func FuzzParseReply(f *testing.F) {
	f.Add("smtp; 550-5.7.1 one\n550 5.7.1 two (in reply to end of DATA command)")
	f.Add(`"'said: 421`)
	f.Fuzz(func(t *testing.T, s string) {
		in := ParseReply(s)
		if in.Code != 0 && (in.Code < 200 || in.Code > 599) || in.Enhanced != "" && !isEnhanced(in.Enhanced) || strings.ContainsAny(in.Text, "\r\n") {
			t.Errorf("%q: %+v", s, in)
		}
		if _, err := ParseStage(string(in.Stage)); err != nil {
			t.Error(err)
		}
	})
}
