//go:build interop

package interop

import (
	"regexp"
	"strings"

	"github.com/sluicemail/sluice/internal/smtp"
)

// Users of the Debian packages. The numbers are any that need not exist.
const (
	nobody       = "collector:x:64100:64100::/mnt:/usr/sbin/nologin"
	nobodysGroup = "collector:x:64100:"
	postfixUser  = "postfix:x:64101:64101::/var/spool/postfix:/usr/sbin/nologin"
)

// postfix is Postfix with everything on that punishes a client for running ahead of
// what it was offered, and otherwise its own defaults.
func postfix(a authority) setup {
	return setup{
		pkg:   "postfix",
		users: []string{nobody, postfixUser},
		group: []string{nobodysGroup, "postfix:x:64101:", "postdrop:x:64102:"},
		files: map[string]string{
			"etc/postfix/main.cf":   postfixMain,
			"etc/postfix/master.cf": postfixMaster,
			"etc/postfix/mailboxes": "/^[0-9]+\\.[a-z-]+@inbox\\.example$/ mail/\n",
			"etc/postfix/later":     "/^later\\./ 450 4.2.1 The mailbox is busy, try later\n",
			"etc/postfix/chain.pem": a.key + a.cert,
		},
		// The package's own set-up does this when it is installed.
		run:      []string{"sh", "-c", "chown postfix /var/lib/postfix && chgrp postdrop /usr/sbin/postdrop /usr/sbin/postqueue && chmod g+s /usr/sbin/postdrop /usr/sbin/postqueue && exec postfix start-fg"},
		starttls: true, refuses: true, defers: true, punishes: true,
		best:    smtp.ModePipelined,
		arrival: regexp.MustCompile(`postfix/cleanup\[\d+\]: [0-9A-Za-z]+: message-id=`),
	}
}

const postfixMain = `compatibility_level = 3.6
maillog_file_prefixes = /mnt
maillog_file = /mnt/postfix.log
myhostname = mx.inbox.example
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
# No header field is added or rewritten for mail from this machine.
local_header_rewrite_clients =
virtual_mailbox_domains = inbox.example
virtual_mailbox_base = /mnt
virtual_mailbox_maps = regexp:/etc/postfix/mailboxes
virtual_uid_maps = static:64100
virtual_gid_maps = static:64100
virtual_mailbox_limit = 0
smtpd_recipient_restrictions = check_recipient_access regexp:/etc/postfix/later, reject_unauth_destination
smtpd_data_restrictions = reject_unauth_pipelining
smtpd_end_of_data_restrictions = reject_unauth_pipelining
smtpd_forbid_unauth_pipelining = yes
smtpd_forbid_bare_newline = reject
smtpd_tls_security_level = may
smtpd_tls_chain_files = /etc/postfix/chain.pem
smtpd_tls_loglevel = 1
`

const postfixMaster = `127.0.0.1:%PORT% inet n - n - - smtpd
cleanup  unix  n - n - 0 cleanup
qmgr     unix  n - n 300 1 qmgr
tlsmgr   unix  - - n 1000? 1 tlsmgr
rewrite  unix  - - n - - trivial-rewrite
bounce   unix  - - n - 0 bounce
defer    unix  - - n - 0 bounce
trace    unix  - - n - 0 bounce
proxymap unix  - - n - - proxymap
error    unix  - - n - - error
virtual  unix  - n n - - virtual
anvil    unix  - - n - 1 anvil
scache   unix  - - n - 1 scache
postlog  unix-dgram n - n - 1 postlogd
`

// sink is Postfix's smtp-sink, which reads what comes as it comes and refuses nothing.
func sink() setup {
	return setup{
		pkg:   "postfix",
		users: []string{nobody},
		group: []string{nobodysGroup},
		run:   strings.Fields("/usr/sbin/smtp-sink -u collector -d /mnt/mail/new/%M. 127.0.0.1:%PORT% 100"),
		end:   "\n",
		best:  smtp.ModePipelined,
	}
}
