//go:build faults

package fault

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// plan is what the environment says, read once.
type plan struct {
	points map[string][]*point // by name
	off    map[string]bool
	scale  int64
	dns    string
}

// point is one thing to be done at a point.
type point struct {
	key    string // "" = any
	action string
	wait   time.Duration
	share  int // percent of a Part that is written first
	at     int64
	passes atomic.Int64
}

var current = sync.OnceValue(func() *plan {
	p, err := parse(os.Getenv)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fault:", err)
		os.Exit(2)
	}
	if os.Getenv("FAULT_COUNT") != "" {
		go count()
	}
	return p
})

// count says at each SIGUSR1 how many goroutines there are, its own among them.
func count() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	fmt.Fprintln(os.Stderr, "fault: counting")
	for range asked {
		fmt.Fprintf(os.Stderr, "fault: %d goroutines\n", runtime.NumGoroutine())
	}
}

func parse(env func(string) string) (*plan, error) {
	p := &plan{points: map[string][]*point{}, off: map[string]bool{}, scale: 1, dns: env("FAULT_DNS")}
	for _, s := range list(env("FAULT_POINTS")) {
		name, one, err := parsePoint(s)
		if err != nil {
			return nil, fmt.Errorf("FAULT_POINTS: %w", err)
		}
		p.points[name] = append(p.points[name], one)
	}
	for _, s := range list(env("FAULT_OFF")) {
		p.off[s] = true
	}
	if s := env("FAULT_SCALE"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("FAULT_SCALE %q: want a whole number, 1 or more", s)
		}
		p.scale = n
	}
	return p, nil
}

func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ';' })
}

func parsePoint(s string) (string, *point, error) {
	where, what, ok := strings.Cut(s, "=")
	action, at, counted := strings.Cut(what, "@")
	name, key, _ := strings.Cut(where, "/")
	action, share, _ := strings.Cut(action, "%")
	p := &point{key: key, action: action, at: 1, share: 50}
	var err error
	if counted {
		p.at, err = strconv.ParseInt(at, 10, 64)
	}
	if share != "" && err == nil {
		p.share, err = strconv.Atoi(share)
	}
	switch action {
	case "kill", "stop", "abort", "hang":
	default:
		if p.wait, err = time.ParseDuration(action); err == nil {
			p.action = "wait"
		}
	}
	if !ok || name == "" || err != nil || p.at < 1 || p.share < 0 || p.share > 100 {
		return "", nil, fmt.Errorf("%q: want point=action@pass, with kill, stop, abort, hang or a duration", s)
	}
	return name, p, nil
}

// due returns what is to be done at this pass of a point, nil for nothing.
func due(name, key string) *point {
	for _, p := range current().points[name] {
		if p.key != "" && p.key != key {
			continue
		}
		if p.passes.Add(1) == p.at {
			fmt.Fprintf(os.Stderr, "fault: %s: %s\n", name, p.action)
			return p
		}
	}
	return nil
}

// Here is a point at which the process may be told to die.
func Here(name string) { HereFor(name, "") }

// HereFor is Here for one of many, named by key.
func HereFor(name, key string) {
	if p := due(name, key); p != nil {
		p.do()
	}
}

// Part is a point in the middle of b, which is about to be written: a share of it may
// be written before the process dies.
func Part(name string, b []byte, write func([]byte) (int, error)) {
	if p := due(name, ""); p != nil {
		_, _ = write(b[:len(b)*p.share/100]) // the process ends here, whatever came of it
		p.do()
	}
}

func (p *point) do() {
	switch p.action {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // it arrives in no time, but not before the call returns
	case "stop":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	case "abort":
		debug.SetMaxStack(1 << 16)
		overflow(0)
	case "hang":
		select {}
	case "wait":
		t := time.NewTimer(p.wait)
		<-t.C
	}
}

// overflow ends the process as nothing can recover from: the stack is full.
func overflow(n int) int { return overflow(n+1) + 1 }

// Off reports whether a guard is left out.
func Off(guard string) bool { return current().off[guard] }

// Scaled shortens a wait that is too long to be waited for in a test.
func Scaled(d time.Duration) time.Duration { return d / time.Duration(current().scale) }

// Resolver is what names are looked up with; nil is the system's.
func Resolver() *net.Resolver {
	server := current().dns
	if server == "" {
		return nil
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server)
	}}
}
