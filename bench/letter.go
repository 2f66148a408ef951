package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	htmltemplate "html/template"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"os"
	"strings"
	texttemplate "text/template"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/producer"
	"github.com/sluicemail/sluice/templates"
)

// letter is the mail that is sent: Korean HTML and text with five variables, in
// the words of html/template and text/template, so that a baseline renders the very
// same source.
type letter struct{ subject, html, text string }

// newLetter makes one whose HTML holds that many paragraphs of 143 bytes.
func newLetter(paragraphs int) letter {
	paragraph := `<p style="margin:0 0 14px;font-size:16px">오늘 저녁, 서랍 하나면 충분합니다. 크게 마음먹지 않아도 괜찮습니다.</p>` + "\n"
	half := strings.Repeat(paragraph, paragraphs/2)
	return letter{
		subject: `{{.name}}님께 드리는 {{.coupon}}`,
		html: `<!DOCTYPE html><html lang="ko"><body><h1>{{.name}}님</h1>` + half +
			`<p>{{.grade}} 회원 · {{.points}}점</p><a href="https://shop.example/?c={{.coupon}}" title="{{.store}}">보기</a>` + half +
			`<p>{{.name}}님, 고맙습니다.</p></body></html>` + "\n",
		text: `{{.name}}님, {{.grade}} 회원 {{.points}}점 {{.store}}` + "\n" +
			strings.Repeat("오늘 저녁, 서랍 하나면 충분합니다.\n", paragraphs/2) + "쿠폰 {{.coupon}}\n",
	}
}

// fullLetter has 10 KB of HTML and 1.5 KB of text; on the wire, in base64, it is
// half as large again.
func fullLetter() letter { return newLetter(72) }

// wireLetter has 10 KB on the wire, headers and encoding included.
func wireLetter() letter { return newLetter(42) }

// settings are the variables that the lists of these benchmarks do not have.
func settings() map[string]string {
	return map[string]string{"coupon": "SPRING-2026", "grade": "골드", "points": "12,340", "store": "물길상점 성수점"}
}

func (l letter) source() string {
	return fmt.Sprintf(`{{define "subject"}}%s{{end}}{{define "html"}}%s{{end}}{{define "text"}}%s{{end}}`, l.subject, l.html, l.text)
}

const sender = "hello@mulgil.example"

func letterOptions(s mail.Stream, set map[string]string) (templates.Options, error) {
	from, err := mail.ParseAddress(sender)
	if err != nil {
		return templates.Options{}, fmt.Errorf("sender: %w", err)
	}
	return templates.Options{From: templates.Mailbox{Name: "물길상점", Address: from}, Sender: templates.SampleSender(), Stream: s, Set: set}, nil
}

// request is a send of l to the list in a file.
func (l letter) request(name, list string) (producer.Request, error) {
	t, err := templates.Parse("letter", l.source())
	if err != nil {
		return producer.Request{}, err
	}
	o, err := letterOptions(mail.Normal, settings())
	return producer.Request{Name: name, Stream: mail.Normal, Template: t, Options: o,
		List: producer.List{Name: list, Open: func() (io.ReadCloser, error) { return os.Open(list) }}}, err
}

// obviousLetter renders as one does with the standard library: execute both
// templates, write a multipart/alternative.
type obviousLetter struct {
	subject, text *texttemplate.Template
	html          *htmltemplate.Template
}

func (l letter) obvious() (*obviousLetter, error) {
	subject, err := texttemplate.New("subject").Parse(l.subject)
	if err != nil {
		return nil, fmt.Errorf("baseline template: %w", err)
	}
	text, err := texttemplate.New("text").Parse(l.text)
	if err != nil {
		return nil, fmt.Errorf("baseline template: %w", err)
	}
	html, err := htmltemplate.New("html").Parse(l.html)
	if err != nil {
		return nil, fmt.Errorf("baseline template: %w", err)
	}
	return &obviousLetter{subject, text, html}, nil
}

// render writes one mail to buf.
func (o *obviousLetter) render(buf *bytes.Buffer, to, id string, data map[string]string) error {
	var subject, text, html bytes.Buffer
	if err := o.subject.Execute(&subject, data); err != nil {
		return fmt.Errorf("subject: %w", err)
	}
	if err := o.text.Execute(&text, data); err != nil {
		return fmt.Errorf("text: %w", err)
	}
	if err := o.html.Execute(&html, data); err != nil {
		return fmt.Errorf("html: %w", err)
	}
	m := multipart.NewWriter(buf)
	fmt.Fprintf(buf, "Date: %s\r\nFrom: %s <%s>\r\nTo: %s\r\nSubject: %s\r\nMessage-ID: <%s@mulgil.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=%q\r\n\r\n",
		time.Now().Format(time.RFC1123Z), mime.BEncoding.Encode("UTF-8", "물길상점"), sender, to,
		mime.BEncoding.Encode("UTF-8", subject.String()), id, m.Boundary())
	if err := appendPart(m, "text/plain; charset=UTF-8", text.Bytes()); err != nil {
		return err
	}
	if err := appendPart(m, "text/html; charset=UTF-8", html.Bytes()); err != nil {
		return err
	}
	return m.Close()
}

// appendPart writes a part in base64, which is the shorter encoding for Korean.
func appendPart(m *multipart.Writer, contentType string, body []byte) error {
	w, err := m.CreatePart(textproto.MIMEHeader{"Content-Type": {contentType}, "Content-Transfer-Encoding": {"base64"}})
	if err != nil {
		return fmt.Errorf("part: %w", err)
	}
	encoded := make([]byte, base64.StdEncoding.EncodedLen(len(body)))
	base64.StdEncoding.Encode(encoded, body)
	for len(encoded) > 0 {
		n := min(76, len(encoded))
		if _, err := w.Write(encoded[:n]); err != nil {
			return fmt.Errorf("part: %w", err)
		}
		if _, err := io.WriteString(w, "\r\n"); err != nil {
			return fmt.Errorf("part: %w", err)
		}
		encoded = encoded[n:]
	}
	return nil
}
