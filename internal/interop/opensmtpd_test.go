//go:build interop

package interop

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/sluicemail/sluice/internal/smtp"
)

// opensmtpd is OpenSMTPD, which offers no PIPELINING and takes 100 mails a
// connection. It knows its mailboxes from a list.
func opensmtpd(a authority) setup {
	var list strings.Builder
	for _, m := range mailboxes() {
		fmt.Fprintf(&list, "%s collector\n", m)
	}
	return setup{
		pkg: "opensmtpd",
		users: []string{nobody, "opensmtpd:x:64104:64104::/var/lib/opensmtpd/empty:/usr/sbin/nologin",
			"opensmtpq:x:64105:64105::/var/lib/opensmtpd/empty:/usr/sbin/nologin"},
		group: []string{nobodysGroup, "opensmtpd:x:64104:", "opensmtpq:x:64105:"},
		files: map[string]string{
			"etc/smtpd.conf":                opensmtpdConf,
			"etc/smtpd/mailboxes":           list.String(),
			"etc/smtpd/cert.pem":            a.cert,
			"etc/smtpd/private.pem":         a.key,
			"var/lib/opensmtpd/empty/.keep": "",
		},
		run:      strings.Fields("/usr/sbin/smtpd -d -v"),
		starttls: true, refuses: true,
		mails:   100,
		best:    smtp.ModeLockStep,
		arrival: regexp.MustCompile(`smtp message msgid=`),
		// Debian 12 and Ubuntu 22.04 have a 6.8 built with OpenSSL 3, whose STARTTLS
		// works for no client (issue 1171 of OpenSMTPD).
		fault: regexp.MustCompile(`SSL_accept: error:.*missing private key`),
	}
}

const opensmtpdConf = `pki mx.inbox.example cert "/etc/smtpd/cert.pem"
pki mx.inbox.example key "/etc/smtpd/private.pem"
table mailboxes file:/etc/smtpd/mailboxes
listen on 127.0.0.1 port %PORT% tls pki mx.inbox.example hostname mx.inbox.example
action "store" maildir "/mnt/mail" virtual <mailboxes>
match from any for domain "inbox.example" action "store"
`
