package templates

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	netmail "net/mail"
	"strings"
	"testing"
	"time"

	"encoding/base64"

	"github.com/sluicemail/sluice/internal/mail"
)

func address(t testing.TB, s string) mail.Address {
	t.Helper()
	a, err := mail.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func options(t testing.TB, stream mail.Stream) Options {
	t.Helper()
	return Options{
		From:   Mailbox{Name: "물길상점", Address: address(t, "hello@mulgil.example")},
		Sender: SampleSender(),
		Stream: stream,
	}
}

func mustParse(t testing.TB, source string) *Template {
	t.Helper()
	tmpl, err := Parse("test", source)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

func compile(t testing.TB, source string, o Options) *Program {
	t.Helper()
	p, err := mustParse(t, source).Compile(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// source makes a template of a subject and an HTML document.
func source(subject, html string) string {
	return `{{define "subject"}}` + subject + `{{end}}{{define "html"}}` + html + `{{end}}`
}

func recipient(values ...string) Recipient {
	return Recipient{
		Email:     "kim.minjun@naver.example",
		Values:    values,
		MessageID: MessageID("test", 7, "mulgil.example"),
		Date:      time.Date(2026, 3, 2, 9, 30, 0, 0, time.FixedZone("KST", 9*3600)),
	}
}

func render(t testing.TB, p *Program, r Recipient) []byte {
	t.Helper()
	out, err := p.Render(nil, r)
	if err != nil {
		t.Fatal(err)
	}
	checkLines(t, out)
	return out
}

// checkLines is the strict reader: CRLF only, at most 998 octets a line, no NUL,
// ASCII header.
func checkLines(t testing.TB, message []byte) {
	t.Helper()
	if !bytes.HasSuffix(message, []byte("\r\n")) {
		t.Error("the message does not end in CRLF")
	}
	header := true
	for i, line := range strings.Split(string(message), "\r\n") {
		if strings.ContainsAny(line, "\r\n\x00") {
			t.Fatalf("line %d holds a bare CR, a bare LF or NUL: %q", i+1, line)
		}
		if len(line) > maxLine {
			t.Fatalf("line %d has %d octets", i+1, len(line))
		}
		header = header && line != ""
		for _, c := range []byte(line) {
			if header && (c < ' ' || c > '~') {
				t.Fatalf("header line %d holds %#x", i+1, c)
			}
		}
	}
}

// message is a mail as an independent reader (net/mail, mime) sees it.
type message struct {
	header   netmail.Header
	subject  string
	text     string
	html     string
	kinds    []string // media types of the leaves, in order
	files    map[string][]byte
	contents map[string][]byte // by Content-ID
}

func read(t testing.TB, raw []byte) message {
	t.Helper()
	m, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("read message: %v\n%s", err, raw)
	}
	out := message{header: m.Header, files: map[string][]byte{}, contents: map[string][]byte{}}
	if out.subject, err = new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil {
		t.Fatal(err)
	}
	out.entity(t, m.Header.Get, m.Body)
	return out
}

func (m *message) entity(t testing.TB, get func(string) string, body io.Reader) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(get("Content-Type"))
	if err != nil {
		t.Fatalf("Content-Type %q: %v", get("Content-Type"), err)
	}
	if strings.HasPrefix(kind, "multipart/") {
		r := multipart.NewReader(body, params["boundary"])
		for {
			part, err := r.NextRawPart()
			if err == io.EOF {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			m.entity(t, part.Header.Get, part)
		}
	}
	switch get("Content-Transfer-Encoding") {
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "8bit":
	default:
		t.Fatalf("Content-Transfer-Encoding %q", get("Content-Transfer-Encoding"))
	}
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	m.kinds = append(m.kinds, kind)
	_, disposition, _ := mime.ParseMediaType(get("Content-Disposition"))
	switch {
	case disposition["filename"] != "":
		m.files[disposition["filename"]] = b
		m.contents[strings.Trim(get("Content-Id"), "<>")] = b
	case kind == "text/plain":
		m.text = string(b)
	case kind == "text/html":
		m.html = string(b)
	}
}
