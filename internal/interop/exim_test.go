//go:build interop

package interop

import (
	"regexp"
	"strings"

	"github.com/sluicemail/sluice/internal/smtp"
)

// exim is Exim, which closes the connection of a client that speaks out of turn
// ("synchronization error"; smtp_enforce_sync is on by default).
func exim(a authority) setup {
	return setup{
		pkg:   "exim4-daemon-light",
		users: []string{nobody, "Debian-exim:x:64103:64103::/var/spool/exim4:/usr/sbin/nologin"},
		group: []string{nobodysGroup, "Debian-exim:x:64103:"},
		files: map[string]string{
			"etc/exim4/exim4.conf": eximConf,
			"etc/exim4/cert.pem":   a.cert,
			"etc/exim4/key.pem":    a.key,
		},
		run:      strings.Fields("/usr/sbin/exim4 -bdf -q30m"),
		starttls: true, refuses: true, defers: true, punishes: true,
		best:    smtp.ModePipelined,
		arrival: regexp.MustCompile(`(?m)^\S+ \S+ \S+ <= `),
	}
}

const eximConf = `primary_hostname = mx.inbox.example
domainlist local_domains = inbox.example
daemon_smtp_ports = %PORT%
local_interfaces = 127.0.0.1
log_file_path = /mnt/exim-%slog
spool_directory = /run/exim4
write_rejectlog = no
log_selector = +smtp_protocol_error +smtp_syntax_error +smtp_connection
# With early pipelining on offer, Exim does not insist on any synchronisation.
pipelining_connect_advertise_hosts =
smtp_enforce_sync = true
tls_advertise_hosts = *
tls_certificate = /etc/exim4/cert.pem
tls_privatekey = /etc/exim4/key.pem
host_lookup =
rfc1413_hosts =
# Otherwise all but the first ten mails of a connection wait for a queue run.
smtp_accept_queue_per_connection = 0
acl_smtp_rcpt = check_rcpt
acl_smtp_data = accept

begin acl
check_rcpt:
  defer local_parts = ^later\\.
        message = The mailbox is busy, try later
  accept domains = +local_domains
         local_parts = ^[0-9]+\\.[a-z-]+\$
  deny message = no such mailbox

begin routers
all:
  driver = accept
  transport = store

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if and{{eq{$auth2}{app}}{eq{$auth3}{s3cret}}}}
  server_advertise_condition = ${if def:tls_in_cipher}

begin transports
store:
  driver = appendfile
  directory = /mnt/mail
  maildir_format
  create_directory
  user = collector
  group = collector
`
