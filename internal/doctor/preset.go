package doctor

import "github.com/sluicemail/sluice/internal/config"

// facts is what a relay's users have to publish, as far as it is known.
type facts struct {
	include  string // what SPF must include; "": not known
	selector string // the DKIM selector everybody has; "": each domain has its own
	where    string // where the selector is to be found
	console  string // where the DNS records are to be found
	login    string // what user and password are
	// returnPath: the relay mails with a return path of its own unless told
	// otherwise, so that SPF is checked for that and not for the From domain.
	returnPath bool
}

// factsOf returns what is published about the preset's relay.
func factsOf(p config.Preset) facts {
	switch p {
	case config.NHN:
		// TOAST-DOCS/E-mail ko/console-guide.md and domain-verification.md.
		return facts{include: "_spfblocka.toast.com", selector: "toast", console: "the NHN Cloud console (Notification > Email > domain management)",
			where: "the NHN Cloud console shows it",
			login: "relay.user must be the AppKey and relay.password the SecretKey of the Email product; keys of another product do not work"}
	case config.SES:
		// docs.aws.amazon.com/ses/latest/dg/mail-from.html and send-email-authentication-dkim-easy.html.
		return facts{include: "amazonses.com", returnPath: true, console: "the SES console (Identities)",
			where: "the first label of each of the three CNAME records that the SES console shows",
			login: "relay.user and relay.password must be SMTP credentials made in the SES console, of this region; an IAM key is none"}
	case config.SendGrid:
		// docs.sendgrid.com/ui/account-and-settings/how-to-set-up-domain-authentication.
		return facts{include: "sendgrid.net", returnPath: true, console: "SendGrid (Settings > Sender Authentication)",
			where: "s1 and s2, unless another was chosen in Sender Authentication",
			login: "relay.user must be the word apikey and relay.password an API key with the permission Mail Send"}
	case config.Mailgun:
		// documentation.mailgun.com, Domain Verification: SPF stands at the sending domain.
		return facts{include: "mailgun.org", returnPath: true, console: "Mailgun (Sending > Domain settings > DNS records)",
			where: "the label before ._domainkey among Mailgun's DNS records",
			login: "relay.user and relay.password must be the domain's SMTP credentials; the API key is none"}
	case config.Gmail:
		// support.google.com/a/answer/33786 and 174124.
		return facts{include: "_spf.google.com", console: "the Google Admin console (Apps > Gmail > Authenticate email)",
			where: "google, unless another was chosen in the Admin console",
			login: "relay.user must be the full address of the account and relay.password an app password (myaccount.google.com/apppasswords)"}
	}
	return facts{console: "the relay's console", where: "ask the relay's operator",
		login: "check relay.user and relay.password, and that the account may use SMTP"}
}
