package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/smtp"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// relayRun is `sluice relay` at work in this process.
type relayRun struct {
	addr   string
	lines  *bufio.Reader // its stderr from here on
	finish func() (code int, out string)
}

func runRelayCommand(t *testing.T, args ...string) relayRun {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	var out bytes.Buffer
	code := make(chan int, 1)
	go func() {
		c := run(ctx, append([]string{"relay", "--listen", "127.0.0.1:0"}, args...), stdio{in: strings.NewReader(""), out: &out, err: w})
		w.Close()
		code <- c
	}()
	lines := bufio.NewReader(r)
	first, err := lines.ReadString('\n')
	if err != nil {
		t.Fatalf("stderr: %v", err)
	}
	m := regexp.MustCompile(`listening on (127\.0\.0\.1:\d+) `).FindStringSubmatch(first)
	if m == nil {
		t.Fatalf("no address in %q", first)
	}
	for range 2 { // how to use it
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	return relayRun{m[1], lines, func() (int, string) {
		cancel()
		go io.Copy(io.Discard, r)
		return <-code, out.String()
	}}
}

// mailThrough sends one message with net/smtp, over STARTTLS if roots are given.
func mailThrough(addr, to string, roots *x509.CertPool) error {
	c, err := smtp.Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if roots != nil {
		if err := c.StartTLS(&tls.Config{RootCAs: roots, ServerName: "localhost"}); err != nil {
			return err
		}
	}
	if err := c.Auth(smtp.PlainAuth("", "SecretKey#ad", "pw", "127.0.0.1")); err != nil {
		return err
	}
	if err := c.Mail("from@example.com"); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, "Message-ID: <1@test>\r\n\r\nhello\r\n"); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return c.Quit()
}

func TestRelayCommandJSON(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script, ca, truth := filepath.Join(dir, "s.yaml"), filepath.Join(dir, "ca.pem"), filepath.Join(dir, "truth")
	if err := os.WriteFile(script, []byte("- {name: no such user, stage: rcpt, to: bad@*, reply: 550 5.1.1 no}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := runRelayCommand(t, "--json", "--messages", "--script", script, "--ca-out", ca, "--truth", truth)
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("no certificate in %s", pem)
	}
	read := make(chan string, 1)
	go func() { // a pipe holds its writer until it is read
		line, _ := r.lines.ReadString('\n')
		read <- line
	}()
	if err := mailThrough(r.addr, "someone@example.com", roots); err != nil {
		t.Fatal(err)
	}
	if line := <-read; !strings.Contains(line, "ad, to s***@example.com,") {
		t.Errorf("line %q", line)
	}
	if err := mailThrough(r.addr, "bad@example.com", roots); err == nil || !strings.Contains(err.Error(), "550") {
		t.Errorf("the script's rule did not act: %v", err)
	}
	code, out := r.finish()
	if code != exitDone {
		t.Errorf("exit code %d", code)
	}
	var got struct {
		Connections int              `json:"connections"`
		Messages    int              `json:"messages"`
		RuleHits    map[string]int   `json:"rule_hits"`
		Accepted    []map[string]any `json:"accepted"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || strings.Count(out, "\n") != 1 {
		t.Fatalf("stdout is no single JSON line: %v\n%s", err, out)
	}
	if got.Connections != 2 || got.Messages != 1 || len(got.Accepted) != 1 || got.RuleHits["no such user"] != 1 {
		t.Errorf("%+v", got)
	}
	if a := got.Accepted[0]; a["to"] != "someone@example.com" || a["message_id"] != "<1@test>" || a["stream"] != "ad" {
		t.Errorf("accepted %v", a)
	}
	if file, err := os.ReadFile(truth); err != nil || !strings.Contains(string(file), `"<1@test>"`) {
		t.Errorf("truth file %q, %v", file, err)
	}
	if strings.Contains(out, "SecretKey") {
		t.Error("the AppKey is in the output")
	}
}

func TestRelayCommandText(t *testing.T) {
	t.Parallel()
	r := runRelayCommand(t, "--quiet", "--profile", "greylist")
	if err := mailThrough(r.addr, "a@example.com", nil); err == nil || !strings.Contains(err.Error(), "451") {
		t.Errorf("not greylisted: %v", err)
	}
	if err := mailThrough(r.addr, "a@example.com", nil); err != nil {
		t.Error(err)
	}
	code, out := r.finish()
	for _, want := range []string{"accepted          1 messages", "connections       2, at most ", "greylisted: 1 times", "1 × 4xx"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if code != exitDone {
		t.Errorf("exit code %d", code)
	}
}

func TestRelayCommandUsage(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("- stage: rcpt\n  replay: 250 x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		`profile "fast": there is nhn`:       {"--profile", "fast"},
		`bad.yaml:2: unknown field "replay"`: {"--script", bad},
		"no such file":                       {"--script", bad + "x"},
		"--messages goes with --json":        {"--messages"},
		"listen":                             {"--listen", "256.0.0.1:1"},
		"exclude each other":                 {"--no-tls", "--implicit-tls"},
		"write CA":                           {"--listen", "127.0.0.1:0", "--ca-out", bad + "/x"},
		"takes no argument":                  {"now"},
	} {
		code, out, err := sluice(t, "", append([]string{"relay"}, args...)...)
		if code != exitUsage || out != "" || !strings.Contains(err, want) {
			t.Errorf("%v: code %d, stdout %q, stderr %q; want %q", args, code, out, err, want)
		}
	}
}
