package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/templates"
)

// What the documents say of commands, flags, keys and functions is held to the code.

const top = "../.."

func document(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(top, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// documents are all pages by path, code blocks included.
func documents(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/decisions/*.md", "deployments/*.md"} {
		names, err := filepath.Glob(filepath.Join(top, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			out[strings.TrimPrefix(filepath.ToSlash(name), top+"/")] = string(b)
		}
	}
	if len(out) < 10 {
		t.Fatalf("only %d pages found", len(out))
	}
	return out
}

var (
	fenced   = regexp.MustCompile("(?ms)^ *```(\\w+)\n(.*?)^ *```$")
	codeSpan = regexp.MustCompile("`([^`]+)`")
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
)

// skeleton is what a page has in common with its translation: headings by level,
// code blocks, the code in tables and lists, and where links lead.
func skeleton(page string) []string {
	var out []string
	page = fenced.ReplaceAllStringFunc(page, func(s string) string {
		out = append(out, s)
		return fmt.Sprintf("block %d", len(out))
	})
	blocks := len(out)
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case strings.HasPrefix(word, "#"), word == "block":
			out = append(out, word)
		case word == "|":
			cells := strings.Split(line, "|")
			out = append(out, fmt.Sprintf("%d cells, %q", len(cells), codeSpan.FindAllString(strings.Join(cells[:min(3, len(cells))], "|"), -1)))
		case word == "-" || strings.HasSuffix(word, ".") && strings.Trim(word, "0123456789.") == "" && rest != "":
			out = append(out, "item "+word)
		}
	}
	var links []string
	for _, m := range link.FindAllStringSubmatch(page, -1) {
		if !strings.HasPrefix(m[1], "README") { // each leads to the other
			links = append(links, m[1])
		}
	}
	slices.Sort(links)
	return append(out, fmt.Sprintf("%d blocks, links %q", blocks, links))
}

// The two READMEs are one text in two languages: same sections, same commands, same keys.
func TestReadmesAgree(t *testing.T) {
	t.Parallel()
	en, ko := skeleton(document(t, "README.md")), skeleton(document(t, "README.ko.md"))
	if d := cmp.Diff(en, ko); d != "" {
		t.Errorf("README.ko.md (+) differs from README.md (-):\n%s", d)
	}
	if len(en) < 50 {
		t.Errorf("only %d parts found", len(en))
	}
}

// commandLines are the invocations of the program in a page, as words.
func commandLines(page string) (out [][]string) {
	var lines []string
	for _, m := range fenced.FindAllStringSubmatch(page, -1) {
		if m[1] == "sh" {
			lines = append(lines, strings.Split(m[2], "\n")...)
		}
	}
	for _, m := range codeSpan.FindAllStringSubmatch(fenced.ReplaceAllString(page, ""), -1) {
		lines = append(lines, m[1])
	}
	quoted := regexp.MustCompile(`'[^']*'`)
	for _, l := range lines {
		l, _, _ = strings.Cut(quoted.ReplaceAllString(l, "quoted"), " > ")
		words := strings.Fields(l)
		if len(words) > 2 && words[0] == "go" && words[1] == "run" && words[2] == "./cmd/sluice" {
			words = words[2:]
		}
		if len(words) > 1 && (words[0] == "sluice" || words[0] == "./cmd/sluice") {
			out = append(out, words[1:])
		}
	}
	return out
}

func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	found := 0
	for name, page := range documents(t) {
		if name == "CHANGELOG.md" {
			continue // it may name what is gone
		}
		for _, words := range commandLines(page) {
			found++
			if words[0] == strings.ToUpper(words[0]) || strings.Contains(words[len(words)-1], "|") {
				continue // sluice COMMAND --help; completion bash|zsh
			}
			root := (&app{stdio: stdio{in: strings.NewReader(""), out: &bytes.Buffer{}, err: &bytes.Buffer{}}}).rootCommand()
			cmd, rest, err := root.Find(words)
			if err == nil {
				cmd.InitDefaultHelpFlag()
				err = cmd.ParseFlags(rest)
			}
			if err == nil && cmd.HasSubCommands() {
				err = noCommand(cmd, cmd.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: sluice %s: %v", name, strings.Join(words, " "), err)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d commands found", found)
	}
}

// The table of keys is the configuration's own: every key, its default, in order.
func TestReadmeConfiguration(t *testing.T) {
	t.Parallel()
	var want, got []string
	for _, s := range config.Default().Redacted() {
		value := fmt.Sprint(s.Value)
		if list, ok := s.Value.([]string); ok {
			value = strings.Join(list, ", ")
		}
		want = append(want, s.Key+" = "+value)
	}
	row := regexp.MustCompile("(?m)^\\| `(\\w+\\.[\\w.]+)` \\| (?:`([^`]*)` )?\\|")
	for _, m := range row.FindAllStringSubmatch(document(t, "README.md"), -1) {
		got = append(got, m[1]+" = "+m[2])
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("README.md (+) differs from the configuration (-):\n%s", d)
	}
}

// The configuration and the template that are there to be copied work.
func TestReadmeExamples(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "nhn-secret-key"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	configured, parsed := 0, 0
	for _, m := range fenced.FindAllStringSubmatch(document(t, "README.md"), -1) {
		switch {
		case m[1] == "yaml":
			configured++
			file := filepath.Join(dir, "sluice.yaml")
			if err := os.WriteFile(file, []byte(m[2]), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := config.Load(file, true, nil)
			if err != nil {
				t.Errorf("%v in:\n%s", err, m[2])
			} else if err := c.Relay.LoginComplete(); err != nil || len(c.Warnings()) > 0 {
				t.Errorf("%v, warnings %q", err, c.Warnings())
			}
		case strings.Contains(m[2], `{{define "subject"}}`):
			parsed++
			if _, err := templates.Parse("letter.tmpl", m[2]); err != nil {
				t.Error(err)
			}
		}
	}
	if configured != 1 || parsed != 1 {
		t.Errorf("%d configurations and %d templates found, want 1 each", configured, parsed)
	}
}

func TestDocumentLinks(t *testing.T) {
	t.Parallel()
	for name, page := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(top, filepath.Dir(name), target)); err != nil {
				t.Errorf("%s: link to %s: %v", name, target, err)
			}
		}
	}
}

// Decisions are numbered without gaps and say what a decision has to say.
func TestDecisions(t *testing.T) {
	t.Parallel()
	n := 0
	pages := documents(t)
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		base, ok := strings.CutPrefix(name, "docs/decisions/")
		if !ok {
			continue
		}
		n++
		if !strings.HasPrefix(base, fmt.Sprintf("%03d-", n)) || !strings.HasPrefix(pages[name], fmt.Sprintf("# %03d: ", n)) {
			t.Errorf("%s: want number %03d in its name and title", name, n)
		}
		for _, heading := range []string{"Context", "Decision", "Consequences", "What was measured"} {
			if !strings.Contains(pages[name], "\n## "+heading+"\n") {
				t.Errorf("%s: no section %q", name, heading)
			}
		}
	}
	if n < 8 {
		t.Errorf("%d decisions found", n)
	}
}

// Methods, scripts and tests that a page names exist.
func TestDocumentedNames(t *testing.T) {
	t.Parallel()
	have := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (?:\(\w* ?\*?(\w+)\) )?(\w+)`)
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		switch filepath.Ext(path) {
		case ".lua":
			have[filepath.Base(path)] = true
		case ".go":
			source, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range declared.FindAllStringSubmatch(string(source), -1) {
				have[strings.TrimPrefix(m[1]+"."+m[2], ".")] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\(\*(\w+)\)\.(\w+)|\b(\w+\.lua)\b|\b((?:Test|Fuzz|Benchmark)[A-Z]\w+)`)
	found := 0
	for name, page := range documents(t) {
		for _, m := range named.FindAllStringSubmatch(page, -1) {
			found++
			if what := strings.TrimPrefix(m[1]+"."+m[2], ".") + m[3] + m[4]; !have[what] {
				t.Errorf("%s: there is no %s", name, m[0])
			}
		}
	}
	if found < 40 {
		t.Errorf("only %d names found", found)
	}
}

// Every row of the page about the wire names tests, and they are in the files it says.
func TestWireFaults(t *testing.T) {
	t.Parallel()
	row := regexp.MustCompile(`(?m)^\| ([A-Z]\d+) \|.*$`)
	tested := regexp.MustCompile("`([\\w/]+_test\\.go)`: ((?:(?:Test|Fuzz)\\w+(?:, )?)+)")
	var faults []string
	for _, m := range row.FindAllStringSubmatch(document(t, "docs/wire-faults.md"), -1) {
		faults = append(faults, m[1])
		files := tested.FindAllStringSubmatch(m[0], -1)
		if len(files) == 0 {
			t.Errorf("%s: no test is named", m[1])
		}
		for _, f := range files {
			source := document(t, f[1])
			for name := range strings.SplitSeq(f[2], ", ") {
				if !strings.Contains(source, "\nfunc "+name+"(") {
					t.Errorf("%s: there is no %s in %s", m[1], name, f[1])
				}
			}
		}
	}
	want := strings.Fields("C3 C5 D1 D4 D6 D7 D8 D9 D10 D11 D12 D17 D18 E1 E2 E3 E4 E5 E6 E7 F1 F2 F3 F4 F5 F6 F7 F8")
	if d := cmp.Diff(want, faults); d != "" {
		t.Errorf("faults (-want +got):\n%s", d)
	}
}
