package list

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestForeignFiles(t *testing.T) {
	t.Parallel()
	for _, f := range foreign {
		if got := read(strings.NewReader(f.magic+"more of it"), name()); len(got) != 1 || got[0] != "stdin: "+f.advice {
			t.Errorf("%q: %q, want %q", f.magic, got, f.advice)
		}
	}
}

func TestGoldenFiles(t *testing.T) {
	t.Parallel()
	all := []string{"2 u1@example.com|똠방각하", "3 u2@example.com|펲시", "4 u3@example.com|홍길동", "5 u4@example.com|金先生", "6 u5@example.com|plain"}
	lines := []string{"1 u1@example.com|똠방각하", "2 u2@example.com|펲시", "3 u3@example.com|홍길동", "4 u4@example.com|金先生", "5 u5@example.com|plain"}
	japanese := []string{"2 a@example.com|山田太郎", "3 b@example.com|ソ能表", "4 c@example.com|髙﨑①", "5 d@example.com|佐藤花子"}
	for _, tc := range []struct {
		file, encoding string
		want           []string
	}{
		{"utf8.csv", "", all},
		{"utf8-bom.csv", "", all},
		{"utf8-bom.csv", "UTF-8", all},
		{"utf8-bom-quoted.csv", "", all},
		{"utf16le.csv", "", all},
		{"utf16be.csv", "", all},
		{"utf16be.csv", "utf-16", all},
		{"utf16le-excel.txt", "", all},
		{"utf16le-nobom.csv", "utf-16le", all},
		{"utf16le-nobom.csv", "", []string{"utf16le-nobom.csv: line 1: NUL characters: if the file is UTF-16, name its encoding as utf-16le or utf-16be"}},
		{"utf16le-nobom.csv", "utf-16", []string{"utf16le-nobom.csv: there is no byte order mark: name the encoding as utf-16le or utf-16be"}},
		{"cp949.csv", "", all},
		{"cp949.csv", "euc-kr", all},
		{"cp949-header.csv", "", []string{"2 a@example.com|똠방각하", "3 b@example.com|펲시"}},
		{"cp949.jsonl", "", lines},
		{"shift_jis.csv", "shift_jis", japanese},
		{"shift_jis.csv", "", []string{"shift_jis.csv: line 2, column 15: the text is neither UTF-8 nor Korean (EUC-KR, CP949): save it as UTF-8, or name its encoding, for instance shift_jis"}},
		{"mixed-utf8.csv", "", []string{"2 a@example.com|김철수", "3 b@example.com|똠방각하", "4! bytes that are not UTF-8 (column 2 of 2)", "5 d@example.com|펲시"}},
		{"mixed-cp949.csv", "", []string{"2 a@example.com|김철수", "3 b@example.com|똠방각하", "4! UTF-8 in a file that is CP949 (column 2 of 2)",
			"5 d@example.com|펲시", "6! bytes that are not CP949 (column 2 of 2)"}},
		{"utf16le.csv", "utf-8", []string{"utf16le.csv: it starts with the byte order mark of utf-16le, but encoding utf-8 was asked for"}},
		{"utf16le.csv", "utf-16be", []string{"utf16le.csv: it starts with the byte order mark of utf-16le, but encoding utf-16be was asked for"}},
		{"utf8-bom.csv", "utf-16", []string{"utf8-bom.csv: it starts with the byte order mark of utf-8, but encoding utf-16 was asked for"}},
	} {
		t.Run(tc.file+" as "+tc.encoding, func(t *testing.T) {
			t.Parallel()
			f, err := os.Open(filepath.Join("testdata", tc.file))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if diff := cmp.Diff(tc.want, read(f, Options{Name: tc.file, Columns: []string{"name"}, Encoding: tc.encoding})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestDamagedText(t *testing.T) {
	t.Parallel()
	const lost = "the replacement character U+FFFD: the text was damaged when it was converted"
	runReadCases(t, map[string]readCase{
		"U+FFFD": {text: "email,name\na@b.co,김\nc@d.co,\ufffd\n", want: []string{"2 a@b.co|김", "3! " + lost + " (column 2 of 2)"}},
		"U+FFFD in a column not wanted": {text: "email,name,x\na@b.co,Kim,\ufffd\nc@d.co,Lee,\n",
			want: []string{"2! " + lost + " (column 3 of 3)", "3 c@d.co|Lee"}},
		"half a pair in UTF-16":        {text: "\xff\xfee\x00m\x00a\x00i\x00l\x00\n\x00\x00\xd8\n\x00", opt: Options{Name: "x"}, want: []string{"2! " + lost + " (column 1 of 1)"}},
		"in a quoted row":              {text: "email,name\nc@d.co,\"김\n\xb1\"\ne@f.co,Yi\n", want: []string{"2! bytes that are not UTF-8 (column 2 of 2) (the row runs to line 3: is a quote missing?)", "4 e@f.co|Yi"}},
		"neither":                      {text: "email,name\na@b.co,Kim\nb@b.co,\xff\xff\n", want: []string{"2 a@b.co|Kim", "stdin: line 3, column 8: the text is neither UTF-8 nor Korean (EUC-KR, CP949): save it as UTF-8, or name its encoding, for instance shift_jis"}},
		"EUC-JP, which is valid CP949": {text: "email,name\na@b.co,\xbb\xb3\xc5\xc4\xa4\xbf\xa4\xed\xa4\xa6\n", want: []string{"stdin: line 2, column 8: the text is neither UTF-8 nor Korean (EUC-KR, CP949): save it as UTF-8, or name its encoding, for instance shift_jis"}},
		"CP949 told, UTF-8 got":        {text: "email,name\na@b.co,각각\n", opt: Options{Name: "x", Encoding: "cp949"}, want: []string{"2! UTF-8 in a file that is CP949 (column 2 of 2)"}},
	})
}

// Both are valid both ways; what is a plausible text decides.
func TestTextThatIsBoth(t *testing.T) {
	t.Parallel()
	runReadCases(t, map[string]readCase{
		"Korean":             {text: "email,name\na@b.co,\xc8\xab\n", want: []string{"2 a@b.co|홍"}},
		"German":             {text: "email,name\na@b.co,M\xc3\xbcller\n", want: []string{"2 a@b.co|Müller"}},
		"Korean in UTF-8":    {text: "email,name\na@b.co,홍\n", want: []string{"2 a@b.co|홍"}},
		"odd, but not CP949": {text: "email,name\na@b.co,ȫ ș\n", want: []string{"2 a@b.co|ȫ ș"}},
	})
}

func TestKoreanOnTheSecondLineOfARow(t *testing.T) {
	t.Parallel()
	runReadCases(t, map[string]readCase{
		"CP949": {text: "email,x,name\na@b.co,\"1\n\xc8\xab\",Kim\nc@d.co,,\xc8\xab\n", want: []string{"2 a@b.co|Kim", "4 c@d.co|홍"}},
		"neither": {text: "email,x,name\na@b.co,\"1\n\xff\xff\",Kim\n", want: []string{
			"stdin: line 2, column 1: the text is neither UTF-8 nor Korean (EUC-KR, CP949): save it as UTF-8, or name its encoding, for instance shift_jis"}},
		"JSON": {text: `{"email":"a@b.co","name":"` + "\xff\xff\"}\n", opt: Options{Name: "x.jsonl"}, want: []string{
			"x.jsonl: line 1, column 27: the text is neither UTF-8 nor Korean (EUC-KR, CP949): save it as UTF-8, or name its encoding, for instance shift_jis"}},
	})
}

// Half a character at the window's end tells nothing about the encoding: here it
// would make CP949 of what is UTF-8, Müller being valid as both.
func TestCharsetAtWindowEnd(t *testing.T) {
	t.Parallel()
	const row, last = "a@b.co,Müller\n", "b@b.co,"
	n := windowSize/len(row) - 1
	pad := windowSize - n*len(row) - len(last) - len("김") + 1
	got := read(strings.NewReader("email,name\n"+strings.Repeat(row, n)+last+strings.Repeat("x", pad)+"김\n"), name())
	if len(got) != n+1 || got[0] != "2 a@b.co|Müller" || !strings.HasSuffix(got[n], "x김") {
		t.Errorf("%d rows, the first %q, the last %q", len(got), got[0], got[len(got)-1])
	}
}

// The encoding is decided where the first text that is not ASCII stands, however
// far into the file that is, and by what follows it.
func TestLateKorean(t *testing.T) {
	t.Parallel()
	const plain = 20_000
	got := read(strings.NewReader("email,name\n"+strings.Repeat("a@b.co,Kim\n", plain)+"b@b.co,\xc8\xab\xb1\xe6\xb5\xbf\n"), name())
	if len(got) != plain+1 || got[plain] != "20002 b@b.co|홍길동" {
		t.Errorf("%d rows, the last %q", len(got), got[len(got)-1])
	}
}
