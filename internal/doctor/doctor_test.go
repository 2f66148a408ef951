package doctor

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"

	"github.com/sluicemail/sluice/internal/config"
)

// A world without a fault has a report without one, whose lines come in a fixed order.
func TestHealthy(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	want := []string{
		"redis.reachable", "redis.version", "redis.role", "redis.loading", "redis.persistence", "redis.eviction", "redis.memory", "redis.latency", "redis.clock",
		"relay.dns", "relay.tcp", "relay.greeting", "relay.starttls", "relay.tls", "relay.certificate", "relay.ehlo",
		"relay.auth.auth", "relay.auth.normal", "relay.auth.ad", "relay.roundtrip", "relay.pipelining", "relay.blocklist",
		"sender.address", "sender.mx", "sender.ownership", "sender.spf", "sender.spf_relay", "sender.spf_lookups",
		"sender.dkim", "sender.dmarc", "sender.alignment", "sender.gmail_yahoo",
	}
	for name, prepare := range map[string]func(*world){
		"starttls": func(*world) {},
		"implicit": func(w *world) {
			w.relay.Implicit = true
			w.cfg.Relay.TLS, w.cfg.Relay.Port = config.ImplicitTLS, 465
		},
		"login": func(w *world) { w.cfg.Relay.Auth = config.AuthLogin },
		"subdomain": func(w *world) { // DMARC and the ownership record are the registered domain's
			from := "news.example.com"
			w.zone[from] = []string{"TXT " + nhnSPF, "A 203.0.113.20"}
			w.zone["toast._domainkey."+from] = w.zone["toast._domainkey.example.com"]
			w.cfg.From = address(w.t, "a@"+from)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := lab.healthy(t)
			prepare(w)
			cfg, srv := w.start()
			r, err := Run(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, l := range r.Checks {
				got = append(got, l.ID)
				if l.Status != Pass && l.Status != Info {
					t.Errorf("%s %s: %s (%s)", l.Status, l.ID, l.Why, l.Fix)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("lines %q", got)
			}
			if !r.OK || r.Counts[Fail] != 0 {
				t.Errorf("ok %v, %v", r.OK, r.Counts)
			}
			harmless(t, r, srv)
			if s := srv.Stats(); s.AuthAttempts != 3 || s.MaxCommandsInGroup != 3 || s.EarlyTalkers != 0 {
				t.Errorf("%d logins, groups of %d, %d early commands", s.AuthAttempts, s.MaxCommandsInGroup, s.EarlyTalkers)
			}
		})
	}
}

// What needs something that failed is skipped and says because of what, and a refused
// login is not tried with another stream.
func TestSkipped(t *testing.T) {
	t.Parallel()
	w := newLab(t).healthy(t)
	w.relay.Users = map[string]string{appKey: "another"}
	cfg, srv := w.start()
	r, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"relay.auth.normal", "relay.auth.ad", "relay.roundtrip", "relay.pipelining"} {
		if l := find(t, r, id); l.Status != Skip || l.Why != "not checked, because of relay.auth.auth" {
			t.Errorf("%s: %s %s", id, l.Status, l.Why)
		}
	}
	if l := find(t, r, "redis.latency"); l.Status != Pass {
		t.Errorf("redis.latency waits for the relay, but does not need it: %s", l.Status)
	}
	if s := srv.Stats(); s.AuthAttempts != 1 {
		t.Errorf("%d logins", s.AuthAttempts)
	}
}

// Where all streams have the same login, it is made once.
func TestSameLogin(t *testing.T) {
	t.Parallel()
	w := newLab(t).healthy(t)
	w.cfg.Relay.Preset = config.Custom
	cfg, srv := w.start()
	r, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if l := find(t, r, "relay.auth.ad"); l.Status != Pass || srv.Stats().AuthAttempts != 1 {
		t.Errorf("%s %s, %d logins", l.Status, l.Why, srv.Stats().AuthAttempts)
	}
	if l := find(t, r, "sender.spf_relay"); l.Status != Info {
		t.Errorf("what a custom relay wants is not known: %s %s", l.Status, l.Why)
	}
}

// Without TLS a login is made on loopback only, or where the configuration insists.
func TestPlaintext(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	for _, tc := range []struct {
		host                  string
		insecure              bool
		tcp, tls, cert, login Status
	}{
		{"127.0.0.1", false, Pass, Info, Info, Pass},
		{relayAddr, true, Pass, Warn, Info, Pass},
		{relayAddr, false, Fail, Skip, Skip, Skip},
	} {
		w := lab.healthy(t)
		w.cfg.Relay.Host, w.cfg.Relay.TLS, w.cfg.Relay.Insecure = tc.host, config.NoTLS, tc.insecure
		cfg, srv := w.start()
		r, err := Run(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		for id, want := range map[string]Status{"relay.tcp": tc.tcp, "relay.tls": tc.tls, "relay.certificate": tc.cert, "relay.auth.auth": tc.login} {
			if l := find(t, r, id); l.Status != want {
				t.Errorf("%+v: %s %s %s", tc, l.Status, id, l.Why)
			}
		}
		if n := srv.Stats().Connections; (n > 0) != (tc.tcp == Pass) {
			t.Errorf("%+v: %d connections", tc, n)
		}
	}
}

// A login never leaves without TLS unless the session allows it, whatever the relay offers.
func TestNoLoginInClear(t *testing.T) {
	t.Parallel()
	for _, mode := range []config.AuthMode{config.AuthAuto, config.AuthPlain, config.AuthLogin} {
		s := newSession(nil, false) // a write would panic
		if _, err := s.login(extensions{"AUTH": {"PLAIN"}}, mode, "user", "secret"); !errors.Is(err, errClear) {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

// elsewhere is a connection to another machine.
type elsewhere struct{ net.Conn }

func (elsewhere) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(203, 0, 113, 1), Port: 25} }

// A name that says loopback may lead elsewhere, and TLS that was asked for is not waived.
func TestClear(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		host     string
		mode     config.TLSMode
		insecure bool
		want     bool
	}{
		{"localhost", config.NoTLS, false, false},
		{"relay.example", config.NoTLS, true, true},
		{"relay.example", config.StartTLS, true, false},
	} {
		e := newExam(Config{Relay: config.Relay{Host: tc.host, TLS: tc.mode, Insecure: tc.insecure}})
		if got := e.newSession(elsewhere{}).clear; got != tc.want {
			t.Errorf("%+v: %v", tc, got)
		}
	}
}

// An interrupted run is no report.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cfg, _ := newLab(t).healthy(t).start()
	cancel()
	if r, err := Run(ctx, cfg); !errors.Is(err, context.Canceled) || r.Checks != nil {
		t.Errorf("%v, %v", r, err)
	}
}
