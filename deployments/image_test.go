package deployments

import (
	"debug/elf"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// instruction is one of a Dockerfile, with its continuation lines joined.
type instruction struct{ name, args string }

// stage is a FROM and what follows it.
type stage struct {
	image, name string
	steps       []instruction
}

func readDockerfile(t testing.TB) []stage {
	t.Helper()
	var stages []stage
	text := regexp.MustCompile(`(?m)^\s*#.*\n`).ReplaceAllString(read(t, "Dockerfile"), "")
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		name, args, _ := strings.Cut(strings.TrimSpace(line), " ")
		f := strings.Fields(args)
		switch {
		case name == "":
		case name == "FROM":
			s := stage{image: f[0]}
			if len(f) == 3 && f[1] == "AS" {
				s.name = f[2]
			}
			stages = append(stages, s)
		case len(stages) == 0:
			t.Fatalf("%s before the first FROM", name)
		default:
			s := &stages[len(stages)-1]
			s.steps = append(s.steps, instruction{name, args})
		}
	}
	return stages
}

func TestDockerfile(t *testing.T) {
	t.Parallel()
	stages := readDockerfile(t)
	if len(stages) != 2 || stages[0].name != "build" || stages[1].image != "scratch" {
		t.Fatalf("want a stage called build and one from scratch, not %+v", stages)
	}
	pinned(t, stages[0].image)
	want := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))
	if want == nil || !strings.HasPrefix(stages[0].image, "golang:"+want[1]) {
		t.Errorf("built with %s, but go.mod wants %q", stages[0].image, want)
	}
	last := map[string]string{}
	for _, s := range stages[1].steps {
		last[s.name] = s.args
		if s.name == "COPY" && !strings.HasPrefix(s.args, "--from=build ") {
			t.Errorf("COPY %s: want the last stage to take from the first one only", s.args)
		}
		if s.name == "RUN" {
			t.Errorf("RUN %s: there is no shell in the last stage", s.args)
		}
	}
	if !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(last["USER"]) {
		t.Errorf("USER %q: want numbers, and not root's", last["USER"])
	}
	if last["ENTRYPOINT"] != `["/usr/local/bin/sluice"]` {
		t.Errorf("ENTRYPOINT %s: want the program itself, which has to get the signals", last["ENTRYPOINT"])
	}
	out := buildStep(t)
	if !strings.Contains(out, "-o /out/usr/local/bin/sluice ") {
		t.Errorf("%s: want what ENTRYPOINT starts to be built", out)
	}
	for _, path := range []string{"etc/ssl/certs/ca-certificates.crt", "usr/share/zoneinfo"} {
		if !slices.ContainsFunc(stages[0].steps, func(s instruction) bool {
			return s.name == "RUN" && strings.Contains(s.args, "/"+path+" /out/"+filepath.Dir(path))
		}) {
			t.Errorf("/%s is not copied", path)
		}
	}
}

// buildStep is the command of the Dockerfile that builds the program.
func buildStep(t testing.TB) string {
	t.Helper()
	var found []string
	for _, s := range readDockerfile(t)[0].steps {
		if s.name == "RUN" && strings.Contains(s.args, "go build") {
			found = append(found, s.args)
		}
	}
	if len(found) != 1 {
		t.Fatalf("want one RUN with go build, not %q", found)
	}
	return found[0]
}

// buildImage runs the Dockerfile's build here and returns the program.
func buildImage(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("sh", "-ec", replace(t, buildStep(t), "/out/", dir+"/"))
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return filepath.Join(dir, "usr/local/bin/sluice")
}

// testStatic checks that the program runs where there is nothing else.
func testStatic(t *testing.T, bin string) {
	f, err := elf.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the program has a %v segment: it is not static", p.Type)
		}
	}
	libs, err := f.ImportedLibraries()
	if err != nil || len(libs) > 0 {
		t.Errorf("the program needs %v, %v", libs, err)
	}
	cmd := exec.Command(bin, "version")
	cmd.Env = []string{} // not nil, which would be ours
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "sluice ") {
		t.Errorf("sluice version: %v: %s", err, out)
	}
}
