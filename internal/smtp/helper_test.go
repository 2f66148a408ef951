package smtp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	greeting = "220 relay ready\r\n"
	ehloLine = "EHLO localhost\r\n"
	nhnEHLO  = "250-smtp-mail.nhncloudservice.com Hello a [10.162.169.253])\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 8BITMIME\r\n"
	noPipes  = "250-relay\r\n250 8BITMIME\r\n"
)

// peer is the relay's end of one connection: exact bytes are expected, scripted
// replies are given.
type peer struct {
	t *testing.T
	net.Conn
	n int // connections before this one
}

// listen runs script for every connection. When the test ends all scripts must have
// ended.
func listen(t *testing.T, script func(p *peer)) (host string, port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = nc.Close() }()
				_ = nc.SetDeadline(time.Now().Add(20 * time.Second)) // a hanging test ends
				script(&peer{t, nc, n})
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	a := l.Addr().(*net.TCPAddr)
	return a.IP.String(), a.Port
}

// expect reads exactly what is expected, or the test fails.
func (p *peer) expect(want string) {
	p.t.Helper()
	b := make([]byte, len(want))
	n, err := io.ReadFull(p, b)
	if got := string(b[:n]); got != want {
		p.t.Errorf("relay read %q, %v; want %q", clip(got), err, clip(want))
	}
}

// clip keeps a failure readable.
func clip(s string) string {
	if len(s) > 300 {
		return s[:150] + "…" + s[len(s)-150:]
	}
	return s
}

func (p *peer) say(s string) { _, _ = io.WriteString(p, s) }

// quiet asserts that nothing but the end of the connection, or QUIT, comes.
func (p *peer) quiet() {
	p.t.Helper()
	b, err := io.ReadAll(p)
	if len(b) > 0 && string(b) != "QUIT\r\n" {
		p.t.Errorf("relay read %q, want nothing more", clip(string(b)))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Error("the connection was left open")
	}
}

// quit answers QUIT.
func (p *peer) quit() {
	p.t.Helper()
	p.expect("QUIT\r\n")
	p.say("221 bye\r\n")
}

// reset ends the connection with RST.
func (p *peer) reset() {
	_ = p.Conn.(*net.TCPConn).SetLinger(0)
	_ = p.Close()
}

// hello greets and answers EHLO.
func (p *peer) hello(ehlo string) {
	p.t.Helper()
	p.say(greeting)
	p.expect(ehloLine)
	p.say(ehlo)
}

// plainConfig dials host:port in the clear, on loopback, with short time-outs.
func plainConfig(host string, port int) DialConfig {
	return DialConfig{Host: host, Port: port, TLS: None, Memory: NewMemory(),
		Timeouts: Timeouts{Quit: 200 * time.Millisecond, Prompt: time.Hour}}
}

func dial(t *testing.T, cfg DialConfig) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Dial: %v", err)
	}
	return c
}

// message is a Transaction that keeps account of itself.
type message struct {
	Message
	name    string
	log     *eventLog
	confirm func(context.Context) error

	home *queue // takes it back when it was held for too long; nil: nobody does

	mu     sync.Mutex
	begun  int
	result []Result
	ended  chan struct{}
}

// eventLog is what happened, in order, over several messages.
type eventLog struct {
	mu     sync.Mutex
	events []string
}

func (l *eventLog) add(format string, args ...any) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, fmt.Sprintf(format, args...))
}

func (l *eventLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.events, " ")
}

// envelopeOf is what stands on the wire for the nth message.
func envelopeOf(n int) string {
	return fmt.Sprintf("MAIL FROM:<from@a.example>\r\nRCPT TO:<to%d@b.example>\r\nDATA\r\n", n)
}

func contentOf(n int) string { return fmt.Sprintf("Subject: %d\r\n\r\nbody %d\r\n", n, n) }

func newMessage(n int) *message {
	return &message{name: fmt.Sprint(n), ended: make(chan struct{}),
		Message: Message{From: "from@a.example", To: fmt.Sprintf("to%d@b.example", n), Content: []byte(contentOf(n))}}
}

func (m *message) Begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begun++
	m.log.add("begin%s", m.name)
}

func (m *message) Confirm(ctx context.Context) error {
	m.log.add("confirm%s", m.name)
	if m.confirm != nil {
		return m.confirm(ctx)
	}
	return nil
}

func (m *message) Done(r Result) {
	if m.home != nil && errors.Is(r.Err, errHeld) {
		m.home.change(func() { m.home.waiting = append([]Transaction{tx{m}}, m.home.waiting...) })
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log.add("done%s", m.name)
	if m.result = append(m.result, r); len(m.result) == 1 {
		close(m.ended)
	}
}

func (m *message) msg() Message { return m.Message }

// tx is a message as a Transaction (the embedded struct hides the method's name).
type tx struct{ *message }

func (x tx) Message() Message { return x.msg() }

// want asserts the one result.
func (m *message) want(t *testing.T, kind Kind, stage Stage, code int) Result {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.result) != 1 {
		t.Errorf("message %s: Done %d times: %+v", m.name, len(m.result), m.result)
		return Result{}
	}
	r := m.result[0]
	if r.Kind != kind || r.Stage != stage || r.Reply.Code != code {
		t.Errorf("message %s: %v at %q with %q (%v); want %v at %q with %d", m.name, r.Kind, r.Stage, r.Reply, r.Err, kind, stage, code)
	}
	return r
}

var errNoMore = errors.New("no more messages")

// queue is a Source.
type queue struct {
	mu        sync.Mutex
	waiting   []Transaction
	throttled bool
	finished  bool
	changed   chan struct{} // closed and replaced at every change
	tried     int
}

func newQueue(messages ...*message) *queue {
	q := &queue{changed: make(chan struct{})}
	for _, m := range messages {
		m.home = q
	}
	q.add(messages...)
	return q
}

func (q *queue) change(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f()
	close(q.changed)
	q.changed = make(chan struct{})
}

func (q *queue) add(messages ...*message) {
	q.change(func() {
		for _, m := range messages {
			q.waiting = append(q.waiting, tx{m})
		}
	})
}

// finish makes Next fail once the queue is empty.
func (q *queue) finish() *queue { q.change(func() { q.finished = true }); return q }

func (q *queue) Waiting() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) > 0
}

func (q *queue) TryNext() (Transaction, Supply) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tried++
	switch {
	case len(q.waiting) == 0:
		return nil, Empty
	case q.throttled:
		return nil, Throttled
	}
	t := q.waiting[0]
	q.waiting = q.waiting[1:]
	return t, Ready
}

func (q *queue) Next(ctx context.Context) (Transaction, error) {
	for {
		q.mu.Lock()
		changed, finished := q.changed, q.finished && len(q.waiting) == 0
		q.mu.Unlock()
		if t, s := q.TryNext(); s == Ready {
			return t, nil
		}
		if finished {
			return nil, errNoMore
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// messages returns n of them with one log.
func messages(n int) ([]*message, *eventLog) {
	log := &eventLog{}
	all := make([]*message, n)
	for i := range all {
		all[i] = newMessage(i + 1)
		all[i].log = log
	}
	return all, log
}

// serveAll sends all over one connection to script and returns what Serve said, less
// errNoMore.
func serveAll(t *testing.T, cfg func(*DialConfig), script func(*peer), all ...*message) error {
	t.Helper()
	host, port := listen(t, script)
	c := plainConfig(host, port)
	if cfg != nil {
		cfg(&c)
	}
	err := dial(t, c).Serve(t.Context(), newQueue(all...).finish(), Limits{})
	if errors.Is(err, errNoMore) {
		return nil
	}
	return err
}

// sink is a relay that does as RFC 5321 and 2920 say, unless told otherwise.
type sink struct {
	ehlo  string
	reply func(stage Stage, arg string) string // "" for the usual one

	mu    sync.Mutex
	got   []Message // accepted
	reads int       // reads that found the buffer empty: round trips, as the relay sees them
	conns int
}

// opened is how many connections there have been; one may be opened at the very end
// of the work, while the test looks.
func (s *sink) opened() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

func (s *sink) serve(p *peer) {
	s.mu.Lock()
	s.conns++
	s.mu.Unlock()
	w := bufio.NewWriter(p)
	counted := readerFunc(func(b []byte) (int, error) {
		_ = w.Flush() // RFC 2920 section 3.2: replies may go out together
		s.mu.Lock()
		s.reads++
		s.mu.Unlock()
		return p.Read(b)
	})
	r := bufio.NewReaderSize(counted, 1<<20)
	defer func() { _ = w.Flush() }()
	_, _ = w.WriteString(greeting)
	say := func(stage Stage, arg, usual string) string {
		text := usual
		if s.reply != nil {
			if other := s.reply(stage, arg); other != "" {
				text = other
			}
		}
		_, _ = w.WriteString(text + "\r\n")
		return text
	}
	var m Message
	open := false
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		switch verb, arg, _ := strings.Cut(line, " "); verb {
		case "EHLO":
			_, _ = w.WriteString(s.ehlo)
		case "RSET":
			m, open = Message{}, false
			_, _ = w.WriteString("250 2.0.0 reset\r\n")
		case "QUIT":
			_, _ = w.WriteString("221 bye\r\n")
			return
		case "MAIL":
			if open {
				_, _ = w.WriteString("503 5.5.1 nested MAIL\r\n")
				break
			}
			m = Message{From: path(arg)}
			open = strings.HasPrefix(say(StageMail, arg, "250 2.1.0 sender ok"), "2")
		case "RCPT":
			if !open {
				_, _ = w.WriteString("503 5.5.1 need MAIL\r\n")
				break
			}
			if strings.HasPrefix(say(StageRcpt, arg, "250 2.1.5 recipient ok"), "2") {
				m.To = path(arg)
			}
		case "DATA":
			if m.To == "" {
				if s.reply == nil || !strings.HasPrefix(s.reply(StageData, "none"), "354") {
					_, _ = w.WriteString("503 5.5.1 no valid recipients\r\n")
					break
				}
			}
			if !strings.HasPrefix(say(StageData, m.To, "354 go ahead"), "354") {
				break
			}
			var content bytes.Buffer
			for {
				l, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if l == ".\r\n" {
					break
				}
				content.WriteString(strings.TrimPrefix(l, "."))
			}
			m.Content = content.Bytes()
			reply := "250 2.0.0 queued as " + m.To
			if m.To == "" {
				reply = "554 5.5.1 no valid recipients"
			}
			if strings.HasPrefix(say(StageEOD, m.To, reply), "250") {
				s.mu.Lock()
				s.got = append(s.got, m)
				s.mu.Unlock()
			}
			m, open = Message{}, false
		default:
			_, _ = w.WriteString("500 5.5.2 what\r\n")
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func path(arg string) string {
	_, a, _ := strings.Cut(arg, "<")
	a, _, _ = strings.Cut(a, ">")
	return a
}
