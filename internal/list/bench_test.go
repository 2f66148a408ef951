package list

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/text/encoding/korean"

	"github.com/sluicemail/sluice/internal/mail"
)

const benchRows = 100_000

// drain reads everything and returns how many rows were good.
func drain(tb testing.TB, opt Options, src io.Reader) (rows int) {
	tb.Helper()
	r, err := Open(src, opt)
	if err != nil {
		tb.Fatal(err)
	}
	for {
		switch _, err := r.Next(); {
		case err == io.EOF:
			return rows
		case err != nil:
			tb.Fatal(err)
		}
		rows++
	}
}

func benchText(header, format string, name func(i int) string) string {
	var b strings.Builder
	b.WriteString(header)
	for i := range benchRows {
		fmt.Fprintf(&b, format, i, name(i))
	}
	return b.String()
}

func BenchmarkNext(b *testing.B) {
	ascii := func(i int) string { return fmt.Sprintf("Hong Gildong %d", i%1000) }
	hangul := func(i int) string { return "홍길" + string(rune('가'+i%11172)) }
	cp949, err := korean.EUCKR.NewEncoder().String(benchText("email,name\n", "user%d@example.com,%s\n", hangul))
	if err != nil {
		b.Fatal(err)
	}
	for _, bc := range []struct{ name, text string }{
		{"csv", benchText("email,name\n", "user%d@example.com,%s\n", ascii)},
		{"csv-hangul", benchText("email,name\n", "user%d@example.com,%s\n", hangul)},
		{"csv-quoted", benchText("email,name\n", "\"user%d@example.com\",\"%s\"\n", ascii)},
		{"csv-cp949", cp949},
		{"jsonl", benchText("", "{\"email\":\"user%d@example.com\",\"name\":\"%s\"}\n", ascii)},
		{"jsonl-escaped", benchText("", "{\"email\":\"user%d@example.com\",\"name\":\"\\u0041%s\"}\n", ascii)},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bc.text)))
			for b.Loop() {
				if n := drain(b, name(), strings.NewReader(bc.text)); n != benchRows {
					b.Fatalf("%d rows", n)
				}
			}
			b.ReportMetric(float64(b.N)*benchRows/b.Elapsed().Seconds(), "rows/s")
		})
	}
	// The yardstick: the standard library on the same rows, without parsing addresses.
	b.Run("encoding-csv", func(b *testing.B) {
		text := benchText("email,name\n", "user%d@example.com,%s\n", ascii)
		b.ReportAllocs()
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			r := csv.NewReader(strings.NewReader(text))
			r.ReuseRecord = true
			for {
				if _, err := r.Read(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(b.N)*benchRows/b.Elapsed().Seconds(), "rows/s")
	})
}

func BenchmarkSeen(b *testing.B) {
	addresses := make([]mail.Address, 1_000_000)
	for i := range addresses {
		addresses[i] = address(b, fmt.Sprintf("user%d@example.com", i))
	}
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		var s Seen
		for _, a := range addresses {
			s.Add(a)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(s.Len()), "B/address")
	}
	b.ReportMetric(float64(b.N)*float64(len(addresses))/b.Elapsed().Seconds(), "adds/s")
}

func address(tb testing.TB, s string) mail.Address {
	tb.Helper()
	a, err := mail.ParseAddress(s)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}
