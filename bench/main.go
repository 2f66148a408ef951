// Command bench measures what this program claims, against what people would
// otherwise run, on this machine. It prints tables in Markdown, each under the
// machine, the commit and the command it comes from.
//
// It is the relay itself, starts a redis-server of its own, and runs worker,
// baseline and bare sender as child processes, so that each one's processor time
// can be told apart. Where a ratio is claimed, both sides run in turn and the ratio
// is taken pair by pair. Everything is on loopback; nothing that runs on the machine
// is used or changed.
//
// It judges nothing: a figure that misses its target is printed like any other. It
// fails where a run did not do its work, such as a mail that was not accepted or
// accepted twice, or a worker's memory that grows with the campaign. Linux only,
// because it reads /proc.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	redis.SetLogger(&logging.VoidLogger{})
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one invocation.
type bench struct {
	ctx     context.Context //nolint:containedctx // lives as long as the program
	out     io.Writer       // tables
	err     io.Writer       // progress
	dir     string          // for Redis's files, lists and sockets; removed at the end
	profile string          // directory for CPU profiles of the children, "" = none
	quick   bool

	runs   int           // of each side of a ratio
	window time.Duration // of each run
	large  int           // recipients of the largest campaign
}

// benchmark is one of the tables.
type benchmark struct {
	name, about string
	run         func(*bench) error
}

func benchmarks() []benchmark {
	return []benchmark{
		{"memory", "Redis memory a recipient, pending and accepted", (*bench).memory},
		{"enqueue", "rows a second from a CSV file into Redis", (*bench).enqueue},
		{"render", "microseconds a mail", (*bench).render},
		{"roundtrips", "messages a round trip at 20 ms", (*bench).roundTrips},
		{"loopback", "messages a second and CPU a message without delay", (*bench).loopback},
		{"flat", "cost a message at 10,000, 100,000 and 1,000,000 recipients", (*bench).flat},
		{"limiter", "what the budget costs a message", (*bench).limiter},
		{"fleet", "the limits while workers and Redis are killed, and how much of them is used", (*bench).limits},
		{"latency", "login codes while a campaign drains at the limit", (*bench).latency},
		{"adapt", "finding what the relay allows", (*bench).adapt},
		{"steer", "from the return of campaign pause and cancel to the last MAIL", (*bench).steer},
		{"outage", "what a relay sees that was away while 100,000 people waited", (*bench).outage},
	}
}

func run(ctx context.Context, args []string, out, errs io.Writer) error {
	if len(args) == 2 && args[0] == childCommand {
		return runChild(ctx, args[1], os.Stdin, out)
	}
	b := &bench{ctx: ctx, out: out, err: errs}
	names, err := b.flags(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "sluice-bench-*"); err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	defer os.RemoveAll(b.dir)
	if b.profile != "" {
		stop, err := startProfile(filepath.Join(b.profile, "relay.pprof"))
		if err != nil {
			return err
		}
		defer stop()
	}
	b.heading(args)
	for _, c := range chosen {
		b.progress("%s", c.name)
		b.printf("\n## %s: %s\n\n", c.name, c.about)
		if err := c.run(b); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// flags reads the command line and returns what is left: names.
func (b *bench) flags(args []string) ([]string, error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(b.err)
	fs.BoolVar(&b.quick, "quick", false, "a smoke run: short windows, small lists, figures that mean little")
	fs.StringVar(&b.profile, "profile", "", "write CPU profiles of worker, baselines and relay into this `DIR`ectory")
	fs.IntVar(&b.runs, "runs", 5, "how often each side of a ratio is run")
	fs.DurationVar(&b.window, "window", 3*time.Second, "how long a run is measured at least")
	fs.IntVar(&b.large, "recipients", 1_000_000, "recipients of the largest campaign")
	fs.Usage = func() { usage(b.err, fs) }
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if b.quick {
		given := map[string]bool{}
		fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
		for name, value := range map[string]string{"runs": "2", "window": "300ms", "recipients": "20000"} {
			if given[name] {
				continue
			}
			if err := fs.Set(name, value); err != nil {
				return nil, fmt.Errorf("-quick: %w", err)
			}
		}
	}
	switch {
	case b.runs < 1 || b.window <= 0 || b.large < 1000:
		return nil, fmt.Errorf("-runs %d, -window %v, -recipients %d: want at least 1, more than 0, at least 1000", b.runs, b.window, b.large)
	case b.profile != "":
		if err := os.MkdirAll(b.profile, 0o755); err != nil {
			return nil, fmt.Errorf("-profile: %w", err)
		}
	}
	return fs.Args(), nil
}

func usage(w io.Writer, fs *flag.FlagSet) {
	fmt.Fprintf(w, "usage: bench [flags] [NAME...]   (all of them where none is named)\n\n")
	for _, b := range benchmarks() {
		fmt.Fprintf(w, "  %-11s %s\n", b.name, b.about)
	}
	fmt.Fprintln(w)
	fs.PrintDefaults()
}

// choose returns the benchmarks of these names, in their own order.
func choose(names []string) ([]benchmark, error) {
	all := benchmarks()
	if len(names) == 0 {
		return all, nil
	}
	var out []benchmark
	for _, b := range all {
		if slices.Contains(names, b.name) {
			out = append(out, b)
		}
	}
	if len(out) != len(names) {
		return nil, fmt.Errorf("%s: want names out of %s, each once", strings.Join(names, " "), strings.Join(benchmarkNames(), ", "))
	}
	return out, nil
}

func benchmarkNames() []string {
	var names []string
	for _, b := range benchmarks() {
		names = append(names, b.name)
	}
	return names
}

func (b *bench) printf(format string, args ...any) { fmt.Fprintf(b.out, format, args...) }

// progress tells whoever waits what is going on.
func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(b.err, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}
