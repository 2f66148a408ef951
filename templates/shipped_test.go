package templates

import (
	"slices"
	"strings"
	"testing"

	"github.com/sluicemail/sluice/internal/mail"
)

func TestShipped(t *testing.T) {
	t.Parallel()
	all := Shipped()
	if len(all) != 12 {
		t.Fatalf("%d shipped templates, want 4 in 3 languages", len(all))
	}
	needed := map[string][]string{"newsletter": {"name"}, "ad": {"name"}, "code": {"code"},
		"receipt": {"amount", "item", "name", "order"}}
	for _, info := range all {
		t.Run(info.Name, func(t *testing.T) {
			t.Parallel()
			tmpl, err := Load(info.Name)
			if err != nil {
				t.Fatal(err)
			}
			family, _, _ := strings.Cut(info.Name, ".")
			o := options(t, info.Stream)
			o.Columns = needed[family]
			p, err := tmpl.Compile(o)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(p.Columns(), needed[family]) {
				t.Errorf("needs %v, want %v", p.Columns(), needed[family])
			}
			if len(p.Warnings()) > 0 {
				t.Errorf("warnings: %q", p.Warnings())
			}
			if p.fast == nil {
				t.Error("cannot be rendered from encoded pieces")
			}
			out := render(t, p, p.Sample())
			docs, err := p.execute(sampleAddress, p.Sample().Values)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d octets, %d of html, %d of text, %v", len(out), len(docs.html), len(docs.text), p.encodings)
			if info.Stream == mail.Ad && (len(out) < 8_000 || len(out) > 12_000) {
				t.Errorf("%d octets, want 8 to 12 KB", len(out))
			}
		})
	}
}
