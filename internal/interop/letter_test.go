//go:build interop

package interop

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/templates"
)

// fate is what a server does with a recipient.
type fate int

const (
	delivered fate = iota
	refused        // a 5xx to RCPT: 550, or OpenSMTPD's 524
	deferred       // a 4xx to RCPT
)

// letter is one mail to be sent.
type letter struct {
	to      string
	content []byte
	fate    fate
}

const sender = "news@sender.example"

// address is recipient i of a run. The server's configuration knows the form, or,
// where the server has to list its mailboxes, each one.
func address(run string, i int, f fate) string {
	return [...]string{"", "gone.", "later."}[f] + fmt.Sprintf("%03d.%s@inbox.example", i, run)
}

// letters are n mails for one run over a server: half of them the shipped newsletter,
// personalised, the others what has broken mail systems before. One in twenty has a
// recipient who is refused, and one in fifty, where the server can, one who is deferred.
func letters(t *testing.T, s *server, run string, n int, eightBit bool) []letter {
	t.Helper()
	program := newsletter(t)
	bodies := oddBodies(eightBit)
	out := make([]letter, n)
	for i := range out {
		l := &out[i]
		switch {
		case s.refuses && i%20 == 7:
			l.fate = refused
		case s.defers && i%50 == 23:
			l.fate = deferred
		}
		l.to = address(run, i, l.fate)
		if i%2 == 1 {
			l.content = oddLetter(l.to, i, bodies[i/2%len(bodies)])
			continue
		}
		var err error
		if l.content, err = program.Render(nil, templates.Recipient{
			Email: l.to, Values: []string{fmt.Sprintf("김민준 %d", i)}, MessageID: fmt.Sprintf("%d.%s@sender.example", i, run),
			Date: time.Date(2026, 3, 2, 9, 30, i, 0, time.FixedZone("KST", 9*3600)),
		}); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func newsletter(t *testing.T) *templates.Program {
	t.Helper()
	tmpl, err := templates.Load("newsletter")
	if err != nil {
		t.Fatal(err)
	}
	from, err := mail.ParseAddress(sender)
	if err != nil {
		t.Fatal(err)
	}
	program, err := tmpl.Compile(templates.Options{
		From: templates.Mailbox{Name: "물길상점", Address: from}, Sender: templates.SampleSender(), Stream: mail.Ad, Columns: []string{"name"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// oddLetter is a mail around a body; it ends with the body, without CRLF if that has none.
func oddLetter(to string, i int, body string) []byte {
	return fmt.Appendf(nil, "Date: Mon, 02 Mar 2026 09:30:00 +0900\r\nFrom: News <%s>\r\nTo: %s\r\nMessage-ID: <odd.%d@sender.example>\r\n"+
		"Subject: =?UTF-8?B?7JWI64WV?=\r\n folded\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"+
		"Content-Transfer-Encoding: 8bit\r\n\r\n%s", sender, to, i, body)
}

// oddBodies are texts that some server or client has got wrong at some time.
func oddBodies(eightBit bool) []string {
	bodies := []string{
		".\r\n..\r\n...\r\n.a\r\n. \r\n.\r\n",                                         // dot-stuffing
		strings.Repeat("x", 998) + "\r\n." + strings.Repeat("y", 997) + "\r\nend\r\n", // the longest lines there may be
		"From here on\r\n>From there\r\nFrom \r\n\r\nFrom x@y.example Mon Mar  2 2026\r\n",
		"Empty lines at the end\r\n\r\n\r\n\r\n",
		"No end to the last line",
		"", // a header alone
		"\r\n\r\n.\r\n",
		"QUIT\r\nRSET\r\nMAIL FROM:<x@y.example>\r\nRCPT TO:<x@y.example>\r\nDATA\r\n.\r\n",
		"Spaces at the end  \t \r\n \r\n\t\r\n",
		"Controls \x01\x07\x08\x0b\x0c\x1b\x7f\r\n",
		strings.Repeat(".a line of a mail that takes more than one write\r\n\r\n", 6000), // 300 KB
	}
	if eightBit {
		bodies = append(bodies, "물길상점, ⟨8BITMIME⟩\r\n.물길\r\n", "\xff\xfe not UTF-8\r\n")
	}
	return bodies
}
