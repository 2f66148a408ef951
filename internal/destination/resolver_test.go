package destination

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// names is a name server in memory.
type names struct {
	mu      sync.Mutex
	servers map[string][]*net.MX
	err     error
	asked   map[string]int
	now     atomic.Int32 // look-ups under way
	top     atomic.Int32 // the most there were
	gaveUp  atomic.Int32 // look-ups that ended without an answer
	hold    chan struct{}
}

func (n *names) lookup(ctx context.Context, domain string) ([]*net.MX, error) {
	now := n.now.Add(1)
	defer n.now.Add(-1)
	for top := n.top.Load(); now > top && !n.top.CompareAndSwap(top, now); top = n.top.Load() {
	}
	if n.hold != nil {
		select {
		case <-n.hold:
		case <-ctx.Done():
			n.gaveUp.Add(1)
			return nil, ctx.Err()
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked[domain]++
	if n.err != nil {
		return nil, n.err
	}
	if s, ok := n.servers[domain]; ok {
		return s, nil
	}
	return nil, &net.DNSError{Name: domain, IsNotFound: true}
}

func (n *names) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.err = err
}

func (n *names) count(domain string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[domain]
}

// pass lets the bubble's clock go on.
func pass(d time.Duration) { <-time.After(d) }

// resolver runs a Resolver inside a synctest bubble.
func resolver(t *testing.T, n *names, p Params) *Resolver {
	t.Helper()
	n.asked = map[string]int{}
	p.Table, p.Lookup = table(t), n.lookup
	r, err := NewResolver(p)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { r.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

func mx(servers ...string) (out []*net.MX) {
	for i, s := range servers {
		out = append(out, &net.MX{Host: s, Pref: uint16(10 * i)})
	}
	return out
}

func TestResolver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &names{servers: map[string][]*net.MX{
			"company.example": mx("ASPMX.L.Google.com.", "alt1.aspmx.l.google.com."),
			"backup.example":  mx("mx.own.example.", "aspmx.l.google.com."),
			"mixed.example":   {{Host: "aspmx.l.google.com.", Pref: 1}, {Host: "mx1.naver.com.", Pref: 1}},
			"works.example":   mx("aspmx1.worksmobile.com."),
			"null.example":    mx("."),
		}}
		r := resolver(t, n, Params{})
		want := map[string]string{"company.example": "google", "backup.example": "", "mixed.example": "", "works.example": "naver",
			"null.example": "", "nothing.example": "", "naver.com": "naver"}
		for range 3 {
			for domain := range want {
				if g := r.Group(domain); g != "" && domain != "naver.com" {
					t.Errorf("%s is in %q before anyone was asked", domain, g)
				}
			}
		}
		synctest.Wait()
		for range 3 {
			for domain, g := range want {
				if got := r.Group(domain); got != g {
					t.Errorf("%s is in %q, want %q", domain, got, g)
				}
			}
		}
		synctest.Wait()
		for domain := range want {
			if got := n.count(domain); domain != "naver.com" && got != 1 || domain == "naver.com" && got != 0 {
				t.Errorf("%s was looked up %d times", domain, got)
			}
		}
	})
}

// An answer holds for its time, a negative one too; then it is given once more while a
// new one is fetched. A failure leaves what was known, and is repeated sooner.
func TestResolverForgets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &names{servers: map[string][]*net.MX{"company.example": mx("smtp.google.com.")}}
		r := resolver(t, n, Params{Keep: time.Hour, Again: time.Minute})
		ask := func(wantAsked int, want string) {
			t.Helper()
			for _, d := range []string{"company.example", "nothing.example"} {
				r.Group(d)
				synctest.Wait()
				if got := n.count(d); got != wantAsked {
					t.Errorf("%s was looked up %d times, want %d", d, got, wantAsked)
				}
			}
			if g := r.Group("company.example"); g != want {
				t.Errorf("in %q, want %q", g, want)
			}
		}
		ask(1, "google")
		pass(time.Hour - time.Second)
		ask(1, "google")
		pass(time.Second)
		n.fail(errors.New("no answer"))
		ask(2, "google")
		pass(time.Minute)
		n.fail(nil)
		n.mu.Lock()
		n.servers["company.example"] = mx("mx1.naver.com.")
		n.mu.Unlock()
		ask(3, "naver")
		pass(time.Minute)
		ask(3, "naver")
	})
}

// However many domains are asked for, eight look-ups run, each two seconds at most,
// and as many are remembered as there is room for.
func TestResolverBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &names{hold: make(chan struct{})}
		r := resolver(t, n, Params{Most: 50})
		for i := range 3000 {
			r.Group(fmt.Sprintf("d%d.example", i))
		}
		synctest.Wait()
		if got := n.now.Load(); got != 8 {
			t.Errorf("%d look-ups at once, want 8", got)
		}
		pass(2 * time.Second)
		synctest.Wait()
		if n.gaveUp.Load() != 8 || n.now.Load() != 8 {
			t.Errorf("after two seconds %d were given up and %d under way, want 8 and 8", n.gaveUp.Load(), n.now.Load())
		}
		close(n.hold)
		synctest.Wait()
		if got := n.top.Load(); got != 8 {
			t.Errorf("at most %d look-ups at once, want 8", got)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.known) > 50 || len(r.known) < 40 || len(r.waiting) != 0 {
			t.Errorf("%d remembered, %d waiting, want up to 50 and none", len(r.known), len(r.waiting))
		}
	})
}

func TestNewResolverRefuses(t *testing.T) {
	t.Parallel()
	if _, err := NewResolver(Params{Table: table(t)}); err == nil {
		t.Error("no look-up")
	}
}
