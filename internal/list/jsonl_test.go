package list

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestJSONLines(t *testing.T) {
	t.Parallel()
	opt := Options{Name: "x.ndjson", Columns: []string{"name", "n"}, Optional: map[string]bool{"n": true}}
	runReadCases(t, map[string]readCase{
		"kinds of values": {opt: opt, text: `{"email":"a@b.co","name":"Kim","n":12}` + "\n" + `{"name":true,"n":-1.50e3,"EMAIL":" c@d.co "}` + "\r\n\n" +
			`  {"email":"e@f.co","name":0,"n":null,"z":[{"email":1}]} `, want: []string{"1 a@b.co|Kim|12", "2 c@d.co|true|-1.50e3", "4 e@f.co|0|"}},
		"nothing of the row before": {opt: opt, text: `{"email":"a@b.co","name":"Kim","n":12}` + "\n" + `{"email":"c@d.co","name":"Lee"}` + "\n" + `{"name":"Yi"}`,
			want: []string{"1 a@b.co|Kim|12", "2 c@d.co|Lee|", "3! no address"}},
		"escapes":     {opt: opt, text: `{"email":"a\u0040b.co","\u006eame":"\uae40 \"J\"","n":"\\"}`, want: []string{`1 a@b.co|김 "J"|\`}},
		"by content":  {text: "\n" + `{"email":"a@b.co","name":"Kim"}`, want: []string{"2 a@b.co|Kim"}},
		"no email":    {opt: opt, text: `{"name":"Kim"}` + "\n{}\n", want: []string{"1! no address", "2! no address"}},
		"no variable": {opt: opt, text: `{"email":"a@b.co"}` + "\n" + `{"email":"a@b.co","name":null}`, want: []string{`1! no value for "name"`, `2! no value for "name"`}},
		"twice":       {opt: opt, text: `{"email":"a@b.co","Email":"c@d.co"}` + "\n" + `{"email":"a@b.co","name":1,"name":2}`, want: []string{`1! "Email" is in it twice`, `2! "name" is in it twice`}},
		"nested": {opt: opt, text: `{"email":"a@b.co","name":{"a":1}}` + "\n" + `{"email":"a@b.co","name":["Kim"]}`,
			want: []string{`1! the value of "name" is not a string, number, true or false`, `2! the value of "name" is not a string, number, true or false`}},
		"not objects": {opt: opt, text: "1\nemail,name\n\"x\"\n" + `{"email":"a@b.co","name":"Kim"} {}` + "\n" + `{"email":"a@b.co"`,
			want: []string{"1! not a JSON object", "2! not a JSON object", "3! not a JSON object", "4! something follows the JSON object",
				"5! not JSON: the line ends in the middle of the object"}},
		"control characters": {opt: opt, text: `{"email":"a@b.co","name":"a\nb"}` + "\n" + `{"email":"a@b.co","name":"a\u0000"}` + "\n" + `{"email":"a@b.co\r\nX: y","name":"a"}`,
			want: []string{`1! a line break in the value of "name"`, `2! a NUL character in the value of "name"`, `3! domain "b.co\r\nX: y" is not a host name with a dot`}},
		"half a pair":          {opt: opt, text: `{"email":"a@b.co","name":"\ud83d"}` + "\n" + `{"email":"a@b.co","name":"\ud83d\ude00"}`, want: []string{`1! the value of "name" has half a surrogate pair or U+FFFD in it`, "2 a@b.co|😀|"}},
		"not UTF-8":            {opt: opt, text: `{"email":"a@b.co","name":"김"}` + "\n" + `{"email":"a@b.co","name":"` + "\xb1\"}", want: []string{"1 a@b.co|김|", "2! bytes that are not UTF-8"}},
		"email as a variable":  {opt: Options{Name: "x.jsonl", Columns: []string{"email"}}, text: `{"email":"a@b.co"}`, want: []string{"1 a@b.co|a@b.co"}},
		"U+FFFD written out":   {opt: opt, text: `{"email":"a@b.co","name":"\ufffd"}`, want: []string{`1! the value of "name" has half a surrogate pair or U+FFFD in it`}},
		"bad value not wanted": {opt: opt, text: `{"email":"a@b.co","name":"Kim","z":"\ud83d"}`, want: []string{"1 a@b.co|Kim|"}},
	})
}

func TestBrokenJSON(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		`{"email":"a@b.co",}`, `{"email":"a@b.co","name":01}`, `{"email":"a@b.co","name":1x}`, `{"email":"a@b.co","name":"\x"}`,
		`{"email":"a@b.co" "name":"Kim"}`, `{"email":"a@b.co","name":'Kim'}`, `{email:"a@b.co"}`, `{"email" "a@b.co"}`, `{"email":"a@b.co`, `{"email":"a@b.co","name":tru}`,
		"{\"email\":\"a@b.co\",\"name\":\"K\tim\"}",
	} {
		got := read(strings.NewReader(line+"\n"+`{"email":"c@d.co","name":"Lee"}`), Options{Name: "x.jsonl", Columns: []string{"name"}})
		if len(got) != 2 || !strings.HasPrefix(got[0], "1! not JSON: ") || got[1] != "2 c@d.co|Lee" {
			t.Errorf("%s: %q", line, got)
		}
	}
}

// The fast way through an object is a short cut of the slow one and finds the
// same, and that is what encoding/json finds.
func FuzzObject(f *testing.F) {
	for _, s := range []string{
		`{"email":"a@b.co","name":"Kim"}`, `{"email":"\uae40","n":1}`, `{"a":true,"name":null,"n":-0.5e1}`, `{}`, ` { "n" : 0 , "x" : [ {} ] } `,
		`{"n":01}`, `{"n":1,"n":2}`, `{"name":"\ud800"}`, `{"EMAIL":""}x`, `{"n":`,
	} {
		f.Add(s)
	}
	read := func(s string, way func(*object, string) bool) (email string, values []string, ok bool) {
		r := &Reader{opt: Options{Columns: []string{"name", "n"}}, values: make([]string, 2), have: make([]bool, 3)}
		o := object{reader: r}
		ok = way(&o, s)
		return o.email, r.values, ok
	}
	f.Fuzz(func(t *testing.T, s string) {
		if r := (&Reader{charset: namedCharset("utf-8")}); len(s) > 1000 {
			return
		} else if _, fault := r.decode(s); fault != "" {
			return
		}
		fastEmail, fast, ok := read(s, (*object).scan)
		slowEmail, slow, right := read(s, func(o *object, s string) bool { return o.parse(s) == nil })
		if ok && (!right || fastEmail != slowEmail || fast[0] != slow[0] || fast[1] != slow[1]) {
			t.Fatalf("%q: scan finds %q, %q; parse (%v) %q, %q", s, fastEmail, fast, right, slowEmail, slow)
		}
		var m map[string]json.RawMessage
		err := json.Unmarshal([]byte(s), &m)
		if right && err != nil {
			t.Fatalf("%q: parse takes it, encoding/json says %v", s, err)
		}
		if !right {
			return
		}
		for i, name := range []string{"name", "n"} {
			var want string
			if json.Unmarshal(m[name], &want) == nil && want != slow[i] {
				t.Fatalf("%q: %s is %q, encoding/json says %q", s, name, slow[i], want)
			}
		}
	})
}
