//go:build interop

package interop

import (
	"context"
	"errors"
	"io"
	"regexp"
	"slices"
	"sync"
	"testing"

	"github.com/sluicemail/sluice/internal/smtp"
)

// runSize is how many mails are sent in each way.
const runSize = 300

// crew is how many connections a run may have.
const crew = 2

// way is one way to send a run over a server.
type way struct {
	name string // of the run, letters and hyphens
	tls  smtp.TLSMode
	mode smtp.Mode
}

// dial is how a way connects.
func (s *server) dial(t *testing.T, w way, a authority, m *smtp.Memory) smtp.DialConfig {
	port := s.port
	if w.tls == smtp.Implicit {
		port = s.front
	}
	return smtp.DialConfig{
		Host: "127.0.0.1", Port: port, TLS: w.tls, RootCAs: a.pool(t), Hello: "client.sender.example",
		Auth: smtp.AuthNone, Mode: w.mode, Memory: m,
	}
}

// extensions asks the server. Where its STARTTLS is known not to work, and does not,
// the test is skipped.
func (s *server) extensions(t *testing.T, cfg smtp.DialConfig) smtp.Extensions {
	t.Helper()
	before := s.marks()
	c, err := smtp.Dial(t.Context(), cfg)
	if err == nil {
		c.Quit()
		return c.Extensions()
	}
	if cfg.TLS != smtp.StartTLS || s.fault == nil {
		t.Fatal(err)
	}
	eventually(t, "STARTTLS, or the known reason for its absence", func() bool { return s.fault.MatchString(s.since(before)) })
	t.Skipf("STARTTLS of this build of %s works for no client: it logs %q", s.pkg, s.fault.FindString(s.since(before)))
	return smtp.Extensions{}
}

// exchange sends n letters one way and checks what became of each, on both sides.
func exchange(t *testing.T, s *server, a authority, w way) {
	memory := smtp.NewMemory()
	cfg := s.dial(t, w, a, memory)
	sent := letters(t, s, w.name, runSize, s.extensions(t, cfg).EightBit)
	before := s.marks()
	b := newBatch(sent)
	modes := b.send(t, s, cfg)
	want := w.mode
	if want == smtp.ModeAuto {
		want = s.best
		if offers := s.best != smtp.ModeLockStep; offers && memory.Best(cfg.Addr()) != s.best {
			t.Errorf("remembered for the server: %v, want %v", memory.Best(cfg.Addr()), s.best)
		}
	}
	most := crew
	if s.mails > 0 {
		most += runSize / s.mails
	}
	if len(modes) > most {
		t.Errorf("%d connections opened, want at most %d", len(modes), most)
	}
	for _, m := range modes {
		if m != want {
			t.Errorf("a connection in mode %v, want %v", m, want)
		}
	}
	accepted := b.judge(t)
	compare(t, s.mailbox(len(accepted)), accepted)
	s.agrees(t, s.since(before), len(accepted))
	t.Logf("%d mails over %d connections, %v", runSize, len(modes), want)
}

// blame is what servers write of a client that does not wait for its turn, or is gone.
var blame = regexp.MustCompile(`(?i).*(improper|pipelining|synchroni[sz]ation|out of sequence|syntax error|protocol error|lost connection|unexpected|too many|result="50).*`)

// polite are lines of that kind about a connection that was not needed any more while
// it was still being made.
var polite = regexp.MustCompile(`lost connection after (CONNECT|EHLO|STARTTLS) |SSL_accept error`)

// complaints are the lines of a log that blame the client.
func complaints(log string) []string {
	return slices.DeleteFunc(blame.FindAllString(log, -1), polite.MatchString)
}

// agrees checks that the server's log of a run has all mails, each once, and no complaint.
func (s *server) agrees(t *testing.T, log string, accepted int) {
	t.Helper()
	for _, line := range complaints(log) {
		t.Errorf("the server complains: %s", line)
	}
	if s.arrival == nil {
		return
	}
	if n := len(s.arrival.FindAllString(log, -1)); n != accepted {
		t.Errorf("the server's log has %d mails, want %d", n, accepted)
	}
}

// compare checks that each accepted letter is in the mailbox exactly as it was sent,
// once, and nothing else.
func compare(t *testing.T, got []stored, accepted map[string][]byte) {
	t.Helper()
	seen := map[string]int{}
	for _, m := range got {
		want, ok := accepted[m.to]
		if !ok {
			t.Errorf("a mail for %s, which was not accepted or not sent", m.to)
			continue
		}
		seen[m.to]++
		if d := difference(m.content, want); d != "" {
			t.Errorf("%s: %s", m.to, d)
		}
	}
	for to := range accepted {
		if seen[to] != 1 {
			t.Errorf("%s has %d mails, want 1", to, seen[to])
		}
	}
}

// batch is a Source of letters that keeps what became of each.
type batch struct {
	ready chan *parcel // never full

	mu       sync.Mutex
	parcels  []*parcel
	open     int           // not settled yet
	settled  chan struct{} // closed when open is 0
	troubles []string
}

// parcel is one letter on its way. It implements smtp.Transaction.
type parcel struct {
	batch   *batch
	letter  letter
	begun   bool
	results []smtp.Result // settled ones
}

func newBatch(sent []letter) *batch {
	b := &batch{ready: make(chan *parcel, len(sent)), open: len(sent), settled: make(chan struct{})}
	for _, l := range sent {
		p := &parcel{batch: b, letter: l}
		b.parcels = append(b.parcels, p)
		b.ready <- p
	}
	return b
}

// send sends the batch through a pool and returns the mode of each connection.
func (b *batch) send(t *testing.T, s *server, cfg smtp.DialConfig) []smtp.Mode {
	t.Helper()
	var modes []smtp.Mode // written by the pool's dials, of which there is one at a time
	pool, err := smtp.NewPool(smtp.PoolConfig{
		Dial: func(ctx context.Context) (*smtp.Conn, error) {
			c, err := smtp.Dial(ctx, cfg)
			if err == nil {
				modes = append(modes, c.Mode())
			}
			return c, err
		},
		Source: b, Max: crew, PerConnection: smtp.Limits{Messages: s.mails},
		OnDial: func(err error) {
			if err != nil {
				b.trouble("dial: " + err.Error())
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := pool.Run(t.Context(), t.Context()); !errors.Is(err, io.EOF) {
		t.Fatalf("the pool ended with %v before everything was settled", err)
	}
	return modes
}

// Waiting implements smtp.Source.
func (b *batch) Waiting() bool { return len(b.ready) > 0 }

// TryNext implements smtp.Source.
func (b *batch) TryNext() (smtp.Transaction, smtp.Supply) {
	select {
	case p := <-b.ready:
		return p, smtp.Ready
	default:
		return nil, smtp.Empty
	}
}

// Next implements smtp.Source. It ends the pool once every letter is settled.
func (b *batch) Next(ctx context.Context) (smtp.Transaction, error) {
	select {
	case p := <-b.ready:
		return p, nil
	case <-b.settled:
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (b *batch) trouble(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.troubles = append(b.troubles, what)
}

// Message implements smtp.Transaction.
func (p *parcel) Message() smtp.Message {
	return smtp.Message{From: sender, To: p.letter.to, Content: p.letter.content}
}

// Begin implements smtp.Transaction.
func (p *parcel) Begin() { p.begun = true }

// Confirm implements smtp.Transaction: there is no ledger here.
func (p *parcel) Confirm(context.Context) error { return nil }

// Done implements smtp.Transaction. What was only turned away from a connection that
// has had its share goes again; what was begun and not sent is a connection lost.
func (p *parcel) Done(r smtp.Result) {
	b := p.batch
	if r.Kind == smtp.Unsent {
		if p.begun && r.Stage != smtp.StageIdle {
			b.trouble("a connection was lost: " + r.Err.Error())
		}
		p.begun = false
		b.ready <- p
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p.results = append(p.results, r)
	if b.open--; b.open == 0 {
		close(b.settled)
	}
}

// judge checks that every letter had its fate, and returns the contents accepted by
// recipient, as they must arrive.
func (b *batch) judge(t *testing.T) map[string][]byte {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, trouble := range b.troubles {
		t.Error(trouble)
	}
	accepted := map[string][]byte{}
	for _, p := range b.parcels {
		l := p.letter
		if len(p.results) != 1 {
			t.Errorf("%s has %d results", l.to, len(p.results))
			continue
		}
		switch r := p.results[0]; {
		case l.fate == delivered && r.Kind == smtp.Accepted:
			accepted[l.to] = withEnd(l.content)
		case l.fate == refused && r.Kind == smtp.Refused && r.Stage == smtp.StageRcpt && r.Reply.Code/100 == 5:
		case l.fate == deferred && r.Kind == smtp.Refused && r.Stage == smtp.StageRcpt && r.Reply.Code/100 == 4:
		default:
			t.Errorf("%s: %v at %s: %v %v", l.to, r.Kind, r.Stage, r.Reply, r.Err)
		}
	}
	return accepted
}

// withEnd adds the CRLF that a content may lack.
func withEnd(content []byte) []byte {
	if len(content) > 1 && string(content[len(content)-2:]) == "\r\n" {
		return content
	}
	return append(content[:len(content):len(content)], "\r\n"...)
}
