package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gomail "github.com/emersion/go-message/mail"

	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/relay"
)

// Attachments, inline images, Reply-To and further headers arrive as given, read by
// another parser than ours.
func TestMessageExtras(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{relay: relay.Config{KeepContent: true}})
	pdf := r.write("안내.pdf", "%PDF-1.4 not much of one")
	png := r.write("logo.png", "\x89PNG\r\n\x1a\n")
	tmpl := r.write("notice.tmpl", `{{define "subject"}}알림 {{.name}}{{end}}{{define "html"}}<p>{{.name}}</p><img src="cid:logo.png" alt="logo">{{end}}`)
	code, _, errs := r.run(t.Context(), "send", "--to", r.list(1), "--template", tmpl, "--from", "News <news@example.com>", "--stream", "normal", "--wait",
		"--reply-to", "고객센터 <help@example.com>", "--header", "List-Unsubscribe: <https://example.com/u/1>", "--attach", pdf, "--inline", png)
	if code != exitDone || len(r.relay.Truth()) != 1 {
		t.Fatalf("%d %s", code, errs)
	}
	m, err := gomail.CreateReader(strings.NewReader(string(r.relay.Truth()[0].Content)))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := m.Header.Subject(); got != "알림 홍길동0" {
		t.Errorf("subject %q", got)
	}
	if to, err := m.Header.AddressList("Reply-To"); err != nil || len(to) != 1 || to[0].Name != "고객센터" || to[0].Address != "help@example.com" {
		t.Errorf("reply-to %v, %v", to, err)
	}
	if got := m.Header.Get("List-Unsubscribe"); !strings.HasPrefix(got, "<https://example.com/u/") {
		t.Errorf("list-unsubscribe %q", got)
	}
	parts := readParts(t, m)
	if parts["안내.pdf"] != "%PDF-1.4 not much of one" {
		t.Errorf("the attachment is not there: %v", parts)
	}
	if !strings.Contains(parts["text/html"], "홍길동0") || !strings.Contains(parts["text/plain"], "홍길동0") {
		t.Errorf("the texts are not there: %v", parts)
	}
	if parts["image/png"]+parts["logo.png"] != "\x89PNG\r\n\x1a\n" {
		t.Errorf("the image is not there: %q", parts)
	}
}

// readParts collects the leaves of a mail by file name or content type.
func readParts(t *testing.T, m *gomail.Reader) map[string]string {
	t.Helper()
	parts := map[string]string{}
	for {
		p, err := m.NextPart()
		if errors.Is(err, io.EOF) {
			return parts
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(p.Body)
		if err != nil {
			t.Fatal(err)
		}
		switch h := p.Header.(type) {
		case *gomail.AttachmentHeader:
			name, _ := h.Filename()
			parts[name] = string(body)
		case *gomail.InlineHeader:
			kind, _, _ := h.ContentType()
			parts[kind] = string(body)
		}
	}
}

func TestMessageExtrasRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	list := r.list(1)
	for name, tc := range map[string]struct {
		more []string
		want string
	}{
		"header without a colon": {[]string{"--header", "X-Nothing"}, "--header"},
		"header of our own":      {[]string{"--header", "Subject: x"}, "Subject"},
		"injected header":        {[]string{"--header", "X-A: b\r\nBcc: c@d.ef"}, "X-A"},
		"bad reply-to":           {[]string{"--reply-to", "nobody"}, "--reply-to"},
		"no such file":           {[]string{"--attach", filepath.Join(r.dir, "nowhere.pdf")}, "nowhere.pdf"},
		"forbidden type":         {[]string{"--attach", r.write("run.exe", "MZ")}, "exe"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := r.run(t.Context(), r.send(list, tc.more...)...)
			if code != exitUsage || out != "" || !strings.Contains(errs, tc.want) {
				t.Errorf("%d %q %q", code, out, errs)
			}
		})
	}
}

// A mail over the size that the relay offers is refused before anything is enqueued,
// once a worker has met that relay.
func TestRelaySize(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), relay: relay.Config{
		Capabilities: []string{"PIPELINING", "SIZE 60000", "STARTTLS", "AUTH PLAIN"}, MaxSize: 60_000}})
	r.start("worker")
	code, _, errs := r.run(t.Context(), r.send(r.list(1), "--wait")...)
	if code != exitDone {
		t.Fatalf("%d %s", code, errs)
	}
	big := filepath.Join(r.dir, "big.pdf")
	if err := os.WriteFile(big, append([]byte("%PDF-1.4\n"), make([]byte, 80_000)...), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, errs = r.run(t.Context(), "send", "--to", r.list(2), "--template", "newsletter", "--from", "news@example.com", "--stream", "ad", "--attach", big)
	if code != exitUsage || !strings.Contains(errs, "at most 60000 octets") {
		t.Errorf("%d %s", code, errs)
	}
}

// A campaign goes through each preset's login form: the stream behind the AppKey for
// NHN Cloud, the plain user for everybody else.
func TestPresets(t *testing.T) {
	t.Parallel()
	for preset, user := range map[string]string{"nhn": "app", "ses": "AKIAEXAMPLE", "sendgrid": "apikey", "mailgun": "postmaster@mg.example.com", "gmail": "somebody@gmail.example", "custom": "user"} {
		t.Run(preset, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, rigOptions{
				relay: relay.Config{Users: map[string]string{user: "sec"}},
				yaml: func(s *relay.Server) string {
					host, port, _ := strings.Cut(s.Addr(), ":")
					return fmt.Sprintf("relay: {preset: %s, host: %s, port: %s, tls: starttls, ca_file: ca.pem, user: %q, password: sec}\n", preset, host, port, user)
				},
			})
			code, out, errs := r.run(t.Context(), r.send(r.list(3), "--wait", "--json")...)
			if code != exitDone || lastJSON(t, out).Accepted != 3 {
				t.Fatalf("%d %s %s", code, out, errs)
			}
			want := "normal" // no suffix at all
			if preset == "nhn" {
				want = "ad"
			}
			for _, m := range r.relay.Truth() {
				if m.Stream != want || m.User != user {
					t.Errorf("logged in as %s, stream %s", m.User, m.Stream)
				}
			}
		})
	}
}
