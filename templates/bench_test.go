package templates

import (
	"strings"
	"testing"

	"github.com/sluicemail/sluice/internal/mail"
)

// benchSource is Korean HTML of about 10 KB and a text part, with five variables.
func benchSource() string {
	paragraph := `<p style="margin:0 0 14px;font-size:16px">오늘 저녁, 서랍 하나면 충분합니다. 크게 마음먹지 않아도 괜찮습니다.</p>` + "\n"
	half := strings.Repeat(paragraph, 30)
	return source("(광고) {{.name}}님께 드리는 {{.coupon}}", `<h1>{{.name}}님</h1>`+half+
		`<p>{{.grade}} 회원 · {{.points}}점</p><a href="https://shop.example/?c={{.coupon}}" title="{{.store}}">보기</a>`+half+
		`{{.sender.name}} {{.sender.email}} {{.sender.phone}} {{.sender.address}} {{.name}}`) +
		`{{define "text"}}{{.name}}님, {{.grade}} 회원 {{.points}}점 {{.store}}` +
		strings.Repeat("오늘 저녁, 서랍 하나면 충분합니다.\n", 30) + `쿠폰 {{.coupon}}
{{.sender.name}} {{.sender.email}} {{.sender.phone}} {{.sender.address}}{{end}}`
}

func benchProgram(t testing.TB, eightBit bool) *Program {
	o := options(t, mail.Ad)
	o.AllowEightBit = eightBit
	p := compile(t, benchSource(), o)
	if p.fast == nil {
		t.Fatal("not rendered from encoded pieces")
	}
	return p
}

func benchRecipient() Recipient {
	// coupon, grade, name, points, store
	return recipient("SPRING-2026", "골드", "김민준", "12,340", "물길상점 성수점")
}

func BenchmarkRender(b *testing.B) {
	for name, eightBit := range map[string]bool{"base64": false, "8bit": true} {
		b.Run(name, func(b *testing.B) {
			p, r := benchProgram(b, eightBit), benchRecipient()
			buf := make([]byte, 0, 64<<10)
			for b.Loop() {
				var err error
				if buf, err = p.Render(buf[:0], r); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(buf)), "octets")
		})
	}
	b.Run("templates", func(b *testing.B) {
		p, r := benchProgram(b, false), benchRecipient()
		p.fast = nil
		buf := make([]byte, 0, 64<<10)
		for b.Loop() {
			var err error
			if buf, err = p.Render(buf[:0], r); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(buf)), "octets")
	})
	b.Run("newsletter", func(b *testing.B) {
		tmpl, err := Load("newsletter")
		if err != nil {
			b.Fatal(err)
		}
		o := options(b, mail.Ad)
		o.Columns = []string{"name"}
		p, err := tmpl.Compile(o)
		if err != nil {
			b.Fatal(err)
		}
		r := recipient("김민준")
		buf := make([]byte, 0, 64<<10)
		for b.Loop() {
			if buf, err = p.Render(buf[:0], r); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(buf)), "octets")
	})
}

func BenchmarkCompile(b *testing.B) {
	tmpl := mustParse(b, benchSource())
	for b.Loop() {
		if _, err := tmpl.Compile(options(b, mail.Ad)); err != nil {
			b.Fatal(err)
		}
	}
}
