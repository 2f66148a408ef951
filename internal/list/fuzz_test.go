package list

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/sluicemail/sluice/internal/mail"
)

// Whatever the file is, reading it ends, lines only go up, and what passes for a
// row is fit to be sent to.
func FuzzNext(f *testing.F) {
	for _, s := range []string{
		"email,name\na@b.co,Kim\n\n\"c@d.co\",\"Le\"\"e\"\r\n", "email\tname\n\"a@b.co\tx\ne@f.co\ty\n", "\xff\xfee\x00", "\xef\xbb\xbfemail\n",
		"email,name\na@b.co,\xc8\xab\n", "{\"email\":\"a@b.co\",\"name\":1}\n{", "email,name\na@b.co,\ufffd\n\"", "email,name\rx", "PK\x03\x04",
		"email,name\na@b.co,\xff\xff\n",
	} {
		for i := range 2 {
			f.Add([]byte(s), uint8(0), uint8(i))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, format, encoding uint8) {
		encodings := append([]string{""}, Encodings()...)
		opt := Options{Name: "x", Columns: []string{"name"}, Format: Format(format % 4), Encoding: encodings[int(encoding)%len(encodings)]}
		var bad *RowError
		var broken *FormatError
		r, err := Open(strings.NewReader(string(data)), opt)
		if err != nil {
			if !errors.As(err, &broken) {
				t.Fatalf("Open: %v, want a FormatError", err)
			}
			return
		}
		for last := 0; ; {
			row, err := r.Next()
			line := row.Line
			switch {
			case err == io.EOF:
				return
			case errors.As(err, &bad):
				line = bad.Line
				if bad.Reason == "" || !utf8.ValidString(bad.Address) {
					t.Fatalf("%#v", bad)
				}
			case errors.As(err, &broken):
				if _, again := r.Next(); again != err {
					t.Fatalf("Next after %v: %v", err, again)
				}
				return
			case err != nil:
				t.Fatalf("Next: %v", err)
			case row.Address.Domain() == "" || len(row.Values) != 1 || blank(row.Values[0]) || !utf8.ValidString(row.Values[0]) ||
				strings.ContainsAny(row.Values[0], "\r\n\x00\ufffd"):
				t.Fatalf("row %q, %q", row.Address, row.Values)
			}
			if line <= last || line > 2*len(data)+1 {
				t.Fatalf("line %d after line %d", line, last)
			}
			last = line
		}
	})
}

// CSV that the standard library takes is read as the standard library reads it.
func FuzzCSV(f *testing.F) {
	for _, s := range []string{
		"email,name\na@b.co,Kim\n", "email,name\r\n\r\n\"a@b.co\",\"Kim, \"\"J\"\"\"\r\nx\n", "email,x,name\na@b.co,\"1\n2\r\n\n3\",Kim\nc@d.co,,Lee\r",
		"name,email\n,\n  \n\"\",\"\"\n김,a@b.co", "email,name\n \ta@b.co ,x\n\"a@b.co\",\"\n\"\n",
	} {
		f.Add(s)
	}
	f.Fuzz(sameAsEncodingCSV)
}

func sameAsEncodingCSV(t *testing.T, text string) {
	std := csv.NewReader(strings.NewReader(text))
	std.FieldsPerRecord = -1
	var want, header []string
	blanks := map[string]bool{} // lines blank to us, or with empty quotes on them
	for {
		fields, err := std.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return
		}
		line, _ := std.FieldPos(0)
		switch {
		case len(fields) == 1 && blank(fields[0]):
			if header == nil {
				return // a header of nothing: a blank line to us
			}
			blanks[fmt.Sprintf("%d!", line)] = true
		case header == nil:
			header = append([]string(nil), fields...)
		default:
			want = append(want, expected(line, header, fields))
		}
	}
	r, err := Open(strings.NewReader(text), Options{Columns: []string{"name"}, Format: CSV, Encoding: "utf-8"})
	if err != nil {
		return
	}
	var got []string
	for {
		row, err := r.Next()
		var bad *RowError
		switch {
		case err == io.EOF:
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("-encoding/csv +this:\n%s", diff)
			}
			return
		case errors.As(err, &bad):
			if line := fmt.Sprintf("%d!", bad.Line); !blanks[line] {
				got = append(got, line)
			}
		case err != nil:
			t.Fatal(err)
		default:
			got = append(got, fmt.Sprintf("%d %s|%s", row.Line, row.Address, row.Values[0]))
		}
	}
}

// expected is the row that fields make under header, in the simplest words.
func expected(line int, header, fields []string) string {
	bad := fmt.Sprintf("%d!", line)
	all := strings.Join(fields, "")
	if len(fields) != len(header) || !utf8.ValidString(all) || strings.Contains(all, "\ufffd") {
		return bad
	}
	var email, name string
	for i, h := range header {
		switch h = strings.TrimSpace(h); {
		case strings.EqualFold(h, "email"):
			email = strings.TrimSpace(fields[i])
		case h == "name":
			name = fields[i]
		}
	}
	a, err := mail.ParseAddress(email)
	if err != nil || strings.TrimSpace(name) == "" || strings.ContainsAny(name, "\r\n\x00") {
		return bad
	}
	return fmt.Sprintf("%d %s|%s", line, a, name)
}

// Rows of every kind across many windows, so that every kind meets a window's end.
func TestWindows(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	kinds := []string{"u%d@example.com,Kim,\n", "u%d@example.com,\"K\"\"im\"\"\",x\r\n", "\"u%d@example.com\",김,\"1\n\n2\r\n3\"\n", "\n", "u%d,x,x\n", "u%d@example.com,,x\n",
		"u%d@example.com,\"Le\ne\",\n"}
	for range 20 {
		var text strings.Builder
		text.WriteString("email,name,memo\n")
		text.WriteString("first@example.com,Kim," + strings.Repeat("x", rnd.IntN(maxField)) + "\n")
		for text.Len() < 3*windowSize {
			kind := kinds[rnd.IntN(len(kinds))]
			if strings.Contains(kind, "%") {
				kind = fmt.Sprintf(kind, rnd.IntN(1e9))
			}
			text.WriteString(kind)
		}
		sameAsEncodingCSV(t, text.String())
	}
}
