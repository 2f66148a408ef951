package suppress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluicemail/sluice/internal/list"
)

func TestImport(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		file, text string
		want       []string // address, found
	}{
		"csv": {"a.csv", "time,email,stream,x\n2026-05-03,A@b.kr,AD,1\n2026-05-04T00:30:00+09:00,c@b.kr,,2\n2026-05-05 12:00,d@b.kr,all,3\n", []string{
			"a@b.kr", "ad import 3 by the file|", "c@b.kr", "normal import 3 by the file|", "d@b.kr", "all import 5 by the file|"}},
		"a line break is a bad row": {"a.jsonl", `{"email":"a@b.kr","reason":"없는 주소","source":"verdict","time":"2026-05-03 12:00:01","detail":"550 5.1.1\r\nno <a@b.kr>"}` + "\n", []string{}},
		"json":                      {"-", `{"email":"a@b.kr","reason":"없는 주소","source":"verdict","time":"2026-05-03 12:00:01","detail":"550 5.1.1 no <a@b.kr>"}` + "\n", []string{"a@b.kr", "normal verdict 3 없는 주소|550 5.1.1 no <…>"}},
		"tabs":                      {"a.txt", "email\tstream\na@b.kr\tauth\n", []string{"a@b.kr", "auth import 0 by the file|"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := quick(t)
			sum, err := l.Import(t.Context(), strings.NewReader(tc.text), Input{Name: tc.file, Scope: Normal, Reason: "by the file"})
			if err != nil || sum.Added != len(tc.want)/2 || sum.Added+sum.Bad != sum.Rows {
				t.Errorf("%+v, %v", sum, err)
			}
			for w := range slices.Chunk(tc.want, 2) {
				want := strings.Replace(w[1], " 0 ", fmt.Sprintf(" %d ", time.Now().UTC().Day()), 1)
				if got := found(t, l, w[0]); got != want {
					t.Errorf("%s: %s, want %s", w[0], got, want)
				}
			}
		})
	}
}

// A bad row is named with its line and stops nobody; importing again changes nothing.
func TestImportBadRows(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, l *List) {
		text := "email,stream,reason,source,time\nnobody,,,,\nb@b.kr,sms,,,\nc@b.kr,,,friend,\nd@b.kr,,,,yesterday\n" +
			"e@b.kr,," + strings.Repeat("r", maxReason+1) + ",,\nf@b.kr,,,,1969-01-01\ng@b.kr\nh@b.kr,ad,,,2026-05-02\nh@b.kr,ad,,,2026-05-01\nh@b.kr,ad,,,2026-05-03\n\"'=i@b.kr\",,,,\n"
		var bad []string
		in := Input{Name: "list.csv", Bad: func(e *list.RowError) { bad = append(bad, fmt.Sprintf("%d %s: %s", e.Line, e.Address, e.Reason)) }}
		if sum, err := Read(t.Context(), strings.NewReader(text), in); err != nil || sum != (Imported{Rows: 11, Added: 4, Bad: 7}) {
			t.Errorf("read only: %+v, %v", sum, err)
		}
		if n, err := l.Count(t.Context()); n != 0 || err != nil {
			t.Errorf("a mere reading added %d, %v", n, err)
		}
		bad = nil
		sum, err := l.Import(t.Context(), strings.NewReader(text), in)
		if err != nil || sum != (Imported{Rows: 11, Added: 2, Earlier: 1, Known: 1, Bad: 7}) {
			t.Errorf("%+v, %v", sum, err)
		}
		want := []string{"2 nobody: no @ in it", `3 b@b.kr: stream "sms": want all, auth, normal or ad`, `4 c@b.kr: source "friend": want verdict, operator, import or feedback`,
			`5 d@b.kr: time "yesterday": want 2006-01-02T15:04:05+09:00, or 2006-01-02 15:04:05 or 2006-01-02 in local time`, "6 e@b.kr: reason: longer than 80 bytes (81)",
			"7 f@b.kr: time 1969-01-01: want one between 1970 and 2106", "8 g@b.kr: 1 column, but the header has 5 columns"}
		if d := cmp.Diff(want, bad); d != "" {
			t.Error(d)
		}
		if got := found(t, l, "=i@b.kr"); got == "" {
			t.Error("the apostrophe of a spreadsheet was taken for a part of the address")
		}
		if sum, err := l.Import(t.Context(), strings.NewReader(text), in); err != nil || sum != (Imported{Rows: 11, Known: 4, Bad: 7}) {
			t.Errorf("again: %+v, %v", sum, err)
		}
	})
}

func TestImportWholeFile(t *testing.T) {
	t.Parallel()
	l := quick(t)
	for text, want := range map[string]string{
		"":                      "empty",
		"mailAddress\na@b.kr\n": `rename "mailAddress" to "email"`,
		"a@b.kr\nc@b.kr\n":      "a header row is needed",
	} {
		var format *list.FormatError
		if _, err := l.Import(t.Context(), strings.NewReader(text), Input{Name: "list.csv"}); !errors.As(err, &format) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// endless is a file without end, of which every 10,000 rows are reported.
type endless struct{ n int }

func (e *endless) Read(p []byte) (int, error) {
	if e.n++; e.n == 1 {
		return copy(p, "email\n"), nil
	}
	return copy(p, fmt.Sprintf("u%d@example.com\n", e.n)), nil
}

func TestImportEnds(t *testing.T) {
	t.Parallel()
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		rows := 0
		sum, err := quick(t).Import(ctx, &endless{}, Input{Name: "x.csv", Progress: func(n int) { rows = n; cancel() }})
		if !errors.Is(err, context.Canceled) || rows != 10_000 || sum.Rows != rows || sum.Added > rows {
			t.Errorf("%+v after %d rows, %v", sum, rows, err)
		}
	})
	t.Run("without redis", func(t *testing.T) {
		t.Parallel()
		l := quick(t)
		closing := Input{Name: "x.csv", Progress: func(int) { _ = l.rdb.Close() }}
		if sum, err := l.Import(t.Context(), &endless{}, closing); err == nil || errors.Is(err, context.Canceled) || sum.Added == 0 {
			t.Errorf("%+v, %v", sum, err)
		}
	})
	t.Run("a broken file", func(t *testing.T) {
		t.Parallel()
		broken := errors.New("disk on fire")
		src := io.MultiReader(strings.NewReader("email\na@b.kr\nb@b"), &failing{broken})
		l := quick(t)
		if sum, err := l.Import(t.Context(), src, Input{Name: "x.csv"}); !errors.Is(err, broken) || sum.Rows != 1 {
			t.Errorf("%+v, %v", sum, err)
		}
	})
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// What was exported can be imported: the same entries, in CSV and in JSON.
func TestExport(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, l *List) {
		for i, local := range []string{"hong", "=cmd|calc", "+82", "-dash", "'quoted", "'=both", "''twice", "|pipe"} {
			a := address(t, local+"@example.com")
			add(t, l, Entry{a, Scope(i % 4), `=SUM(1), "quoted"; 이유`, Source(1 + i%4), day(1 + i), "550 'why' <x@y.kr>, \"no\""},
				Entry{a, Scope((i + 1) % 4), "'an apostrophe", ByOperator, day(20), ""})
		}
		for _, o := range []Output{{}, {JSON: true}} {
			var first, second strings.Builder
			calls := 0
			o.Progress = func(int) { calls++ }
			n, err := l.Export(t.Context(), &first, o)
			if err != nil || n != 16 || calls == 0 {
				t.Fatalf("%d entries, %v, progress %d times", n, err, calls)
			}
			for line := range strings.Lines(first.String()) {
				if !o.JSON && strings.ContainsAny(line[:1], "=+-|") {
					t.Errorf("a formula: %s", line)
				}
			}
			other := New(l.rdb, "other")
			if o.JSON {
				other = New(l.rdb, "third")
			}
			sum, err := other.Import(t.Context(), strings.NewReader(first.String()), Input{Name: "-"})
			if err != nil || sum != (Imported{Rows: 16, Added: 16}) {
				t.Errorf("%+v, %v", sum, err)
			}
			if _, err := other.Export(t.Context(), &second, o); err != nil {
				t.Error(err)
			}
			if d := cmp.Diff(first.String(), second.String()); d != "" {
				t.Error(d)
			}
		}
		if _, err := l.Export(t.Context(), &broken{}, Output{}); err == nil {
			t.Error("a full disk went unnoticed")
		}
	})
}

type broken struct{}

func (*broken) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// Two exports of the same entries are the same, also of addresses in one bucket.
func TestExportOrder(t *testing.T) {
	t.Parallel()
	l := quick(t)
	var want []string
	for i := 0; len(want) < 20; i++ {
		a := fmt.Sprintf("user%07d@example.com", i)
		if l.bucketKey(a) == l.bucket(7) {
			want = append(want, a)
			add(t, l, Entry{Address: address(t, a), Source: ByOperator})
		}
	}
	var out strings.Builder
	if _, err := l.Export(t.Context(), &out, Output{}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		a, _, _ := strings.Cut(line, ",")
		got = append(got, a)
	}
	if d := cmp.Diff(want, got[1:]); d != "" {
		t.Error(d)
	}
}

func TestCell(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"a": "a", "": "", "=a": "'=a", "'a": "''a", "'=a": "''=a", "''": "'''", "@x": "'@x"} {
		if got := cell(in); got != want || uncell(got) != in {
			t.Errorf("%q: %q, back %q", in, got, uncell(got))
		}
	}
	if got := uncell("'tis"); got != "'tis" {
		t.Errorf("a mere apostrophe: %q", got)
	}
}

func FuzzCell(f *testing.F) {
	f.Add("'=x")
	f.Fuzz(func(t *testing.T, s string) {
		if got := uncell(cell(s)); got != s {
			t.Errorf("%q: %q", s, got)
		}
	})
}

func FuzzImport(f *testing.F) {
	f.Add("email,stream,reason,source,time,detail\na@b.kr,ad,x,import,2026-01-02,550 no\n")
	f.Add(`{"email":"a@b.kr","time":"2026-05-03T12:00:01Z","detail":"x"}`)
	f.Fuzz(func(t *testing.T, s string) {
		bad := 0
		good := 0
		sum, err := read(t.Context(), strings.NewReader(s), Input{Name: "x", Bad: func(*list.RowError) { bad++ }}, func(b []Entry) {
			good += len(b)
			for _, e := range b {
				if e.Reason == "" || len(e.Reason) > maxReason || len(e.Detail) > maxDetail || strings.ContainsAny(e.Reason+e.Detail, "\r\n\x00") {
					t.Errorf("%+v", e)
				}
			}
		})
		if sum.Bad != bad || sum.Rows != sum.Added+sum.Bad || (err == nil && good != sum.Added) {
			t.Errorf("%+v, %d bad, %d good, %v", sum, bad, good, err)
		}
	})
}
