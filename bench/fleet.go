package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/relay"
)

// fleetSetup is several processes of the program itself and one relay.
type fleetSetup struct {
	workers int
	rtt     time.Duration
	rules   []relay.Rule
	yaml    string // of the limits and streams
	login   bool   // with a login for each stream, by which the relay tells them apart
}

// fleet is workers as they are run in production, but for the relay.
type fleet struct {
	*rig
	q       *queue.Queue
	program string // path of the program
	config  string // path of its configuration
	workers []*exec.Cmd
}

// fleet builds the program and starts everything.
func (b *bench) fleet(s fleetSetup) (*fleet, error) {
	r, err := b.rig(setup{kind: "sluice", rtt: s.rtt, rules: s.rules})
	if err != nil {
		return nil, err
	}
	f := &fleet{rig: r, program: filepath.Join(b.dir, "sluice"), config: filepath.Join(b.dir, "sluice.yaml")}
	if err := errors.Join(f.build(), f.configure(s)); err != nil {
		f.close()
		return nil, err
	}
	if f.q, err = r.redis.open(); err != nil {
		f.close()
		return nil, err
	}
	for range s.workers {
		if err := f.hire(); err != nil {
			f.close()
			return nil, err
		}
	}
	return f, nil
}

func (f *fleet) build() error {
	build := exec.CommandContext(f.b.ctx, "go", "build", "-o", f.program, "github.com/sluicemail/sluice/cmd/sluice")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program: %w: %s", err, out)
	}
	return nil
}

func (f *fleet) configure(s fleetSetup) error {
	port, err := f.port()
	if err != nil {
		return err
	}
	as := "preset: custom, auth: none"
	if s.login {
		as = "preset: nhn, user: bench, password: bench"
	}
	text := fmt.Sprintf("redis: {url: \"redis://%s/0\"}\nrelay: {%s, host: 127.0.0.1, port: %d, tls: none}\n", f.redis.addr, as, port)
	return os.WriteFile(f.config, []byte(text+s.yaml), 0o600)
}

// hire starts one worker.
func (f *fleet) hire() error {
	w := exec.Command(f.program, "worker", "--config", f.config, "--log-level", "error")
	w.Stderr = f.b.err
	w.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := w.Start(); err != nil {
		return fmt.Errorf("start a worker: %w", err)
	}
	f.workers = append(f.workers, w)
	return nil
}

func (f *fleet) close() {
	for _, w := range f.workers {
		_ = w.Process.Signal(syscall.SIGTERM)
		_ = w.Wait() // what it did is known by then
	}
	if f.q != nil {
		_ = f.q.Close()
	}
	f.rig.close()
}

// command runs the program to its end.
func (f *fleet) command(args ...string) error {
	if out, err := exec.CommandContext(f.b.ctx, f.program, append(args, "--config", f.config)...).CombinedOutput(); err != nil {
		return fmt.Errorf("sluice %v: %w: %s", args, err, out)
	}
	return nil
}

// account waits for the campaign's end and holds the ledger against what the relay
// accepted from its begin-th mail on: everybody once, or cancelled.
func (f *fleet) account(c *queue.Campaign, begin int) (sum *queue.Summary, err error) {
	settled := func() bool {
		sum, err = f.q.Summary(f.b.ctx, c, true)
		return err != nil || sum.Settled
	}
	if uerr := f.until(10*time.Minute, "the end of "+c.Name, settled); uerr != nil || err != nil {
		return nil, errors.Join(uerr, err)
	}
	got, n := map[string]int{}, 0
	for m := range f.relay.Messages() {
		if n++; n > begin {
			got[m.To]++
		}
	}
	err = f.q.Rows(f.b.ctx, c, func(r queue.Row) error {
		switch copies := got[r.Address]; {
		case r.Outcome == mail.Accepted && copies == 1, r.Outcome == mail.Cancelled && copies == 0:
			return nil
		default:
			return fmt.Errorf("line %d of %s is %v and got %d mails", r.Line, c.Name, r.Outcome, copies)
		}
	})
	return sum, err
}
