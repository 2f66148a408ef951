package mail

import (
	"errors"
	"regexp"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ in, want, fault string }{
		"plain":             {"hong@example.com", "hong@example.com", ""},
		"plus and dot":      {"a.b+c@example.co.kr", "a.b+c@example.co.kr", ""},
		"upper-case domain": {"Hong@Example.COM", "Hong@example.com", ""},
		"idn":               {"a@예시.한국", "a@xn--vv4b11d.xn--3e0b707e", ""},
		"non-ascii local":   {"한글@example.com", "", "SMTPUTF8"},
		"no at":             {"hong", "", "no @"},
		"no local":          {"@example.com", "", "nothing before @"},
		"no dot in domain":  {"a@localhost", "", "not a host name"},
		"address literal":   {"a@[127.0.0.1]", "", "not a host name"},
		"ip as domain":      {"a@127.0.0.1", "", "not a host name"},
		"doubled dot":       {"a..b@docomo.ne.jp", "", "doubled"},
		"dot before at":     {"a.@docomo.ne.jp", "", "just before @"},
		"parameter":         {"a> SIZE=1@example.com", "", "not allowed"},
		"quoted":            {`"a@b> ORCPT=x"@example.com`, "", "not allowed"},
		"crlf":              {"a\r\nRCPT TO:<x@y.com>@example.com", "", "not allowed"},
		"nul":               {"a\x00@example.com", "", "not allowed"},
		"space":             {"a b@example.com", "", "not allowed"},
		"crlf in domain":    {"a@example.com\r\nDATA", "", "not a host name"},
		"hyphen edge":       {"a@-example.com", "", "not a host name"},
		"long local":        {strings.Repeat("a", 65) + "@example.com", "", "64"},
		"display name":      {"Hong <hong@example.com>", "", "not allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseAddress(tc.in)
			if tc.fault == "" && (err != nil || got.String() != tc.want) {
				t.Fatalf("ParseAddress(%q) = %q, %v; want %q", tc.in, got, err, tc.want)
			}
			if tc.fault != "" && (err == nil || !strings.Contains(err.Error(), tc.fault)) {
				t.Fatalf("ParseAddress(%q) = %q, %v; want an error with %q", tc.in, got, err, tc.fault)
			}
		})
	}
	if _, err := ParseAddress("한@example.com"); !errors.Is(err, ErrNonASCIILocal) {
		t.Errorf("non-ASCII local part: %v; want ErrNonASCIILocal", err)
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"a@b.co", "가@나.다", "a@b.c\r\n", `"x"@y.z`, "a@B.C."} {
		f.Add(s)
	}
	wire := regexp.MustCompile(`\A[!-;=?-~]+@[a-z0-9.-]+\z`)
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		if w := a.String(); !wire.MatchString(w) || strings.Count(w, "@") != 1 || len(w) > maxAddress {
			t.Fatalf("ParseAddress(%q) let %q through", s, w)
		}
		if again, err := ParseAddress(a.String()); err != nil || again != a {
			t.Fatalf("%q does not parse as itself: %v, %v", a, again, err)
		}
	})
}

func TestOutcomeNames(t *testing.T) {
	t.Parallel()
	for o := range Outcome(NumOutcomes) {
		if got, err := ParseOutcome(o.String()); err != nil || got != o {
			t.Errorf("ParseOutcome(%q) = %v, %v", o, got, err)
		}
	}
	if _, err := ParseOutcome("lost"); err == nil {
		t.Error("ParseOutcome took a word that is none")
	}
}

func TestMask(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"hong@naver.com": "h***@naver.com", "x": "***", "@a.b": "***",
		"홍길동@example.com": "홍***@example.com", "\xed\x99@a.b": "\uFFFD***@a.b", "h@\xff.kr": "h***@\uFFFD.kr", // no cut character on a screen
	} {
		if got := Mask(in); got != want {
			t.Errorf("Mask(%q) = %q, want %q", in, got, want)
		}
	}
}
