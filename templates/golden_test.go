package templates

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gomessage "github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset"
	gomail "github.com/emersion/go-message/mail"

	"github.com/sluicemail/sluice/internal/mail"
)

var update = flag.Bool("update", false, "write the golden mails")

// goldenMails renders every shipped template and every message form.
func goldenMails(t *testing.T) map[string][]byte {
	t.Helper()
	mails := map[string][]byte{}
	for _, info := range Shipped() {
		tmpl, err := Load(info.Name)
		if err != nil {
			t.Fatal(err)
		}
		p, err := tmpl.Compile(options(t, info.Stream))
		if err != nil {
			t.Fatal(err)
		}
		mails[info.Name] = render(t, p, p.Sample())
	}
	page := source("{{.name}} 님, hello", `<h1>{{.name}}</h1><p>See <a href="https://a.example/?n={{.name}}">this</a>.</p>`)
	withPicture := source("s", `<p><img src="cid:logo.png" alt="logo"> {{.name}}</p>`)
	for name, form := range map[string]struct {
		source string
		change func(*Options)
	}{
		"form.text-from-html": {page, func(*Options) {}},
		"form.text-only":      {`{{define "subject"}}s{{end}}{{define "text"}}Hello {{.name}},\n\nbye{{end}}`, func(*Options) {}},
		"form.inline":         {withPicture, func(o *Options) { o.Attachments = []Attachment{{"logo.png", true, pngData}} }},
		"form.attachment":     {page, func(o *Options) { o.Attachments = []Attachment{{"안내.pdf", false, pdfData}} }},
		"form.inline-and-attachment": {withPicture, func(o *Options) {
			o.Attachments = []Attachment{{"logo.png", true, pngData}, {"terms.txt", false, []byte("terms")}}
		}},
		"form.8bit": {page, func(o *Options) { o.AllowEightBit = true }},
		"form.headers": {page, func(o *Options) {
			o.ReplyTo = &Mailbox{"고객센터", o.From.Address}
			o.Headers = []Header{{"List-Unsubscribe", "<https://u.example/out?e={{.email}}>"}, {"List-Unsubscribe-Post", "List-Unsubscribe=One-Click"}, {"X-Campaign", "봄 세일"}}
		}},
	} {
		o := options(t, mail.Normal)
		form.change(&o)
		mails[name] = render(t, compile(t, form.source, o), recipient("김민준"))
	}
	return mails
}

func TestGoldenMails(t *testing.T) {
	t.Parallel()
	mails := goldenMails(t)
	for name, got := range mails {
		path := filepath.Join("testdata", "mail", name+".eml")
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from its golden mail; run with -update and look at the difference", path)
		}
		readersAgree(t, name, got)
	}
	stale, err := filepath.Glob(filepath.Join("testdata", "mail", "*.eml"))
	if err != nil || len(stale) != len(mails) {
		t.Errorf("%d golden mails for %d messages, %v", len(stale), len(mails), err)
	}
}

// readersAgree parses a mail with go-message and with net/mail and compares.
func readersAgree(t *testing.T, name string, raw []byte) {
	t.Helper()
	want := read(t, raw)
	r, err := gomail.CreateReader(bytes.NewReader(raw))
	if err != nil && !gomessage.IsUnknownCharset(err) {
		t.Fatalf("%s: %v", name, err)
	}
	if subject, err := r.Header.Subject(); err != nil || subject != want.subject {
		t.Errorf("%s: subject %q, %v; want %q", name, subject, err, want.subject)
	}
	if from, err := r.Header.AddressList("From"); err != nil || len(from) != 1 || from[0].Name != "물길상점" {
		t.Errorf("%s: From %v, %v", name, from, err)
	}
	if id, err := r.Header.MessageID(); err != nil || "<"+id+">" != want.header.Get("Message-Id") {
		t.Errorf("%s: Message-ID %q, %v", name, id, err)
	}
	if _, err := r.Header.Date(); err != nil {
		t.Errorf("%s: Date: %v", name, err)
	}
	files := 0
	for {
		part, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		body, err := io.ReadAll(part.Body)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		switch h := part.Header.(type) {
		case *gomail.AttachmentHeader:
			file, err := h.Filename()
			if err != nil || !bytes.Equal(body, want.files[file]) {
				t.Errorf("%s: file %q, %v", name, file, err)
			}
			files++
		case *gomail.InlineHeader:
			kind, _, err := h.ContentType()
			switch {
			case err != nil:
				t.Errorf("%s: %v", name, err)
			case kind == "text/plain" && string(body) != want.text, kind == "text/html" && string(body) != want.html:
				t.Errorf("%s: %s differs between the readers", name, kind)
			case strings.HasPrefix(kind, "image/"):
				files++
			}
		}
	}
	if files != len(want.files) {
		t.Errorf("%s: %d files, want %d", name, files, len(want.files))
	}
	if strings.TrimSpace(want.text) == "" {
		t.Errorf("%s: no text", name)
	}
}
