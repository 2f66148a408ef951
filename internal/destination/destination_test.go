package destination

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func table(t testing.TB, own ...Group) *Table {
	t.Helper()
	tb, err := New(own...)
	if err != nil {
		t.Fatal(err)
	}
	return tb
}

func TestShipped(t *testing.T) {
	t.Parallel()
	tb := table(t)
	for domain, want := range map[string]string{
		"naver.com": "naver", "daum.net": "kakao", "hanmail.net": "kakao", "kakao.com": "kakao", "nate.com": "nate",
		"gmail.com": "google", "googlemail.com": "google",
		"outlook.com": "microsoft", "outlook.kr": "microsoft", "hotmail.co.jp": "microsoft", "live.co.kr": "microsoft", "msn.com": "microsoft",
		"yahoo.com": "yahoo", "yahoo.co.uk": "yahoo", "yahoo.com.br": "yahoo", "yahoo.de": "yahoo", "ymail.com": "yahoo", "rocketmail.com": "yahoo", "aol.com": "yahoo",
		"yahoo.co.jp": "yahoo_jp", "ymail.ne.jp": "yahoo_jp",
		"docomo.ne.jp": "docomo", "ezweb.ne.jp": "au", "biz.ezweb.ne.jp": "au", "au.com": "au",
		"softbank.ne.jp": "softbank", "i.softbank.jp": "softbank", "d.vodafone.ne.jp": "softbank", "yahoo.ne.jp": "softbank",
		"icloud.com": "apple", "me.com": "apple", "qq.com": "qq", "163.com": "netease",

		// What looks like one and is not.
		"example.com": "", "navercorp.com": "", "mail.naver.com": "", "naver.com.evil.example": "", "yahoo": "", "": "",
		"yahoo.example.com": "", "mail.yahoo.de": "", "yahoo.github.io": "", "yahoo.blogspot.com": "", "notyahoo.com": "",
		"live.example": "", "live.net": "", "yahoo.example.de": "", "yahoo.ab.de": "", "hotmail.com.": "", "yahoo.abc.de": "", "vodafone.ne.jp": "",
	} {
		if got := tb.Group(domain); got != want {
			t.Errorf("%s is in %q, want %q", domain, got, want)
		}
	}
	for host, want := range map[string]string{
		"aspmx.l.google.com": "google", "smtp.google.com": "google", "aspmx2.googlemail.com": "google",
		"example-com.mail.protection.outlook.com": "microsoft", "example.mx.microsoft": "microsoft", "outlook.com": "",
		"aspmx1.worksmobile.com": "naver", "mx1.naver.com": "naver", "mta5.am0.yahoodns.net": "yahoo",
		"mx01.mail.icloud.com": "apple", "mx.example.com": "", "evilgoogle.com": "", "": "",
	} {
		if got := tb.OfMX(host); got != want {
			t.Errorf("mail server %s is in %q, want %q", host, got, want)
		}
	}
	if names := strings.Join(tb.Names(), " "); !strings.Contains(names, "naver") || !strings.Contains(names, "softbank") {
		t.Errorf("names %s", names)
	}
}

// Own groups go first, whole and by parts.
func TestOwn(t *testing.T) {
	t.Parallel()
	tb := table(t,
		Group{Name: "ours", Domains: []string{"example.com", "*.example.com", "example.*", "gmail.com"}, MX: []string{"mx.example.com"}},
		Group{Name: "naver", Domains: []string{"naver.com", "navercorp.com"}},
		Group{Name: "nate", Domains: []string{}},
		Group{Name: "yahoo", MX: []string{"mx.yahoo.example"}},
		Group{Name: "mail", Domains: []string{"hotmail.*"}})
	for domain, want := range map[string]string{
		"example.com": "ours", "example.net": "", "yahoo.co.jp": "yahoo_jp", "a.b.example.com": "ours", "example.co.kr": "ours", "gmail.com": "ours", "googlemail.com": "google",
		"navercorp.com": "naver", "nate.com": "", "yahoo.com": "yahoo", "hotmail.com": "mail", "outlook.com": "microsoft",
	} {
		if got := tb.Group(domain); got != want {
			t.Errorf("%s is in %q, want %q", domain, got, want)
		}
	}
	for host, want := range map[string]string{
		"mx.example.com": "ours", "1.mx.example.com": "ours", "example.com": "", "mx1.naver.com": "naver", "mx.yahoo.example": "yahoo", "a.yahoodns.net": "",
	} {
		if got := tb.OfMX(host); got != want {
			t.Errorf("mail server %s is in %q, want %q", host, got, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for want, own := range map[string][]Group{
		`group "Ours": want a name`:            {{Name: "Ours"}},
		`group "": want a name`:                {{}},
		`group a: given twice`:                 {{Name: "a"}, {Name: "a"}},
		`group a: domain "Example.com": want`:  {{Name: "a", Domains: []string{"Example.com"}}},
		`domain "x.example": it is in group a`: {{Name: "a", Domains: []string{"x.example"}}, {Name: "b", Domains: []string{"x.example"}}},
		`mx "x.example": it is in group a`:     {{Name: "a", MX: []string{"x.example"}}, {Name: "b", MX: []string{"x.example"}}},
		`group a: mx "*.example": want a host`: {{Name: "a", MX: []string{"*.example"}}},
	} {
		if _, err := New(own...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", own, err, want)
		}
	}
}

func TestCheckPattern(t *testing.T) {
	t.Parallel()
	for s, ok := range map[string]bool{
		"example.com": true, "*.example.com": true, "example.*": true, "xn--9n2bp8q.com": true, "*.com": false, "a-b.c1.example": true,
		"": false, "*": false, "com": false, "*.*": false, "a.b.*": false, "*.example.*": false, "exa*mple.com": false, ".example.com": false,
		"example.com.": false, "-a.example": false, "a-.example": false, "a..example": false, "예.com": false, "a b.com": false, "a@b.com": false,
		strings.Repeat("a", 64) + ".com": false,
	} {
		if err := CheckPattern(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := Parse("f", strings.NewReader("# a\n\na domain x.example *.x.example # of x\na mx mx.example\nb domain b.example\na domain y.example\n"))
	if err != nil || len(got) != 2 || got[0].Name != "a" || strings.Join(got[0].Domains, " ") != "x.example *.x.example y.example" ||
		strings.Join(got[0].MX, " ") != "mx.example" || got[1].Name != "b" {
		t.Errorf("%+v, %v", got, err)
	}
	for text, want := range map[string]string{
		"a domain":                 "f:1: want GROUP domain",
		"\na domains x.example":    "f:2: want GROUP domain",
		"A domain x.example":       `f:1: group "A"`,
		"a domain x.example X.com": `f:1: domain "X.com"`,
		"a mx *.x.example":         `f:1: mx "*.x.example"`,
		"a domain " + strings.Repeat("x", 70_000) + ".example": "f:1: ",
	} {
		if _, err := Parse("f", strings.NewReader(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(groups)
	f.Add("a domain x.example *.x.example x.*\na mx mx.example")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := Parse("f", strings.NewReader(text))
		if err != nil {
			return
		}
		tb, err := New(list...)
		if err != nil {
			return
		}
		for _, g := range list {
			for _, p := range g.Domains {
				if !strings.Contains(p, "*") && tb.Group(p) != g.Name {
					t.Fatalf("%s is in %q, want %q", p, tb.Group(p), g.Name)
				}
			}
		}
	})
}

func FuzzGroup(f *testing.F) {
	tb := table(f, Group{Name: "ours", Domains: []string{"*.example.com", "example.*"}})
	for _, s := range []string{"naver.com", "yahoo.co.uk", "a.example.com", "example.co.kr", "..", "yahoo.", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, domain string) {
		tb.Group(domain)
		// What is below a group's mail server is the group's.
		if g := tb.OfMX(domain); g != "" && tb.OfMX("a."+domain) != g {
			t.Fatalf("mail server %q is in %q, a host below it in %q", domain, g, tb.OfMX("a."+domain))
		}
		if g := tb.Group(domain + ".example.com"); g != "ours" {
			t.Fatalf("%q is in %q, want ours", domain+".example.com", g)
		}
	})
}

// The common domains are asked for once a message.
func TestGroupAllocatesNothing(t *testing.T) {
	tb := table(t, Group{Name: "ours", Domains: []string{"*.example.com"}})
	for _, d := range []string{"naver.com", "yahoo.co.uk", "some.where.example.org"} {
		if n := testing.AllocsPerRun(100, func() { tb.Group(d) }); n > 0 {
			t.Errorf("%s: %v allocations", d, n)
		}
	}
}

func BenchmarkGroup(b *testing.B) {
	for _, d := range []string{"naver.com", "yahoo.co.uk", "company.co.kr"} {
		b.Run(d, func(b *testing.B) {
			tb := table(b)
			b.ReportAllocs()
			for b.Loop() {
				tb.Group(d)
			}
		})
	}
}
