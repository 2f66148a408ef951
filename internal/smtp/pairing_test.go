package smtp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluicemail/sluice/internal/relay"
)

var pairs = flag.Int("messages", 20_000, "how many messages TestPairing sends")

// pairing is a Source of numbered messages, each with a content that only its own
// recipient may get, and the account of what became of them on either side.
type pairing struct {
	t     *testing.T
	truth []atomic.Uint32 // by number: how often the relay took it
	wrong atomic.Int64    // complaints; the first few are printed

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when there is more to send, or all is over
	next    int           // never sent yet
	again   []int         // deferred, or provably not sent
	end     []Kind        // by number: its one final outcome
	open    int           // numbers without one
	ends    map[Kind]int
	retries int // refused for now, and sent again
	unsent  int
}

func newPairing(t *testing.T, n int) *pairing {
	return &pairing{t: t, truth: make([]atomic.Uint32, n), changed: make(chan struct{}),
		end: make([]Kind, n), open: n, ends: map[Kind]int{}}
}

func (p *pairing) complain(format string, args ...any) {
	if p.wrong.Add(1) <= 10 {
		p.t.Errorf(format, args...)
	}
}

const pairingFrom = "from@a.example"

func pairingTo(i int) string { return fmt.Sprintf("r%d@b.example", i) }

func pairingID(i int) string { return fmt.Sprintf("<%d.%x@id.example>", i, i*7919) }

// appendLetter writes content i: of many lengths, a few of several chunks, with what is
// lost or doubled most easily on the way, dots and spaces.
func appendLetter(b []byte, i int) []byte {
	b = fmt.Appendf(b, "From: %s\r\nTo: %s\r\nMessage-ID: %s\r\n\r\n", pairingFrom, pairingTo(i), pairingID(i))
	lines := 1 + i%20
	if i%5000 == 77 {
		lines = 2*chunk/30 + i%100
	}
	for n := range lines {
		b = append(b, []string{"", ".", "..", ".\r\n.."}[(i+n)%4]...)
		b = fmt.Appendf(b, "token %d, line %d \t\r\n", i, n)
	}
	return b
}

// accepted is the relay's ground truth of one message: its digest is that of the whole
// content, and must be the one of the recipient's own.
func (p *pairing) accepted(a relay.Accepted) {
	i, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(a.To, "r"), "@b.example"))
	if err != nil || i < 0 || i >= len(p.truth) {
		p.complain("the relay took mail for %q", a.To)
		return
	}
	if a.From != pairingFrom || a.MessageID != pairingID(i) || a.SHA256 != relay.Digest(sha256.Sum256(appendLetter(nil, i))) {
		p.complain("%s got the mail %s of %d octets", a.To, a.MessageID, a.Size)
	}
	if p.truth[i].Add(1) > 1 {
		p.complain("%s got its mail twice", a.To)
	}
}

// pair is one attempt to send message i.
type pair struct {
	p *pairing
	i int
}

func (x pair) Message() Message {
	return Message{From: pairingFrom, To: pairingTo(x.i), Content: appendLetter(nil, x.i)}
}
func (pair) Begin()                        {}
func (pair) Confirm(context.Context) error { return nil }

func (x pair) Done(r Result) {
	p := x.p
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.end[x.i] != 0:
		p.complain("message %d: %v after %v", x.i, r.Kind, p.end[x.i])
		return
	case r.Kind == Refused && r.Reply.Code < 500:
		p.retries++
	case r.Kind == Unsent:
		p.unsent++
	default:
		p.end[x.i] = r.Kind
		p.ends[r.Kind]++
		if p.open--; p.open == 0 {
			close(p.changed)
			p.changed = make(chan struct{})
		}
		return
	}
	p.again = append(p.again, x.i)
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pairing) Waiting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next < len(p.end) || len(p.again) > 0
}

func (p *pairing) TryNext() (Transaction, Supply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch last := len(p.again) - 1; {
	case p.next < len(p.end):
		p.next++
		return pair{p, p.next - 1}, Ready
	case last >= 0:
		i := p.again[last]
		p.again = p.again[:last]
		return pair{p, i}, Ready
	}
	return nil, Empty
}

func (p *pairing) Next(ctx context.Context) (Transaction, error) {
	for {
		p.mu.Lock()
		changed, over := p.changed, p.open == 0
		p.mu.Unlock()
		if over {
			return nil, errNoMore
		}
		if tx, s := p.TryNext(); s == Ready {
			return tx, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// serve sends over one connection after another until all is sent.
func (p *pairing) serve(cfg DialConfig) {
	for p.wrong.Load() == 0 {
		c, err := Dial(p.t.Context(), cfg)
		if err != nil {
			p.complain("dial: %v", err)
			return
		}
		if err = c.Serve(p.t.Context(), p, Limits{Messages: 2000}); errors.Is(err, errNoMore) {
			return
		}
	}
}

// check compares, recipient for recipient, what was reported with what the relay has.
func (p *pairing) check() {
	for i, kind := range p.end {
		got := p.truth[i].Load()
		if kind == Accepted && got != 1 || kind == Refused && got != 0 || kind != Accepted && kind != Refused && kind != Unknown {
			p.complain("message %d: reported %v, taken by the relay %d times", i, kind, got)
		}
	}
	n := len(p.end)
	for what, count := range map[string]int{"refused": p.ends[Refused], "deferred": p.retries, "unknown": p.ends[Unknown], "unsent": p.unsent} {
		if n >= 20_000 && count == 0 {
			p.complain("no message was %s: nothing was tested", what)
		}
	}
}

// Ten connections, plain and TLS, to a relay that refuses and defers recipients, asks for
// content where it has none, refuses contents, takes mail without saying so and hangs up:
// no content reaches another's recipient, none comes twice, none is lost, and none is
// altered. With -messages 1000000 it is what `make pairing` runs.
func TestPairing(t *testing.T) {
	t.Parallel()
	p := newPairing(t, *pairs)
	srv, err := relay.Start(relay.Config{AuthOptional: true, OnAccept: p.accepted, Rules: []relay.Rule{
		{Name: "hang up", Stage: relay.Rcpt, Share: 0.0005, Fresh: true, Action: relay.Reset},
		{Name: "refused", Stage: relay.Rcpt, Share: 0.05, Reply: "550 5.1.1 no such user"},
		{Name: "deferred", Stage: relay.Rcpt, Share: 0.05, Times: 1, Reply: "451 4.7.1 later"},
		{Name: "354 all the same", Stage: relay.Data, Share: 0.5, Reply: "354 go ahead"},
		{Name: "taken in silence", Stage: relay.EOD, Share: 0.0005, Fresh: true, Action: relay.AcceptDrop},
		{Name: "content", Stage: relay.EOD, Share: 0.01, Reply: "554 5.7.1 spam"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = srv.Close() }()
	host, port, _ := net.SplitHostPort(srv.Addr())
	cfg := DialConfig{Host: host, Mode: ModePipelined, RootCAs: x509.NewCertPool()}
	cfg.Port, _ = strconv.Atoi(port)
	cfg.RootCAs.AppendCertsFromPEM(bytes.Clone(srv.CAPEM()))
	var wg sync.WaitGroup
	for i := range 10 {
		cfg.TLS = []TLSMode{None, StartTLS}[i%2]
		wg.Add(1)
		go func(cfg DialConfig) { defer wg.Done(); p.serve(cfg) }(cfg)
	}
	wg.Wait()
	p.check()
	s := srv.Stats()
	t.Logf("%d messages: %d accepted, %d refused, %d unknown; %d deferred and %d unsent once; the relay has %d, over %d connections; %d wrong; rules %v",
		len(p.end), p.ends[Accepted], p.ends[Refused], p.ends[Unknown], p.retries, p.unsent, s.Messages, s.Connections, p.wrong.Load(), s.RuleHits)
}
