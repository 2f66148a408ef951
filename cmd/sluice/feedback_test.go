package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/relay"
)

// lastFeedback decodes the last line of stdout.
func lastFeedback(t testing.TB, out string) feedbackJSON {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var j feedbackJSON
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &j); err != nil {
		t.Fatalf("last line of stdout %q: %v", lines[len(lines)-1], err)
	}
	return j
}

// A list of which a fifth is invalid, at a relay that accepts everything and says so only
// afterwards: the campaign holds itself while its first mails wait for what comes in.
func TestFeedbackHoldsCampaign(t *testing.T) {
	t.Parallel()
	const n, first = 20_000, 200
	file := filepath.Join(t.TempDir(), "feedback.jsonl")
	var mu sync.Mutex
	told := map[string]relay.Became{}
	r := newRig(t, rigOptions{
		redis: redistest.Start(t).URL(),
		relay: relay.Config{Profile: "bounces?share=20%&after=200ms", FeedbackFile: file, OnFeedback: func(all []relay.Became) {
			mu.Lock()
			defer mu.Unlock()
			for _, b := range all {
				told[b.Address] = b
			}
		}},
		limits: "limits: {connections: {open: 10, new: 600/1m}, messages: [20000/1s], per_connection: {messages: 5000, age: 5m, idle: 30s}}\n" +
			fmt.Sprintf("streams: {auth: {reserve: [200/1s], connections: 2}, ad: {canary: {size: %d, wait: 5s}}}\n", first),
	})
	r.start("worker")
	producer := r.start(r.send(r.list(n), "--wait", "--json")...)
	// What the operator's loop does: all of the file again and again.
	var last feedbackJSON
	imports := 0
	eventually(t, "the campaign holds itself", func() bool {
		if _, err := os.Stat(file); err != nil {
			return false
		}
		p := r.start("feedback", "import", file, "--json")
		if code := p.wait(); code != exitDone {
			t.Fatalf("exit code %d: %s", code, p.errs.String())
		}
		imports++
		last = lastFeedback(t, p.out.String())
		return len(last.Held) > 0
	})
	if h := last.Held[0]; h.Campaign != "c1" || h.Group != "" || !strings.Contains(h.Why, "hard bounces in") || h.Lift != "sluice campaign resume c1" || len(h.Examples) != 3 {
		t.Errorf("%+v", h)
	}
	if code := producer.wait(); code != exitHeld {
		t.Errorf("send --wait ends with %d: %s", code, tail(producer.errs.String(), 1000))
	}
	if sent := r.relay.Stats().Messages; sent < first || sent > 2*n/100 {
		t.Errorf("%d mails have gone of %d", sent, n)
	}
	// What was under way is told as well; then the books agree with the truth.
	eventually(t, "all is told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return int64(len(told)) == r.relay.Stats().Messages
	})
	sum := r.importFeedback(file)
	if sum.Unmatched != 0 || sum.Bad != 0 || sum.Reports != len(told) {
		t.Errorf("%+v of %d told", sum, len(told))
	}
	r.checkFeedback(told, "held")
	t.Logf("%d mails had gone when it was held; %d imports", r.relay.Stats().Messages, imports)
}

func (r *rig) importFeedback(args ...string) feedbackJSON {
	r.t.Helper()
	code, out, errs := r.run(r.t.Context(), append([]string{"feedback", "import", "--json"}, args...)...)
	if code != exitDone {
		r.t.Fatalf("exit code %d: %s", code, errs)
	}
	return lastFeedback(r.t, out)
}

// checkFeedback holds the campaign's counts and the suppression list against what the
// relay told.
func (r *rig) checkFeedback(told map[string]relay.Became, state string) {
	r.t.Helper()
	code, out, errs := r.run(r.t.Context(), "campaign", "show", "c1", "--json")
	if code != 0 {
		r.t.Fatal(errs)
	}
	s := lastJSON(r.t, out)
	if s.State != state || s.Delivered+s.Bounced != len(told) || s.Accepted != len(told) {
		r.t.Errorf("%+v; %d told", s, len(told))
	}
	if code, out, errs = r.run(r.t.Context(), "suppress", "export", "--json"); code != 0 {
		r.t.Fatal(errs)
	}
	listed := map[string]bool{}
	for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
		var row struct{ Email, Stream, Source string }
		if err := d.Decode(&row); err != nil {
			r.t.Fatal(err)
		}
		if row.Source != "feedback" || row.Stream != "all" {
			r.t.Errorf("%+v", row)
		}
		listed[row.Email] = true
	}
	bounced := 0
	for address, b := range told {
		if b.Status == "bounced" {
			bounced++
		}
		if listed[address] != (b.Status == "bounced") {
			r.t.Errorf("%s: on the list %v, told %s %q", address, listed[address], b.Status, b.Text)
		}
	}
	if bounced == 0 || bounced != s.Bounced || bounced != len(listed) {
		r.t.Errorf("%d bounced, %d counted, %d on the list", bounced, s.Bounced, len(listed))
	}
}

// Files, folders and standard input; flags; what is wrong with each.
func TestFeedbackImport(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{redis: "redis://" + miniredis.RunT(t).Addr()})
	good := r.write("good.jsonl", `{"address":"gone@naver.com","status":"bounced","text":"550 5.1.1 User unknown"}`+"\n")
	bad := r.write("bad.jsonl", "nonsense\n"+`{"address":"ok@naver.com","status":"delivered"}`+"\n")
	dir := filepath.Join(r.dir, "Maildir")
	for name, text := range map[string]string{
		"new/1": "From: a@b.kr\nSubject: no report\n\nhello\n", "cur/2:2,S": `{"address":"old@naver.com","status":"bounced","text":"556 5.1.10 null MX"}`,
		".hidden/3": "nonsense", ".4": "nonsense",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		args      string
		code      int
		out, errs string
	}{
		{good + " --dry-run --json", exitDone, `"bounced":1,"complained":0,"delayed":0,"new":0,"unmatched":0,"suppressed":0,"no_rule":0,"held":[],"dry_run":true`, ""},
		{good + " --dry-run", exitDone, "dry run: nothing was changed", ""},
		{good + " --json", exitDone, `"new":0,"unmatched":1,"suppressed":1,`, ""},
		{good, exitDone, "0 recipients counted that were not before, 0 addresses put on the suppression list, 1 reports about no campaign", ""},
		{good + " " + bad + " --json", exitPartial, `"reports":3,"bad":1,"delivered":1,"bounced":1`, "bad.jsonl:1: not a JSON object"},
		{dir + " --json", exitPartial, `"reports":2,"bad":1,"delivered":0,"bounced":1`, "new/1:1: no delivery report"},
		{"-", exitDone, "0 reports", ""},
		{"", exitUsage, "", "takes a file, a folder, or -"},
		{"nowhere", exitUsage, "", "nowhere"},
		{good + " --campaign nobody", exitUsage, "", `--campaign: no such campaign: "nobody"`},
		{good + " --within 0s", exitUsage, "", "--within 0s: want more than 0"},
		{r.write("list.csv", "email\na@b.kr\n"), exitUsage, "", "neither JSON Lines nor a mail"},
	} {
		code, out, errs := r.run(t.Context(), append([]string{"feedback", "import"}, strings.Fields(step.args)...)...)
		if code != step.code || !strings.Contains(out, step.out) || !strings.Contains(errs, step.errs) {
			t.Errorf("%s: exit code %d, want %d\n got %s\nwant %s\n%s", step.args, code, step.code, out, step.out, errs)
		}
	}
	if code, _, _ := r.run(t.Context(), "suppress", "check", "gone@naver.com"); code != exitPartial {
		t.Errorf("not on the list: %d", code)
	}
}

// Blocks that only feedback tells hold their destination, and others go on.
func TestFeedbackHoldsDestination(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{redis: redistest.Start(t).URL()})
	r.start("worker")
	list := r.write("list.csv", "email,name\na@naver.com,a\nb@naver.com,b\nc@naver.com,c\nd@naver.com,d\ne@naver.com,e\nf@hanmail.net,f\n")
	if code, out, errs := r.run(t.Context(), r.send(list, "--wait", "--json")...); code != exitDone {
		t.Fatal(code, out, errs)
	}
	var b strings.Builder
	for _, m := range r.relay.Truth() {
		if strings.HasSuffix(m.To, "@naver.com") {
			fmt.Fprintf(&b, `{"message_id":%q,"status":"bounced","text":"554 5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org","time":%q}`+"\n", m.MessageID, time.Now().Format(time.RFC3339))
		}
	}
	sum := r.importFeedback(r.write("feedback.jsonl", b.String()))
	if len(sum.Held) != 1 || sum.Held[0].Group != "naver" || sum.New != 5 || sum.Suppressed != 0 {
		t.Fatalf("%+v", sum)
	}
	next := r.write("next.csv", "email,name\na@naver.com,a\nf@hanmail.net,f\n")
	if code, _, errs := r.run(t.Context(), "send", "--to", next, "--template", "newsletter", "--from", "News <news@example.com>", "--stream", "ad", "--name", "c2"); code != exitDone {
		t.Fatal(errs)
	}
	eventually(t, "the other destination gets its mail", func() bool { return r.relay.Stats().Messages >= 7 })
	r.standsStill()
	if truth := r.relay.Truth(); len(truth) != 7 || truth[6].To != "f@hanmail.net" {
		t.Errorf("%d mails, the last to %s", len(truth), truth[len(truth)-1].To)
	}
}

// The relay's own flag goes with its profile only.
func TestRelayFeedbackFlag(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	if code, _, errs := r.run(t.Context(), "relay", "--listen", "127.0.0.1:0", "--feedback", "x"); code != exitUsage || !strings.Contains(errs, "--feedback goes with --profile bounces") {
		t.Errorf("%d %s", code, errs)
	}
	if code, _, errs := r.run(t.Context(), "relay", "--listen", "127.0.0.1:0", "--profile", "bounces"); code != exitUsage || !strings.Contains(errs, "--feedback FILE") {
		t.Errorf("%d %s", code, errs)
	}
}
