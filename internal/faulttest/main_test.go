package faulttest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// What scripts/faults and scripts/soak ask for.
var (
	everything   = flag.Bool("faults", false, "run every fault as often as the table says, not a selection once")
	writeTo      = flag.String("write", "", "write the table of faults into this `FILE`, between its marks")
	soakFor      = flag.Duration("soak", 0, "kill at random for so long; 0 does not")
	soakKills    = flag.Int("kills", 300, "how many workers the soak kills with SIGKILL at least")
	soakRedis    = flag.Int("redis-kills", 30, "how many times the soak kills Redis at least")
	soakCampaign = flag.Int("recipients", 50_000, "recipients of each of the soak's campaigns")
)

var built atomic.Bool

// binaries are built once, where the first test wants them.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "faulttest")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-tags", "faults", "-o", filepath.Join(dir, "sluice"), "./cmd/sluice")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return "", fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	built.Store(true)
	return dir, nil
})

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == itoa(runtime.GOMAXPROCS(0)) {
		// What runs here waits most of the time, for deaths to be noticed.
		_ = f.Value.Set("6")
	}
	code := m.Run()
	if built.Load() {
		dir, _ := binaries()
		_ = os.RemoveAll(dir)
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// program is the path of the program, built with crash points.
func program(t testing.TB) string {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "sluice")
}

// within polls until ok, at most for d, and reports whether it came true.
func within(d time.Duration, ok func() bool) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(d)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			return ok()
		}
	}
	return true
}

// eventually is within, and a test that waits in vain ends.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !within(time.Minute, ok) {
		t.Fatalf("never happened: %s", what)
	}
}

// idle lets time pass that the fault itself consists of.
func idle(d time.Duration) { <-time.After(d) }
