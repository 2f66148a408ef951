package main

import (
	"encoding/csv"
	"strings"
	"testing"

	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/relay"
)

// The report has a row for every row of the list, in CSV and in JSON Lines, and
// what a spreadsheet would run as a formula is defused.
func TestReport(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), relay: relay.Config{Rules: []relay.Rule{
		{Stage: relay.Rcpt, To: "gone@*", Reply: "550 5.1.1 =HYPERLINK(\"http://evil.example\") no such user"},
	}}})
	r.start("worker")
	list := r.write("list.csv", "email,name\ngood@naver.example,홍길동\ngone@naver.example,김철수\n=bad,이영희\n")
	if code, _, errs := r.run(t.Context(), r.send(list, "--wait")...); code != exitPartial {
		t.Fatalf("%d %s", code, errs)
	}
	code, out, errs := r.run(t.Context(), "campaign", "report", "c1")
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if code != 0 || err != nil || len(rows) != 4 {
		t.Fatalf("%d %v %s\n%s", code, err, errs, out)
	}
	if got, want := strings.Join(rows[0], ","), "line,address,outcome,code,enhanced,text,attempts,time,maybe_twice"; got != want {
		t.Errorf("header %s, want %s", got, want)
	}
	for i, want := range []string{"2|good@naver.example|accepted|250|2.0.0|", "3|gone@naver.example|rejected|550|5.1.1|'=HYPERLINK", "4|'=bad|invalid|||"} {
		if got := strings.Join(rows[i+1], "|"); !strings.HasPrefix(got, want) {
			t.Errorf("row %q, want %q…", got, want)
		}
	}
	if n := len(r.report("c1")); n != 3 {
		t.Errorf("%d rows in JSON", n)
	}
	code, out, _ = r.run(t.Context(), "campaign", "list")
	if code != 0 || !strings.Contains(out, "c1") || !strings.Contains(out, "done") {
		t.Errorf("list: %d %s", code, out)
	}
	code, out, _ = r.run(t.Context(), "campaign", "show", "c1")
	if code != 0 || !strings.Contains(out, "accepted         1") || !strings.Contains(out, "rejected         1") {
		t.Errorf("show: %d %s", code, out)
	}
	if code, _, errs = r.run(t.Context(), "campaign", "report", "nowhere"); code != exitUsage || !strings.Contains(errs, "campaign list") {
		t.Errorf("report of nothing: %d %s", code, errs)
	}
}
