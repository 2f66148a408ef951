package deployments

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sluicemail/sluice/internal/relay"
)

// composeFile is what compose.yaml uses of the Compose specification.
type composeFile struct {
	Name     string
	Services map[string]composeService
	Networks map[string]struct{ Internal bool }
	Volumes  map[string]struct{}
}

type composeService struct {
	Image string
	Build struct {
		Context, Dockerfile string
	}
	User        string
	Command     []string
	Init        bool
	Environment map[string]string
	Volumes     []string
	Tmpfs       []string
	Healthcheck struct {
		Test              []string
		Interval, Timeout time.Duration
		Retries           int
		StartPeriod       time.Duration `yaml:"start_period"`
	}
	DependsOn map[string]struct {
		Condition string
		Restart   bool
	} `yaml:"depends_on"`
	ReadOnly        bool          `yaml:"read_only"`
	CapDrop         []string      `yaml:"cap_drop"`
	SecurityOpt     []string      `yaml:"security_opt"`
	StopGracePeriod time.Duration `yaml:"stop_grace_period"`
	Restart         string
	Networks        serviceNetworks
	Ports           []string // none: nothing here is for the outside
}

// serviceNetworks is a list of names, or a map of names and what the service is
// called there.
type serviceNetworks map[string]struct{ Aliases []string }

func readCompose(t testing.TB) composeFile {
	t.Helper()
	var c composeFile
	decode(t, "compose.yaml", read(t, "compose.yaml"), &c)
	return c
}

func TestCompose(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	for _, name := range []string{"redis", "worker", "relay"} {
		if _, ok := c.Services[name]; !ok {
			t.Fatalf("no service %s", name)
		}
	}
	for name, s := range c.Services {
		pinned(t, s.Image)
		if len(s.Ports) > 0 {
			t.Errorf("%s publishes %v: want nothing reachable from outside", name, s.Ports)
		}
		for n := range s.Networks {
			if _, ok := c.Networks[n]; !ok {
				t.Errorf("%s: network %s is not declared", name, n)
			}
		}
		s.mounts(t, name, c.Volumes)
		for on, d := range s.DependsOn {
			o, ok := c.Services[on]
			if !ok || d.Condition == "service_healthy" && len(o.Healthcheck.Test) == 0 {
				t.Errorf("%s waits for %s to be %s, which cannot happen", name, on, d.Condition)
			}
		}
		if name != "redis" {
			s.ours(t, name)
		}
	}
	if got := c.Services["worker"].StopGracePeriod; got < drain {
		t.Errorf("the worker gets %v to stop: want %v at least", got, drain)
	}
	if !c.Networks["inside"].Internal {
		t.Error("the network lets a rehearsal out")
	}
	// The relay's certificate has this name.
	if !slices.Contains(c.Services["relay"].Networks["inside"].Aliases, relay.Host) {
		t.Errorf("the rehearsal relay is not called %s", relay.Host)
	}
}

// mounts checks that named volumes are declared and that files are there.
func (s composeService) mounts(t *testing.T, name string, volumes map[string]struct{}) {
	t.Helper()
	for _, v := range s.Volumes {
		source, _, _ := strings.Cut(v, ":")
		_, named := volumes[source]
		if _, err := os.Stat(source); !named && err != nil {
			t.Errorf("%s: volume %s: neither declared nor a file here", name, v)
		}
	}
}

// ours checks a service that runs our image.
func (s composeService) ours(t *testing.T, name string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || !s.Init {
		t.Errorf("%s: want read_only, cap_drop ALL, no-new-privileges and init", name)
	}
}

// variable matches ${NAME:?message}, the only form used.
var variable = regexp.MustCompile(`\$\{([A-Z_]+):\?[^}]*\}`)

// interpolate does to a value of compose.yaml what Compose does.
func interpolate(t testing.TB, s string, env map[string]string) string {
	t.Helper()
	s = variable.ReplaceAllStringFunc(s, func(m string) string {
		name := variable.FindStringSubmatch(m)[1]
		if _, ok := env[name]; !ok {
			t.Errorf("%s is not in .env.example", name)
		}
		return env[name]
	})
	if regexp.MustCompile(`(^|[^$])(\$\$)*\$[^$]`).MatchString(s) {
		t.Errorf("%q: a $ that Compose would take for a variable", s)
	}
	return strings.ReplaceAll(s, "$$", "$")
}

// dotEnv is .env.example, with something for what it leaves to be filled in.
func dotEnv(t testing.TB) map[string]string {
	t.Helper()
	env := map[string]string{}
	for line := range strings.Lines(read(t, ".env.example")) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			if v == "" {
				v = "dot-env-secret"
			}
			env[k] = v
		}
	}
	return env
}

// testComposeCommands runs worker and relay with compose.yaml's arguments and
// environment.
func testComposeCommands(t *testing.T, bin string) {
	c, dir := readCompose(t), t.TempDir()
	command := func(s composeService) []string {
		var args []string
		for _, a := range s.Command {
			args = append(args, strings.ReplaceAll(interpolate(t, a, nil), "/rehearsal/", dir+"/"))
		}
		return args
	}
	args := command(c.Services["relay"])
	args[slices.Index(args, "--listen")+1] = "127.0.0.1:0"
	cmd := exec.Command(bin, args...)
	cmd.Env, cmd.Dir = environ(nil), dir
	r := start(t, cmd)
	r.until("the relay writes its CA", func() bool {
		_, err := os.Stat(filepath.Join(dir, "ca.pem"))
		return err == nil
	})
	env, file := map[string]string{}, dotEnv(t)
	for k, v := range c.Services["worker"].Environment {
		env[k] = strings.ReplaceAll(interpolate(t, v, file), "/rehearsal/", dir+"/")
	}
	takesConfiguration(t, bin, command(c.Services["worker"]), env, file["REDIS_PASSWORD"])
	example := regexp.MustCompile(`(?m)^#\s+(send .* --stream ad) --wait$`).FindStringSubmatch(read(t, "compose.yaml"))
	if example == nil {
		t.Fatal("the head of compose.yaml shows no send")
	}
	list := write(t, dir, "list.csv", "email,name\nhong@example.com,Hong\n")
	cmd = exec.Command(bin, append(strings.Fields(replace(t, example[1], "/list.csv", list)), "--dry-run")...)
	cmd.Env, cmd.Dir = environ(env), dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", cmd.Args, err, out)
	}
	startsWorker(t, bin, command(c.Services["worker"]), env)
	if code := r.stop(); code != 0 {
		t.Errorf("%v ended with %d", args, code)
	}
}

// TestComposeByEngine asks Compose itself, which needs no engine for it.
func TestComposeByEngine(t *testing.T) {
	t.Parallel()
	if err := exec.Command("docker", "compose", "version").Run(); err != nil {
		t.Skip("NOT RUN: docker compose config: there is no docker compose here")
	}
	cmd := exec.Command("docker", "compose", "--env-file", ".env.example", "config", "--quiet")
	for k, v := range dotEnv(t) {
		cmd.Env = append(cmd.Environ(), k+"="+v)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", cmd.Args, err, out)
	}
}

// UnmarshalYAML takes both forms.
func (n *serviceNetworks) UnmarshalYAML(node *yaml.Node) error {
	*n = serviceNetworks{}
	if node.Kind != yaml.SequenceNode {
		return node.Decode((*map[string]struct{ Aliases []string })(n))
	}
	var names []string
	err := node.Decode(&names)
	for _, name := range names {
		(*n)[name] = struct{ Aliases []string }{}
	}
	return err
}
