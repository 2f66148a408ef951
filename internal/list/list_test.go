package list

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// read returns what the reader made of src, one string a row:
// "LINE ADDRESS|VALUE|…" or "LINE! REASON", and at last any error but io.EOF.
func read(src io.Reader, opt Options) (got []string) {
	r, err := Open(src, opt)
	if err != nil {
		return []string{err.Error()}
	}
	for {
		row, err := r.Next()
		var bad *RowError
		switch {
		case err == io.EOF:
			return got
		case errors.As(err, &bad):
			got = append(got, fmt.Sprintf("%d! %s", bad.Line, bad.Reason))
		case err != nil:
			return append(got, err.Error())
		default:
			got = append(got, fmt.Sprintf("%d %s", row.Line,
				strings.Join(append([]string{row.Address.String()}, row.Values...), "|")))
		}
	}
}

func name() Options { return Options{Name: "stdin", Columns: []string{"name"}} }

type readCase struct {
	text string
	opt  Options
	want []string
}

func runReadCases(t *testing.T, cases map[string]readCase) {
	t.Helper()
	for title, tc := range cases {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			if tc.opt.Name == "" {
				tc.opt = name()
			}
			if diff := cmp.Diff(tc.want, read(strings.NewReader(tc.text), tc.opt)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(tc.want, read(iotest.OneByteReader(strings.NewReader(tc.text)), tc.opt)); diff != "" {
				t.Errorf("byte by byte, -want +got:\n%s", diff)
			}
		})
	}
}

func TestRows(t *testing.T) {
	t.Parallel()
	two := Options{Name: "a.csv", Columns: []string{"city", "name"}, Optional: map[string]bool{"city": true}}
	runReadCases(t, map[string]readCase{
		"plain":                  {text: "email,name\na@b.co,Kim\nc@d.co,Lee\n", want: []string{"2 a@b.co|Kim", "3 c@d.co|Lee"}},
		"no line end at the end": {text: "email,name\na@b.co,Kim", want: []string{"2 a@b.co|Kim"}},
		"CR LF, lone CR at end":  {text: "email,name\r\na@b.co,Kim\r\nc@d.co,Lee\r", want: []string{"2 a@b.co|Kim", "3 c@d.co|Lee"}},
		"blank lines counted":    {text: "\n \nemail,name\n\n\r\na@b.co,Kim\n  \nc@d.co,Lee\n", want: []string{"6 a@b.co|Kim", "8 c@d.co|Lee"}},
		"header only":            {text: "email,name\n"},
		"header trimmed, any case of email": {text: " name , E-ID, EMail\nKim,x,a@b.co\n",
			want: []string{"2 a@b.co|Kim"}},
		"white space round the address":                 {text: "email,name\n \ta@b.co\u3000,Kim\n", want: []string{"2 a@b.co|Kim"}},
		"values are not trimmed":                        {text: "email,name\na@b.co, Kim \n", want: []string{"2 a@b.co| Kim "}},
		"order of the options, optional column missing": {text: "name,email\nKim,a@b.co\n", opt: two, want: []string{"2 a@b.co||Kim"}},
		"optional value empty":                          {text: "name,email,city\nKim,a@b.co,\n", opt: two, want: []string{"2 a@b.co||Kim"}},
		"email is a variable as well": {text: "EMAIL\n a@B.co\n", opt: Options{Name: "x.csv", Columns: []string{"email", "EMAIL"}},
			want: []string{"2 a@b.co|a@B.co|a@B.co"}},
		"no variables, no other column": {text: "email\na@b.co\n", opt: Options{Name: "x"}, want: []string{"2 a@b.co"}},
		"unnamed columns on the right":  {text: "email,name,,\na@b.co,Kim,,\n", want: []string{"2 a@b.co|Kim"}},
		"no value":                      {text: "email,name\na@b.co,\nc@d.co, \u3000\n", want: []string{`2! no value for "name"`, `3! no value for "name"`}},
		"wrong column count": {text: "email,name\na@b.co\nc@d.co,Lee,x\ne@f.co,Yi\n",
			want: []string{"2! 1 column, but the header has 2 columns", "3! 3 columns, but the header has 2 columns", "4 e@f.co|Yi"}},
		"address faults": {text: "email,name\n,Kim\nx,Lee\na..b@docomo.ne.jp,Sato\na@b.co\x00,Yi\nKim <a@b.co>,Kim\n", want: []string{
			"2! no address", "3! no @ in it",
			"4! a dot at the start of, or doubled in, the part before @ (RFC 5321 wants it quoted, which is not supported)",
			`5! domain "b.co\x00" is not a host name with a dot`, "6! the character ' ' is not allowed before @"}},
		"CR and NUL in a value": {text: "email,name\na@b.co,K\rim\nc@d.co,L\x00\ne@f.co,Yi\n",
			want: []string{`2! a line break in the value of "name"`, `3! a NUL character in the value of "name"`, "4 e@f.co|Yi"}},
		"control in a column not wanted": {text: "email,name,x\na@b.co,Kim,\"1\n2\"\nc@d.co,Lee,3\n", want: []string{"2 a@b.co|Kim", "4 c@d.co|Lee"}},
		"tsv by name":                    {text: "email\tname\na@b.co\tKim, Lee\n", opt: Options{Name: "A.TSV", Columns: []string{"name"}}, want: []string{"2 a@b.co|Kim, Lee"}},
		"tsv by content":                 {text: "email\tname\na@b.co\t\"Ki\"\"m\"\n", want: []string{`2 a@b.co|Ki"m`}},
		"tsv by option": {text: "email\tname\na@b.co\tKim\n", opt: Options{Name: "a.csv", Format: TSV, Columns: []string{"name"}},
			want: []string{"2 a@b.co|Kim"}},
		"tabs alone are values": {text: "email\tname\n\t\n", want: []string{"2! no address"}},
	})
}

func TestQuotes(t *testing.T) {
	t.Parallel()
	const (
		front  = "a quote that closes in front of other text: one is missing, or one inside the value is not doubled"
		inside = "a quote inside a value that has none round it"
		open   = "a quote that does not close within 100 lines and 64 KB"
	)
	runReadCases(t, map[string]readCase{
		"all quoted":       {text: "\"email\",\"name\"\r\n\"a@b.co\",\"Kim, \"\"J\"\"\"\r\n\"c@d.co\",\"Lee\"", want: []string{`2 a@b.co|Kim, "J"`, "3 c@d.co|Lee"}},
		"empty quotes":     {text: "email,name\na@b.co,\"\"\n\"\",x\n", want: []string{`2! no value for "name"`, "3! no address"}},
		"bare at the end":  {text: "email,name\n\"a@b.co\",Kim", want: []string{"2 a@b.co|Kim"}},
		"bare, CR at end":  {text: "email,name\n\"a@b.co\",Kim\r", want: []string{"2 a@b.co|Kim"}},
		"lone CR at end":   {text: "email,name\na@b.co,\"Kim\"\r", want: []string{"2 a@b.co|Kim"}},
		"over three lines": {text: "email,memo,name\n\"a@b.co\",\"1\n2\r\n3\",Kim\nc@d.co,,Lee\n", want: []string{"2 a@b.co|Kim", "5 c@d.co|Lee"}},
		"line break in a value": {text: "email,name\na@b.co,\"K\nim\"\nc@d.co,Lee\n",
			want: []string{`2! a line break in the value of "name" (the row runs to line 3: is a quote missing?)`, "4 c@d.co|Lee"}},
		"never closed": {text: "email,name\na@b.co,Kim\nc@d.co,\"Lee\ne@f.co,Yi\ng@h.co,Oh\n",
			want: []string{"2 a@b.co|Kim", "3! " + open + " (line 3, column 8)", "4 e@f.co|Yi", "5 g@h.co|Oh"}},
		"closed by the next quote": {text: "email,name\nc@d.co,\"Lee\ne@f.co,Yi\ng@h.co,\"Oh\"\n",
			want: []string{"2! " + front + " (line 2, column 8)", "3 e@f.co|Yi", "4 g@h.co|Oh"}},
		"text behind": {text: "email,name\nc@d.co,\"Lee\" Jr\ne@f.co,Yi\n", want: []string{"2! " + front + " (line 2, column 8)", "3 e@f.co|Yi"}},
		"CR behind":   {text: "email,name\nc@d.co,\"Lee\"\r,\ne@f.co,Yi\n", want: []string{"2! " + front + " (line 2, column 8)", "3 e@f.co|Yi"}},
		"inside":      {text: "email,name\nc@d.co,김 \"Lee\"\ne@f.co,Yi\n", want: []string{"2! " + inside + " (line 2, column 10)", "3 e@f.co|Yi"}},
		"on the second line of a row": {text: "email,memo,name\na@b.co,\"1\n2\",\"Kim\ne@f.co,,Yi\n",
			want: []string{"2! " + open + " (line 3, column 4); lines 2 to 3 are left out", "4 e@f.co|Yi"}},
		"99 line breaks": {text: "email,x,name\na@b.co,\"" + strings.Repeat("\n", 99) + "\",Kim\ne@f.co,,Yi\n",
			want: []string{"2 a@b.co|Kim", "102 e@f.co|Yi"}},
		"in the header": {text: "email,\"name\na@b.co,Kim\n", want: []string{"stdin: line 1: header row: " + open + " (line 1, column 7)"}},
	})
}

func TestQuoteOverTooManyLines(t *testing.T) {
	t.Parallel()
	got := read(strings.NewReader("email,x,name\na@b.co,\""+strings.Repeat("z@b.co,,Z\n", 100)+"\",Kim\ne@f.co,,Yi\n"), name())
	if len(got) != 102 {
		t.Fatalf("%d rows, want the bad one, the 99 lines after it, the stray end and the good one:\n%q", len(got), got)
	}
	if want := "2! a quote that does not close within 100 lines and 64 KB (line 2, column 8)"; got[0] != want {
		t.Errorf("first: %q, want %q", got[0], want)
	}
	if got[1] != "3 z@b.co|Z" || got[101] != "103 e@f.co|Yi" || !strings.HasPrefix(got[100], "102! ") {
		t.Errorf("after it: %q … %q, %q", got[1], got[100], got[101])
	}
}

func TestLengths(t *testing.T) {
	t.Parallel()
	x := strings.Repeat("x", maxField)
	header, good := "email,name,x\n", "z@b.co,Oh,\n"
	runReadCases(t, map[string]readCase{
		"longest value":        {text: header + "a@b.co,Kim," + x + "\n" + good, want: []string{"2 a@b.co|Kim", "3 z@b.co|Oh"}},
		"longest quoted value": {text: header + "a@b.co,Kim,\"" + x + "\"\n" + good, want: []string{"2 a@b.co|Kim", "3 z@b.co|Oh"}},
		"value too long": {text: header + "a@b.co," + x + "x,\n" + good,
			want: []string{`2! the value of "name" is longer than 64 KB`, "3 z@b.co|Oh"}},
		"quoted value too long": {text: header + "a@b.co,Kim,\"" + x + "x\"\n" + good,
			want: []string{"2! a quote that does not close within 100 lines and 64 KB (line 2, column 12)", "3 z@b.co|Oh"}},
		"longest row": {text: header + "a@b.co," + x[:maxField-20] + "," + x + "\n" + good, opt: Options{Name: "x"},
			want: []string{"2 a@b.co", "3 z@b.co"}},
		"row too long":        {text: header + "a@b.co," + x + "," + x + "\n" + good, want: []string{"2! a row longer than 128 KB", "3 z@b.co|Oh"}},
		"quoted row too long": {text: header + "\"a@b.co\"," + x + "," + x + "\n" + good, want: []string{"2! a row longer than 128 KB (line 2, column 65547)", "3 z@b.co|Oh"}},
		"1 MB in one value":   {text: header + "a@b.co,Kim," + strings.Repeat(x, 16) + "\n" + good, want: []string{"2! a row longer than 128 KB", "3 z@b.co|Oh"}},
		"1 MB in quotes": {text: header + "a@b.co,Kim,\"" + strings.Repeat(x, 16) + "\"\n" + good,
			want: []string{"2! a quote that does not close within 100 lines and 64 KB (line 2, column 12)", "3 z@b.co|Oh"}},
		"1 MB of JSON": {text: `{"email":"a@b.co","name":"` + strings.Repeat(x, 16) + "\"}\n" + `{"email":"z@b.co","name":"Oh"}`,
			want: []string{"1! a row longer than 128 KB", "2 z@b.co|Oh"}},
		"value of JSON too long": {text: `{"email":"a@b.co","name":"` + x + "x\"}\n" + `{"email":"z@b.co","name":"Oh"}`,
			want: []string{`1! the value of "name" is longer than 64 KB`, "2 z@b.co|Oh"}},
		"header too long": {text: "email," + x + x + "\n", want: []string{"stdin: line 1: header row: a row longer than 128 KB"}},
	})
}

func TestHeaderFaults(t *testing.T) {
	t.Parallel()
	runReadCases(t, map[string]readCase{
		"empty":            {text: "", want: []string{"stdin: the file is empty"}},
		"blank":            {text: "\n \r\n\n", want: []string{"stdin: the file is empty"}},
		"BOM alone":        {text: "\ufeff", want: []string{"stdin: the file is empty"}},
		"empty JSON Lines": {text: "\n", opt: Options{Name: "x.jsonl"}, want: []string{"x.jsonl: the file is empty"}},
		"no email":         {text: "id,name\n1,Kim\n", want: []string{`stdin: line 1: there is no column "email", but "id", "name"`}},
		"e-mail":           {text: "\nE-Mail,name\n", want: []string{`stdin: line 2: there is no column "email", but "E-Mail", "name": rename "E-Mail" to "email"`}},
		"Korean":           {text: "이름,이메일 주소\n", want: []string{`stdin: line 1: there is no column "email", but "이름", "이메일 주소": rename "이메일 주소" to "email"`}},
		"Japanese":         {text: "氏名,メールアドレス\n", want: []string{`stdin: line 1: there is no column "email", but "氏名", "メールアドレス": rename "メールアドレス" to "email"`}},
		"no header":        {text: "Kim,a@b.co\nLee,c@d.co\n", want: []string{"stdin: line 1: the first line is a recipient: a header row is needed above it, such as email,name"}},
		"semicolons": {text: "id;name\n1;Kim\n", want: []string{
			`stdin: line 1: there is no column "email", but "id;name": are the columns separated by ";"? Separate them by commas (CSV) or tabs (TSV)`}},
		"semicolons, with email": {text: "email;name\na@b.co;Kim\n", want: []string{
			`stdin: line 1: there is no column "email", but "email;name": are the columns separated by ";"? Separate them by commas (CSV) or tabs (TSV)`}},
		"tabs in a .csv": {text: "email\tname\n", opt: Options{Name: "a.csv"}, want: []string{
			`a.csv: line 1: there is no column "email", but "email\tname": are the columns separated by "\t"? Separate them by commas (CSV) or tabs (TSV)`}},
		"missing variables": {text: "email,Name,x\n", opt: Options{Name: "a.csv", Columns: []string{"x", "name", "city"}}, want: []string{
			`a.csv: line 1: there is no column "name" (rename "Name"?), there is no column "city", but "email", "Name", "x"`}},
		"twice":        {text: "email,name,name\n", want: []string{`stdin: line 1: two columns are called "name"`}},
		"email twice":  {text: "email,Email\n", want: []string{`stdin: line 1: two columns are called email: "email" and "Email"`}},
		"CR line ends": {text: "email,name\ra@b.co,Kim\rc@d.co,Lee\r", want: []string{"stdin: line 1: a line that ends in CR alone: save the file with LF or CR LF"}},
		"many columns": {text: "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21\n", want: []string{`stdin: line 1: there is no column "email", but ` +
			`"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19" and 2 more`}},
		"header in no known encoding": {text: "email,\xff\xff\na@b.co,Kim\n", want: []string{"stdin: line 1, column 7: the text is neither UTF-8 nor Korean (EUC-KR, CP949): save it as UTF-8, or name its encoding, for instance shift_jis"}},
		"JSON array":                  {text: "[\n{\"email\":\"a@b.co\"}]\n", opt: Options{Name: "a.json"}, want: []string{"a.json: line 1: this is a JSON array: write one object a line, without brackets and commas between them (jq -c '.[]')"}},
		"unknown encoding":            {text: "email\n", opt: Options{Name: "a.csv", Encoding: "latin1"}, want: []string{`read a.csv: encoding "latin1": want one of utf-8, utf-16, utf-16le, utf-16be, euc-kr, cp949, shift_jis`}},
	})
	var broken *FormatError
	if _, err := Open(strings.NewReader("\nid\n"), Options{Name: "a.csv"}); !errors.As(err, &broken) || broken.Name != "a.csv" || broken.Line != 2 {
		t.Errorf("Open = %#v, want a FormatError of a.csv, line 2", err)
	}
}

func TestRowErrorForTheReport(t *testing.T) {
	t.Parallel()
	for title, tc := range map[string]struct{ row, address string }{
		"as written":       {" Kim@ ,x", "Kim@"},
		"wrong count":      {"kim@b.co", "kim@b.co"},
		"cut":              {strings.Repeat("가", 200) + "@b.co,x", strings.Repeat("가", 106) + "…"},
		"not UTF-8":        {"\xff@b.co,김", "\ufffd@b.co"},
		"quote further on": {"kim@b.co,\"x", "kim@b.co"},
		"too long":         {"kim@b.co," + strings.Repeat("x", maxRow), "kim@b.co"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			r, err := Open(strings.NewReader("email,name\n"+tc.row+"\n"), Options{Name: "x.csv", Columns: []string{"name"}, Encoding: "utf-8"})
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.Next()
			var bad *RowError
			if !errors.As(err, &bad) || bad.Address != tc.address {
				t.Fatalf("Next: %#v, want a RowError with address %q", err, tc.address)
			}
			if strings.Contains(err.Error(), tc.address) {
				t.Errorf("the message %q has the address in it", err)
			}
			if len(bad.Reason) > 2*maxShown {
				t.Errorf("a reason of %d bytes", len(bad.Reason))
			}
		})
	}
}

func TestReadErrors(t *testing.T) {
	t.Parallel()
	broken := errors.New("disk on fire")
	for title, tc := range map[string]struct {
		text string
		want []string
	}{
		"at once":            {"", []string{"read stdin: disk on fire"}},
		"in the header":      {"email,na", []string{"read stdin after line 0: disk on fire"}},
		"in a quoted header": {"email,\"na\nme", []string{"read stdin after line 0: disk on fire"}},
		"in a row":           {"email,name\na@b.co,Kim\nc@d.co,Le", []string{"2 a@b.co|Kim", "read stdin after line 2: disk on fire"}},
		"in a quoted row":    {"email,name\na@b.co,\"Kim\"\nc@d.co,\"Le\ne", []string{"2 a@b.co|Kim", "read stdin after line 2: disk on fire"}},
		"after a quote":      {"email,name\na@b.co,Kim\n\"c@d.co\",\"1\n2\"", []string{"2 a@b.co|Kim", "read stdin after line 2: disk on fire"}},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			got := read(io.MultiReader(strings.NewReader(tc.text), iotest.ErrReader(broken)), name())
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	r, err := Open(io.MultiReader(strings.NewReader("email,name\n"), iotest.ErrReader(broken)), name())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := r.Next(); !errors.Is(err, broken) {
			t.Errorf("Next: %v, want %v every time", err, broken)
		}
	}
}

type idleReader struct{}

func (idleReader) Read([]byte) (int, error) { return 0, nil }

func TestIdleReader(t *testing.T) {
	t.Parallel()
	_, err := Open(io.MultiReader(strings.NewReader("email,nam"), idleReader{}), Options{Name: "x"})
	if !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("Open: %v, want io.ErrNoProgress", err)
	}
}

// Whoever hashes the source while it is read has hashed all of it at io.EOF.
func TestReadsToTheEnd(t *testing.T) {
	t.Parallel()
	for _, size := range []int{10, windowSize - 20, windowSize - 11, windowSize, 3 * windowSize} {
		text := "email\n" + strings.Repeat("a@b.co    \n", size/11)
		src := strings.NewReader(text)
		if n := drain(t, Options{Name: "x"}, src); n != size/11 || src.Len() != 0 {
			t.Errorf("%d rows of %d, %d bytes not read", n, size/11, src.Len())
		}
	}
}

// A value outlives the row and the window it came from.
func TestValuesStay(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	text.WriteString("email,name\n")
	for i := range 30_000 {
		fmt.Fprintf(&text, "u%d@example.com,name%d\n", i, i)
	}
	r, err := Open(strings.NewReader(text.String()), name())
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for {
		row, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, row.Address.String()+row.Values[0])
	}
	if len(kept) != 30_000 {
		t.Fatalf("%d rows", len(kept))
	}
	for i, k := range kept {
		if want := fmt.Sprintf("u%d@example.comname%d", i, i); k != want {
			t.Fatalf("row %d is %q, want %q", i, k, want)
		}
	}
}

func TestHeader(t *testing.T) {
	t.Parallel()
	for src, want := range map[string]string{"email, name ,x\na@b.kr,n,1\n": "email|name|x", `{"email":"a@b.kr"}` + "\n": ""} {
		r, err := Open(strings.NewReader(src), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.Header(), "|"); got != want {
			t.Errorf("header of %q: %q, want %q", src, got, want)
		}
	}
}
