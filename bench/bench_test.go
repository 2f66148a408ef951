package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"math"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/templates"
)

// TestMain lets the test binary be its own child, as the program is.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == childCommand {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

func TestSeries(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		s      series
		median float64
		shown  string
	}{
		"odd":   {series{3, 1, 2}, 2, "2.0 (1.0–3.0)"},
		"even":  {series{4, 1, 2, 3}, 2.5, "2.5 (1.0–4.0)"},
		"one":   {series{1234567.25}, 1234567.25, "1,234,567.2"},
		"minus": {series{-1234, -1234}, -1234, "-1,234.0 (-1,234.0–-1,234.0)"},
	} {
		if got := tc.s.median(); got != tc.median {
			t.Errorf("%s: median %v, want %v", name, got, tc.median)
		}
		if got := tc.s.show(1); got != tc.shown {
			t.Errorf("%s: %q, want %q", name, got, tc.shown)
		}
	}
	if got := (series{}).median(); !math.IsNaN(got) {
		t.Errorf("the median of nothing is %v", got)
	}
	// Run by run, and not median by median: 10/1, 20/4, 90/3.
	if got := (series{10, 20, 90}).over(series{1, 4, 3}); !cmp.Equal(got, series{10, 5, 30}) {
		t.Errorf("ratios %v", got)
	}
}

func TestPeople(t *testing.T) {
	t.Parallel()
	const n = 20_000
	var a, b bytes.Buffer
	for _, w := range []io.Writer{&a, &b} {
		if err := writeList(w, n); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the same number gives different lists")
	}
	rows := strings.Split(strings.TrimSuffix(a.String(), "\n"), "\n")
	if len(rows) != n+1 || rows[0] != "email,name" {
		t.Fatalf("%d rows, the first %q", len(rows), rows[0])
	}
	seen := map[string]bool{}
	for _, row := range rows[1:] {
		email, name, _ := strings.Cut(row, ",")
		if _, err := mail.ParseAddress(email); err != nil || seen[email] {
			t.Errorf("%q: %v, seen before: %t", row, err, seen[email])
		}
		if len([]rune(name)) != 3 {
			t.Errorf("%q: want a name of three syllables", row)
		}
		seen[email] = true
	}
}

// TestSameLetter: the baseline makes the same mail as the program, or its time says
// nothing.
func TestSameLetter(t *testing.T) {
	t.Parallel()
	full := fullLetter()
	tmpl, err := templates.Parse("letter", full.source())
	if err != nil {
		t.Fatal(err)
	}
	o, err := letterOptions(mail.Normal, settings())
	if err != nil {
		t.Fatal(err)
	}
	p, err := tmpl.Compile(o)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := p.Render(nil, templates.Recipient{Email: "minjun.kim@naver.example", Values: []string{"김민준"}, MessageID: "1@mulgil.example", Date: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	obvious, err := full.obvious()
	if err != nil {
		t.Fatal(err)
	}
	data := settings()
	data["name"] = "김민준"
	var theirs bytes.Buffer
	if err := obvious.render(&theirs, "minjun.kim@naver.example", "1", data); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(read(t, theirs.Bytes()), read(t, ours)); diff != "" {
		t.Errorf("baseline and program differ (-baseline +program):\n%s", diff)
	}
	if n := len(full.html); n < 10_000 || n > 11_000 {
		t.Errorf("%d bytes of HTML, want about 10 KB", n)
	}
	content, err := wireMail()
	if n := len(content); err != nil || n < 9_500 || n > 11_000 {
		t.Errorf("%d bytes on the wire, want about 10 KB (%v)", n, err)
	}
}

// read returns what a recipient sees: subject and the parts.
func read(t *testing.T, content []byte) []string {
	t.Helper()
	m, err := netmail.ReadMessage(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	out := []string{subject, m.Header.Get("To")}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		part, err := r.NextRawPart()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, part))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.ReplaceAll(string(body), "\r\n", "\n"))
	}
}

// TestMeasure runs each kind of sender once: measure fails unless every mail is
// accepted exactly once.
func TestMeasure(t *testing.T) {
	t.Parallel()
	b := &bench{ctx: t.Context(), out: io.Discard, err: t.Output(), dir: t.TempDir(), runs: 1, window: 50 * time.Millisecond, large: 1000}
	for _, s := range []setup{
		{kind: "sluice", connections: 2}, {kind: "sluice", connections: 2, tls: true},
		{kind: "asynq", connections: 2}, {kind: "asynq", connections: 2, tls: true},
		{kind: "bare", connections: 2}, {kind: "bare", connections: 2, tls: true},
	} {
		t.Run(fmt.Sprintf("%s TLS %t", s.kind, s.tls), func(t *testing.T) {
			got, err := b.measure(s, 500)
			if err != nil {
				t.Fatal(err)
			}
			if !(got.rate > 0) || got.length <= 0 {
				t.Errorf("%v messages/s in %v", got.rate, got.length)
			}
		})
	}
}

func TestPrinted(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := run(t.Context(), []string{"-quick", "-runs", "1", "render"}, &out, t.Output()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"machine: ", "commit: ", "command: `./scripts/bench -quick -runs 1 render`", "## render", "baseline"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
	if err := run(t.Context(), []string{"speed"}, &out, t.Output()); err == nil || !strings.Contains(err.Error(), "roundtrips") {
		t.Errorf("an unknown name: %v, want one that lists the names", err)
	}
}
