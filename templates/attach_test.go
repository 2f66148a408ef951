package templates

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluicemail/sluice/internal/mail"
)

var (
	pngData = []byte("\x89PNG\r\n\x1a\n" + strings.Repeat("0123456789", 30))
	pdfData = []byte("%PDF-1.7\n" + strings.Repeat("x", 200))
)

func TestAttachmentRefused(t *testing.T) {
	t.Parallel()
	p := mustParse(t, source("s", "x"))
	for name, tc := range map[string]struct {
		files []Attachment
		fault string
	}{
		"no name":         {[]Attachment{{"", false, pdfData}}, "1 to 255"},
		"folder":          {[]Attachment{{"../a.pdf", false, pdfData}}, "without folders"},
		"line break":      {[]Attachment{{"a\r\nX: y.pdf", false, pdfData}}, "line break"},
		"not utf-8":       {[]Attachment{{"\xff.pdf", false, pdfData}}, "control character"},
		"forbidden":       {[]Attachment{{"a.EXE", false, pdfData}}, "refused by relays"},
		"empty":           {[]Attachment{{"a.pdf", false, nil}}, "empty"},
		"wrong content":   {[]Attachment{{"a.pdf", false, pngData}}, "not application/pdf"},
		"inline document": {[]Attachment{{"a.pdf", true, pdfData}}, "inline files are pictures"},
		"inline name":     {[]Attachment{{"그림.png", true, pngData}}, "inline picture has letters"},
		"twice":           {[]Attachment{{"a.pdf", false, pdfData}, {"a.pdf", false, pdfData}}, "given twice"},
		"eleven":          {make([]Attachment, 11), "at most 10"},
		"too large":       {[]Attachment{{"a.bin", false, make([]byte, maxAttachmentSize+1)}}, "larger than 20 MB"},
		"mail too large":  {[]Attachment{{"a.bin", false, make([]byte, maxAttachmentSize)}}, "more than 25000000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t, mail.Normal)
			o.Attachments = tc.files
			if _, err := p.Compile(o); err == nil || !strings.Contains(err.Error(), tc.fault) {
				t.Errorf("got %v; want an error with %q", err, tc.fault)
			}
		})
	}
}

func TestAttachments(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("아주 긴 이름의 안내문 ", 8) + ".pdf"
	o := options(t, mail.Normal)
	o.Attachments = []Attachment{{"logo.png", true, pngData}, {"안내.pdf", false, pdfData}, {long, false, pdfData}, {`quo"te.txt`, false, []byte("x")}}
	p := compile(t, source("s", `<img src="cid:logo.png">{{.a}}`), o)
	m := read(t, render(t, p, recipient("x")))
	want := []string{"text/plain", "text/html", "image/png", "application/pdf", "application/pdf", "text/plain"}
	if !slices.Equal(m.kinds, want) {
		t.Errorf("parts %q, want %q", m.kinds, want)
	}
	for name, data := range map[string][]byte{"logo.png": pngData, "안내.pdf": pdfData, long: pdfData, `quo"te.txt`: []byte("x")} {
		if !bytes.Equal(m.files[name], data) {
			t.Errorf("%s came out as %q", name, m.files[name])
		}
	}
	if !bytes.Equal(m.contents["logo.png"], pngData) {
		t.Error("the inline picture has no Content-ID")
	}
}

func TestLoadAttachment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "a.png")
	if err := os.WriteFile(path, pngData, 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := LoadAttachment(path, true)
	if err != nil || a.Name != "a.png" || !a.Inline || !bytes.Equal(a.Data, pngData) {
		t.Errorf("%+v, %v", a, err)
	}
	sparse := filepath.Join(dir, "big.bin")
	if err := os.WriteFile(sparse, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(sparse, maxAttachmentSize+1); err != nil {
		t.Fatal(err)
	}
	for path, fault := range map[string]string{dir: "not a regular file", sparse: "larger than 20 MB", filepath.Join(dir, "no"): "no such file"} {
		if _, err := LoadAttachment(path, false); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%s: %v; want %q", path, err, fault)
		}
	}
}
