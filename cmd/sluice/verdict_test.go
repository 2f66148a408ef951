package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/verdict"
)

func runVerdict(t *testing.T, stdin string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), append([]string{"verdict"}, args...), stdio{in: strings.NewReader(stdin), out: &stdout, err: &stderr})
	return code, stdout.String(), stderr.String()
}

func TestVerdictCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	mine := write("mine.yaml", "rules: [{name: mine, text: zzz, action: retry_slow, reach: relay, why: my reason}]")
	broken := write("broken.yaml", "rules:\n- {name: mine, action: bounce, why: x}")
	configured := write("sluice.yaml", "verdicts: {file: mine.yaml}\n")
	for name, tc := range map[string]struct {
		args []string
		code int
		out  []string
		errs string
	}{
		"reply":      {[]string{"550 5.1.1 No such user"}, exitDone, []string{"suppress", "nobody has this address", "reach", "recipient", "suppression list", "no-such-user (rules.yaml:"}, ""},
		"stage":      {[]string{"--stage", "data", "550 Unknown user"}, exitDone, []string{"fail", "the address stays good", "stage data, code 550, enhanced none"}, ""},
		"log line":   {[]string{"host x said: 554 5.7.1 blocked using zen.spamhaus.org (in reply to MAIL FROM command)"}, exitDone, []string{"pause_blocked", "the stream is held at once", "stage mail"}, ""},
		"one vote":   {[]string{"--stage", "rcpt", "554 5.7.1 blocked using zen.spamhaus.org"}, exitDone, []string{"the destination is held when it repeats"}, ""},
		"relay":      {[]string{"--stage", "connect", "554 No SMTP service here"}, exitDone, []string{"pause_blocked", "every stream is held at once"}, ""},
		"campaign":   {[]string{"--stage", "eod", "550 5.7.1 rejected as spam"}, exitDone, []string{"the campaign is held when it repeats"}, ""},
		"wait":       {[]string{"450 4.2.0 Greylisted, try again in 5 minutes"}, exitDone, []string{"retry_slow", "5m0s, as the reply asks"}, ""},
		"throttle":   {[]string{"421 Too many connections"}, exitDone, []string{"throttle_connection", "no attempt counted"}, ""},
		"retry":      {[]string{"451 Server busy"}, exitDone, []string{"retry ", "by the stream's schedule"}, ""},
		"unknown":    {[]string{"--stage", "rcpt", "550 Zzz"}, exitDone, []string{"fail", "no rule knows this reply"}, ""},
		"accepted":   {[]string{"250 2.0.0 Ok"}, exitDone, []string{"accepted: the reply refuses nothing\n"}, ""},
		"own rules":  {[]string{"--rules", mine, "550 Zzz"}, exitDone, []string{"retry_slow", "my reason", "mine (" + mine + ":1)", "phrase      zzz"}, ""},
		"configured": {[]string{"--config", configured, "550 Zzz"}, exitDone, []string{"my reason"}, ""},

		"broken rules":  {[]string{"--rules", broken, "550 Zzz"}, exitUsage, nil, "broken.yaml:2: rule mine: value \"bounce\""},
		"no rules file": {[]string{"--rules", filepath.Join(dir, "none"), "550 Zzz"}, exitUsage, nil, "no such file"},
		"no stage":      {[]string{"--stage", "quit", "550 Zzz"}, exitUsage, nil, "--stage: stage \"quit\": want connect,"},
		"nothing":       {nil, exitUsage, nil, "takes one reply in quotes, or --file"},
		"no quotes":     {[]string{"550", "5.1.1"}, exitUsage, nil, "has 2 arguments"},
		"both":          {[]string{"--file", mine, "550"}, exitUsage, nil, "takes one reply in quotes, or --file"},
		"no file":       {[]string{"--file", filepath.Join(dir, "none")}, exitUsage, nil, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := runVerdict(t, "", tc.args...)
			if code != tc.code || !strings.Contains(errs, tc.errs) || tc.errs == "" && errs != "" {
				t.Errorf("exit code %d, want %d; stderr %q", code, tc.code, errs)
			}
			for _, want := range tc.out {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
		})
	}
}

func TestVerdictJSON(t *testing.T) {
	t.Parallel()
	code, out, errs := runVerdict(t, "", "--json", "--stage", "rcpt", "450-4.2.0 Greylisted,\n450 4.2.0 try again in <5> minutes")
	var got judged
	if err := json.Unmarshal([]byte(out), &got); code != exitDone || errs != "" || err != nil {
		t.Fatalf("exit code %d, %q, %v: %s", code, errs, err, out)
	}
	if got.Origin == "" || got.Phrase == "" || got.Why == "" {
		t.Errorf("%+v", got)
	}
	got.Origin, got.Phrase, got.Why = "", "", ""
	want := judged{Stage: "rcpt", Code: 450, Enhanced: "4.2.0", Text: "Greylisted, try again in <5> minutes",
		Action: verdict.RetrySlow, Reach: verdict.Recipient, Rule: "greylisted", WaitSeconds: 300, Known: true}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// The outside contract: one object a row, in order, with these keys.
func TestVerdictFile(t *testing.T) {
	t.Parallel()
	const (
		comment = "# a comment\n"
		named   = "why\taction\ttext\tenhanced\tcode\tstage\n\nx\tsuppress\tNo such user\t5.1.1\t550\trcpt\r\nx\tfail\t\"Zzz\"\t\t\tany\n"
		usual   = "rcpt\t550\t5.1.1\tNo such user\n\t\t\t\"Zzz\"\n"
		same    = "stage\tcode\tenhanced\ttext\n" + usual
		bom     = "\ufeff"
	)
	for name, stdin := range map[string]string{
		"named columns":                  comment + named,
		"named columns, BOM":             bom + named,
		"named columns, BOM and comment": bom + comment + named,
		"named columns, comment and BOM": comment + bom + named,
		"usual columns":                  usual,
		"usual columns, BOM":             bom + usual,
		"usual columns, named, BOM":      bom + same,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := runVerdict(t, stdin, "--file", "-", "--json")
			if code != exitDone {
				t.Fatalf("exit code %d: %s", code, errs)
			}
			if named := strings.HasPrefix(name, "named"); named != (errs == "1 of 2 as the column action says\n") {
				t.Errorf("stderr %q", errs)
			}
			var rules []string
			for line := range strings.Lines(out) {
				var row map[string]any
				if err := json.Unmarshal([]byte(line), &row); err != nil {
					t.Fatal(err)
				}
				for _, key := range []string{"stage", "code", "enhanced", "text", "action", "reach", "rule"} {
					if _, ok := row[key]; !ok {
						t.Errorf("no %q in %s", key, line)
					}
				}
				rules = append(rules, row["stage"].(string)+" "+row["rule"].(string)+" "+row["text"].(string))
			}
			if want := []string{"rcpt no-such-user No such user", `any unknown "Zzz"`}; !slices.Equal(rules, want) {
				t.Errorf("%q, want %q", rules, want)
			}
		})
	}
}

func TestVerdictTable(t *testing.T) {
	t.Parallel()
	code, out, errs := runVerdict(t, "stage\tcode\tenhanced\ttext\taction\nrcpt\t550\t5.1.1\tNo such user\tfail\n", "--file", "-", "--stage", "eod")
	if code != exitDone || errs != "0 of 1 as the column action says\n" || !strings.Contains(out, "eod 550 5.1.1 No such user") || !strings.Contains(out, "expected fail") {
		t.Errorf("exit code %d, stderr %q:\n%s", code, errs, out)
	}
}

func TestVerdictFileErrors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		stdin string
		code  int
		errs  string
	}{
		"stage":              {"stage\tcode\tenhanced\ttext\nrcpt\t\t\tx\nquit\t\t\tx\n", exitUsage, "standard input:3: column stage: stage \"quit\""},
		"code":               {"\nrcpt\tfive\t\tx\n", exitUsage, "standard input:2: column code:"},
		"long line":          {strings.Repeat("x", maxReplyLine+1) + "\n", exitFailed, "read standard input:"},
		"no stage column":    {"# x\ncode\tenhanced\ttext\n", exitUsage, "standard input:2: the header has no column stage: want stage, code, enhanced, text"},
		"column misspelt":    {"stage\tcode\tenhanced\treply\n", exitUsage, "standard input:1: the header has no column text"},
		"stage misspelt":     {"Stage\tcode\tenhanced\ttext\n", exitUsage, "standard input:1: the header has no column stage"},
		"column twice":       {"stage\tcode\tenhanced\ttext\ttext\n", exitUsage, "standard input:1: the header has the column text 2 times"},
		"EUC-KR":             {"rcpt\t550\t\tok\nrcpt\t550\t\t\xbe\xf8\xc0\xbd\n", exitUsage, "standard input:2: not UTF-8"},
		"UTF-16":             {"\xff\xfes\x00t\x00a\x00g\x00e\x00\n\x00", exitUsage, "standard input:1: not UTF-8"},
		"BOM not at the top": {"rcpt\t550\t\tok\n\ufeffrcpt\t550\t\tok\n", exitUsage, "standard input:2: column stage:"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, _, errs := runVerdict(t, tc.stdin, "--file", "-")
			if code != tc.code || !strings.Contains(errs, tc.errs) {
				t.Errorf("exit code %d, want %d; stderr %q, want %q", code, tc.code, errs, tc.errs)
			}
		})
	}
}

// The example of docs/verdicts.md is a file of rules, and does what it says.
func TestVerdictDocument(t *testing.T) {
	t.Parallel()
	found := 0
	for _, m := range fenced.FindAllStringSubmatch(document(t, "docs/verdicts.md"), -1) {
		if m[1] != "yaml" {
			continue
		}
		found++
		rules, err := verdict.Default()
		if err != nil {
			t.Fatal(err)
		}
		if rules, err = rules.Extend("docs/verdicts.md", strings.NewReader(m[2])); err != nil {
			t.Fatal(err)
		}
		v := rules.Judge(verdict.Input{Stage: verdict.Rcpt, Code: 451, Enhanced: "4.7.1", Text: "Gull mailbox wants patience", Preset: "nhn"})
		if v.Rule != "our-greylisting" {
			t.Errorf("%+v", v)
		}
	}
	if found != 1 {
		t.Errorf("%d examples found, want 1", found)
	}
}

// Rules can be for any relay that the configuration has a preset for.
func TestVerdictPresets(t *testing.T) {
	t.Parallel()
	rules, err := verdict.Default()
	if err != nil {
		t.Fatal(err)
	}
	for _, preset := range []config.Preset{config.NHN, config.SES, config.SendGrid, config.Mailgun, config.Gmail, config.Custom} {
		file := "rules: [{name: mine, preset: " + string(preset) + ", action: fail, why: x}]"
		if _, err := rules.Extend("mine.yaml", strings.NewReader(file)); err != nil {
			t.Error(err)
		}
	}
}
