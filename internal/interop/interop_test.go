//go:build interop

package interop

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

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
	if s.punishes {
		t.Run("impatient", func(t *testing.T) { impatient(t, srv) })
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
	every(t, opensmtpd(a), a)
}

// As STARTTLS of some builds of OpenSMTPD does not work, TLS goes through a front too.
func TestOpenSMTPDBehindTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	srv := start(t, opensmtpd(a))
	srv.front = frontTLS(t, a, srv.addr())
	exchange(t, srv, a, way{front, smtp.Implicit, smtp.ModeAuto})
}

const front = "front-tls"

// mailboxes lists those of all runs.
func mailboxes() (out []string) {
	for _, w := range append(ways(), way{name: front}) {
		for i := range runSize {
			out = append(out, address(w.name, i, delivered))
		}
	}
	return out
}

// impatient sends content before the reply to DATA, as no client may. The server must
// complain, or its silence about the other runs would mean nothing.
func impatient(t *testing.T, s *server) {
	before := s.marks()
	c, err := net.DialTimeout("tcp", s.addr(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	say := func(text, when string) {
		t.Helper()
		for line := ""; !strings.HasPrefix(line, when); {
			if line, err = r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	say("EHLO client.sender.example\r\n", "220 ")
	say("MAIL FROM:<"+sender+">\r\nRCPT TO:<"+address("impatient", 0, delivered)+">\r\nDATA\r\n"+
		"Subject: too early\r\n\r\n.\r\nQUIT\r\n", "250 ")
	_, _ = io.Copy(io.Discard, r) // how the server ends it is its own business
	eventually(t, "a complaint", func() bool { return len(complaints(s.since(before))) > 0 })
	t.Log(complaints(s.since(before)))
}

// frontTLS takes TLS off connections and hands them on to addr. It ends with the test.
func frontTLS(t *testing.T, a authority, addr string) (port int) {
	t.Helper()
	cert, err := tls.X509KeyPair([]byte(a.cert), []byte(a.key))
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			wg.Go(func() { join(c, addr) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().(*net.TCPAddr).Port
}

// join copies both ways between c and addr until either ends.
func join(c net.Conn, addr string) {
	defer c.Close()
	up, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(up, c)
		_ = up.(*net.TCPConn).CloseWrite()
	})
	_, _ = io.Copy(c, up)
	_ = c.Close()
	_ = up.Close()
	wg.Wait()
}
