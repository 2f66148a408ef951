package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/sluicemail/sluice/internal/doctor"
	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/relay"
)

// nameServer answers with the records given, each in zone file form, and returns its address.
func nameServer(t *testing.T, records ...string) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var known []dns.RR
	for _, r := range records {
		rr, err := dns.NewRR(r)
		if err != nil {
			t.Fatal(err)
		}
		known = append(known, rr)
	}
	up, down := make(chan struct{}), make(chan error, 1)
	srv := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(up) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetRcode(q, dns.RcodeNameError)
		for _, rr := range known {
			if !strings.EqualFold(rr.Header().Name, q.Question[0].Name) {
				continue
			}
			m.Rcode = dns.RcodeSuccess
			if rr.Header().Rrtype == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		_ = w.WriteMsg(m)
	})}
	go func() { down <- srv.ActivateAndServe() }()
	<-up
	t.Cleanup(func() {
		_ = srv.Shutdown()
		if err := <-down; err != nil {
			t.Errorf("name server: %v", err)
		}
	})
	return pc.LocalAddr().String()
}

// soundDomain is what DNS says about example.com when all is well.
func soundDomain(t *testing.T) []string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	p := base64.StdEncoding.EncodeToString(der)
	return []string{
		"example.com. 60 IN A 203.0.113.20",
		`example.com. 60 IN TXT "toast-domain-verification=abc"`,
		`example.com. 60 IN TXT "v=spf1 include:_spfblocka.toast.com ~all"`,
		`_spfblocka.toast.com. 60 IN TXT "v=spf1 ip4:203.0.113.0/24 ~all"`,
		`_dmarc.example.com. 60 IN TXT "v=DMARC1; p=none; rua=mailto:d@example.com"`,
		`toast._domainkey.example.com. 60 IN TXT "v=DKIM1; p=` + p[:200] + `" "` + p[200:] + `"`,
	}
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{redis: redistest.Start(t).URL(), tail: "sender: {email: news@example.com}\n"})
	resolver := nameServer(t, soundDomain(t)...)

	code, out, errs := r.run(t.Context(), "doctor", "--resolver", resolver, "--timeout", "30s")
	if code != exitDone || errs != "" || !strings.Contains(out, "pass  sender.gmail_yahoo  ") || !strings.Contains(out, " 0 failed, ") {
		t.Errorf("sound: code %d\n%s%s", code, out, errs)
	}
	if strings.Contains(out, "fix: publish") {
		t.Errorf("nothing to publish, but\n%s", out)
	}

	code, out, errs = r.run(t.Context(), "doctor", "--resolver", resolver, "--timeout", "30s", "--json", "--from", "a@other.example")
	var report doctor.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != exitFailed || errs != "" {
		t.Fatalf("another domain: code %d, %v\n%s%s", code, err, out, errs)
	}
	if report.OK || report.Counts[doctor.Fail] == 0 || len(report.Checks) != 32 || strings.Count(out, "\n") != 1 {
		t.Errorf("report %s", out)
	}
	for _, l := range report.Checks {
		if l.ID == "sender.spf" && (l.Status != doctor.Fail || l.Record == nil || l.Record.Name != "other.example") {
			t.Errorf("line %+v", l)
		}
	}
	if s := r.relay.Stats(); s.Messages > 0 || s.AuthFailures > 0 || s.AuthAttempts != 6 {
		t.Errorf("%d messages, %d logins, %d refused", s.Messages, s.AuthAttempts, s.AuthFailures)
	}
}

// A refused login is one line to mend, tried once, and the password is nowhere.
func TestDoctorWrongPassword(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{relay: relay.Config{Users: map[string]string{"app": "another"}}})
	code, out, errs := r.run(t.Context(), "doctor", "--resolver", nameServer(t), "--dkim-selector", "s1")
	if code != exitFailed || strings.Contains(errs, "level=ERROR") || !strings.Contains(out, "fail  relay.auth.auth     stream auth: ") || !strings.Contains(out, "fix: relay.user must be the AppKey") {
		t.Errorf("code %d\n%s%s", code, out, errs)
	}
	if !strings.Contains(out, "redis.url is embedded") || !strings.Contains(out, "set sender.email") {
		t.Errorf("an embedded Redis and no sender are worth a warning:\n%s", out)
	}
	if n := r.relay.Stats().AuthAttempts; n != 1 {
		t.Errorf("%d logins", n)
	}
}

func TestDoctorUsage(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"--timeout 0s: want more than 0":     {"--timeout", "0s"},
		"--from: want a bare address":        {"--from", "example.com"},
		`--dkim-selector "a b"`:              {"--dkim-selector", "a b"},
		`--resolver "dns:x": want HOST`:      {"--resolver", "dns:x"},
		`--resolver ":53": want HOST`:        {"--resolver", ":53"},
		`takes no argument, but has "redis"`: {"redis"},
	} {
		code, out, errs := sluice(t, "redis: {url: embedded}", append([]string{"doctor"}, args...)...)
		if code != exitUsage || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%q: code %d\n%s%s", args, code, out, errs)
		}
	}
}

func TestResolverAddress(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{"": true, "192.0.2.1": true, "192.0.2.1:5353": true, "[2001:db8::1]": true, "2001:db8::1": true,
		"[2001:db8::1]:53": true, "dns.example": true, "192.0.2.1:0": false, "192.0.2.1:99999": false} {
		if r, err := resolver(addr); (err == nil) != want || want && r == nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}
