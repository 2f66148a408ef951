package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/relay"
)

// What a shell is told beside the words: cobra's directives.
const (
	orFiles = ":0"
	noFiles = ":4"
	inOrder = ":36" // and no files
)

// tab is what the shell is offered for the last argument, without descriptions, and
// the directive. The first line of standard error is cobra's; there must be no more.
func tab(t *testing.T, yaml string, args ...string) (words []string, directive string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(name, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code := run(t.Context(), append([]string{"__complete", "--config", name}, args...), stdio{in: strings.NewReader(""), out: &out, err: &errs})
	if code != exitDone || strings.Count(errs.String(), "\n") != 1 {
		t.Errorf("%q: exit code %d, standard error %q", args, code, errs.String())
	}
	for line := range strings.Lines(out.String()) {
		word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		words = append(words, word)
	}
	last := len(words) - 1
	return words[:last], words[last]
}

func TestCompleteWords(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		want []string
		dir  string
	}{
		"stream":             {[]string{"send", "--stream", ""}, []string{"auth", "normal", "ad"}, noFiles},
		"stream of template": {[]string{"template", "check", "--stream", "n"}, []string{"normal"}, noFiles},
		"profile":            {[]string{"relay", "--profile", ""}, relay.Profiles(), noFiles},
		"log level":          {[]string{"demo", "--log-level", "w"}, []string{"warn"}, noFiles},
		"log format":         {[]string{"demo", "--log-format", ""}, []string{"text", "json"}, noFiles},
		"template":           {[]string{"send", "--template", "rece"}, []string{"receipt", "receipt.en", "receipt.ja"}, orFiles},
		"template's file":    {[]string{"send", "--template", "./"}, nil, orFiles},
		"template preview":   {[]string{"template", "preview", "code"}, []string{"code", "code.en", "code.ja"}, orFiles},
		"one template":       {[]string{"template", "preview", "code", ""}, nil, noFiles},
		"shells":             {[]string{"completion", ""}, []string{"bash", "fish", "powershell", "zsh"}, noFiles},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, dir := tab(t, "", tc.args...)
			if tc.dir == noFiles && len(got) > len(tc.want) {
				// Of fixed words, the shell picks those that fit.
				got = slices.DeleteFunc(got, func(s string) bool { return !strings.HasPrefix(s, tc.args[len(tc.args)-1]) })
			}
			if !slices.Equal(got, tc.want) || dir != tc.dir {
				t.Errorf("%q: %q %s, want %q %s", tc.args, got, dir, tc.want, tc.dir)
			}
		})
	}
}

func TestCompleteCampaigns(t *testing.T) {
	t.Parallel()
	srv := miniredis.RunT(t)
	q, err := queue.Open(queue.Options{Connection: queue.Connection{Addrs: []string{srv.Addr()}}, Prefix: keyPrefix})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	for _, name := range []string{"spring", "summer", "여름 소식", "tab\tbed"} {
		st, err := q.Stage(t.Context(), queue.Campaign{Name: name, Key: name, Stream: mail.Ad, Size: 500}, []byte("program"))
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Commit(t.Context(), 0, 0, queue.Door{}); err != nil {
			t.Fatal(err)
		}
	}
	yaml := "redis: {url: \"redis://" + srv.Addr() + "/0\"}\n"
	for _, command := range []string{"show", "report", "pause", "resume", "cancel"} {
		got, dir := tab(t, yaml, "campaign", command, "")
		slices.Sort(got)
		if want := []string{"spring", "summer", "여름 소식"}; !slices.Equal(got, want) || dir != inOrder {
			t.Errorf("campaign %s: %q %s, want %q %s", command, got, dir, want, inOrder)
		}
	}
	if got, _ := tab(t, yaml, "campaign", "show", "su"); !slices.Equal(got, []string{"summer"}) {
		t.Errorf("su: %q, want summer", got)
	}
	if got, dir := tab(t, yaml, "campaign", "show", "summer", ""); len(got) > 0 || dir != noFiles {
		t.Errorf("a second name: %q %s, want none", got, dir)
	}
}

// A shell that asks must get an answer, and no error on the screen.
func TestCompleteCampaignsWithoutRedis(t *testing.T) {
	t.Parallel()
	mute, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mute.Close() })
	for name, yaml := range map[string]string{
		"refused":  "redis: {url: \"redis://127.0.0.1:1/0\"}\n",
		"mute":     "redis: {url: \"redis://" + mute.Addr().String() + "/0\"}\n",
		"embedded": "redis: {url: embedded}\n",
		"faulty":   "redis: {uri: embedded}\n",
		"no YAML":  "\t{",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, dir := tab(t, yaml, "campaign", "show", ""); len(got) > 0 || dir != noFiles {
				t.Errorf("%q %s, want nothing", got, dir)
			}
		})
	}
}

func TestCompletionScripts(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		code, out, errs := sluice(t, "", "completion", shell)
		if code != exitDone || !strings.Contains(out, "__complete") || errs != "" {
			t.Fatalf("%s: exit code %d, %d bytes, %s", shell, code, len(out), errs)
		}
		if shell != "bash" {
			continue
		}
		cmd := exec.Command("bash", "-n")
		cmd.Stdin = strings.NewReader(out)
		if msg, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("bash does not take it: %v\n%s", err, msg)
		}
	}
	for _, args := range [][]string{{"completion", "tcsh"}, {"completion", "bash", "extra"}} {
		if code, _, errs := sluice(t, "", args...); code != exitUsage || errs == "" {
			t.Errorf("%q: exit code %d, %q, want a usage error", args, code, errs)
		}
	}
	if code, out, _ := sluice(t, "", "completion"); code != exitDone || !strings.Contains(out, "powershell") {
		t.Errorf("completion: exit code %d, %q, want help", code, out)
	}
}
