//go:build interop

package interop

import (
	"testing"

	"github.com/sluicemail/sluice/internal/smtp"
)

// ways are the ways over a server that offers PIPELINING and STARTTLS.
func ways() []way {
	return []way{
		{"auto-plain", smtp.None, smtp.ModeAuto},
		{"auto-tls", smtp.StartTLS, smtp.ModeAuto},
		{"pipelined-plain", smtp.None, smtp.ModePipelined},
		{"pipelined-tls", smtp.StartTLS, smtp.ModePipelined},
		{"group-plain", smtp.None, smtp.ModeGroup},
		{"group-tls", smtp.StartTLS, smtp.ModeGroup},
		{"step-plain", smtp.None, smtp.ModeLockStep},
		{"step-tls", smtp.StartTLS, smtp.ModeLockStep},
	}
}

// possible are the ways over s.
func possible(s setup) (out []way) {
	for _, w := range ways() {
		runsAhead := w.mode == smtp.ModePipelined || w.mode == smtp.ModeGroup
		if (s.starttls || w.tls == smtp.None) && !(runsAhead && s.best == smtp.ModeLockStep) {
			out = append(out, w)
		}
	}
	return out
}

func every(t *testing.T, s setup, a authority) {
	srv := start(t, s)
	for _, w := range possible(s) {
		t.Run(w.name, func(t *testing.T) { exchange(t, srv, a, w) })
	}
}

func TestPostfix(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	every(t, postfix(a), a)
}

func TestSink(t *testing.T) {
	t.Parallel()
	every(t, sink(), newAuthority(t))
}

func TestExim(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	every(t, exim(a), a)
}

func TestOpenSMTPD(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	every(t, opensmtpd(a, mailboxes()), a)
}

// mailboxes lists those of all runs.
func mailboxes() (out []string) {
	for _, w := range ways() {
		for i := range 300 {
			out = append(out, address(w.name, i, delivered))
		}
	}
	return out
}
