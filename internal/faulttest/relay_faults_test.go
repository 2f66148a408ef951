package faulttest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/relay"
)

// scripted runs a campaign against a relay that misbehaves by rules from the start.
func scripted(s setup, judge func(r *rig, out *result), rules ...relay.Rule) func(testing.TB) *result {
	s.relay.Rules = rules
	return func(t testing.TB) *result {
		t.Helper()
		r, out := begin(t, s)
		r.worker()
		r.send()
		r.end(out)
		hits := 0
		for _, n := range r.srv.Stats().RuleHits {
			hits += int(n)
		}
		if hits == 0 {
			out.fail("the relay never misbehaved")
		}
		if judge != nil {
			judge(r, out)
		}
		return out
	}
}

// every421 says 421 once in so many messages at each stage of a message, and now and
// then at those before.
func every421() (out []relay.Rule) {
	for _, stage := range []relay.Stage{relay.Connect, relay.Ehlo, relay.StartTLS, relay.Auth} {
		out = append(out, relay.Rule{Stage: stage, Every: 7, Reply: "421 4.3.2 closing"})
	}
	for i, stage := range []relay.Stage{relay.Mail, relay.Rcpt, relay.Data} {
		out = append(out, relay.Rule{Stage: stage, Every: 97 + 10*i, Reply: "421 4.3.2 closing"})
	}
	return append(out, relay.Rule{Stage: relay.Idle, Delay: 200 * time.Millisecond, Reply: "421 4.4.2 idle"})
}

// relayFaults are group D: what a relay does.
func relayFaults() []fault {
	one := setup{rate: 600}
	unknowns := func(name string) func(*rig, *result) {
		return func(r *rig, out *result) {
			out.mayUnknown += int(r.srv.Stats().RuleHits[name])
			out.note("%d times", r.srv.Stats().RuleHits[name])
		}
	}
	return []fault{
		{id: "D1", name: "421 at the greeting, EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA and when idle", promise: "sent on another connection; nobody blamed", runs: 1,
			run: scripted(setup{rate: 600, connections: 4}, func(_ *rig, out *result) { out.mayBurn = out.Recipients }, every421()...)},
		{id: "D1b", name: "421 at the dot", promise: "sent again later, as told", runs: 1,
			run: scripted(one, func(_ *rig, out *result) { out.mayBurn = out.Recipients },
				relay.Rule{Stage: relay.EOD, Share: 0.02, Times: 1, Reply: "421 4.3.2 closing"})},
		{id: "D2", name: "4xx at RCPT and at the dot, some with a time to wait", promise: "sent again after it", runs: 1,
			run: scripted(one, func(_ *rig, out *result) { out.mayBurn = out.Recipients },
				relay.Rule{Stage: relay.Rcpt, Share: 0.02, Times: 1, Reply: "451 4.7.1 Greylisted, try again in 3 seconds"},
				relay.Rule{Stage: relay.EOD, Share: 0.04, Times: 1, Reply: "452 4.3.1 Insufficient system storage"})},
		{id: "D3", name: "5xx at RCPT and at the dot", promise: "rejected at once, nobody else", runs: 1,
			run: scripted(one, func(r *rig, out *result) {
				hits := r.srv.Stats().RuleHits
				out.mayRefuse = int(hits["no such user"] + hits["content"])
			},
				relay.Rule{Name: "no such user", Stage: relay.Rcpt, Share: 0.02, Reply: "550 5.1.1 <{to}>: no such user"},
				relay.Rule{Name: "content", Stage: relay.EOD, Share: 0.03, Reply: "552 5.2.2 mailbox full"})},
		{id: "D4", name: "taken, and the connection dropped instead of 250 (hold)", promise: "each is unknown, nothing twice", runs: 2, quick: true,
			run: scripted(one, unknowns("drop"), relay.Rule{Name: "drop", Stage: relay.EOD, Share: 0.005, Fresh: true, Action: relay.AcceptDrop})},
		{id: "D4b", name: "the same (resend)", promise: "each is sent again once and listed", runs: 2,
			run: scripted(setup{rate: 600, policy: "resend"}, unknowns("drop"), relay.Rule{Name: "drop", Stage: relay.EOD, Share: 0.005, Fresh: true, Action: relay.AcceptDrop})},
		{id: "D5", name: "dots answered after 9 s", promise: "waited for; no unknown", runs: 1,
			run: scripted(setup{rate: 600, connections: 16}, nil, relay.Rule{Stage: relay.EOD, Share: 0.01, Delay: 9 * time.Second})},
		{id: "D6", name: "replies that drip a byte at a time, contents read slowly (time limits 60 times shorter)", promise: "given up after one request's time; others go on", runs: 1,
			run: scripted(setup{rate: 600, env: []string{"FAULT_SCALE=60"}}, func(_ *rig, out *result) { out.mayBurn = out.Recipients },
				relay.Rule{Stage: relay.Rcpt, Share: 0.005, Times: 1, Action: relay.Slice, Delay: 150 * time.Millisecond},
				relay.Rule{Stage: relay.Mail, Every: 301, Action: relay.Slice, Delay: 150 * time.Millisecond})},
		{id: "D7", name: "replies that nobody asked for, doubled, and garbage before a 250", promise: "never counts as acceptance", runs: 2, quick: true,
			run: unasked(setup{rate: 600, connections: 4})},
		{id: "D8", name: "a reply of a megabyte, and one of 100,000 lines", promise: "refused at 4 KB and 100 lines; nobody blamed for it", runs: 1,
			run: scripted(one, func(_ *rig, out *result) { out.mayBurn = out.Recipients },
				relay.Rule{Stage: relay.Rcpt, Share: 0.003, Times: 1, Action: relay.Long, Count: 1 << 20, Reply: "250 2.1.5 ok"},
				relay.Rule{Stage: relay.Rcpt, Share: 0.006, Times: 1, Action: relay.Lines, Count: 100_000, Reply: "250 2.1.5 ok"})},
		{id: "D9", name: "replies that are none: 999, NUL, no code, 8-bit", promise: "never a bounce", runs: 1,
			run: scripted(one, func(_ *rig, out *result) { out.mayBurn = out.Recipients }, malformed()...)},
		{id: "D10", name: "PIPELINING offered and broken", promise: "less of it, nothing lost", runs: 1,
			run: brokenPipelining},
		{id: "D11", name: "354 although the recipient was refused", promise: "a lone dot; the next mail is its own", runs: 1,
			run: scripted(one, func(r *rig, out *result) { out.mayRefuse = int(r.srv.Stats().RuleHits["refused"]) },
				relay.Rule{Name: "refused", Stage: relay.Rcpt, Share: 0.05, Reply: "550 5.1.1 no such user"},
				relay.Rule{Name: "all the same", Stage: relay.Data, Reply: "354 go ahead"})},
		{id: "D12", name: "idle connections closed by the relay after 700 ms", promise: "noticed before MAIL; no attempt used up", runs: 1, run: idleClosed},
		{id: "D12b", name: "connections kept open for login codes closed again and again, then a code", promise: "the code goes out within 5 s", runs: 1, run: warmClosed},
		{id: "D13", name: "relay refuses above 200 messages a second, limit set to 2,000", promise: "slows down; all sent in the end", runs: 1, run: throttledRate},
		{id: "D14", name: "relay takes 3 connections, limit set to 10", promise: "fewer are used; no attempt used up", runs: 1,
			run: tooManyConnections},
		{id: "D15", name: "login refused in mid-campaign, put right after 5 s", promise: "stops; no recipient is used up; goes on without a restart", runs: 1, run: loginRevoked},
		{id: "D15b", name: "454 to every third login", promise: "tried again", runs: 1,
			run: scripted(setup{rate: 600, limits: "limits: {connections: {open: 8, new: [6000/1m]}, messages: [600/1s], per_connection: {messages: 100, age: 5m, idle: 30s}}"}, nil,
				relay.Rule{Stage: relay.Auth, Every: 3, Reply: "454 4.7.0 Temporary authentication failure"})},
		{id: "D16", name: "everything is accepted and nothing delivered; the relay says so afterwards", promise: "feedback holds the campaign after its canary", runs: 1, run: acceptedAndDiscarded},
		{id: "D17", name: "552: larger than the relay takes", promise: "rejected, nobody else", runs: 1,
			run: scripted(one, func(r *rig, out *result) { out.mayRefuse = int(r.srv.Stats().RuleHits["size"]) },
				relay.Rule{Name: "size", Stage: relay.EOD, Share: 0.01, Reply: "552 5.3.4 Message size exceeds fixed limit"})},
		{id: "D18", name: "three in ten recipients refused, for good or for now", promise: "each has the outcome of its own", runs: 1,
			run: scripted(one, func(r *rig, out *result) {
				out.mayRefuse, out.mayBurn = int(r.srv.Stats().RuleHits["bad"]), out.Recipients
			},
				relay.Rule{Name: "bad", Stage: relay.Rcpt, Share: 0.15, Reply: "550 5.1.1 no such user"},
				relay.Rule{Name: "later", Stage: relay.Rcpt, Share: 0.30, Times: 1, Reply: "450 4.2.0 later"})},
	}
}

// unasked makes the pairing of replies as hard as it gets: half the recipients are
// refused, so that a reply taken for another's is seen.
func unasked(s setup) func(testing.TB) *result {
	return scripted(s, func(r *rig, out *result) {
		hits := r.srv.Stats().RuleHits
		out.mayRefuse, out.mayBurn = out.Refused, out.Recipients
		out.mayUnknown = int(hits["twice at the dot"] + hits["garbage at the dot"] + hits["twice at rcpt"]*2 + hits["twice at mail"]*2)
		if share := float64(out.Refused) / float64(out.Recipients); share < 0.27 || share > 0.33 {
			out.fail("%d of %d refused, where three in ten are", out.Refused, out.Recipients)
		}
	},
		relay.Rule{Name: "refused", Stage: relay.Rcpt, Share: 0.2, Reply: "550 5.1.1 no such user"},
		relay.Rule{Name: "refused at the dot", Stage: relay.EOD, Share: 0.125, Reply: "554 5.6.0 not this"},
		relay.Rule{Name: "twice at rcpt", Stage: relay.Rcpt, Share: 0.01, Times: 1, Action: relay.Flood, Reply: "250 2.1.5 ok"},
		relay.Rule{Name: "twice at mail", Stage: relay.Mail, Every: 211, Action: relay.Flood, Reply: "250 2.1.0 ok"},
		relay.Rule{Name: "twice at the dot", Stage: relay.EOD, Every: 149, Action: relay.Flood},
		relay.Rule{Name: "garbage at the dot", Stage: relay.EOD, Every: 173, Action: relay.Garbage, Reply: "xyz\r\n250 2.0.0 ok\r\n"})
}

func malformed() (out []relay.Rule) {
	for i, text := range []string{"999 5.1.1 what\r\n", "2\x0050 ok\r\n", "ok\r\n", "250\xff\xfe\r\n", "55 5.1.1 no\r\n", "550\n"} {
		out = append(out, relay.Rule{Stage: relay.Rcpt, Share: 0.002 * float64(i+1), Times: 1, Action: relay.Garbage, Reply: text})
	}
	return out
}

func brokenPipelining(t testing.TB) *result {
	r, out := begin(t, setup{relay: relay.Config{Profile: "badpipe"}, recipients: 1000, env: []string{"FAULT_SCALE=60"}})
	r.worker()
	r.send()
	r.end(out)
	out.note("%d connections until it was found out", r.srv.Stats().Connections)
	return out
}

// idleClosed sends in waves, to a relay that closes connections between them.
func idleClosed(t testing.TB) *result {
	rule := relay.Rule{Name: "idle", Stage: relay.Idle, Delay: 700 * time.Millisecond, Action: relay.Drop}
	r, out := begin(t, setup{recipients: 50, relay: relay.Config{Rules: []relay.Rule{rule}}})
	r.worker()
	var all account
	for wave := range 6 {
		r.begins("wave" + itoa(wave))
		r.send()
		r.end(out)
		all.add(out.account)
		idle(1200 * time.Millisecond)
	}
	out.account = all
	out.note("%d connections closed when idle", r.srv.Stats().RuleHits["idle"])
	if r.srv.Stats().RuleHits["idle"] < 5 {
		out.fail("only %d connections were closed when idle", r.srv.Stats().RuleHits["idle"])
	}
	return out
}

// warmClosed lets a relay close the connections that are kept open for login codes,
// again and again, while there are none. The next code must not suffer for it.
func warmClosed(t testing.TB) *result {
	rule := relay.Rule{Name: "idle", Stage: relay.Idle, Delay: 500 * time.Millisecond, Action: relay.Drop}
	r, out := begin(t, setup{recipients: 1, stream: "auth", auth: "reserve: [20/1s], connections: 2", patience: 75 * time.Second,
		relay: relay.Config{Rules: []relay.Rule{rule}}})
	r.worker()
	r.send()
	r.end(out)
	all := out.account
	idle(20 * time.Second)
	r.begins("later")
	begun := time.Now()
	r.send()
	r.end(out)
	out.recovery = next(r.srv.Truth(), begun)
	all.add(out.account)
	out.account = all
	out.note("%d connections closed when idle", r.srv.Stats().RuleHits["idle"])
	if out.recovery > 5*time.Second {
		out.fail("a code took %v because warm connections had been closed", out.recovery)
	}
	return out
}

func throttledRate(t testing.TB) *result {
	r, out := begin(t, setup{rate: 2000, adaptive: true, relay: relay.Config{Profile: "throttled?rate=200/1s&open=10&per_connection=100000"}})
	r.worker()
	r.send()
	r.end(out)
	out.mayBurn = out.Recipients
	refused := r.srv.Stats().Replies["mail"]["4xx"]
	out.note("%d refused at MAIL for %d sent", refused, r.sent())
	return out
}

func tooManyConnections(t testing.TB) *result {
	r, out := begin(t, setup{connections: 10, rate: 500, relay: relay.Config{Profile: "throttled?rate=0&open=3&per_connection=1000"}})
	r.worker()
	r.send()
	r.end(out)
	out.note("%d connections for %d mails", r.srv.Stats().Connections, r.sent())
	return out
}

// loginRevoked takes the login away, with connections ended so that it matters.
func loginRevoked(t testing.TB) *result {
	r, out := begin(t, setup{proxied: true, rate: 400})
	r.worker()
	r.send()
	r.under(r.recipients / 3)
	attempts := r.srv.Stats().AuthAttempts
	r.srv.SetUsers(map[string]string{"app": "another"})
	r.toRelay.cut()
	out.mayUnknown = 2 * r.connections
	idle(5 * time.Second)
	tried := r.srv.Stats().AuthAttempts - attempts
	out.note("%d logins tried in 5 s", tried)
	if tried > 10 {
		out.fail("%d logins tried in 5 s with credentials that are refused", tried)
	}
	if s, ok := r.show(); ok && !strings.Contains(s.Held, "login") {
		out.fail("campaign show does not say that the login is refused: %+v", s)
	}
	r.srv.SetUsers(map[string]string{"app": "sec"})
	back := time.Now()
	// Nobody asks a relay that has said no again and again: a worker that starts does.
	r.worker()
	r.end(out)
	out.recovery = resumed(r.srv.Truth(), back)
	return out
}

// acceptedAndDiscarded sends through a relay whose every mail comes back. What it says of
// that is imported again and again, as an operator's timer does.
func acceptedAndDiscarded(t testing.TB) *result {
	const canary = 200
	told := filepath.Join(t.TempDir(), "feedback.jsonl")
	r, out := begin(t, setup{rate: 600, canary: "{size: " + itoa(canary) + ", wait: 10s}", breakers: "{bounced: 8%/500}",
		relay: relay.Config{Profile: "bounces?share=100%&after=200ms", FeedbackFile: told}})
	r.worker()
	r.send()
	imports := 0
	if !within(30*time.Second, func() bool {
		if _, err := os.Stat(told); err == nil {
			imports++
			if code, _, errs := r.run("feedback", "import", told); code != 0 {
				out.fail("feedback import: exit code %d: %s", code, tail(errs, 300))
			}
		}
		s, ok := r.show()
		return ok && s.Held != ""
	}) {
		out.fail("the campaign was not held after %d imports", imports)
	}
	r.still()
	if n := r.sent(); n == 0 || n > canary {
		out.fail("%d mails were sent, and the canary is %d", n, canary)
	}
	s, _ := r.show()
	out.note("held after %d of %d mails, %d known to have come back", r.sent(), r.recipients, s.Bounced)
	if code, _, errs := r.run("campaign", "cancel", r.name); code != 0 {
		out.fail("campaign cancel: %s", tail(errs, 300))
	}
	if !within(30*time.Second, func() bool { s, ok := r.show(); return ok && s.Pending == 0 }) {
		out.fail("those behind the canary are not marked as cancelled")
	}
	r.end(out)
	out.mayRefuse = r.recipients - r.sent() // cancelled
	return out
}
