package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Global flags are obeyed or refused by every command, also by those that log nothing
// and use no configuration.
func TestGlobalFlags(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	missing, junk := filepath.Join(dir, "nosuch.yaml"), filepath.Join(dir, "junk.yaml")
	if err := os.WriteFile(junk, []byte("\t{"), 0o600); err != nil {
		t.Fatal(err)
	}
	noFile := missing + ": no such file; --config names a file that must exist"
	for name, tc := range map[string]struct {
		args string
		code int
		want string // part of what is said
	}{
		"format":                 {"template list --log-format xml", exitUsage, `--log-format "xml": want text or json`},
		"level":                  {"template list --log-level zz", exitUsage, `--log-level "zz": want debug`},
		"before the command":     {"--log-level zz version", exitUsage, "--log-level"},
		"config check, level":    {"config check --log-level zz", exitUsage, "--log-level"},
		"no such file":           {"template list --config " + missing, exitUsage, noFile},
		"demo":                   {"demo --recipients 1 --config " + missing, exitUsage, noFile},
		"verdict":                {"verdict --config " + missing + " 250", exitUsage, noFile},
		"a directory":            {"version --config " + dir, exitUsage, "is a directory"},
		"send":                   {"send --config " + missing, exitUsage, noFile},
		"config check":           {"config check --config " + missing, exitUsage, noFile},
		"config check, as JSON":  {"config check --json --config " + missing, exitUsage, `{"ok":false,"problems":[`},
		"doctor":                 {"doctor --config " + missing, exitUsage, noFile},
		"contents not asked for": {"template list --config " + junk, exitDone, "newsletter"},
		"help":                   {"help send --log-level zz --config " + missing, exitDone, "--template"},
		"help flag":              {"send --help --log-level zz --config " + missing, exitDone, "--template"},
		"completion script":      {"completion bash --log-level zz --config " + missing, exitDone, "__complete"},
		"completion":             {"__complete --config " + missing + " template l", exitDone, "list"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, errs bytes.Buffer
			code := run(t.Context(), strings.Fields(tc.args), stdio{in: strings.NewReader(""), out: &out, err: &errs})
			if code != tc.code || !strings.Contains(out.String()+errs.String(), tc.want) {
				t.Errorf("exit code %d, want %d and %q\n%s%s", code, tc.code, tc.want, out.String(), errs.String())
			}
		})
	}
}
