package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/sluicemail/sluice/internal/redistest"
)

func TestSuppressCommands(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{redis: "redis://" + miniredis.RunT(t).Addr()})
	today := time.Now().UTC().Format(time.DateOnly)
	for _, step := range []struct {
		args      string
		code      int
		out, errs string // lines of stdout exactly; a part of stderr
	}{
		{"add hong@naver.com kim@daum.net --stream ad --reason refused", exitDone, "hong@naver.com: added for ad: refused\nkim@daum.net: added for ad: refused\n", ""},
		{"add HONG@naver.com --stream ad --reason other", exitDone,
			"HONG@naver.com: was there and stays as it is: refused (on the suppression list for ad since " + today + ", by operator)\n", ""},
		{"add hong@naver.com", exitDone, "hong@naver.com: added for all streams: added by hand\n", ""},
		{"check hong@naver.com lee@nate.com", exitPartial, "hong@naver.com: gets no mail of all streams: added by hand (on the suppression list since " + today + ", by operator)\n" +
			"hong@naver.com: gets no mail of ad: refused (on the suppression list for ad since " + today + ", by operator)\nlee@nate.com: not on the list\n", ""},
		{"check lee@nate.com", exitDone, "lee@nate.com: not on the list\n", ""},
		{"check kim@daum.net --stream auth", exitDone, "kim@daum.net: not on the list\n", ""},
		{"check kim@daum.net --stream ad --json", exitPartial, `{"email":"kim@daum.net","suppressed":true,"entries":[{"email":"kim@daum.net","stream":"ad","reason":"refused","source":"operator","time":"` + today, ""},
		{"check lee@nate.com --json", exitDone, `{"email":"lee@nate.com","suppressed":false,"entries":[]}` + "\n", ""},
		{"remove hong@naver.com lee@nate.com", exitDone, "hong@naver.com: removed: added by hand (on the suppression list since " + today + ", by operator)\n" +
			"  still gets no mail of ad: refused (on the suppression list for ad since " + today + ", by operator)\nlee@nate.com: was not on the list for all streams\n", ""},
		{"remove kim@daum.net --stream ad --json", exitDone, `{"email":"kim@daum.net","stream":"ad","removed":true,"left":[]}` + "\n", ""},
		{"add x@example.com --json", exitDone, `{"email":"x@example.com","stream":"all","reason":"added by hand","source":"operator","time":"` + today, ""},
		{"add y@example.com nobody", exitUsage, "", `"nobody": no @ in it`},
		{"check y@example.com", exitDone, "y@example.com: not on the list\n", ""},
		{"add", exitUsage, "", "one address or more"},
		{"check a@b.kr --stream sms", exitUsage, "", `--stream "sms": want all, auth, normal or ad`},
		{"add a@b.kr --reason " + strings.Repeat("x", 81), exitUsage, "", "--reason: longer than 80 bytes"},
		{"import", exitUsage, "", "one file"},
		{"import nowhere.csv", exitUsage, "", "nowhere.csv"},
		{"import x --encoding latin", exitUsage, "", "--encoding"},
		{"frobnicate", exitUsage, "", "frobnicate"},
	} {
		code, out, errs := r.run(t.Context(), append([]string{"suppress"}, strings.Fields(step.args)...)...)
		exact := strings.HasSuffix(step.out, "\n") || step.out == ""
		if code != step.code || exact && out != step.out || !strings.HasPrefix(out, step.out) || !strings.Contains(errs, step.errs) {
			t.Errorf("%s: exit code %d, want %d\n got %s\nwant %s\n%s", step.args, code, step.code, out, step.out, errs)
		}
	}
}

func TestSuppressFiles(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{redis: "redis://" + miniredis.RunT(t).Addr()})
	file := r.write("refused.csv", "email,time\nhong@naver.com,2026-05-01\nsecret.nobody,\nkim@daum.net,\n")
	code, out, errs := r.run(t.Context(), "suppress", "import", file, "--stream", "ad", "--reason", "refused", "--dry-run")
	if code != exitPartial || out != "dry run: 3 rows, 2 good, 1 bad; nothing was added\n" || !strings.Contains(errs, "line 3: ***: no @ in it") || strings.Contains(errs, "secret") {
		t.Errorf("%d %s %s", code, out, errs)
	}
	code, out, errs = r.run(t.Context(), "suppress", "import", file, "--stream", "ad", "--reason", "refused", "--json")
	var sum importJSON
	if err := json.Unmarshal([]byte(out), &sum); err != nil || code != exitPartial || sum.Rows != 3 || sum.Added != 2 || sum.Good != 2 || sum.Bad != 1 {
		t.Errorf("%d %s %s %v", code, out, errs, err)
	}
	if code, out, errs := r.run(t.Context(), "suppress", "import", r.write("bad.csv", "mail\na@b.kr\n")); code != exitUsage || out != "" || !strings.Contains(errs, "rename") {
		t.Errorf("no email column: %d %s %s", code, out, errs)
	}
	var exported string
	for _, args := range [][]string{{"suppress", "export"}, {"suppress", "export", "--json"}} {
		if code, exported, errs = r.run(t.Context(), args...); code != exitDone || strings.Count(exported, "refused") != 2 || !strings.Contains(exported, "hong@naver.com") || errs != "" {
			t.Errorf("%v: %d %s %s", args, code, exported, errs)
		}
	}
	name := filepath.Join(r.dir, "out.jsonl")
	if code, out, errs = r.run(t.Context(), "suppress", "export", "--json", "--out", name); code != exitDone || out != "" || !strings.Contains(errs, "out.jsonl: 2 entries") {
		t.Errorf("%d %s %s", code, out, errs)
	}
	content, err := os.ReadFile(name)
	info, serr := os.Stat(name)
	if err != nil || serr != nil || string(content) != exported || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v %v: %s", err, serr, info.Mode(), content)
	}
	if code, out, errs = r.run(t.Context(), "suppress", "import", name); code != exitDone || !strings.Contains(out, "0 added, 2 known already") {
		t.Errorf("%d %s %s", code, out, errs)
	}
	if code, _, errs = r.run(t.Context(), "suppress", "export", "--out", filepath.Join(r.dir, "no", "such")); code != exitUsage || !strings.Contains(errs, "--out") {
		t.Errorf("%d %s", code, errs)
	}
	if left, err := filepath.Glob(filepath.Join(r.dir, "out.jsonl.*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Only so many bad rows are named, and the rest is counted.
func TestSuppressManyBadRows(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	file := r.write("bad.csv", "email\n"+strings.Repeat("nobody\n", maxBadShown+5))
	code, _, errs := r.run(t.Context(), "suppress", "import", file, "--dry-run")
	if code != exitPartial || strings.Count(errs, "line ") != maxBadShown || !strings.Contains(errs, "… and 5 more bad rows") {
		t.Errorf("%d %s", code, tail(errs, 200))
	}
	if code, _, errs := r.run(t.Context(), "suppress", "import", file); code != exitUsage || !strings.Contains(errs, "embedded") {
		t.Errorf("an embedded Redis: %d %s", code, tail(errs, 200))
	}
}

// A campaign leaves out who is on the list, accounts for them, and is no failure for it.
func TestSendSuppressed(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{redis: redistest.Start(t).URL()})
	r.start("worker")
	if code, _, errs := r.run(t.Context(), "suppress", "add", "r1@naver.example", "R3@naver.example", "--stream", "ad", "--reason", "수신 거부"); code != exitDone {
		t.Fatalf("%d %s", code, errs)
	}
	list := r.list(5)
	code, out, errs := r.run(t.Context(), r.send(list, "--dry-run", "--json")...)
	if code != exitDone || !strings.Contains(out, `"sendable":3`) || !strings.Contains(out, `"suppressed":2`) || !strings.Contains(out, `"suppression_checked":true`) {
		t.Errorf("dry run: %d %s %s", code, out, errs)
	}
	code, out, errs = r.run(t.Context(), r.send(list, "--wait", "--json")...)
	s := lastJSON(t, out)
	if code != exitDone || s.Accepted != 3 || s.Suppressed != 2 || s.Recipients != 5 {
		t.Errorf("%d %+v", code, s)
	}
	if !strings.Contains(errs, "enqueued 3 of 5 recipients (0 invalid, 0 duplicate, 2 suppressed)") || !strings.Contains(errs, "line 3: r***@naver.example: suppressed: 수신 거부") {
		t.Errorf("stderr: %s", errs)
	}
	rows := r.report("c1")
	for line, want := range map[string]string{"2": "accepted", "3": "suppressed", "4": "accepted", "5": "suppressed", "6": "accepted"} {
		if rows[line].Outcome != want || want == "suppressed" && !strings.HasPrefix(rows[line].Text, "수신 거부 (on the suppression list for ad since ") {
			t.Errorf("line %s: %+v", line, rows[line])
		}
	}
	for _, m := range r.relay.Truth() {
		if strings.HasPrefix(m.To, "r1@") || strings.HasPrefix(m.To, "r3@") {
			t.Errorf("the relay has mail for %s", m.To)
		}
	}
	code, out, _ = r.run(t.Context(), "send", "--to", "r1@naver.example", "--template", "code", "--from", "no-reply@example.com", "--stream", "auth", "--set", "code=123456", "--wait", "--json")
	if s := lastJSON(t, out); code != exitDone || s.Accepted != 1 {
		t.Errorf("a login code for somebody who refused advertising: %d %+v", code, s)
	}
}

// A dry run works without Redis, and says that it could not look.
func TestDryRunWithoutRedis(t *testing.T) {
	t.Parallel()
	srv := miniredis.RunT(t)
	r := newRig(t, rigOptions{redis: fmt.Sprintf("redis://%s", srv.Addr())})
	srv.Close()
	code, out, errs := r.run(t.Context(), r.send(r.list(2), "--dry-run", "--json")...)
	if code != exitDone || !strings.Contains(out, `"suppression_checked":false`) || !strings.Contains(errs, "warning: the suppression list was not looked at") {
		t.Errorf("%d %s %s", code, out, errs)
	}
}
