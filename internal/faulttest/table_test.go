package faulttest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fault is one row of the table.
type fault struct {
	id      string
	name    string // what happens
	promise string
	runs    int  // in the full bench
	quick   bool // one run of it is among the ordinary tests
	run     func(t testing.TB) *result
}

// result is what one run of a fault, or all of them together, came to.
type result struct {
	account
	crashes     int           // processes that died or froze
	recovery    time.Duration // the longest until mail went on
	takeOver    time.Duration // the longest until a dead worker's mail went on elsewhere
	wasted      int           // attempts used up by what is no recipient's fault
	awayDots    int           // mails accepted while Redis was away for more than a second
	over        int           // more than the limit in a window
	mayUnknown  int           // most unknowns, resent ones included, that are not held against it
	mayBurn     int           // most attempts used up
	mayRefuse   int           // recipients that are to be refused
	twiceIsFine bool          // policy resend: a second mail is allowed where it is listed
	notes       []string      // further figures, for the table
	wrong       []string      // what else went wrong
}

func (r *result) fail(format string, args ...any) {
	r.wrong = append(r.wrong, fmt.Sprintf(format, args...))
}

func (r *result) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// complaints says what the run broke of the promises, nothing where it kept them all.
func (r *result) complaints() []string {
	out := slices.Clone(r.wrong)
	for _, c := range []struct {
		is   bool
		what string
	}{
		{r.Lost > 0, fmt.Sprintf("%d lost", r.Lost)},
		{r.Unlisted > 0, fmt.Sprintf("%d got a second mail that is not listed", r.Unlisted)},
		{r.Doubled > 0 && !r.twiceIsFine, fmt.Sprintf("%d got a second mail", r.Doubled)},
		{r.Mispaired > 0, fmt.Sprintf("%d wrongly paired", r.Mispaired)},
		{r.Unknown+r.Listed > r.mayUnknown, fmt.Sprintf("%d unknown or sent again, where %d are the most", r.Unknown+r.Listed, r.mayUnknown)},
		{r.Burnt > r.mayBurn, fmt.Sprintf("%d attempts used up, where %d are the most", r.Burnt, r.mayBurn)},
		{r.Refused != r.mayRefuse, fmt.Sprintf("%d refused, where %d are to be", r.Refused, r.mayRefuse)},
		{r.awayDots > 0, fmt.Sprintf("%d mails sent while Redis was away", r.awayDots)},
		{r.over > 0, fmt.Sprintf("%d over the limit", r.over)},
	} {
		if c.is {
			out = append(out, c.what)
		}
	}
	if len(out) > 0 {
		out = append(out, r.examples...)
	}
	return out
}

// headline is the complaints that fit into a table: without examples.
func (r *result) headline() string {
	bad := r.complaints()
	return strings.Join(bad[:max(0, len(bad)-len(r.examples))], "; ")
}

// merge takes a further run into account.
func (r *result) merge(o *result) {
	r.add(o.account)
	r.crashes += o.crashes
	r.recovery = max(r.recovery, o.recovery)
	r.takeOver = max(r.takeOver, o.takeOver)
	r.wasted += o.wasted
	r.awayDots += o.awayDots
	r.over = max(r.over, o.over)
	r.wrong = append(r.wrong, o.wrong...)
	if len(r.notes) == 0 {
		r.notes = o.notes
	}
}

// line is a finished row.
type line struct {
	fault
	result
	made int // runs
	bad  []string
}

// ledger collects the finished rows.
type ledger struct {
	mu    sync.Mutex
	lines []line
}

func (l *ledger) add(one line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, one)
}

// faults is the whole table.
func faults() []fault {
	return slices.Concat(workerFaults(), redisFaults(), restartFaults(), networkFaults(), relayFaults(), operationFaults())
}

// TestFaults runs the faults: a selection once, or with -faults all of them.
func TestFaults(t *testing.T) {
	t.Parallel()
	var l ledger
	begun := time.Now()
	t.Run("all", func(t *testing.T) {
		for _, f := range faults() {
			if !*everything && !f.quick {
				continue
			}
			t.Run(f.id, func(t *testing.T) {
				t.Parallel()
				l.add(f.repeat(t))
			})
		}
	})
	for _, one := range l.sorted() {
		t.Log(one.String())
	}
	if *writeTo != "" {
		if err := l.write(*writeTo, time.Since(begun)); err != nil {
			t.Error(err)
		}
	}
}

// repeat makes the runs of one fault.
func (f fault) repeat(t *testing.T) line {
	t.Helper()
	n := 1
	if *everything {
		n = max(1, f.runs)
	}
	out := line{fault: f}
	var mu sync.Mutex
	t.Run("runs", func(t *testing.T) {
		for i := range n {
			t.Run(itoa(i+1), func(t *testing.T) {
				t.Parallel()
				r := f.run(t)
				r.wasted = max(0, r.Burnt-r.mayBurn)
				mu.Lock()
				defer mu.Unlock()
				out.made++
				out.merge(r)
				if bad := r.complaints(); len(bad) > 0 {
					out.bad = append(out.bad, bad...)
					t.Errorf("%s %s:\n  %s", f.id, f.name, strings.Join(bad, "\n  "))
				}
			})
		}
	})
	if out.made < n {
		out.bad = append(out.bad, fmt.Sprintf("%d runs broke off", n-out.made))
	}
	return out
}

func (l *ledger) sorted() []line {
	lines := slices.Clone(l.lines)
	order := map[string]int{}
	for i, f := range faults() {
		order[f.id] = i
	}
	slices.SortFunc(lines, func(a, b line) int { return order[a.id] - order[b.id] })
	return lines
}

// String is the row as it stands in docs/faults.md.
func (l line) String() string {
	recovery := "–"
	if l.recovery > 0 {
		recovery = fmt.Sprintf("%.1f s", l.recovery.Seconds())
	}
	doubled := itoa(l.Doubled)
	if l.Doubled > 0 {
		doubled = fmt.Sprintf("%d, all listed", l.Doubled)
	}
	if l.Unlisted > 0 {
		doubled = fmt.Sprintf("%d, %d NOT LISTED", l.Doubled, l.Unlisted)
	}
	more := strings.Join(l.notes, "; ")
	if len(l.bad) > 0 {
		more = "BROKEN: " + l.bad[0]
	}
	return fmt.Sprintf("| %s | %s | %s | %d | %d | %d | %s | %d | %s | %s |",
		l.id, l.name, l.promise, l.made, l.Recipients, l.Lost, doubled, l.Unknown, recovery, more)
}
