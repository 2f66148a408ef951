package worker

import (
	"context"
	"time"

	"github.com/sluicemail/sluice/internal/smtp"
)

// addresses chooses the relay's address for each dial. Limits count attempts to connect,
// and a dial to a name would make one for each of its addresses where the first fail. It
// is used by the pool's one dialling goroutine.
type addresses struct {
	list   []string
	dialed string               // the last one, "" = the name
	failed map[string]time.Time // when, of those that have not answered since
}

// look takes in where the relay's name points now. What cannot be looked up is left to the
// dial, which fails the same way, is told of and paused for.
func (a *addresses) look(ctx context.Context, conf *smtp.DialConfig) {
	a.list, _ = conf.LookUp(ctx)
}

// next is the best that has not failed, or else the one that did so the longest ago; ""
// where the name itself is to be dialled.
func (a *addresses) next() string {
	a.dialed = ""
	for _, addr := range a.list {
		if a.dialed == "" || a.failed[addr].Before(a.failed[a.dialed]) {
			a.dialed = addr
		}
	}
	return a.dialed
}

// told hears how the dial to the last one went.
func (a *addresses) told(err error, now time.Time) {
	switch {
	case a.dialed == "":
	case err == nil:
		delete(a.failed, a.dialed)
	default:
		if a.failed == nil {
			a.failed = map[string]time.Time{}
		}
		a.failed[a.dialed] = now
	}
}
