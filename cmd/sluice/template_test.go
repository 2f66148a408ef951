package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sluice runs one command line.
func runTemplate(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), append([]string{"template"}, args...), stdio{in: strings.NewReader(""), out: &stdout, err: &stderr})
	return code, stdout.String(), stderr.String()
}

func TestTemplateCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.tmpl")
	if err := os.WriteFile(broken, []byte(`{{define "subject"}}x{{end}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args      []string
		code      int
		out, errs string
	}{
		"list":              {[]string{"list"}, exitDone, "newsletter.ja", ""},
		"check":             {[]string{"check", "ad"}, exitDone, "columns    email, name\n", ""},
		"check optional":    {[]string{"check", "code"}, exitDone, "optional   minutes\n", ""},
		"preview":           {[]string{"preview", "newsletter", "--set", "name=홍길동"}, exitDone, "홍길동님", ""},
		"preview html":      {[]string{"preview", "newsletter", "--html", "-"}, exitDone, "<!DOCTYPE html>", ""},
		"preview mail":      {[]string{"preview", "newsletter", "--eml", "-"}, exitDone, "MIME-Version: 1.0\r\n", ""},
		"two to stdout":     {[]string{"preview", "ad", "--html", "-", "--eml", "-"}, exitUsage, "", "cannot both"},
		"unknown template":  {[]string{"check", "newsleter"}, exitUsage, "", `unknown template "newsleter"`},
		"no template":       {[]string{"check"}, exitUsage, "", "takes one template"},
		"unknown command":   {[]string{"chekc"}, exitUsage, "", `no command "chekc"`},
		"broken template":   {[]string{"check", broken}, exitFailed, "", "at least one of"},
		"ad rules":          {[]string{"check", "receipt", "--stream", "ad"}, exitFailed, "", "(광고)"},
		"bad stream":        {[]string{"check", "ad", "--stream", "bulk"}, exitUsage, "", `stream "bulk"`},
		"bad set":           {[]string{"check", "ad", "--set", "name"}, exitUsage, "", "want NAME=VALUE"},
		"set twice":         {[]string{"check", "ad", "--set", "name=a", "--set", "name=b"}, exitUsage, "", "given twice"},
		"set an unknown":    {[]string{"check", "ad", "--set", "nmae=a"}, exitFailed, "", "no such variable"},
		"file not writable": {[]string{"preview", "ad", "--html", dir}, exitFailed, "", "write preview"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := runTemplate(t, tc.args...)
			if code != tc.code || !strings.Contains(out, tc.out) || !strings.Contains(errs, tc.errs) {
				t.Errorf("exit code %d, want %d\n%s%s", code, tc.code, out, errs)
			}
		})
	}
}

func TestTemplatePreviewFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	html, eml := filepath.Join(dir, "a.html"), filepath.Join(dir, "a.eml")
	code, out, errs := runTemplate(t, "preview", "receipt.en", "--html", html, "--eml", eml, "--json")
	if code != exitDone {
		t.Fatal(errs)
	}
	var result struct {
		Name, Subject    string
		Bytes, HTMLBytes int
		Columns          []string
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || result.Name != "receipt.en" || len(result.Columns) != 5 {
		t.Errorf("%s: %v", out, err)
	}
	for path, content := range map[string]string{html: "Alex Kim", eml: "Subject: "} {
		if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), content) {
			t.Errorf("%s: no %q, %v", path, content, err)
		}
	}
}

func TestTemplateListJSON(t *testing.T) {
	t.Parallel()
	_, out, _ := runTemplate(t, "list", "--json")
	var all []struct{ Name, Stream, Language string }
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 12 {
		t.Errorf("%d templates, %v", len(all), err)
	}
}
