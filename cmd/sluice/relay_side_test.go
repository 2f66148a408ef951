package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/relay"
)

// Every way in that NHN Cloud offers takes a mail of every stream, with that
// stream's login.
func TestWaysIn(t *testing.T) {
	t.Parallel()
	plainOnly := []string{"PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME", "STARTTLS", "AUTH PLAIN"}
	loginOnly := []string{"PIPELINING", "8BITMIME", "STARTTLS", "AUTH=LOGIN"}
	for name, tc := range map[string]struct {
		relay relay.Config
		more  string // YAML of the relay section; instead of it, where it does not begin with a comma
	}{
		"STARTTLS, auth auto":      {relay.Config{}, ""},
		"STARTTLS, auth plain":     {relay.Config{}, ", auth: plain"},
		"STARTTLS, auth login":     {relay.Config{}, ", auth: login"},
		"TLS wrapper, auth auto":   {relay.Config{Implicit: true}, ", tls: implicit"},
		"TLS wrapper, auth login":  {relay.Config{Implicit: true}, ", tls: implicit, auth: login"},
		"only PLAIN offered":       {relay.Config{Capabilities: plainOnly}, ""},
		"only the old AUTH=LOGIN":  {relay.Config{Capabilities: loginOnly}, ""},
		"one group a message":      {relay.Config{}, ", pipelining: group"},
		"lock-step by choice":      {relay.Config{}, ", pipelining: lockstep"},
		"plaintext to loopback":    {relay.Config{NoTLS: true}, "user: app, password: sec, tls: none"},
		"no pipelining: lock-step": {relay.Config{Profile: "lockstep"}, ""},
		"no login wanted":          {relay.Config{AuthOptional: true}, "ca_file: ca.pem, auth: none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, rigOptions{relay: tc.relay, yaml: func(s *relay.Server) string {
				if tc.more == "" || tc.more[0] == ',' {
					return relayYAML(s, tc.more)
				}
				host, port, _ := strings.Cut(s.Addr(), ":")
				return fmt.Sprintf("relay: {preset: nhn, host: %s, port: %s, %s}\n", host, port, tc.more)
			}})
			for _, stream := range []string{"auth", "normal", "ad"} {
				code, out, errs := r.run(t.Context(), "send", "--to", stream+"@naver.example", "--template", "code", "--set", "code=481516", "--from", "no-reply@example.com", "--stream", stream, "--wait", "--json")
				if stream == "ad" { // the shipped code template is no advertisement
					if code != exitUsage || !strings.Contains(errs, "(광고)") {
						t.Errorf("a code as advertising: %d %s", code, errs)
					}
					code, out, errs = r.run(t.Context(), r.send(r.list(3), "--wait", "--json")...)
				}
				if out == "" {
					t.Fatalf("stream %s: %d %s", stream, code, errs)
				}
				if s := lastJSON(t, out); code != exitDone || s.Accepted != s.Recipients {
					t.Fatalf("stream %s: %d %+v %s", stream, code, s, errs)
				}
			}
			if st := r.relay.Stats(); strings.Contains(tc.more, "lockstep") && st.Groups != 0 {
				t.Errorf("%d groups in lock-step", st.Groups)
			}
			streams := map[string]int{}
			for _, m := range r.relay.Truth() {
				streams[m.Stream]++
			}
			if strings.Contains(tc.more, "auth: none") {
				return // without a login there is no stream to tell
			}
			if streams["auth"] != 1 || streams["normal"] != 1 || streams["ad"] != 3 {
				t.Errorf("the relay saw the logins %v", streams)
			}
		})
	}
}

// What must never be sent to is not: no AUTH byte leaves, and the log says what to
// do about it.
func TestNoSecretLeaves(t *testing.T) {
	t.Parallel()
	hour := time.Hour
	for name, tc := range map[string]struct {
		relay relay.Config
		ca    func(*relay.Server) []byte // what relay.ca_file holds; nil = the right thing
		want  []string                   // in the log
	}{
		"expired certificate":  {relay: relay.Config{Certificate: leaf(t, "127.0.0.1", -2*hour, -hour)}, want: []string{"expired"}},
		"certificate to come":  {relay: relay.Config{Certificate: leaf(t, "127.0.0.1", hour, 2*hour)}, want: []string{"not yet valid"}},
		"another host":         {relay: relay.Config{Certificate: leaf(t, "mail.example.com", -hour, hour)}, want: []string{"relay.host"}},
		"unknown authority":    {ca: func(*relay.Server) []byte { return leafPEM(leaf(t, "127.0.0.1", -hour, hour)) }, want: []string{"relay.ca_file"}},
		"STARTTLS not offered": {relay: relay.Config{NoTLS: true}, want: []string{"STARTTLS"}},
		"TLS 1.1 at most":      {relay: relay.Config{MaxTLSVersion: tls.VersionTLS11}, want: []string{"TLS 1.2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, rigOptions{relay: tc.relay})
			switch {
			case tc.ca != nil:
				r.write("ca.pem", string(tc.ca(r.relay)))
			case tc.relay.Certificate != nil:
				r.write("ca.pem", string(leafPEM(tc.relay.Certificate))) // trusted, so that only the fault counts
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var out, errs safeBuffer
			done := make(chan int, 1)
			go func() {
				done <- run(ctx, append(r.send(r.list(3), "--wait"), "--config", r.file), stdio{in: strings.NewReader(""), out: &out, err: &errs})
			}()
			for _, want := range tc.want {
				eventually(t, "the log has an error", func() bool { return strings.Contains(errs.String(), "level=ERROR") })
				if !strings.Contains(errs.String(), want) {
					t.Errorf("the log does not say %q: %s", want, errs.String())
				}
			}
			cancel()
			<-done
			st := r.relay.Stats()
			if st.AuthAttempts != 0 || st.Messages != 0 {
				t.Errorf("%d logins were tried, %d messages sent", st.AuthAttempts, st.Messages)
			}
			if st.Connections > 20 {
				t.Errorf("%d connections against a wall", st.Connections)
			}
		})
	}
}

// leaf makes a self-signed certificate for host, valid from and until now plus the
// given times.
func leaf(t *testing.T, host string, from, until time.Duration) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(until),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if host == "127.0.0.1" {
		tmpl.IPAddresses = append(tmpl.IPAddresses, []byte{127, 0, 0, 1})
	} else {
		tmpl.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func leafPEM(c *tls.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
}

// What is wrong with the input is said before anything is enqueued.
func TestBadInput(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no email column":  {r.send(r.write("a.csv", "mail,name\nx@y.zz,n\n")), "email"},
		"no name column":   {r.send(r.write("b.csv", "email\nx@y.zz\n")), "name"},
		"no such file":     {r.send("nowhere.csv"), "nowhere.csv"},
		"header only":      {r.send(r.write("c.csv", "email,name\n")), "no recipient"},
		"unknown template": {[]string{"send", "--to", "a@b.kr", "--template", "nowhere", "--from", "a@b.kr"}, "newsletter"},
		"no --to":          {[]string{"send", "--template", "newsletter"}, "--to"},
		"bad stream":       {r.send(r.list(1), "--stream", "bulk"), "auth, normal or ad"},
		"bad --from":       {[]string{"send", "--to", "a@b.kr", "--template", "code", "--from", "nobody"}, "--from"},
		"bad --set":        {r.send(r.list(1), "--set", "x"), "--set"},
		"bad --at":         {r.send(r.list(1), "--at", "tomorrow"), "--at"},
		"unknown flag":     {r.send(r.list(1), "--nope"), "--nope"},
		"header injection": {r.send(r.list(1), "--name", "x\r\ny"), "campaign name"},
		"unknown command":  {[]string{"sned"}, "sned"},
		"no campaign":      {[]string{"campaign", "show"}, "campaign"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := r.run(t.Context(), tc.args...)
			if code != exitUsage || !strings.Contains(errs, tc.want) || out != "" {
				t.Errorf("exit %d, stdout %q, stderr %q; want 2 and %q", code, out, errs, tc.want)
			}
		})
	}
}

// A bad row is invalid, with its line and the reason, and stops nobody else.
func TestBadRows(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	list := r.write("list.csv", "email,name\n"+
		"good@naver.example,홍길동\n"+
		"bad@@naver.example,홍길동\n"+
		"crlf@naver.example,\"홍\r\nBcc: victim@example.com\"\n"+
		"noname@naver.example,\n"+
		"Good@NAVER.example,again\n"+
		"한글@naver.example,local part\n"+
		"idn@예시.한국,도메인\n")
	code, out, errs := r.run(t.Context(), r.send(list, "--wait", "--json")...)
	s := lastJSON(t, out)
	if code != exitPartial || s.Recipients != 7 || s.Accepted != 2 || s.Invalid != 4 || s.Duplicate != 1 {
		t.Errorf("%d %+v", code, s)
	}
	for _, want := range []string{"line 3:", "line 4:", "line 6:", "\"name\"", "line 7:", "line 8:"} {
		if !strings.Contains(errs, want) {
			t.Errorf("stderr does not say %q:\n%s", want, errs)
		}
	}
	for _, m := range r.relay.Truth() {
		if m.To != "good@naver.example" && m.To != "idn@xn--vv4b11d.xn--3e0b707e" {
			t.Errorf("sent to %s", m.To)
		}
	}
}

// The same in a dry run, which finds it without a Redis and enqueues nothing.
func TestDryRun(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{redis: "redis://127.0.0.1:1/0"})
	list := r.write("list.csv", "email,name\ngood@naver.example,홍길동\nbad@@naver.example,홍길동\n")
	code, out, errs := r.run(t.Context(), r.send(list, "--dry-run", "--json")...)
	if code != exitPartial || !strings.Contains(out, `"sendable":1`) || !strings.Contains(errs, "line 3") {
		t.Errorf("%d %s %s", code, out, errs)
	}
}

func TestUnknownConfigurationKey(t *testing.T) {
	t.Parallel()
	code, out, errs := sluice(t, "redis: {url: embedded}\nlimits: {conections: {open: 1}}\n", "send", "--to", "a@b.kr", "--template", "code", "--from", "a@b.kr")
	if code != exitUsage || out != "" || !strings.Contains(errs, "conections") || !strings.Contains(errs, "connections") {
		t.Errorf("%d %q %q", code, out, errs)
	}
}
