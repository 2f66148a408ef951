package doctor

import (
	"crypto/rsa"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/relay"
)

func publicKey(n *big.Int) *rsa.PublicKey { return &rsa.PublicKey{N: n, E: 65537} }

// fault is one row: what is broken, and what the report must say about it.
type fault struct {
	name     string
	id       string
	status   Status
	why, fix string // pieces of them
	record   string // a piece of the record to publish
	prepare  func(w *world)
}

// spf replaces the SPF record of example.com.
func spf(records ...string) func(*world) {
	return func(w *world) {
		w.zone.set("example.com", "TXT", append([]string{"toast-domain-verification=abc123"}, records...)...)
	}
}

func txt(name string, records ...string) func(*world) {
	return func(w *world) { w.zone.set(name, "TXT", records...) }
}

func withRedis(args ...string) func(*world) {
	return func(w *world) { w.redis = redistest.Start(w.t, args...) }
}

func info(pairs ...string) func(*world) {
	return func(w *world) { w.wrap = saying(pairs...) }
}

func rule(r relay.Rule) func(*world) {
	return func(w *world) { w.relay.Rules = []relay.Rule{r} }
}

func certificate(name string, from, until int) func(*world) {
	return func(w *world) { w.relay.Certificate = w.lab.ca.leaf(w.t, name, from, until) }
}

func redisFaults() []fault {
	return []fault{
		{"redis is not running", "redis.reachable", Fail, "refused", "nothing listens there", "", func(w *world) {
			w.redis = redistest.Start(w.t)
			w.redis.Kill()
		}},
		{"redis wants a password", "redis.reachable", Fail, "NOAUTH", "redis://USER:PASSWORD@", "", func(w *world) {
			w.redis = redistest.Start(w.t)
			c := redis.NewClient(&redis.Options{Addr: w.redis.Addr()})
			defer c.Close()
			if err := c.ConfigSet(w.t.Context(), "requirepass", "other").Err(); err != nil {
				w.t.Fatal(err)
			}
		}},
		{"redis hangs", "redis.reachable", Fail, "no answer within 500ms", "rediss://", "", func(w *world) {
			w.redis = redistest.Start(w.t)
			w.redis.Freeze()
			w.cfg.Timeout = 500 * time.Millisecond
		}},
		{"redis is too old", "redis.version", Fail, "version 6.0.16", "6.2 or later", "", info("redis_version", "6.0.16")},
		{"redis is a replica", "redis.role", Fail, "refuses writes", "127.0.0.1:1", "", withRedis("--replicaof", "127.0.0.1 1")},
		{"redis is a cluster", "redis.role", Fail, "Cluster", "redis-sentinel://", "", withRedis("--cluster-enabled", "yes")},
		{"redis is loading", "redis.loading", Fail, "about 42 s", "wait", "", func(w *world) {
			w.wrap = func(r Redis) Redis { return loading{saying("loading", "1\r\nloading_eta_seconds:42")(r)} }
		}},
		{"redis keeps no log", "redis.persistence", Fail, "no append-only file", "appendonly yes", "", withRedis("--appendonly", "no")},
		{"redis has replicas, but no log", "redis.persistence", Warn, "2 replicas", "appendonly yes", "", info("aof_enabled", "0", "connected_slaves", "2")},
		{"redis cannot write its log", "redis.persistence", Fail, "aof_last_write_status:err", "disk space", "", info("aof_last_write_status", "err")},
		{"redis forgets when full", "redis.eviction", Fail, "maxmemory_policy:allkeys-lru", "maxmemory-policy noeviction", "", withRedis("--maxmemory-policy", "allkeys-lru", "--maxmemory", "100mb")},
		{"redis would forget", "redis.eviction", Fail, "volatile-lru would drop", "maxmemory-policy noeviction", "", withRedis("--maxmemory-policy", "volatile-lru")},
		{"redis is full", "redis.memory", Fail, "97% of maxmemory", "raise maxmemory", "", info("used_memory", "97000000", "maxmemory", "100000000")},
		{"redis is filling up", "redis.memory", Warn, "80% of maxmemory", "raise maxmemory", "", info("used_memory", "80000000", "maxmemory", "100000000")},
		{"redis is far away", "redis.latency", Warn, "more than 5ms", "near Redis", "", func(w *world) {
			w.cfg.timed = func(f func() error) (time.Duration, error) { return 20 * time.Millisecond, f() }
		}},
		{"redis is farther than the relay", "redis.latency", Warn, "longer than to the relay (2ms)", "near Redis", "", func(w *world) {
			calls := 0 // the relay's come first
			w.cfg.timed = func(f func() error) (time.Duration, error) {
				if calls++; calls <= trips {
					return 2 * time.Millisecond, f()
				}
				return 3 * time.Millisecond, f()
			}
		}},
		{"redis has another time", "redis.clock", Warn, "behind this machine's", "NTP", "", func(w *world) {
			w.wrap = func(r Redis) Redis { return ahead{r, -5 * time.Second} }
		}},
		{"redis is embedded", "redis.reachable", Warn, "nothing is kept", "set redis.url", "", func(w *world) {
			w.wrap = func(Redis) Redis { return nil }
		}},
	}
}

func connectionFaults() []fault {
	return []fault{
		{"the relay has no address", "relay.dns", Fail, "no address in DNS", "smtp-mail.nhncloudservice.com", "", func(w *world) { delete(w.zone, relayHost) }},
		{"DNS is down", "relay.dns", Fail, "no answer about " + relayHost, "--resolver", "", func(w *world) { w.zone[relayHost] = []string{"SERVFAIL x"} }},
		{"the port is closed", "relay.tcp", Fail, "", "port 587 of " + relayHost, "", func(w *world) { w.dials = []string{relayAddr} }},
		{"one address of two is dead", "relay.tcp", Warn, "but not to 203.0.113.11", "tell the relay's operator", "", func(w *world) {
			w.zone.set(relayHost, "A", "203.0.113.11", relayAddr)
			w.dials = []string{"203.0.113.11"}
		}},
		{"an address family this machine does not have", "relay.tcp", Pass, "connected to", "", "", func(w *world) {
			w.zone.set(relayHost, "A", "203.0.113.11", relayAddr)
			w.dials, w.why = []string{"203.0.113.11"}, syscall.ENETUNREACH
		}},
		{"the relay is down", "relay.greeting", Fail, "421 4.3.2", "takes no connection now", "", func(w *world) { w.relay.Profile = "down" }},
		{"the relay knows this machine", "relay.greeting", Fail, "554 5.7.1", "refuses this machine", "", rule(relay.Rule{Stage: relay.Connect, Reply: "554 5.7.1 You are listed"})},
		{"STARTTLS to a TLS port", "relay.greeting", Fail, "no answer within", "relay.tls: implicit", "", func(w *world) {
			w.relay.Implicit = true
			w.cfg.Timeout = 2 * time.Second
		}},
		{"TLS to a STARTTLS port", "relay.tls", Fail, "does not look like a TLS handshake", "relay.tls: starttls", "", func(w *world) { w.cfg.Relay.TLS = config.ImplicitTLS }},
		{"a web server", "relay.greeting", Fail, "no SMTP reply", "set relay.port", "", scripted(func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		})},
		{"a relay that hangs up", "relay.greeting", Fail, "EOF", "does not speak SMTP", "", scripted(func(net.Conn) {})},
		{"no STARTTLS", "relay.starttls", Fail, "offers no STARTTLS", "port for STARTTLS (587)", "", func(w *world) { w.relay.NoTLS = true }},
		{"an answer before TLS", "relay.starttls", Fail, "data between", "relay.tls: implicit", "", scripted(func(c net.Conn) {
			_, _ = io.WriteString(c, "220 relay\r\n")
			readLine(c)
			_, _ = io.WriteString(c, "250-relay\r\n250 STARTTLS\r\n")
			readLine(c)
			_, _ = io.WriteString(c, "220 go on\r\n250 AUTH PLAIN\r\n")
			_, _ = io.Copy(io.Discard, c)
		})},
		{"an EHLO name it does not like", "relay.starttls", Fail, "501 5.5.4", `set relay.hello to this machine's full host name; "here.example.com"`, "", rule(relay.Rule{Stage: relay.Ehlo, Reply: "501 5.5.4 Invalid name"})},
		{"a certificate for another name", "relay.tls", Fail, "but for other.example", "set relay.host", "", certificate("other.example", -1, 90)},
		{"an expired certificate", "relay.tls", Fail, "expired on", "must renew it", "", certificate(relayHost, -100, -3)},
		{"a certificate of tomorrow", "relay.tls", Fail, "valid from", "clock", "", certificate(relayHost, 2, 90)},
		{"an unknown authority", "relay.tls", Fail, "signed by CN=test authority", "relay.ca_file", "", func(w *world) { w.cfg.Relay.CAFile = newAuthority(w.t).file }},
		{"an old TLS", "relay.tls", Fail, "protocol version", "TLS 1.2 or later", "", func(w *world) { w.relay.MaxTLSVersion = tls.VersionTLS11 }},
		{"a certificate about to expire", "relay.certificate", Warn, "5 days from now", "must renew it by then", "", certificate(relayHost, -90, 5)},
		{"no TLS and far away", "relay.tcp", Fail, "relay.tls is none", "relay.port", "", func(w *world) { w.cfg.Relay.TLS = config.NoTLS }},
	}
}

func loginFaults() []fault {
	return []fault{
		{"a wrong password", "relay.auth.auth", Fail, "535 5.7.8", "AppKey", "", func(w *world) { w.relay.Users = map[string]string{appKey: "another"} }},
		{"no password", "relay.auth.auth", Fail, "relay.password: empty", "SecretKey", "", func(w *world) { w.cfg.Relay.Password = config.Secret{} }},
		{"no logins today", "relay.auth.auth", Fail, "454 4.7.0", "wait some minutes", "", rule(relay.Rule{Stage: relay.Auth, Reply: "454 4.7.0 Temporary authentication failure"})},
		{"no login offered", "relay.auth.auth", Fail, "neither PLAIN nor LOGIN", "relay.auth to plain", "", func(w *world) { w.relay.Capabilities = []string{"PIPELINING", "8BITMIME", "STARTTLS"} }},
		{"hung up on at the login", "relay.auth.auth", Fail, "EOF", "ended the connection", "", rule(relay.Rule{Stage: relay.Auth, Action: relay.Drop})},
		{"a relay that repeats the password", "relay.auth.auth", Fail, "no *** here", "AppKey", "", rule(relay.Rule{Stage: relay.Auth, Reply: "535 5.7.8 no " + secretKey + " here"})},
		{"a relay that repeats the whole login", "relay.auth.auth", Fail, "no ***", "AppKey", "", rule(relay.Rule{Stage: relay.Auth,
			Reply: "535 5.7.8 no " + base64.StdEncoding.EncodeToString([]byte("\x00"+appKey+"#auth\x00"+secretKey))})},
		{"no advertising allowed", "relay.auth.ad", Fail, "stream ad", "mail of type ad", "", rule(relay.Rule{Stage: relay.Auth, Stream: "ad", Reply: "535 5.7.8 Not this type"})},
		{"PIPELINING that loses commands", "relay.pipelining", Warn, "only 1 of 3 replies", "one command at a time", "", func(w *world) {
			w.relay.Profile = "badpipe"
			w.cfg.Timeout = 4 * time.Second
		}},
		{"PIPELINING with replies to spare", "relay.pipelining", Warn, "more replies than commands", "firewall or proxy", "", rule(relay.Rule{Stage: relay.Rset, Action: relay.Flood})},
		{"no PIPELINING", "relay.pipelining", Warn, "not offered", "ask the relay's operator", "", func(w *world) { w.relay.Profile = "lockstep" }},
		{"no 8BITMIME", "relay.ehlo", Warn, "but not 8BITMIME", "another port", "", func(w *world) { w.relay.Capabilities = []string{"PIPELINING", "STARTTLS", "AUTH PLAIN"} }},
		{"no NOOP", "relay.roundtrip", Warn, "502 5.5.1", "mail is not affected", "", rule(relay.Rule{Stage: relay.Noop, Reply: "502 5.5.1 No"})},
		{"on a block list", "relay.blocklist", Info, "203.0.113.10 is listed (SBL", "check.spamhaus.org", "", func(w *world) { w.zone.add("10.113.0.203.zen.spamhaus.org", "A 127.0.0.2") }},
		{"a private address", "relay.blocklist", Info, "10.1.2.3 is not public", "", "", func(w *world) { w.zone.set(relayHost, "A", "10.1.2.3") }},
		{"asked by the wrong resolver", "relay.blocklist", Info, "public resolver", "--resolver", "", func(w *world) { w.zone.add("10.113.0.203.zen.spamhaus.org", "A 127.255.255.254") }},
	}
}

func senderFaults() []fault {
	many := "v=spf1 include:_spfblocka.toast.com"
	for _, n := range strings.Split("abcdefghij", "") {
		many += " a:" + n + ".example.com"
	}
	const ds = "_dmarc.example.com"
	return []fault{
		{"no sender", "sender.address", Warn, "no sender is known", "--from", "", func(w *world) { w.cfg.From = mail.Address{} }},
		{"a domain without mail", "sender.mx", Fail, "neither MX nor address", "below", "example.com. IN MX 10 mail.example.com", func(w *world) { w.zone.set("example.com", "MX") }},
		{"a null MX", "sender.mx", Fail, "null MX", "below", "example.com. IN MX", func(w *world) { w.zone.set("example.com", "MX", "0 .") }},
		{"an MX without address", "sender.mx", Fail, "no MX of example.com has an address", "A record for mail.example.com", "", func(w *world) { delete(w.zone, "mail.example.com") }},
		{"not verified by NHN", "sender.ownership", Fail, "toast-domain-verification=", "console", `"toast-domain-verification=`, func(w *world) { w.zone.set("example.com", "TXT", nhnSPF) }},
		{"no SPF", "sender.spf", Fail, "no SPF record", "below", `example.com. IN TXT "` + nhnSPF + `"`, spf()},
		{"two SPF records", "sender.spf", Fail, "2 SPF records", "below", `"v=spf1 include:_spfblocka.toast.com include:b.example -all"`, spf(nhnSPF, "v=spf1 include:b.example -all")},
		{"SPF with a mistake", "sender.spf", Fail, `"inlcude:b.example": no such mechanism`, "correct that term", "", spf("v=spf1 inlcude:b.example ~all")},
		{"SPF for everybody", "sender.spf", Fail, "whole world", "below", `~all"`, spf("v=spf1 include:_spfblocka.toast.com +all")},
		{"SPF with all in the middle", "sender.spf", Fail, "after all", "below", `"v=spf1 include:_spfblocka.toast.com mx ~all"`, spf("v=spf1 mx ~all include:_spfblocka.toast.com")},
		{"SPF without all", "sender.spf", Warn, "does not end in all", "below", `~all"`, spf("v=spf1 include:_spfblocka.toast.com")},
		{"SPF with ?all", "sender.spf", Warn, "says nothing about others", "below", `~all"`, spf("v=spf1 include:_spfblocka.toast.com ?all")},
		{"SPF with -all", "sender.spf", Warn, "NHN Cloud asks for ~all", "", `include:_spfblocka.toast.com ~all"`, spf("v=spf1 include:_spfblocka.toast.com -all")},
		{"SPF without the relay", "sender.spf_relay", Fail, "does not include _spfblocka.toast.com", "below", `"v=spf1 include:_spfblocka.toast.com mx ~all"`, spf("v=spf1 mx ~all")},
		{"SPF without Amazon's return path", "sender.spf_relay", Warn, "return path of its own", "MAIL FROM", "include:amazonses.com", func(w *world) { w.cfg.Relay.Preset = config.SES }},
		{"SPF too large", "sender.spf_lookups", Fail, "11 DNS look-ups of the 10 allowed: include:_spfblocka.toast.com (1), a:a.example.com (1)", "no longer use", "", func(w *world) {
			spf(many + " ~all")(w)
			for _, n := range strings.Split("abcdefghij", "") {
				w.zone.add(n+".example.com", "A 203.0.113.30")
			}
		}},
		{"SPF that includes itself", "sender.spf_lookups", Fail, "of the 10 allowed", "", "", spf("v=spf1 include:_spfblocka.toast.com include:example.com ~all")},
		{"SPF of the past", "sender.spf_lookups", Fail, "3 names that do not exist", "domains are gone", "", spf("v=spf1 include:_spfblocka.toast.com a:x.example.com a:y.example.com mx:z.example.com ~all")},
		{"SPF that includes nothing", "sender.spf_lookups", Fail, "include:gone.example has no SPF record", "take the term out", "", spf("v=spf1 include:_spfblocka.toast.com include:gone.example ~all")},
		{"no DKIM key", "sender.dkim", Fail, "no DKIM key at toast._domainkey.example.com", "console", `toast._domainkey.example.com. IN TXT "v=DKIM1`, txt("toast._domainkey.example.com")},
		{"a revoked DKIM key", "sender.dkim", Fail, "revoked", "exactly as", "", txt("toast._domainkey.example.com", "v=DKIM1; p=")},
		{"a garbled DKIM key", "sender.dkim", Fail, "lost or added", "exactly as", "", txt("toast._domainkey.example.com", "v=DKIM1; p=MIIBIjANBgkqhkiG9w0BAQEF")},
		{"a short DKIM key", "sender.dkim", Fail, "has 512 bits", "2048 bits", "", func(w *world) {
			txt("toast._domainkey.example.com", "v=DKIM1; k=rsa; p="+dkimRSA(w.t, 512))(w)
		}},
		{"a weak DKIM key", "sender.dkim", Warn, "has 1024 bits", "2048 bits", "", func(w *world) {
			txt("toast._domainkey.example.com", "v=DKIM1; k=rsa; p="+dkimRSA(w.t, 1024))(w)
		}},
		{"an unknown DKIM selector", "sender.dkim", Skip, "selector is not known", "--dkim-selector NAME (the first label of each", "", func(w *world) { w.cfg.Relay.Preset = config.SES }},
		{"no DMARC", "sender.dmarc", Fail, "no DMARC record", "below", `_dmarc.example.com. IN TXT "v=DMARC1; p=none; rua=mailto:dmarc@example.com"`, txt(ds)},
		{"two DMARC records", "sender.dmarc", Fail, "2 DMARC records", "leave one", "", txt(ds, "v=DMARC1; p=none", "v=DMARC1; p=reject")},
		{"DMARC with a mistake", "sender.dmarc", Fail, `policy "nothing"`, "below", `"v=DMARC1; p=none`, txt(ds, "v=DMARC1; p=nothing")},
		{"DMARC without reports", "sender.dmarc", Warn, "without rua", "add rua=", "", txt(ds, "v=DMARC1; p=reject")},
		{"DMARC with nothing to stand on", "sender.alignment", Fail, "p=reject tells receivers", "until then, p=none", "", func(w *world) {
			txt(ds, "v=DMARC1; p=reject; rua=mailto:d@example.com")(w)
			txt("toast._domainkey.example.com")(w)
			spf("v=spf1 mx ~all")(w)
		}},
		{"DMARC that lets it pass", "sender.alignment", Warn, "p=none lets the mail through", "mend", "", func(w *world) {
			txt("toast._domainkey.example.com")(w)
			spf("v=spf1 mx ~all")(w)
		}},
		{"DMARC on SPF alone", "sender.alignment", Warn, "SPF alone", "sender.dkim", "", txt("toast._domainkey.example.com")},
		{"DKIM alone", "sender.alignment", Pass, "DKIM alone", "", "", spf()},
		{"SPF and an unknown DKIM", "sender.alignment", Info, "DKIM is not known", "see sender.dkim", "", func(w *world) { w.zone["toast._domainkey.example.com"] = []string{"SERVFAIL x"} }},
		{"alignment of which nothing is known", "sender.alignment", Info, "could not be told", "see the sender.spf lines", "", func(w *world) {
			w.zone["toast._domainkey.example.com"], w.zone["example.com"] = []string{"SERVFAIL x"}, []string{"SERVFAIL x"}
		}},
		{"Gmail through Amazon", "sender.gmail_yahoo", Warn, "refuse bulk mail", "one-click", "", func(w *world) {
			w.cfg.Relay.Preset = config.SES
			txt(ds)(w)
		}},
		{"Gmail and DNS is down", "sender.gmail_yahoo", Info, "could not be examined", "lines above", "", func(w *world) { w.zone["example.com"] = []string{"SERVFAIL x"} }},
		{"SST7", "sender.gmail_yahoo", Fail, "SST7): not in order is sender.dkim", "DKIM switched on", "", txt("toast._domainkey.example.com")},
		{"DNS of the sender is down", "sender.spf", Warn, "no answer about example.com", "try again", "", func(w *world) { w.zone["example.com"] = []string{"SERVFAIL x"} }},
	}
}

// scripted replaces the relay by a listener that lets f talk to every connection.
func scripted(f func(net.Conn)) func(*world) {
	return func(w *world) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			w.t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				f(c)
				_ = c.Close()
			}
		}()
		w.t.Cleanup(func() {
			_ = l.Close()
			<-done
		})
		w.peer = l.Addr().String()
	}
}

func readLine(c net.Conn) {
	b := make([]byte, 1)
	for b[0] != '\n' {
		if _, err := c.Read(b); err != nil {
			return
		}
	}
}

// Every prepared fault has its line, with the reason and what to do.
func TestFaults(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	var all []fault
	for _, list := range [][]fault{redisFaults(), connectionFaults(), loginFaults(), senderFaults()} {
		all = append(all, list...)
	}
	for _, f := range all {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := lab.healthy(t)
			f.prepare(w)
			cfg, srv := w.start()
			report, err := Run(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			l := find(t, report, f.id)
			if l.Status != f.status || !strings.Contains(l.Why, f.why) || !strings.Contains(l.Fix, f.fix) {
				t.Errorf("got  %s: %s\n     fix: %s\nwant %s: %s\n     fix: %s", l.Status, l.Why, l.Fix, f.status, f.why, f.fix)
			}
			if f.record != "" && (l.Record == nil || !strings.Contains(l.Record.String(), f.record)) {
				t.Errorf("record %v, want %s", l.Record, f.record)
			}
			if report.OK == (report.Counts[Fail] > 0) || l.Status == Fail && report.OK {
				t.Errorf("ok %v with %v", report.OK, report.Counts)
			}
			harmless(t, report, srv)
		})
	}
}

// harmless asserts what must hold whatever is broken: no secret printed or sent in the
// clear, no mail, no login repeated after a refusal, and something to do for each
// fault.
func harmless(t *testing.T, r Report, srv *relay.Server) {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString([]byte("\x00" + appKey + "#auth\x00"))[:20]
	if s := string(text); strings.Contains(s, secretKey) || strings.Contains(s, appKey) || strings.Contains(s, b64) {
		t.Errorf("a secret is in %s", text)
	}
	s := srv.Stats()
	if s.AuthInClear > 0 || s.Messages > 0 || len(srv.MailTimes()) > 0 || s.AuthFailures > 1 {
		t.Errorf("relay saw %d logins in the clear, %d refused, %d messages", s.AuthInClear, s.AuthFailures, s.Messages)
	}
	for _, l := range r.Checks {
		if l.Why == "" || (l.Status == Warn || l.Status == Fail) && l.Fix == "" || strings.ContainsAny(l.Why+l.Fix, "\r\n") {
			t.Errorf("line %+v", l)
		}
	}
}
