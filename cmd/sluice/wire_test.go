package main

import (
	"os"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/redistest"
)

// twoInstallations are two configurations of one account at one relay, on one Redis,
// that differ in redis.prefix: the first has the default, the other one that begins
// with it.
func twoInstallations(t *testing.T, srv *redistest.Server) (first, second *rig) {
	t.Helper()
	first = newRig(t, rigOptions{redis: srv.URL(), limits: strings.NewReplacer("20000/1s", "20000/1s, 90000/24h", "200/1s", "200/1s, 900/24h").Replace(rigLimits)})
	conf, err := os.ReadFile(first.file)
	if err != nil {
		t.Fatal(err)
	}
	file := first.write("second.yaml", strings.Replace(string(conf), "}", ", prefix: sluice-2}", 1)) // of the redis section
	return first, &rig{t: t, relay: first.relay, dir: first.dir, file: file}
}

func (r *rig) shown(name string) summaryJSON {
	r.t.Helper()
	code, out, errs := r.run(r.t.Context(), "campaign", "show", name, "--json")
	if code == exitFailed || code == exitUsage {
		r.t.Fatalf("show %s: exit code %d: %s", name, code, errs)
	}
	return lastJSON(r.t, out)
}

// Campaigns of the same name are two, and each worker takes its own installation's jobs.
func TestInstallationsKeepApart(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	first, second := twoInstallations(t, srv)
	// What waits longest would be taken first, if it were seen.
	if code, _, errs := second.run(t.Context(), second.send(second.list(3))...); code != exitDone {
		t.Fatalf("send: exit code %d: %s", code, errs)
	}
	first.start("worker")
	code, out, errs := first.run(t.Context(), first.send(first.list(5), "--wait", "--json")...)
	if s := lastJSON(t, out); code != exitDone || s.Recipients != 5 || s.Accepted != 5 {
		t.Fatalf("send --wait: exit code %d: %+v %s", code, s, errs)
	}
	if s := second.shown("c1"); s.Recipients != 3 || s.Pending != 3 {
		t.Errorf("the other's, which nobody works for yet: %+v", s)
	}
	second.start("worker")
	eventually(t, "its own worker sends it", func() bool { return second.shown("c1").Accepted == 3 })
	if s := first.shown("c1"); s.Recipients != 5 || s.Accepted != 5 {
		t.Errorf("the first's in the end: %+v", s)
	}
	if n := len(first.relay.Truth()); n != 8 {
		t.Errorf("the relay has %d mails, want 8", n)
	}
	rdb := redis.NewClient(&redis.Options{Addr: srv.Addr()})
	defer rdb.Close()
	for _, q := range rdb.SMembers(t.Context(), "asynq:queues").Val() {
		if !strings.HasPrefix(q, "sluice-2-") && q != "sluice-ad" && q != "sluice-auth" && q != "sluice-normal" {
			t.Errorf("a queue of nobody's: %s", q)
		}
	}
	for _, key := range rdb.Keys(t.Context(), "*").Val() {
		if family, _, _ := strings.Cut(key, ":"); family != "sluice" && family != "sluice-2" && family != "asynq" {
			t.Errorf("a key of nobody's: %s", key)
		}
	}
}

// Who is on the list of one gets the other's mail, and what one sends uses up nothing of
// the other's budget, at the same account.
func TestInstallationsShareNoListAndNoBudget(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	first, second := twoInstallations(t, srv)
	if code, _, errs := first.run(t.Context(), "suppress", "add", "r0@naver.example"); code != exitDone {
		t.Fatalf("suppress add: exit code %d: %s", code, errs)
	}
	for r, want := range map[*rig]int{first: exitPartial, second: exitDone} { // on the list, not on the list
		if code, out, errs := r.run(t.Context(), "suppress", "check", "r0@naver.example"); code != want {
			t.Errorf("%s: suppress check: exit code %d, want %d: %s%s", r.file, code, want, out, errs)
		}
	}
	first.start("worker")
	code, out, errs := first.run(t.Context(), first.send(first.list(5), "--wait", "--json")...)
	if s := lastJSON(t, out); s.Suppressed != 1 || s.Accepted != 4 {
		t.Fatalf("send --wait: exit code %d: %+v %s", code, s, errs)
	}
	used, other := shownLimits(t, first), shownLimits(t, second)
	if used.Account != other.Account {
		t.Fatalf("accounts %s and %s: this test is about one", used.Account, other.Account)
	}
	if spent(used) == 0 || spent(other) != 0 || len(other.Holders) != 0 {
		t.Errorf("used %d by the first, %d by the other: %+v", spent(used), spent(other), other)
	}
	second.start("worker")
	code, out, errs = second.run(t.Context(), second.send(second.list(3), "--wait", "--json")...)
	if s := lastJSON(t, out); code != exitDone || s.Suppressed != 0 || s.Accepted != 3 {
		t.Errorf("the other's send --wait: exit code %d: %+v %s", code, s, errs)
	}
	if other = shownLimits(t, second); spent(other) == 0 {
		t.Errorf("the other used nothing of its own: %+v", other)
	}
}

// spent is how many messages of the last day count: a window that outlasts the test.
func spent(j limitsJSON) int {
	for _, w := range j.Windows {
		if w.Limit == "limits.messages 90000/24h" {
			return w.Used
		}
	}
	return 0
}
