package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

// sluice runs one command line with a configuration file of the given text.
func sluice(t *testing.T, yaml string, args ...string) (code int, out, err string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "sluice.yaml")
	if e := os.WriteFile(name, []byte(yaml), 0o600); e != nil {
		t.Fatal(e)
	}
	var o, e bytes.Buffer
	code = run(t.Context(), append(args, "--config", name), stdio{in: strings.NewReader(""), out: &o, err: &e})
	return code, o.String(), e.String()
}

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	const sound = "relay: {user: key, password: s3cret}\nsender: {name: n, email: a@example.com, phone: p, address: a}\n"
	code, out, err := sluice(t, sound, "config", "check")
	if code != exitDone || err != "" || !strings.Contains(out, "the configuration is sound") {
		t.Errorf("sound: code %d\n%s%s", code, out, err)
	}
	if !strings.Contains(out, "sluice.yaml:1\n") || strings.Contains(out, "s3cret") {
		t.Errorf("origins, but no secret, should be in\n%s", out)
	}

	code, out, err = sluice(t, "relay: {prot: 1}", "config", "check")
	if code != exitUsage || out != "" || !strings.Contains(err, "relay.prot: unknown key; did you mean port?") {
		t.Errorf("unknown key: code %d\n%s%s", code, out, err)
	}

	code, _, err = sluice(t, "{}", "config", "check")
	if code != exitDone || !strings.Contains(err, "warning: relay.user: empty") || !strings.Contains(err, "warning: sender.name") {
		t.Errorf("incomplete: code %d\n%s", code, err)
	}
}

func TestConfigCheckJSON(t *testing.T) {
	t.Parallel()
	var report configReport
	code, out, err := sluice(t, "relay: {user: key, password: s3cret}", "config", "check", "--json")
	if e := json.Unmarshal([]byte(out), &report); e != nil || code != exitDone || err != "" {
		t.Fatalf("code %d, %v\n%s%s", code, e, out, err)
	}
	if !report.OK || len(report.Settings) == 0 || len(report.Warnings) == 0 || strings.Contains(out, "s3cret") {
		t.Errorf("report %s", out)
	}

	report = configReport{}
	code, out, _ = sluice(t, "relay: {prot: 1, port: x}", "config", "check", "--json")
	if e := json.Unmarshal([]byte(out), &report); e != nil || code != exitUsage {
		t.Fatalf("code %d, %v\n%s", code, e, out)
	}
	if report.OK || len(report.Problems) != 2 || report.Problems[0].Key != "relay.prot" {
		t.Errorf("report %s", out)
	}
}

func TestConfigUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"config", "chek"}, {"config", "check", "now"}, {"config", "check", "--jsn"}, {"version", "1"}} {
		if code, _, err := sluice(t, "{}", args...); code != exitUsage {
			t.Errorf("%q: code %d, %s", args, code, err)
		}
	}
	if code, out, _ := sluice(t, "{}", "config"); code != exitDone || !strings.Contains(out, "check") {
		t.Errorf("config alone: code %d\n%s", code, out)
	}
	missing := filepath.Join(t.TempDir(), "none.yaml")
	var o, e bytes.Buffer
	if code := run(t.Context(), []string{"config", "check", "--config", missing}, stdio{out: &o, err: &e}); code != exitUsage {
		t.Errorf("a configuration that is not there: code %d\n%s", code, e.String())
	}
}

func TestLoadConfigLogsWarnings(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(name, []byte("redis: {url: embedded}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for format, want := range map[string]string{"text": "level=WARN", "json": `"level":"WARN"`} {
		var e bytes.Buffer
		a := &app{stdio: stdio{err: &e}, configFile: name, logFormat: format, logLevel: "info"}
		if _, err := a.loadConfig(); err != nil || !strings.Contains(e.String(), want) {
			t.Errorf("%s: %v, log %q", format, err, e.String())
		}
		e.Reset()
		a.logLevel = "error"
		if _, err := a.loadConfig(); err != nil || e.Len() != 0 {
			t.Errorf("%s, errors only: %v, log %q", format, err, e.String())
		}
	}
	for _, a := range []*app{{logFormat: "xml", logLevel: "info"}, {logFormat: "text", logLevel: "loud"}} {
		if _, err := a.loadConfig(); err == nil || !strings.Contains(err.Error(), "want") {
			t.Errorf("format %q, level %q: %v", a.logFormat, a.logLevel, err)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	code, out, _ := sluice(t, "{}", "version")
	if code != exitDone || !strings.HasPrefix(out, "sluice ") || strings.Count(out, "\n") != 1 {
		t.Errorf("code %d, %q", code, out)
	}
	var v versionReport
	code, out, _ = sluice(t, "{}", "version", "--json")
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != exitDone || v.Go == "" {
		t.Errorf("code %d, %v, %q", code, err, out)
	}
	v = versionOf(&debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"}}})
	if s := v.String(); !strings.HasPrefix(s, "sluice v1.2.3 commit 0123456789ab (modified) go") {
		t.Errorf("%q", s)
	}
	if s := versionOf(nil).String(); !strings.HasPrefix(s, "sluice (devel) go") {
		t.Errorf("%q", s)
	}
}
