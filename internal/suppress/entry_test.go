package suppress

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/sluicemail/sluice/internal/mail"
)

func TestWords(t *testing.T) {
	t.Parallel()
	for _, s := range []Scope{All, Auth, Normal, Ad} {
		if back, err := ParseScope(s.String()); back != s || err != nil {
			t.Errorf("%v: %v, %v", s, back, err)
		}
	}
	if s, err := ParseScope(""); s != All || err != nil {
		t.Errorf("no scope: %v, %v", s, err)
	}
	if _, err := ParseScope("Ad"); err == nil || !strings.Contains(err.Error(), "all, auth, normal or ad") {
		t.Errorf("%v", err)
	}
	for _, s := range []Source{ByVerdict, ByOperator, ByImport, ByFeedback} {
		if back, err := ParseSource(s.String()); back != s || err != nil || s.reason() == "" {
			t.Errorf("%v: %v, %v, %q", s, back, err, s.reason())
		}
	}
	for _, s := range []string{"", "me"} {
		if _, err := ParseSource(s); err == nil || !strings.Contains(err.Error(), "verdict, operator") {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range mail.Streams() {
		if scope, err := scopeOf(s); scope.String() != string(s) || err != nil {
			t.Errorf("%s: %v, %v", s, scope, err)
		}
	}
}

func TestTidy(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "",
		"550 5.1.1 <hong@naver.com>: Recipient address rejected: User unknown\r\nin local table": "550 5.1.1 <…> Recipient address rejected: User unknown in local table",
		"550-5.1.1 does not exist. 98e67ed59e1d1-30a2sm1234567a91.12 - gsmtp":                    "550-5.1.1 does not exist. … - gsmtp",
		"550 #5.1.0 Address rejected.":                        "550 #5.1.0 Address rejected.",
		"554 5.7.515 Access denied":                           "554 5.7.515 Access denied",
		"550 Session 1234567890 at 2026-11-22 is over":        "550 Session 1234567890 at 2026-11-22 is over",
		"550 id 123456789012 0a1b2c3d4e5f":                    "550 id …",
		"\x00 \t a \x7f b\u0085c":                             "a b c",
		"메일박스가 없습니다":                                          "메일박스가 없습니다",
		"bad \xff byte":                                       "bad \uFFFD byte",
		strings.Repeat("가", 60):                               strings.Repeat("가", 52) + "…",
		strings.Repeat("x", maxDetail):                        strings.Repeat("x", maxDetail),
		strings.Repeat("y", maxDetail+1):                      strings.Repeat("y", maxDetail-3) + "…",
		"smtp; 550 5.1.1 unknown (in reply to RCPT TO <a@b>)": "smtp; 550 5.1.1 unknown (in reply to RCPT TO <…>",
	} {
		if got := tidy(in); got != want {
			t.Errorf("%q:\n got %q\nwant %q", in, got, want)
		}
	}
}

func FuzzTidy(f *testing.F) {
	f.Add("550 5.1.1 <a@b.kr> no\r\n550 such user 1a2b3c4d")
	f.Add(strings.Repeat("가", 100))
	f.Fuzz(func(t *testing.T, s string) {
		got := tidy(s)
		if len(got) > maxDetail || !utf8.ValidString(got) || strings.Contains(got, "@") || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("%q: %q", s, got)
		}
		if again := tidy(got); again != got {
			t.Errorf("%q: %q, then %q", s, got, again)
		}
	})
}

// The program's own reasons are made to fit: one that is too long must not keep the
// address, and those added with it, off the list.
func TestOwnReasonsFit(t *testing.T) {
	t.Parallel()
	for _, s := range []Source{ByVerdict, ByFeedback} {
		e, err := Entry{Address: address(t, "a@b.kr"), Source: s, Reason: "no\r\nsuch\x00user \xff <a@b.kr> " + strings.Repeat("가", 30)}.prepared()
		if want := "no such user \uFFFD <…> " + strings.Repeat("가", 18) + "…"; err != nil || e.Reason != want {
			t.Errorf("%v: %q, %v, want %q", s, e.Reason, err, want)
		}
	}
}

func TestWhy(t *testing.T) {
	t.Parallel()
	e := Entry{Address: address(t, "hong@naver.com"), Reason: "no such user", Source: ByVerdict, Time: time.Date(2026, 11, 22, 23, 59, 0, 0, time.UTC)}
	if got, want := e.Why(), "no such user (on the suppression list since 2026-11-22, by verdict)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	e.Scope = Ad
	if got, want := e.Why(), "no such user (on the suppression list for ad since 2026-11-22, by verdict)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestRecords(t *testing.T) {
	t.Parallel()
	want := []record{
		{All, ByVerdict, 1, text{id: 0xabcdef}, text{inline: strings.Repeat("d", maxDetail)}},
		{Ad, ByFeedback, 1<<32 - 1, text{inline: strings.Repeat("r", maxReason)}, text{inline: strings.Repeat("d", maxDetail)}},
		{Normal, ByOperator, 0x01020304, text{inline: "x"}, text{}},
	}
	var b []byte
	for _, r := range want {
		b = r.append(b)
	}
	got, ok := parseRecords(string(b))
	if d := cmp.Diff(want, got, cmp.AllowUnexported(record{}, text{})); d != "" || !ok {
		t.Errorf("%v\n%s", ok, d)
	}
}

func FuzzRecords(f *testing.F) {
	f.Add(string(record{Ad, ByOperator, 7, text{inline: "why"}, text{id: 9}}.append(nil)))
	f.Add("\x05\x0babcd")
	f.Fuzz(func(t *testing.T, s string) {
		records, ok := parseRecords(s)
		if ok != (len(records) > 0) && ok {
			t.Errorf("%q: nothing in it, and well", s)
		}
		var b []byte
		for _, r := range records {
			b = r.append(b)
		}
		if again, ok := parseRecords(string(b)); len(records) > 0 && (!ok || fmt.Sprint(again) != fmt.Sprint(records)) {
			t.Errorf("%q: %v, then %v", s, records, again)
		}
	})
}
