package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/relay"
)

const listedReply = "554 5.7.1 Service unavailable; client host [192.0.2.1] blocked using zen.spamhaus.org"

// A fifth of a list of 100,000 is nobody's address, and the relay says so at once. The
// campaign holds itself before 500 of them have gone, with the canary and without.
func TestBadListIsStopped(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]rigOptions{
		"canary":  {limits: rigLimits},
		"breaker": {limits: "streams: {ad: {canary: {size: off}}}\n"}, // the limits that there are by default
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := redistest.Start(t)
			o.redis = srv.URL()
			o.relay.Rules = []relay.Rule{{Stage: relay.Rcpt, Share: 0.2, Reply: "550 5.1.1 No such user here"}}
			r := newRig(t, o)
			r.start("worker")
			r.start("worker")
			code, out, errs := r.run(t.Context(), r.send(r.list(100_000), "--wait", "--json")...)
			s := lastJSON(t, out)
			if code != exitHeld || s.State != "held" || !strings.Contains(errs, "hard bounces") {
				t.Errorf("%d %+v %s", code, s, tail(errs, 1000))
			}
			still := r.standsStill()
			rcpt := r.relay.Stats().Replies["rcpt"]
			if gone := rcpt["2xx"] + rcpt["5xx"]; gone > 500 || rcpt["5xx"] == 0 {
				t.Errorf("%d mails had gone", gone)
			}
			t.Logf("held after %d mails, %d refused; %d accepted", rcpt["2xx"]+rcpt["5xx"], rcpt["5xx"], still)
		})
	}
}

// standsStill waits until nothing more is sent, and returns how many MAILs there were.
func (r *rig) standsStill() int {
	r.t.Helper()
	last, quiet := -1, 0
	eventually(r.t, "it stands still", func() bool {
		n := len(r.relay.MailTimes())
		if n != last {
			last, quiet = n, 0
			return false
		}
		quiet++
		return quiet > 100
	})
	return last
}

// mixed writes a list of n recipients at naver.com, n at addresses of no group, by turns.
func (r *rig) mixed(n int) string {
	var b strings.Builder
	b.WriteString("email,name\n")
	for i := range n {
		fmt.Fprintf(&b, "a%d@naver.com,A\nb%d@other.example,B\n", i, i)
	}
	return r.write("mixed.csv", b.String())
}

// to counts what the relay accepted for a domain.
func (r *rig) to(domain string) (n int) {
	for m := range r.relay.Messages() {
		if strings.HasSuffix(m.To, "@"+domain) {
			n++
		}
	}
	return n
}

// A receiver blocks us: nothing more goes to it, everybody else gets their mail, and
// those who wait get theirs when the hold has ended. Only the replies that were heard
// cost a recipient.
func TestBlockedDestination(t *testing.T) {
	t.Parallel()
	const n = 2000
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{
		redis: srv.URL(), relay: relay.Config{Rules: []relay.Rule{{Stage: relay.Rcpt, Domain: "naver.com", Reply: listedReply}}},
		limits: "limits: {messages: [500/1s]}\nbreakers: {group: {hold: 40s}}\n",
	})
	w := r.start("worker")
	if code, _, errs := r.run(t.Context(), r.send(r.mixed(n))...); code != exitDone {
		t.Fatal(errs)
	}
	eventually(t, "everybody else has theirs", func() bool { return r.to("other.example") == n })
	if !strings.Contains(w.errs.String(), "destination group held by a breaker") {
		t.Error("the group is not held")
	}
	refused := r.relay.Stats().Replies["rcpt"]["5xx"]
	if err := r.relay.SetProfile("nhn"); err != nil {
		t.Fatal(err)
	}
	code, out, errs := r.run(t.Context(), r.send(r.mixed(n), "--wait", "--json")...)
	s := lastJSON(t, out)
	if code != exitPartial || s.Accepted+s.Rejected != 2*n || int64(s.Rejected) != refused {
		t.Errorf("%d %+v %s", code, s, tail(errs, 500))
	}
	if s.Rejected > n/10 {
		t.Errorf("%d mails went to a receiver that blocks us", s.Rejected)
	}
	t.Logf("%d refused before the group was held", refused)
	reconcile(t, values(r.report("c1")), r.relay.Truth())
}

// withPasswordFile is a relay section whose password is read from a file.
func withPasswordFile(srv *relay.Server) string {
	return strings.Replace(relayYAML(srv, ""), "password: sec", "password_file: secret", 1)
}

// The relay refuses the login: the stream is held, nobody is used up, and once the file
// with the password is corrected the same worker goes on.
func TestPasswordFileIsCorrected(t *testing.T) {
	t.Parallel()
	const n = 300
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), yaml: withPasswordFile})
	r.write("secret", "wrong\n")
	w := r.start("worker")
	code, out, errs := r.run(t.Context(), r.send(r.list(n), "--wait", "--json")...)
	if s := lastJSON(t, out); code != exitHeld || s.Pending != n || !strings.Contains(errs, "535") {
		t.Errorf("%d %+v %s", code, s, errs)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "secret"), []byte("sec\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes on", func() bool { return r.relay.Stats().Messages == n })
	r.wantOnce(n)
	// One attempt of each stream that connects (auth keeps connections open), or two.
	if f := r.relay.Stats().AuthFailures; f > 4 {
		t.Errorf("%d refused logins", f)
	}
	if strings.Contains(w.errs.String(), "wrong\"") || strings.Contains(w.errs.String(), "=sec") {
		t.Error("a secret is in the log")
	}
}

// wantOnce waits for the campaign's end: everybody accepted, at the first attempt.
func (r *rig) wantOnce(n int) {
	r.t.Helper()
	code, out, errs := r.run(r.t.Context(), r.send(r.list(n), "--wait", "--json")...)
	if s := lastJSON(r.t, out); code != exitDone || s.Accepted != n {
		r.t.Errorf("%d %+v %s", code, s, tail(errs, 500))
	}
	rows := r.report("c1")
	for _, row := range rows {
		if row.Attempts != 1 {
			r.t.Fatalf("line %d has %d attempts", row.Line, row.Attempts)
		}
	}
	others := func(m relay.Accepted) bool { return m.Stream != "ad" }
	reconcile(r.t, values(rows), slices.DeleteFunc(r.relay.Truth(), others))
}

// In mid-campaign the relay begins to refuse what no retry mends: all workers stop
// within a second, nobody is used up, and after the fix everybody gets theirs once.
func TestConfigRefusedInMidCampaign(t *testing.T) {
	t.Parallel()
	const n = 3000
	for name, tc := range map[string]struct {
		rule relay.Rule
		lift []string
	}{
		"sender at MAIL": {relay.Rule{Stage: relay.Mail, Reply: "550 5.7.1 Sender address rejected: domain not verified"}, []string{"campaign", "resume", "c1"}},
		"SPF at DATA":    {relay.Rule{Stage: relay.Data, Reply: "550 5.7.1 SPF check failed for the sender's domain"}, []string{"campaign", "resume", "c1"}},
		"login at MAIL":  {relay.Rule{Stage: relay.Mail, Reply: "530 5.7.0 Authentication required"}, []string{"limits", "reset", "--yes"}},
		"login at DATA":  {relay.Rule{Stage: relay.Data, Reply: "530 5.7.0 Authentication required"}, []string{"limits", "reset", "--yes"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := redistest.Start(t)
			r := newRig(t, rigOptions{
				redis: srv.URL(), limits: "limits: {messages: [500/1s]}\n",
				relay: relay.Config{RoundTrip: 20 * time.Millisecond}, // so that several connections are at it
			})
			r.start("worker")
			r.start("worker")
			if code, _, errs := r.run(t.Context(), r.send(r.list(n))...); code != exitDone {
				t.Fatal(errs)
			}
			eventually(t, "it is under way", func() bool { return r.relay.Stats().Messages > n/4 })
			tc.rule.Name = "refusal"
			if err := r.relay.SetProfile("nhn", tc.rule); err != nil {
				t.Fatal(err)
			}
			code, out, errs := r.run(t.Context(), r.send(r.list(n), "--wait", "--json")...)
			if s := lastJSON(t, out); code != exitHeld || s.Rejected+s.Deferred+s.Unknown > 0 {
				t.Errorf("%d %+v %s", code, s, tail(errs, 500))
			}
			r.standsStill()
			// At 500 a second and one hold for all, this is what a second may cost.
			hits := r.relay.Stats().RuleHits["refusal"]
			if hits > 500 {
				t.Errorf("%d were refused before all had stopped", hits)
			}
			if err := r.relay.SetProfile("nhn"); err != nil {
				t.Fatal(err)
			}
			if code, _, errs := r.run(t.Context(), tc.lift...); code != exitDone {
				t.Fatal(errs)
			}
			r.wantOnce(n)
			t.Logf("%d refused before all had stopped; %v", hits, strings.TrimSpace(tail(errs, 300)))
		})
	}
}
