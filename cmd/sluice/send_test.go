package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
)

// A dry run refuses what the send would, and no value is dropped in silence.
func TestSendRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	list := r.list(1)
	for name, tc := range map[string]struct {
		more []string
		want string
	}{
		"name of two lines": {[]string{"--name", "a\nb"}, `campaign name "a\nb": want 1 to 200 bytes without line breaks or braces`},
		"name with braces":  {[]string{"--name", "{a}"}, `campaign name "{a}"`},
		"long name":         {[]string{"--name", strings.Repeat("a", 201)}, "campaign name"},
		"set twice":         {[]string{"--set", "name=A", "--set", "name=B"}, "--set name: given twice"},
		"set without value": {[]string{"--set", "name"}, `--set "name": want NAME=VALUE`},
	} {
		for kind, more := range map[string][]string{"send": tc.more, "dry run": append([]string{"--dry-run"}, tc.more...)} {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				code, out, errs := r.run(t.Context(), r.send(list, more...)...)
				if code != exitUsage || out != "" || !strings.Contains(errs, tc.want) {
					t.Errorf("exit code %d, want %d; stdout %q; stderr %q, want %q", code, exitUsage, out, errs, tc.want)
				}
			})
		}
	}
}

// What the README shows of its list's dry run is what is printed. The translation has the
// same blocks, by TestReadmesAgree.
func TestReadmeDryRun(t *testing.T) {
	t.Parallel()
	page := document(t, "README.md")
	list := regexp.MustCompile(`(?s)cat > list\.csv <<'END'\n(.*?)END\n`).FindStringSubmatch(page)
	shown := regexp.MustCompile("(?s)```text\n(line 5:[^`]*)```").FindStringSubmatch(page)
	if list == nil || shown == nil {
		t.Fatal("the list or its dry run is not there")
	}
	r := newRig(t, rigOptions{redis: "redis://" + miniredis.RunT(t).Addr()})
	code, out, errs := r.run(t.Context(), r.send(r.write("list.csv", list[1]), "--dry-run")...)
	if code != exitPartial || errs+out != shown[1] {
		t.Errorf("exit code %d, want %d; printed:\n%s\nREADME.md:\n%s", code, exitPartial, errs+out, shown[1])
	}
}

// Exit code 4 has three causes, in either language.
func TestReadmeHeld(t *testing.T) {
	t.Parallel()
	for name, causes := range map[string][]string{
		"README.md":    {"login", "breaker", "pause"},
		"README.ko.md": {"로그인", "차단기", "일시 정지"},
	} {
		row := regexp.MustCompile(`(?m)^\| 4 \|.*$`).FindString(document(t, name))
		for _, cause := range causes {
			if !strings.Contains(row, cause) {
				t.Errorf("%s: no %q in %q", name, cause, row)
			}
		}
	}
}
