package deployments

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

const unitFile = "systemd/sluice-worker.service"

// unit is what a unit file sets, by "Section.Key"; a key given twice has two values.
type unit map[string][]string

func readUnit(t testing.TB) unit {
	t.Helper()
	u, section := unit{}, ""
	for line := range strings.Lines(read(t, unitFile)) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
		case !ok:
			t.Fatalf("%s: %q is no assignment", unitFile, line)
		default:
			u[section+"."+key] = append(u[section+"."+key], value)
		}
	}
	return u
}

// service returns the only value of a key of [Service].
func (u unit) service(t testing.TB, key string) string {
	t.Helper()
	if len(u["Service."+key]) != 1 {
		t.Fatalf("%s: %s=%q: want one", unitFile, key, u["Service."+key])
	}
	return u["Service."+key][0]
}

func TestUnit(t *testing.T) {
	t.Parallel()
	u := readUnit(t)
	stop, err := time.ParseDuration(u.service(t, "TimeoutStopSec") + "s")
	if err != nil || stop < drain {
		t.Errorf("TimeoutStopSec is %v (%v): want %v at least", stop, err, drain)
	}
	for key, want := range map[string]string{
		"KillSignal": "SIGTERM", "Restart": "on-failure", "RestartPreventExitStatus": "2",
		"DynamicUser": "yes", "ProtectSystem": "strict", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "",
	} {
		if got := u.service(t, key); got != want {
			t.Errorf("%s=%s, want %s", key, got, want)
		}
	}
}

// testUnit lets systemd check the unit, and runs its command as systemd would, with
// the credentials in a directory of ours.
func testUnit(t *testing.T, bin string) {
	u := readUnit(t)
	dir := t.TempDir()
	for _, c := range u["Service.LoadCredential"] {
		name, path, _ := strings.Cut(c, ":")
		if path != "/etc/sluice/"+name {
			t.Errorf("LoadCredential=%s: want it from /etc/sluice", c)
		}
		content := map[string]string{"relay-password": "unit-secret\n", "sluice.yaml": "relay: {preset: nhn, user: app}\n"}[name]
		if content == "" {
			t.Fatalf("LoadCredential=%s: the test has no such file", c)
		}
		write(t, dir, name, content)
	}
	env := map[string]string{}
	for _, e := range u["Service.Environment"] {
		k, v, _ := strings.Cut(replace(t, e, "%d/", dir+"/"), "=")
		env[k] = v
	}
	args := strings.Fields(replace(t, u.service(t, "ExecStart"), "%d/", dir+"/"))
	if args[0] != "/usr/local/bin/sluice" {
		t.Errorf("ExecStart begins with %s", args[0])
	}
	takesConfiguration(t, bin, args[1:], env, "unit-secret")
	startsWorker(t, bin, args[1:], env)
	t.Run("systemd-analyze", func(t *testing.T) {
		t.Parallel()
		if _, err := exec.LookPath("systemd-analyze"); err != nil {
			t.Skip("NOT RUN: systemd-analyze verify and security: there is no systemd-analyze here")
		}
		// Verified with a program that exists.
		path := write(t, t.TempDir(), "sluice-worker.service", replace(t, read(t, unitFile), "/usr/local/bin/sluice --", bin+" --"))
		for _, args := range [][]string{
			{"verify", "--man=no", path},
			{"security", "--offline=yes", "--threshold=20", "--no-pager", path}, // tenths: 2.0 is "OK"
		} {
			out, err := exec.Command("systemd-analyze", args...).CombinedOutput()
			// verify says what it ignores, and ends with 0 all the same.
			if err != nil || args[0] == "verify" && strings.Contains(string(out), path) {
				t.Errorf("systemd-analyze %v: %v\n%s", args, err, out)
			}
		}
	})
}

// takesConfiguration checks that the program accepts a worker's arguments and
// environment, and that the password arrives, unseen and from a place that others cannot read.
func takesConfiguration(t *testing.T, bin string, args []string, env map[string]string, secret string) {
	t.Helper()
	at := slices.Index(args, "worker")
	if at != len(args)-1 {
		t.Fatalf("%q: want worker as the last argument", args)
	}
	cmd := exec.Command(bin, append(slices.Clone(args[:at]), "config", "check")...)
	cmd.Env, cmd.Dir = environ(env), t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	if strings.Contains(string(out), secret) || strings.Contains(string(out), "everybody on this machine") {
		t.Errorf("%v shows the password or warns:\n%s", cmd.Args, out)
	}
	if !strings.Contains(string(out), "relay.password") || !strings.Contains(string(out), "***") {
		t.Errorf("%v: no password arrived:\n%s", cmd.Args, out)
	}
}

// startsWorker runs the worker as given, but for Redis, which is not there: it has to
// wait for it, and to end with 0 when it is told to.
func startsWorker(t *testing.T, bin string, args []string, env map[string]string) {
	t.Helper()
	env["SLUICE_REDIS_URL"] = "redis://127.0.0.1:1/0"
	cmd := exec.Command(bin, args...)
	cmd.Env, cmd.Dir = environ(env), t.TempDir()
	p := start(t, cmd)
	p.says("waiting for redis")
	if code := p.stop(); code != 0 {
		t.Errorf("%v ended with %d:\n%s", cmd.Args, code, p.out.String())
	}
}

// The README must not promise what is not there.
func TestReadmeNamesEveryFile(t *testing.T) {
	t.Parallel()
	text := read(t, "README.md")
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if n := e.Name(); !strings.HasSuffix(n, ".go") && n != "README.md" && n != ".gitignore" && n != ".env" && !strings.Contains(text, n) {
			t.Errorf("README.md does not mention %s", n)
		}
	}
}
