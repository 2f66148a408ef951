package relay

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests; only a fault comes near it.
const patience = 20 * time.Second

func start(t testing.TB, cfg Config) *Server {
	t.Helper()
	s, err := Start(cfg)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// client is a raw SMTP client that sends what it is told.
type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func dial(t testing.TB, s *Server) *client {
	t.Helper()
	nc, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &client{t, nc, bufio.NewReader(nc)}
}

// session is a client that is greeted and logged in, in the clear.
func session(t testing.TB, s *Server) *client {
	t.Helper()
	c := dial(t, s)
	c.want("220 ")
	c.login("AppKey")
	return c
}

func (c *client) login(user string) {
	c.t.Helper()
	c.send("EHLO test\r\nAUTH PLAIN " + b64("\x00"+user+"\x00secret") + "\r\n")
	c.want("250-", "235 ")
}

// overTLS puts the connection under TLS, trusting the relay's CA.
func (c *client) overTLS(s *Server) {
	c.t.Helper()
	tc := tls.Client(c.Conn, trusting(s))
	if err := tc.Handshake(); err != nil {
		c.t.Fatalf("handshake: %v", err)
	}
	c.Conn, c.r = tc, bufio.NewReader(tc)
}

func trusting(s *Server) *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.CAPEM())
	return &tls.Config{RootCAs: pool, ServerName: Host}
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// send writes all of it with one write.
func (c *client) send(s string) {
	c.t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		c.t.Fatalf("send %.40q: %v", s, err)
	}
}

// reply reads one reply, with its lines and their ends.
func (c *client) reply() string {
	c.t.Helper()
	var all strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		all.WriteString(line)
		if err != nil {
			c.t.Fatalf("read a reply: %v, after %.200q", err, all.String())
		}
		if len(line) < 4 || line[3] != '-' {
			return all.String()
		}
	}
}

// want reads a reply for each prefix.
func (c *client) want(prefixes ...string) {
	c.t.Helper()
	for i, p := range prefixes {
		if got := c.reply(); !strings.HasPrefix(got, p) {
			c.t.Fatalf("reply %d: %.200q, want %q", i+1, got, p)
		}
	}
}

// wantEnd expects the connection to end with no more than rest before it.
func (c *client) wantEnd(rest string) {
	c.t.Helper()
	var got strings.Builder
	for {
		b, err := c.r.ReadByte()
		if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
			c.t.Fatalf("the connection is still open, after %q", got.String())
		}
		if err != nil {
			break
		}
		got.WriteByte(b)
	}
	if got.String() != rest {
		c.t.Fatalf("before the end came %q, want %q", got.String(), rest)
	}
}

// envelope is the pipelined group that begins a message.
func envelope(to string) string {
	return "MAIL FROM:<from@example.com>\r\nRCPT TO:<" + to + ">\r\nDATA\r\n"
}

// until polls for something the relay's goroutines do by themselves.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("still not so: %s", what)
		}
		<-tick.C
	}
}
