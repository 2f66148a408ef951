package feedback

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/suppress"
	"github.com/sluicemail/sluice/internal/verdict"
	"github.com/sluicemail/sluice/templates"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a queue, a suppression list and an importer for them.
type rig struct {
	t    testing.TB
	q    *queue.Queue
	rdb  *redis.Client
	list *suppress.List
	*Importer
	faults []string
	held   []string
}

func newRig(t testing.TB, addr string, change ...func(*Params)) *rig {
	t.Helper()
	q, err := queue.Open(queue.Options{Connection: queue.Connection{Addrs: []string{addr}}})
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() {
		_ = q.Close()
		_ = rdb.Close()
	})
	r := &rig{t: t, q: q, rdb: rdb, list: suppress.New(rdb, "sluice")}
	p := Params{
		Queue: q, Suppress: r.list, Rules: rules(t), Within: 24 * time.Hour,
		Group: func(domain string) string {
			if domain == "naver.com" {
				return "naver"
			}
			return ""
		},
		Bad: func(f *Fault) { r.faults = append(r.faults, f.Error()) },
		Held: func(c *queue.Campaign, group string, h *queue.Hold) {
			r.held = append(r.held, c.Name+"@"+group+": "+h.Why)
		},
	}
	for _, f := range change {
		f(&p)
	}
	r.Importer = New(p)
	return r
}

func memory(t testing.TB, change ...func(*Params)) *rig {
	t.Helper()
	return newRig(t, miniredis.RunT(t).Addr(), change...)
}

func rules(t testing.TB) *verdict.Rules {
	t.Helper()
	v, err := verdict.Default()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// blockSize of the campaigns of these tests.
const blockSize = 500

// campaign stores one of n recipients: to(i) on line 2i+2. The first of them, accepted in
// number, the relay has taken mail for.
func (r *rig) campaign(name string, n, accepted int, to func(i int) string) *queue.Campaign {
	r.t.Helper()
	st, err := r.q.Stage(r.t.Context(), queue.Campaign{Name: name, Key: name, Stream: mail.Normal, From: "s@example.com", Digest: "d", Size: blockSize}, []byte("program"))
	if err != nil {
		r.t.Fatal(err)
	}
	blocks := 0
	for i := 0; i < n; blocks++ {
		b := &queue.Block{}
		for ; i < n && b.Len() < blockSize; i++ {
			b.Lines, b.Emails = append(b.Lines, lineOf(i)), append(b.Emails, to(i))
		}
		if err := st.Put(r.t.Context(), blocks, b); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := st.Commit(r.t.Context(), blocks, 0, queue.Door{Recipients: n}); err != nil {
		r.t.Fatal(err)
	}
	c := st.Campaign()
	r.accept(c, accepted)
	return c
}

func lineOf(i int) int { return 2*i + 2 }

// accept records that the relay took mail for the first n of a campaign.
func (r *rig) accept(c *queue.Campaign, n int) {
	r.t.Helper()
	if n == 0 {
		return
	}
	m, err := r.q.Join(r.t.Context(), queue.Hooks{})
	if err != nil {
		r.t.Fatal(err)
	}
	for block := 0; block*blockSize < n; block++ {
		cl, err := m.Claim(r.t.Context(), c.Stream, c.ID, block)
		if err != nil {
			r.t.Fatal(err)
		}
		for i := range min(blockSize, n-block*blockSize) {
			m.Record(m.Declare(cl, i), mail.Accepted, mail.Reply{Code: 250}, 0)
		}
	}
	if err := m.Leave(r.t.Context()); err != nil { // which stores it
		r.t.Fatal(err)
	}
}

// take reads one input and takes it in.
func (r *rig) take(name, text string) Summary {
	r.t.Helper()
	if err := r.Read(r.t.Context(), name, strings.NewReader(text)); err != nil {
		r.t.Fatal(err)
	}
	if err := r.Flush(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	return r.Summary()
}

// counts are what a campaign's summary says.
func (r *rig) counts(c *queue.Campaign) (delivered, bounced int) {
	r.t.Helper()
	s, err := r.q.Summary(r.t.Context(), c, false)
	if err != nil {
		r.t.Fatal(err)
	}
	return s.Delivered, s.Bounced
}

// suppressed lists scope and reason of an address's entries.
func (r *rig) suppressed(address string) string {
	r.t.Helper()
	a, err := mail.ParseAddress(address)
	if err != nil {
		r.t.Fatal(err)
	}
	found, err := r.list.Find(r.t.Context(), a)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, e := range found[0] {
		if e.Source != suppress.ByFeedback {
			r.t.Errorf("source %v", e.Source)
		}
		out = append(out, e.Scope.String()+" "+e.Reason)
	}
	return strings.Join(out, ", ")
}

func idOf(c *queue.Campaign, i int) string {
	return "<" + templates.MessageID(c.ID, lineOf(i), "example.com") + ">"
}

func numbered(i int) string { return fmt.Sprintf("r%d@naver.com", i) }
