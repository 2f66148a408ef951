package smtp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// authority signs the certificates of one test.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.key, a.cert = a.make(&x509.Certificate{IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour)})
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) make(template *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: "sluice test"}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-24 * time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, cert
}

// server returns a certificate for name, valid until then.
func (a *authority) server(name string, until time.Time) *tls.Config {
	a.t.Helper()
	template := &x509.Certificate{NotAfter: until, DNSNames: []string{name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	key, cert := a.make(template)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
}

// later returns a certificate for name that becomes valid in an hour.
func (a *authority) later(name string) *tls.Config {
	a.t.Helper()
	key, cert := a.make(&x509.Certificate{NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour),
		DNSNames: []string{name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
}

// itself returns a certificate for relayName that vouches for itself.
func (a *authority) itself() *tls.Config {
	a.t.Helper()
	a.cert = nil
	return a.server(relayName, time.Now().Add(time.Hour))
}

const relayName = "smtp.relay.example"

func secureConfig(host string, port int, mode TLSMode, a *authority) DialConfig {
	c := plainConfig(host, port)
	c.TLS, c.ServerName, c.RootCAs = mode, relayName, a.pool
	c.User, c.Password = "AppKey#ad", "SecretKey"
	return c
}

// secure puts TLS around the relay's end.
func (p *peer) secure(cfg *tls.Config) error {
	tc := tls.Server(p.Conn, cfg)
	p.Conn = tc
	return tc.Handshake()
}

const (
	tlsEHLO   = "250-relay\r\n250-STARTTLS\r\n250 AUTH LOGIN PLAIN\r\n"
	authEHLO  = "250-relay Hello a [10.0.0.1])\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-AUTH LOGIN PLAIN\r\n250 AUTH=LOGIN PLAIN\r\n"
	authPlain = "AUTH PLAIN AEFwcEtleSNhZABTZWNyZXRLZXk=\r\n"
	success   = "235 Authentication Successful\r\n"
)

// Both TLS modes, with everything EHLO said before TLS forgotten, and one message sent
// in one round trip.
func TestDialTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert := ca.server(relayName, time.Now().Add(time.Hour))
	for name, mode := range map[string]TLSMode{"starttls": StartTLS, "implicit": Implicit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, port := listen(t, func(p *peer) {
				if mode == StartTLS {
					p.hello("250-relay\r\n250-STARTTLS\r\n250-CHUNKING\r\n250 AUTH CRAM-MD5\r\n")
					p.expect("STARTTLS\r\n")
					p.say("220 2.0.0 go\r\n")
				}
				if err := p.secure(cert); err != nil {
					p.t.Error(err)
				}
				if mode == Implicit {
					p.say(greeting)
				}
				p.expect(ehloLine)
				p.say(authEHLO)
				p.expect(authPlain)
				p.say(success)
				p.expect(envelopeOf(1))
				p.say(envOK)
				p.expect(contentOf(1) + ".\r\n")
				p.say("250 one\r\n")
				p.quit()
			})
			c := dial(t, secureConfig(host, port, mode, ca))
			if x := c.Extensions(); !x.Pipelining || x.Chunking || x.StartTLS || fmt.Sprint(x.Auth) != "[LOGIN PLAIN]" {
				t.Errorf("extensions %+v", x)
			}
			if c.Mode() != ModePipelined {
				t.Errorf("mode %v", c.Mode())
			}
			m := newMessage(1)
			if err := c.Serve(t.Context(), newQueue(m).finish(), Limits{}); !errors.Is(err, errNoMore) {
				t.Fatal(err)
			}
			m.want(t, Accepted, StageEOD, 250)
		})
	}
}

// A certificate that does not prove the relay ends the dial before AUTH, for good, and
// the error says what to do.
func TestDialBadCertificate(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	good := time.Now().Add(time.Hour)
	for name, tc := range map[string]struct {
		server *tls.Config
		hint   string
	}{
		"expired":    {ca.server(relayName, time.Now().Add(-time.Hour)), "renew"},
		"wrong host": {ca.server("other.example", good), "set relay.host"},
		"unknown CA": {other.server(relayName, good), "set relay.ca_file"},
		"old protocol": {func() *tls.Config {
			c := ca.server(relayName, good)
			c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			return c
		}(), "protocol version"},
	} {
		for mname, mode := range map[string]TLSMode{"starttls": StartTLS, "implicit": Implicit} {
			t.Run(name+" "+mname, func(t *testing.T) {
				t.Parallel()
				host, port := listen(t, func(p *peer) {
					if mode == StartTLS {
						p.hello(tlsEHLO)
						p.expect("STARTTLS\r\n")
						p.say("220 go\r\n")
					}
					if err := p.secure(tc.server); err == nil {
						p.say(greeting)
						p.quiet() // no AUTH, nothing
					}
				})
				_, err := Dial(t.Context(), secureConfig(host, port, mode, ca))
				var e *Error
				if !errors.As(err, &e) || e.Stage != StageTLS || !strings.Contains(err.Error(), tc.hint) {
					t.Fatalf("Dial: %v, want a TLS error with %q", err, tc.hint)
				}
				if e.Temporary() && name != "old protocol" {
					t.Error("the error calls itself temporary")
				}
			})
		}
	}
}

// Every way in which STARTTLS may be taken away or tampered with ends without a single
// further octet in the clear.
func TestDialStartTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for name, tc := range map[string]struct {
		ehlo, reply string
		want        error
		code        int
	}{
		"stripped":           {authEHLO, "", ErrNoStartTLS, 0},
		"refused":            {tlsEHLO, "454 4.7.0 TLS not available\r\n", nil, 454},
		"not known":          {tlsEHLO, "502 5.5.1 no\r\n", nil, 502},
		"going down":         {tlsEHLO, "421 4.3.2 closing\r\n", nil, 421},
		"250 instead of 220": {tlsEHLO, "250 ok\r\n", ErrBotched, 250},
		"injected reply":     {tlsEHLO, "220 go\r\n250-relay\r\n250 AUTH PLAIN\r\n", ErrBotched, 0},
		"injected octet":     {tlsEHLO, "220 go\r\n2", ErrBotched, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, port := listen(t, func(p *peer) {
				p.hello(tc.ehlo)
				if tc.reply != "" {
					p.expect("STARTTLS\r\n")
					p.say(tc.reply)
				}
				p.quiet()
			})
			_, err := Dial(t.Context(), secureConfig(host, port, StartTLS, ca))
			var e *Error
			if !errors.As(err, &e) || e.Stage != StageStartTLS || e.Reply.Code != tc.code ||
				tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("Dial: %v, want %v with %d at starttls", err, tc.want, tc.code)
			}
		})
	}
}

// Nothing is sent between STARTTLS and the reply to it, and a handshake that stalls ends
// in time.
func TestDialHandshakeStalls(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	host, port := listen(t, func(p *peer) {
		p.hello(tlsEHLO)
		p.expect("STARTTLS\r\n")
		_ = p.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
		if n, _ := p.Read(make([]byte, 1)); n > 0 {
			p.t.Error("octets before the reply to STARTTLS")
		}
		_ = p.SetReadDeadline(time.Now().Add(10 * time.Second))
		p.say("220 go\r\n")
		_, _ = io.Copy(io.Discard, p)
	})
	c := secureConfig(host, port, StartTLS, ca)
	c.Timeouts.Handshake = 50 * time.Millisecond
	_, err := Dial(t.Context(), c)
	var e *Error
	if !errors.As(err, &e) || e.Stage != StageTLS || !errors.Is(err, ErrTimeout) {
		t.Errorf("Dial: %v, want a time-out at tls", err)
	}
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestAuth(t *testing.T) {
	t.Parallel()
	login := func(p *peer) {
		p.expect("AUTH LOGIN\r\n")
		p.say("334 VXNlcm5hbWU6\r\n")
		p.expect(b64("AppKey#ad") + "\r\n")
		p.say("334 UGFzc3dvcmQ6\r\n")
		p.expect(b64("SecretKey") + "\r\n")
		p.say(success)
	}
	plain := func(p *peer) { p.expect(authPlain); p.say(success) }
	for name, tc := range map[string]struct {
		ehlo   string
		method AuthMethod
		script func(p *peer)
	}{
		"plain first":         {authEHLO, AuthAuto, plain},
		"login if only login": {"250-r\r\n250 AUTH LOGIN CRAM-MD5\r\n", AuthAuto, login},
		"old form":            {"250-r\r\n250 AUTH=LOGIN\r\n", AuthAuto, login},
		"login forced":        {authEHLO, AuthLogin, login},
		"plain forced":        {"250-r\r\n250 AUTH LOGIN\r\n", AuthPlain, plain},
		"none":                {authEHLO, AuthNone, func(*peer) {}},
		"odd prompts": {authEHLO, AuthLogin, func(p *peer) {
			p.expect("AUTH LOGIN\r\n")
			p.say("334 who?\r\n")
			p.expect(b64("AppKey#ad") + "\r\n")
			p.say("334\r\n")
			p.expect(b64("SecretKey") + "\r\n")
			p.say("235 2.7.0 ok\r\n")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, port := listen(t, func(p *peer) { p.hello(tc.ehlo); tc.script(p); p.quit() })
			c := plainConfig(host, port)
			c.User, c.Password, c.Auth = "AppKey#ad", "SecretKey", tc.method
			dial(t, c).Quit()
		})
	}
}

func TestAuthFails(t *testing.T) {
	t.Parallel()
	forever := func(p *peer) {
		for range 10 {
			p.say("334 VXNlcm5hbWU6\r\n")
		}
		_, _ = io.Copy(io.Discard, p)
	}
	for name, tc := range map[string]struct {
		ehlo      string
		method    AuthMethod
		script    func(p *peer)
		login     bool
		temporary bool
		contains  string
	}{
		"535": {authEHLO, AuthAuto, func(p *peer) {
			p.expect(authPlain)
			p.say("535 5.7.8 bad key for AppKey#ad (" + b64("SecretKey") + ")\r\n")
		}, true, false, "bad key for ***"},
		"all of it echoed": {authEHLO, AuthAuto, func(p *peer) {
			p.expect(authPlain)
			p.say("535 5.7.8 bad login: " + authPlain)
		}, true, false, "bad login: AUTH PLAIN ***"},
		"a part of it echoed": {authEHLO, AuthAuto, func(p *peer) {
			p.expect(authPlain)
			p.say("535 5.7.8 bad: " + strings.TrimSpace(authPlain)[:38] + "...\r\n")
		}, true, false, "AUTH PLAIN ***..."},
		"echoed, and no reply": {authEHLO, AuthAuto, func(p *peer) {
			p.expect(authPlain)
			p.say(authPlain)
		}, false, true, "not shown"},
		"454": {authEHLO, AuthAuto, func(p *peer) {
			p.expect(authPlain)
			p.say("454 4.7.0 try later\r\n")
		}, false, true, "454"},
		"421": {authEHLO, AuthAuto, func(p *peer) {
			p.expect(authPlain)
			p.say("421 4.3.2 closing\r\n")
			_ = p.Close()
		}, false, true, "421"},
		"250 is no success": {authEHLO, AuthAuto, func(p *peer) {
			p.expect(authPlain)
			p.say("250 ok\r\n")
		}, false, true, "want 235"},
		"no usable mechanism":    {"250-r\r\n250 AUTH CRAM-MD5\r\n", AuthAuto, func(*peer) {}, false, false, "neither PLAIN nor LOGIN"},
		"no AUTH":                {noPipes, AuthAuto, func(*peer) {}, false, false, "neither PLAIN nor LOGIN"},
		"endless 334 to plain":   {authEHLO, AuthPlain, func(p *peer) { p.expect(authPlain); forever(p) }, false, true, "keeps asking"},
		"endless 334 to login":   {authEHLO, AuthLogin, func(p *peer) { p.expect("AUTH LOGIN\r\n"); forever(p) }, false, true, "keeps asking"},
		"giant challenge":        {authEHLO, AuthLogin, func(p *peer) { p.expect("AUTH LOGIN\r\n"); p.say("334 " + strings.Repeat("A", 1<<20)) }, false, true, "longer than"},
		"two replies to success": {authEHLO, AuthAuto, func(p *peer) { p.expect(authPlain); p.say(success + success) }, false, true, "more than one reply"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, port := listen(t, func(p *peer) { p.hello(tc.ehlo); tc.script(p); _, _ = io.Copy(io.Discard, p) })
			c := plainConfig(host, port)
			c.User, c.Password, c.Auth = "AppKey#ad", "SecretKey", tc.method
			_, err := Dial(t.Context(), c)
			var e *Error
			if !errors.As(err, &e) || e.Stage != StageAuth {
				t.Fatalf("Dial: %v, want an error at auth", err)
			}
			if errors.Is(err, ErrLogin) != tc.login || e.IsLogin() != tc.login || e.Temporary() != tc.temporary {
				t.Errorf("login %v, temporary %v; want %v, %v (%v)", e.IsLogin(), e.Temporary(), tc.login, tc.temporary, err)
			}
			if s := err.Error(); !strings.Contains(s, tc.contains) || strings.Contains(s, "SecretKey") || strings.Contains(s, b64("SecretKey")) || strings.Contains(s, "AEFwcEtl") {
				t.Errorf("error %q, want one with %q and without secrets", s, tc.contains)
			}
		})
	}
}

// Plaintext goes to this machine only, by name and by address.
func TestPlaintext(t *testing.T) {
	t.Parallel()
	var dials atomic.Int32
	dialer := func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return nil, errors.New("no network here")
	}
	for host, allowed := range map[string]bool{"localhost": true, "127.0.0.1": true, "127.8.8.8": true, "::1": true,
		"relay.example": false, "10.0.0.1": false, "localhost.example": false, "0.0.0.0": false} {
		dials.Store(0)
		cfg := DialConfig{Host: host, Port: 25, TLS: None, Dialer: dialer}
		_, err := Dial(t.Context(), cfg)
		if errors.Is(err, ErrPlaintext) == allowed || (dials.Load() > 0) != allowed {
			t.Errorf("%s: %v after %d dials", host, err, dials.Load())
		}
		cfg.Insecure = true
		if _, err := Dial(t.Context(), cfg); errors.Is(err, ErrPlaintext) {
			t.Errorf("%s: refused although insecure", host)
		}
	}
	elsewhere := DialConfig{Host: "localhost", Port: 25, TLS: None, Dialer: func(context.Context, string, string) (net.Conn, error) {
		a, b := net.Pipe()
		go func() { _ = b.Close() }()
		return remote{a}, nil
	}}
	if _, err := Dial(t.Context(), elsewhere); !errors.Is(err, ErrPlaintext) {
		t.Errorf("localhost that is 192.0.2.1: %v, want ErrPlaintext", err)
	}
}

// remote claims to be elsewhere.
type remote struct{ net.Conn }

func (remote) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 25} }

func TestDialConfigErrors(t *testing.T) {
	t.Parallel()
	ok := DialConfig{Host: "127.0.0.1", Port: 25, TLS: None}
	for name, change := range map[string]func(*DialConfig){
		"no host":         func(c *DialConfig) { c.Host = "" },
		"port":            func(c *DialConfig) { c.Port = 0 },
		"CR in hello":     func(c *DialConfig) { c.Hello = "a\r\nMAIL FROM:<>" },
		"space in hello":  func(c *DialConfig) { c.Hello = "a b" },
		"NUL in password": func(c *DialConfig) { c.User, c.Password = "u", "p\x00q" },
		"plain, no user":  func(c *DialConfig) { c.Auth = AuthPlain },
		"mode":            func(c *DialConfig) { c.Mode = 9 },
		"tls":             func(c *DialConfig) { c.TLS = 9 },
	} {
		c := ok
		change(&c)
		_, err := Dial(t.Context(), c)
		var e *Error
		if !errors.Is(err, ErrConfig) || !errors.As(err, &e) || e.Temporary() {
			t.Errorf("%s: %v, want a permanent ErrConfig", name, err)
		}
	}
}

// What a relay says instead of a greeting or to EHLO is kept, and each wait is bounded.
func TestDialGreeting(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		script func(p *peer)
		stage  Stage
		code   int
	}{
		"421 greeting":      {func(p *peer) { p.say("421 4.3.2 too many connections\r\n") }, StageConnect, 421},
		"554 greeting":      {func(p *peer) { p.say("554 5.7.1 blocked\r\n") }, StageConnect, 554},
		"250 as a greeting": {func(p *peer) { p.say("250 hi\r\n"); p.quiet() }, StageConnect, 250},
		"garbage":           {func(p *peer) { p.say("SSH-2.0-OpenSSH_9.2\r\n"); p.quiet() }, StageConnect, 0},
		"silence":           {func(p *peer) { p.quiet() }, StageConnect, 0},
		"dripping":          {func(p *peer) { p.say("220-"); p.quiet() }, StageConnect, 0},
		"closed":            {func(p *peer) {}, StageConnect, 0},
		"421 to EHLO":       {func(p *peer) { p.say(greeting); p.expect(ehloLine); p.say("421 4.7.0 no\r\n") }, StageEHLO, 421},
		"EHLO unknown":      {func(p *peer) { p.say(greeting); p.expect(ehloLine); p.say("502 what\r\n"); p.quiet() }, StageEHLO, 502},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, port := listen(t, tc.script)
			c := plainConfig(host, port)
			c.Timeouts.Greeting = 100 * time.Millisecond
			_, err := Dial(t.Context(), c)
			var e *Error
			if !errors.As(err, &e) || e.Stage != tc.stage || e.Reply.Code != tc.code {
				t.Errorf("Dial: %v, want %d at %s", err, tc.code, tc.stage)
			}
		})
	}
}

// The end of ctx ends a dial that waits.
func TestDialCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	host, port := listen(t, func(p *peer) { p.say(greeting); p.expect(ehloLine); cancel(); p.quiet() })
	if _, err := Dial(ctx, plainConfig(host, port)); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial: %v, want Canceled", err)
	}
}
