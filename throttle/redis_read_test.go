package throttle

import (
	"reflect"
	"testing"
)

// What another version of the program, or a person, left in the state is an
// error or ignored, and never stops a process.
func FuzzState(f *testing.F) {
	for _, seed := range [][2]string{
		{"b:ad", "1 2 3 4 5 6"}, {"b:ad", "1 2"}, {"b:ad", "x"}, {"w:ad", "421"}, {"d:ad", "ad:o:1 1 2 ad:o:2 3 4"},
		{"d:ad", "ad:o:1 1"}, {"l:ad:f", "17 535 5.7.8"}, {"l:ad:f", ""}, {"f:new.example", "17"}, {"f:*", "-"}, {"", ""},
		{"a:auth", "ad"}, {"a:", ""},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, field, value string) {
		u := usage{firsts: map[string]int64{}, breakers: map[string]breaker{}, logins: map[string]string{}}
		_ = u.read(field, value)
		_ = u.showBreakers(epoch())
	})
}

func TestReadState(t *testing.T) {
	t.Parallel()
	u := usage{firsts: map[string]int64{}, breakers: map[string]breaker{}, logins: map[string]string{}}
	for field, value := range map[string]string{
		"b:ad": "1 2 3 4 5 6", "w:ad": "421 no", "d:ad": "ad:o:1 7 8 ad:o:2 9 10", "l:ad:f": "11 535 5.7.8", "f:a.example": "12",
		"a:auth": "ad",
	} {
		if err := u.read(field, value); err != nil {
			t.Errorf("%s: %v", field, err)
		}
	}
	want := usage{
		firsts: map[string]int64{"a.example": 12},
		breakers: map[string]breaker{"ad": {since: 1, last: 2, next: 3, early: 4, fails: 5, at: 6, why: "421 no",
			dials: []ungreeted{{"ad:o:1", 7, 8}, {"ad:o:2", 9, 10}}}},
		refused: []refusedLogin{{"ad", "f", "535 5.7.8", 11}},
		logins:  map[string]string{"auth": "ad"},
	}
	if !reflect.DeepEqual(u, want) {
		t.Errorf("got %+v, want %+v", u, want)
	}
	for field, value := range map[string]string{"b:ad": "1 2", "d:ad": "x 1", "l:ad:f": "no", "f:a": "x"} {
		if err := u.read(field, value); err == nil {
			t.Errorf("%s %q: no error", field, value)
		}
	}
}

func TestReadAnswers(t *testing.T) {
	t.Parallel()
	list := func(xs ...any) []any { return xs }
	for _, answer := range [][]any{nil, list(list(), list(), list(), 7), list(list("x"), list(), list(), "7"),
		list(list(), list("a"), list(), "7"), list(list(), list("a", "b"), list(), "7"), list(list(), list(), list("f:a", "x"), "7")} {
		if _, err := readUsage(answer); err == nil {
			t.Errorf("usage %v: no error", answer)
		}
	}
	for _, answer := range [][]any{nil, list(1, 2), list(list(int64(1)), list())} {
		if _, err := readRenewed(answer, 2); err == nil {
			t.Errorf("renewed %v: no error", answer)
		}
	}
}
