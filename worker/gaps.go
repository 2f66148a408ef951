package worker

import (
	"context"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/throttle"
)

// gaps say how fast each destination group may be sent to, as far as its own limits, and
// not those of all mail, are what binds it. It is up to a second old.
type gaps struct {
	mu  sync.Mutex
	gap map[string]time.Duration // from one message to the next, by group
}

// paced is the longest window whose messages are spaced out; a longer one is used as fast
// as may be, and then waited for.
const paced = time.Minute

// see takes in the limits, and what was learned of them, for one stream.
func (g *gaps) see(s mail.Stream, u throttle.Usage, l throttle.Learned) {
	gap := map[string]time.Duration{}
	for _, use := range u.Messages {
		w := use.Window
		if w.Per > paced && use.Left > w.N/20 {
			continue // there is enough of it
		}
		each := w.Per / time.Duration(w.N)
		group, ofGroup := strings.CutPrefix(use.Name, "groups.")
		switch {
		case ofGroup:
			group = strings.TrimSuffix(group, ".messages")
			gap[group] = max(gap[group], each)
		case use.Name == "limits.messages", use.Name == "streams."+string(s)+".messages":
			gap[""] = max(gap[""], each)
		}
	}
	for _, r := range l.Rates {
		if r.Cap > 0 {
			gap[r.Group] = max(gap[r.Group], time.Duration(float64(time.Second)/r.Cap))
		}
	}
	all := gap[""]
	maps.DeleteFunc(gap, func(_ string, each time.Duration) bool { return each <= all })
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gap = gap
}

// of is the time from one message to a group to the next; 0: the group's own limits do
// not bind it.
func (g *gaps) of(group string) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gap[group]
}

// watchBudget looks once a second at what the fleet's budget says of this stream: how
// fast the groups may be sent to, and whether the login is refused. It works until ctx
// ends.
func (l *lane) watchBudget(ctx context.Context) {
	for {
		refused := l.look(ctx)
		if _, held := l.member.Held(l.stream, ""); held || refused {
			l.takeCredentials(ctx)
		}
		if wait(ctx, lookEvery) != nil {
			return
		}
	}
}

// look asks the budget, where somebody waits for what it says, and reports whether the
// login is refused.
func (l *lane) look(ctx context.Context) (refused bool) {
	if !l.feed.busy() && l.connections() >= l.sc.Warm {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, lookEvery)
	defer cancel()
	u, err := l.budget.Usage(ctx)
	if err != nil {
		return false // what was seen last goes on
	}
	var learned throttle.Learned
	if l.budget.Learns() { // else nothing that was learned binds
		if learned, err = l.budget.Learned(ctx); err != nil {
			return false
		}
	}
	l.feed.gaps.see(l.stream, u, learned)
	_, login := l.credentials()
	for _, b := range u.Breakers {
		refused = refused || b.State == throttle.LoginRefused && b.Login == login
	}
	return refused
}
