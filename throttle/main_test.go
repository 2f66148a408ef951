package throttle

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

// How much is drawn at random. An ordinary run, as scripts/test and CI make it, is to
// stay well below a minute with the race detector on two processors. Nothing runs more
// by itself: after a change of the windows, or of what is learned, do it by hand, as in
// `go test ./throttle -seeds 16`.
var moreSeeds = flag.Int("seeds", 1, "how many times as much the simulations and property tests draw at random")

// seeds are how often each simulation is done.
func seeds() uint64 { return uint64(max(1, *moreSeeds)) }

func TestMain(m *testing.M) {
	flag.Parse()
	set := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { set[f.Name] = true })
	for name, value := range map[string]int{
		"rapid.checks": 20 * int(seeds()),
		// Most tests wait for windows to pass: more of them at once than there are
		// processors.
		"test.parallel": max(6, runtime.GOMAXPROCS(0)),
	} {
		if set[name] {
			continue
		}
		if err := flag.Set(name, strconv.Itoa(value)); err != nil {
			panic(err) // another name in this version of the library
		}
	}
	goleak.VerifyTestMain(m)
}

// backend is a place where a fleet can meet.
type backend struct {
	name string
	// open returns a new, empty account; the function makes budgets on it.
	open func(t *testing.T) func(p Params) (*Budget, error)
}

func backends() []backend {
	return []backend{
		{"memory", func(*testing.T) func(Params) (*Budget, error) {
			m := &Memory{}
			return func(p Params) (*Budget, error) { return NewMemory(m, p) }
		}},
		{"miniredis", func(t *testing.T) func(Params) (*Budget, error) {
			c := client(t, &redis.Options{Addr: miniredis.RunT(t).Addr()})
			return func(p Params) (*Budget, error) { return NewRedis(c, p) }
		}},
		{"redis", func(t *testing.T) func(Params) (*Budget, error) {
			c := startRedis(t).client(t)
			return func(p Params) (*Budget, error) { return NewRedis(c, p) }
		}},
	}
}

// fleet makes running budgets on one account.
type fleet struct {
	t      *testing.T
	limits Limits
	timing timing
	open   func(p Params) (*Budget, error)
	made   int
}

func newFleet(t *testing.T, b backend, l Limits) *fleet {
	return &fleet{
		t: t, limits: l, open: b.open(t),
		timing: testTiming(),
	}
}

// testTiming looks after leases, and at a relay that does not answer, more often.
func testTiming() timing {
	t := newTiming()
	t.renew = 50 * time.Millisecond
	t.first, t.most = 100*time.Millisecond, 800*time.Millisecond
	return t
}

// idle returns a budget that does not run.
func (f *fleet) idle() *Budget {
	f.t.Helper()
	f.made++
	b, err := f.open(Params{Prefix: "test", Account: "acc", Owner: fmt.Sprintf("owner%d", f.made), Limits: f.limits})
	if err != nil {
		f.t.Fatal(err)
	}
	b.timing = f.timing
	return b
}

// budget returns a running budget and what ends it.
func (f *fleet) budget() (*Budget, func()) {
	b := f.idle()
	return b, run(f.t, b)
}

// run runs b until the returned function, or the test, ends it.
func run(t *testing.T, b *Budget) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := b.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func client(t *testing.T, o *redis.Options) *redis.Client {
	o.ContextTimeoutEnabled = true
	c := redis.NewClient(o)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// server is a real redis-server, our own child.
type server struct {
	socket string
	cmd    *exec.Cmd
}

// startRedis starts a real Redis without persistence on a socket of its own.
func startRedis(t *testing.T) *server {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("this test needs a real redis-server (6.2 or later) in PATH; scripts/test installs it: %v", err)
	}
	dir, err := os.MkdirTemp("", "rd") // t.TempDir is too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &server{socket: filepath.Join(dir, "s")}
	s.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), path, "--port", "0",
		"--unixsocket", s.socket, "--save", "", "--appendonly", "no", "--dir", dir, "--daemonize", "no")
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
	c := s.client(t)
	eventually(t, "redis-server answers", func() bool { return c.Ping(t.Context()).Err() == nil })
	return s
}

func (s *server) client(t *testing.T) *redis.Client {
	return client(t, &redis.Options{Network: "unix", Addr: s.socket, MaxRetries: -1})
}

// eventually polls until ok says so.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", what)
		}
		nap(t.Context(), 2*time.Millisecond)
	}
}

func nap(ctx context.Context, d time.Duration) { _, _ = sleepUntil(ctx, time.Now().Add(d)) }

// within returns a context for something that must happen.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// shortly returns a context for something that must not happen.
func shortly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// record collects when things happened.
type record struct {
	mu sync.Mutex
	at []time.Time
}

func (r *record) add(at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = append(r.at, at)
}

// worst returns the most that happened in any window of this length.
func (r *record) worst(per time.Duration) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.at, time.Time.Compare)
	worst, first := 0, 0
	for i := range r.at {
		for r.at[i].Sub(r.at[first]) >= per {
			first++
		}
		worst = max(worst, i-first+1)
	}
	return worst
}

func (r *record) check(t *testing.T, what string, ws ...Window) {
	t.Helper()
	for _, w := range ws {
		if n := r.worst(w.Per); n > w.N {
			t.Errorf("%s: %d in %v, limit %v", what, n, w.Per, w)
		}
	}
}

func (r *record) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.at)
}
