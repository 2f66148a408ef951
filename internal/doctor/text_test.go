package doctor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sluicemail/sluice/internal/mail"
)

func address(t *testing.T, s string) mail.Address {
	t.Helper()
	a, err := mail.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestRecord(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 300)
	for want, r := range map[string]Record{
		`a.example. IN TXT "v=spf1 -all"`:                             {"a.example", "TXT", "v=spf1 -all"},
		`a.example. IN TXT "a\"b\\c"`:                                 {"a.example", "TXT", `a"b\c`},
		`a.example. IN MX 10 b.example`:                               {"a.example", "MX", "10 b.example"},
		`a.example. IN TXT "` + long[:255] + `" "` + long[255:] + `"`: {"a.example", "TXT", long},
	} {
		if got := r.String(); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"two\r\nlines\tand":       "two? lines and",
		"\x1b[31mred\x07":         "?[31mred?",
		"한글 \xff":                 "한글 ?",
		"\u202eright to left":     "?right to left",
		strings.Repeat("가", 1000): strings.Repeat("가", maxShown) + "…",
	} {
		if got := clean(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestParseSPF(t *testing.T) {
	t.Parallel()
	for txt, bad := range map[string]string{
		"v=spf1": "",
		"V=SPF1 +a -mx/24 ~a:b.example/24//64 ?ptr ip4:192.0.2.0/24 ip6:2001:db8::/32 ip4:192.0.2.1 exists:%{i}.b.example exp=x redirect=_spf.example unknown=1 -ALL": "",
		"v=spf1 include:":         "names no domain",
		"v=spf1 redirect=":        "names no domain",
		"v=spf1 exists":           "names no domain",
		"v=spf1 ip4:2001:db8::1":  "wants an address",
		"v=spf1 ip6:192.0.2.1":    "wants an address",
		"v=spf1 ip4:192.0.2.0/33": "wants an address",
		"v=spf1 all:x":            "no argument",
		"v=spf1 -":                "no such mechanism",
		"v=spf1 ipv4:192.0.2.1":   "no such mechanism",
		"v=spf1 exp=\x1b[31m":     "a character",
		"v=spf1 a:예.example":      "a character",
	} {
		_, err := parseSPF(txt)
		if (err == nil) != (bad == "") || err != nil && !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v, want %q", txt, err, bad)
		}
	}
}

func TestMended(t *testing.T) {
	t.Parallel()
	for want, texts := range map[string][]string{
		"v=spf1 include:r ~all":                        nil,
		"v=spf1 include:r mx ip4:192.0.2.1 -all":       {"v=spf1 mx -all", "v=spf1 MX ip4:192.0.2.1 ?all"},
		"v=spf1 include:r include:_spf.a.example ~all": {"v=spf1 ptr redirect=_spf.a.example"},
		"v=spf1 include:r a exp=e.example ~all":        {"v=spf1 a +all include:r exp=e.example"},
	} {
		var records []spfRecord
		for _, s := range texts {
			r, err := parseSPF(s)
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, r)
		}
		if got := mended("r", records...); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// What a receiver counts: include, a, mx, ptr, exists and redirect, at every depth and
// only up to all (RFC 7208 sections 4.6.4 and 5.1).
func TestWalkSPF(t *testing.T) {
	t.Parallel()
	dns := serveDNS(t, zone{
		"a.example":     {"A 192.0.2.1", "MX 5 a.example."},
		"two.example":   {"TXT v=spf1 a:a.example include:leaf.example ~all", "TXT something else"},
		"leaf.example":  {"TXT v=spf1 ip4:192.0.2.0/24 -all"},
		"both.example":  {"TXT v=spf1 -all", "TXT v=spf1 ~all"},
		"bad.example":   {"TXT v=spf1 foo -all"},
		"down.example":  {"SERVFAIL x"},
		"empty.example": {"A 192.0.2.1"},
	})
	for _, tc := range []struct {
		txt            string
		lookups, voids int
		broken         string
		includes       string
		err            bool
	}{
		{txt: "v=spf1 ip4:192.0.2.1 -all"},
		{txt: "v=spf1 a mx:a.example ptr exists:%{i}.b.example -all", lookups: 4},
		{txt: "v=spf1 include:two.example -all", lookups: 3, includes: "leaf.example two.example"},
		{txt: "v=spf1 redirect=Two.Example. a", lookups: 4, includes: "leaf.example two.example"},
		{txt: "v=spf1 ~all redirect=two.example a mx", lookups: 0},
		{txt: "v=spf1 a:x.example mx:y.example include:leaf.example -all", lookups: 3, voids: 2, includes: "leaf.example"},
		{txt: "v=spf1 include:%{d}.b.example -all", lookups: 1},
		{txt: "v=spf1 include:both.example -all", lookups: 1, broken: "several SPF records", includes: "both.example"},
		{txt: "v=spf1 include:bad.example -all", lookups: 1, broken: "no such mechanism", includes: "bad.example"},
		{txt: "v=spf1 include:empty.example -all", lookups: 1, voids: 1, broken: "has no SPF record", includes: "empty.example"},
		{txt: "v=spf1 include:down.example a -all", lookups: 1, err: true, includes: "down.example"},
	} {
		r, err := parseSPF(tc.txt)
		if err != nil {
			t.Fatal(err)
		}
		got := walkSPF(t.Context(), dns, "a.example", r)
		var includes []string
		for d := range got.includes {
			includes = append(includes, d)
		}
		slices.Sort(includes)
		if got.lookups != tc.lookups || got.voids != tc.voids || (got.err != nil) != tc.err || strings.Join(includes, " ") != tc.includes ||
			!strings.Contains(strings.Join(got.broken, " "), tc.broken) || (tc.broken == "") != (got.broken == nil) {
			t.Errorf("%s: %+v", tc.txt, got)
		}
	}
}

func TestParseDKIM(t *testing.T) {
	t.Parallel()
	rsa := dkimRSA(t, 2048)
	ed := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, tc := range []struct {
		txt, bad string
		bits     int
	}{
		{"v=DKIM1; k=rsa; p=" + rsa, "", 2048},
		{"p=" + rsa[:40] + " " + rsa[40:] + ";", "", 2048},
		{"v=DKIM1; h=sha1:sha256; s=*; t=s; p=" + rsa, "", 2048},
		{"v=DKIM1; k=ed25519; p=" + ed, "", 256},
		{"v=DKIM1; k=ed25519; p=" + rsa, "32 octets", 0},
		{"v=DKIM1; k=dsa; p=" + rsa, "want rsa or ed25519", 0},
		{"v=DKIM2; p=" + rsa, "v=DKIM1 has to stand first", 0},
		{"p=" + rsa + "; v=DKIM1", "v=DKIM1 has to stand first", 0},
		{"v=DKIM1; h=sha1; p=" + rsa, "sha256", 0},
		{"v=DKIM1; s=web; p=" + rsa, "not for mail", 0},
		{"v=DKIM1", "no p=", 0},
		{"v=DKIM1; p=", "revoked", 0},
		{"v=DKIM1; p=@@", "not Base64", 0},
		{"v=DKIM1; p=" + rsa + "; p=" + rsa, "no tag list", 0},
		{"hello", "no tag list", 0},
	} {
		k, err := parseDKIM(tc.txt)
		if (err == nil) != (tc.bad == "") || k.bits != tc.bits || err != nil && !strings.Contains(err.Error(), tc.bad) {
			t.Errorf("%.60s: %+v, %v", tc.txt, k, err)
		}
	}
}

func TestParseDMARC(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		txt       string
		inherited bool
		want      dmarcPolicy
		bad       string
	}{
		{"v=DMARC1; p=Reject; aspf=s; rua=mailto:a@b", false, dmarcPolicy{policy: "reject", strictSPF: true, reports: true}, ""},
		{"v=DMARC1; p=reject; sp=none; adkim=s", true, dmarcPolicy{policy: "none", strictDKIM: true}, ""},
		{"v=DMARC1; p=reject; sp=none", false, dmarcPolicy{policy: "reject"}, ""},
		{"v=DMARC1; rua=mailto:a@b", false, dmarcPolicy{}, "no p="},
		{"v=DMARC1; p=off", false, dmarcPolicy{}, "want none, quarantine or reject"},
		{"v=DMARC1; p", false, dmarcPolicy{}, "no tag list"},
	} {
		got, err := parseDMARC(tc.txt, tc.inherited)
		if got != tc.want || (err == nil) != (tc.bad == "") || err != nil && !strings.Contains(err.Error(), tc.bad) {
			t.Errorf("%s: %+v, %v", tc.txt, got, err)
		}
	}
}

func TestBlockName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"192.0.2.99":                "99.2.0.192.zen.spamhaus.org",
		"2001:db8:1:2:3:4:567:89ab": "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.zen.spamhaus.org",
	} {
		if got := blockName(netip.MustParseAddr(in)); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}

func TestMeanings(t *testing.T) {
	t.Parallel()
	for codes, want := range map[string]struct {
		text            string
		listed, refused bool
	}{
		"127.0.0.2":            {"SBL", true, false},
		"127.0.0.3 127.0.0.10": {"CSS: low-reputation or snowshoe mail, PBL", true, false},
		"127.0.0.4 127.0.0.6":  {"(XBL: an exploited machine)", true, false},
		"127.0.0.99":           {"return code 127.0.0.99", true, false},
		"127.255.255.252":      {"not listed by this answer", false, true},
		"127.255.255.254":      {"public resolver", false, true},
		"127.255.255.255":      {"too many queries", false, true},
		"127.255.255.1":        {"query refused: 127.255.255.1", false, true},
	} {
		var list []netip.Addr
		for s := range strings.FieldsSeq(codes) {
			list = append(list, netip.MustParseAddr(s))
		}
		text, listed, refused := meanings(list)
		if !strings.Contains(text, want.text) || listed != want.listed || refused != want.refused {
			t.Errorf("%s: %q %v %v", codes, text, listed, refused)
		}
	}
}

// Addresses that no list has are not asked for.
func TestPublic(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{"203.0.113.1": true, "2001:db8::1": true, "127.0.0.1": false, "::1": false,
		"10.1.2.3": false, "192.168.1.1": false, "fe80::1": false, "fd00::1": false, "169.254.1.1": false} {
		if got := public(netip.MustParseAddr(s)); got != want {
			t.Errorf("%s: %v", s, got)
		}
	}
}

func TestReadReply(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"250 ok\r\n":                "250 ok",
		"250\r\n":                   "250",
		"250-a\r\n250-b\r\n250 c\n": "250 a b c",
		"550 \x1b[2J\r\n":           "550 ?[2J",
		"250-a\r\n550 b\r\n":        "",
		"+25 a\r\n":                 "",
		"199 a\r\n":                 "",
		"600 a\r\n":                 "",
		"250a\r\n":                  "",
		"hello\r\n":                 "",
		"250-a\r\n":                 "",
		"250 " + strings.Repeat("x", maxReplyLine) + "\r\n":      "",
		strings.Repeat("250-x\r\n", maxReplyLines) + "250 x\r\n": "",
	} {
		r, err := readReply(bufio.NewReaderSize(strings.NewReader(in), maxReplyLine))
		if (err == nil) != (want != "") || err == nil && r.String() != want {
			t.Errorf("%.40q: %q, %v", in, r, err)
		}
	}
}

func TestParseEHLO(t *testing.T) {
	t.Parallel()
	x := parseEHLO([]string{"relay PIPELINING)", "pipelining", "AUTH LOGIN PLAIN", "AUTH=LOGIN XOAUTH2", "SIZE 1000", ""})
	if !x.has("PIPELINING") || x.has("8BITMIME") || x.has("RELAY") || strings.Join(x["AUTH"], " ") != "LOGIN PLAIN XOAUTH2" {
		t.Errorf("%v", x)
	}
}

// A long password does not fit the command line and follows in an answer.
func TestLongPassword(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	defer ours.Close()
	password := strings.Repeat("p", 600)
	got := make(chan string, 1)
	go func() {
		defer theirs.Close()
		rd := bufio.NewReader(theirs)
		first, _ := rd.ReadString('\n')
		_, _ = theirs.Write([]byte("334 \r\n"))
		second, _ := rd.ReadString('\n')
		_, _ = theirs.Write([]byte("535 no " + strings.TrimSpace(second) + "\r\n"))
		got <- first + second
	}()
	s := newSession(ours, true, password, "user", "\x00user\x00"+password)
	_, err := s.login(extensions{"AUTH": {"PLAIN"}}, "auto", "user", password)
	var refused *replyError
	if !errors.As(err, &refused) || strings.Contains(err.Error(), "cHBw") || !strings.Contains(err.Error(), "***") {
		t.Errorf("error %v", err)
	}
	want := "AUTH PLAIN\r\n" + base64.StdEncoding.EncodeToString([]byte("\x00user\x00"+password)) + "\r\n"
	if s := <-got; s != want {
		t.Errorf("sent %q", s)
	}
}

// A check ends with its deadline, whatever the relay does.
func TestBounded(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	s := newSession(ours, true)
	defer s.bounded(ctx)()
	if _, err := s.read(); !timeOut(err) {
		t.Errorf("error %v", err)
	}
}

func FuzzReply(f *testing.F) {
	for _, s := range []string{"220 relay\r\n", "250-relay\r\n250 AUTH PLAIN\r\n", "250", "250-\r\n\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := readReply(bufio.NewReaderSize(bytes.NewReader(in), maxReplyLine))
		if err != nil {
			return
		}
		if r.code < 200 || r.code > 599 || strings.ContainsAny(r.String(), "\r\n\x00\x1b") || !utf8.ValidString(r.String()) {
			t.Errorf("%d %q", r.code, r)
		}
		parseEHLO(r.lines)
	})
}

func FuzzSPF(f *testing.F) {
	for _, s := range []string{nhnSPF, "v=spf1 a/24 mx:b//64 -all", "v=spf1 redirect=x exp=y", "v=spf1  ?"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, txt string) {
		if !isSPF(txt) {
			return
		}
		r, err := parseSPF(txt)
		if err != nil {
			return
		}
		// What is offered as a repair must itself be sound.
		again, err := parseSPF(mended("r.example", r))
		if err != nil {
			t.Fatalf("%q mended to %q: %v", txt, mended("r.example", r), err)
		}
		if _, i := again.all(); i != len(again.terms)-1 {
			t.Errorf("%q: all is not last", mended("r.example", r))
		}
	})
}

func FuzzTags(f *testing.F) {
	for _, s := range []string{"v=DKIM1; k=rsa; p=MIIB", "v=DMARC1; p=none; sp=reject", "p=;;", "v=DKIM1; k=ed25519; p=AAAA"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, txt string) {
		if k, err := parseDKIM(txt); err == nil && k.bits <= 0 {
			t.Errorf("%q: a key without bits", txt)
		}
		if p, err := parseDMARC(txt, true); err == nil && p.policy == "" {
			t.Errorf("%q: no policy", txt)
		}
	})
}
