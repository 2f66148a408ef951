package faulttest

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// write puts the table into a page.
func (l *ledger) write(file string, took time.Duration) error {
	var b strings.Builder
	var all result
	runs := 0
	b.WriteString("| | fault | promise | runs | recipients | lost | got two mails | unknown | went on after | |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	for _, one := range l.sorted() {
		fmt.Fprintln(&b, one)
		all.merge(&one.result)
		runs += one.made
	}
	fmt.Fprintf(&b, "\n%d runs, %d recipients, %d processes killed or frozen: lost %d; got two mails %d, of those not listed %d; unknown %d; "+
		"wrongly paired %d; most over the limit in a second %d; sent while Redis was away %d; attempts used up by what is no recipient's fault %d. "+
		"A dead worker's mail went on elsewhere after %.1f s at most (A1 to A6, A9).\n",
		runs, all.Recipients, all.crashes, all.Lost, all.Doubled, all.Unlisted, all.Unknown, all.Mispaired, all.over, all.awayDots, all.wasted,
		all.takeOver.Seconds())
	fmt.Fprintf(&b, "\n`make faults` wrote this in %.0f minutes: %s.\n", took.Minutes(), machine())
	return fill(file, "faults", b.String())
}

// machine says what the figures were taken on.
func machine() string {
	version := "redis-server"
	if out, err := exec.Command("redis-server", "--version").Output(); err == nil {
		for _, word := range strings.Fields(string(out)) {
			if v, ok := strings.CutPrefix(word, "v="); ok {
				version = "Redis " + v
			}
		}
	}
	return fmt.Sprintf("%s, %s, %d processors", runtime.Version(), version, runtime.NumCPU())
}

// fill replaces what stands between a page's marks of a name.
func fill(file, name, text string) error {
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	open, shut := "<!-- "+name+" -->\n", "<!-- /"+name+" -->\n"
	before, rest, ok := strings.Cut(string(page), open)
	_, after, ok2 := strings.Cut(rest, shut)
	if !ok || !ok2 {
		return fmt.Errorf("%s: no marks %q and %q", file, strings.TrimSpace(open), strings.TrimSpace(shut))
	}
	return os.WriteFile(file, []byte(before+open+text+shut+after), 0o644)
}
