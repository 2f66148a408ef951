package destination

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"
)

// How the Resolver bounds itself where its Params do not.
const (
	atOnce  = 8               // look-ups
	wait    = 2 * time.Second // for one
	keep    = time.Hour       // what an answer holds, "no such domain" too
	again   = time.Minute     // after a look-up that failed
	most    = 100_000         // domains remembered: some 10 MB
	queueUp = 1024            // domains waiting for a look-up
)

// Lookup finds a domain's mail servers, such as net.Resolver.LookupMX. It should
// return when ctx ends.
type Lookup func(ctx context.Context, domain string) ([]*net.MX, error)

// Params are a Resolver's. Zero durations and counts are the usual ones.
type Params struct {
	Table  *Table
	Lookup Lookup
	AtOnce int           // look-ups at the same time; 8
	Wait   time.Duration // for one look-up; 2 s
	Keep   time.Duration // how long an answer holds, a negative one too; 1 h
	Again  time.Duration // after how long a failed look-up is repeated; 1 min
	Most   int           // domains remembered; 100,000
	Now    func() time.Time
}

// Resolver is a Table that also knows the domains whose mail servers are a group's.
// It never waits: a domain not looked up yet is in no group, and is looked up
// behind. All methods may be called at the same time.
type Resolver struct {
	p     Params
	queue chan string

	mu      sync.RWMutex
	known   map[string]entry
	waiting map[string]bool // in the queue, or being looked up
}

// entry is the answer for one domain, good until a time.
type entry struct {
	group string
	until time.Time
}

// NewResolver returns a Resolver that answers from its Table alone until Run runs.
func NewResolver(p Params) (*Resolver, error) {
	if p.Table == nil || p.Lookup == nil {
		return nil, errors.New("destination resolver: want a table and a look-up")
	}
	if p.AtOnce == 0 {
		p.AtOnce = atOnce
	}
	if p.Wait == 0 {
		p.Wait = wait
	}
	if p.Keep == 0 {
		p.Keep = keep
	}
	if p.Again == 0 {
		p.Again = again
	}
	if p.Most == 0 {
		p.Most = most
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	return &Resolver{p: p, queue: make(chan string, queueUp), known: map[string]entry{}, waiting: map[string]bool{}}, nil
}

// Run looks up what Group was asked for, until ctx ends and no look-up is left.
func (r *Resolver) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for range r.p.AtOnce {
		wg.Go(func() {
			for {
				select {
				case domain := <-r.queue:
					r.look(ctx, domain)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	wg.Wait()
}

// Group returns the group of a domain (ASCII, lower case), or "" where it has none
// or is not known yet. An answer that is too old is given until there is a new one.
func (r *Resolver) Group(domain string) string {
	if g := r.p.Table.Group(domain); g != "" {
		return g
	}
	now := r.p.Now()
	r.mu.RLock()
	e, ok := r.known[domain]
	r.mu.RUnlock()
	if !ok || !now.Before(e.until) {
		r.ask(domain)
	}
	return e.group
}

// ask queues a look-up. With the queue full, whoever asks next tries again.
func (r *Resolver) ask(domain string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting[domain] {
		return
	}
	select {
	case r.queue <- domain:
		r.waiting[domain] = true
	default:
	}
}

func (r *Resolver) look(ctx context.Context, domain string) {
	within, cancel := context.WithTimeout(ctx, r.p.Wait)
	defer cancel()
	servers, err := r.p.Lookup(within, domain)
	now := r.p.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting, domain)
	e := entry{r.group(servers), now.Add(r.p.Keep)}
	if none := (*net.DNSError)(nil); err != nil && len(servers) == 0 && !(errors.As(err, &none) && none.IsNotFound) {
		// Not a no, but no answer: what was known before stays until there is one.
		e = entry{r.known[domain].group, now.Add(r.p.Again)}
	}
	r.makeRoom(domain, now)
	r.known[domain] = e
}

// group is that of the most preferred servers (RFC 5321 section 5.1), as long as
// they agree.
func (r *Resolver) group(servers []*net.MX) string {
	group, best := "", -1
	for _, s := range servers {
		if s == nil {
			continue
		}
		g := r.p.Table.OfMX(strings.ToLower(strings.TrimSuffix(s.Host, ".")))
		switch pref := int(s.Pref); {
		case best < 0 || pref < best:
			group, best = g, pref
		case pref == best && g != group:
			group = ""
		}
	}
	return group
}

// makeRoom forgets what is too old, else anything, before one more domain. The
// caller holds the lock.
func (r *Resolver) makeRoom(domain string, now time.Time) {
	if _, ok := r.known[domain]; ok || len(r.known) < r.p.Most {
		return
	}
	for d, e := range r.known {
		if !now.Before(e.until) {
			delete(r.known, d)
		}
	}
	for d := range r.known {
		if len(r.known) < r.p.Most*9/10 || len(r.known) < r.p.Most && r.p.Most < 10 {
			return
		}
		delete(r.known, d)
	}
}
