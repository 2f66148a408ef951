package faulttest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// trouble is what a proxy does to one direction of its connections. The zero value
// is none.
type trouble struct {
	latency time.Duration // of every byte
	jitter  time.Duration // up to so much more
	rate    int           // bytes a second; 0 = all
	slice   int           // bytes a write; 0 = as they come
	swallow bool          // what arrives is lost, and nobody is told
}

// proxy is a TCP proxy between the program and one server of the bench. What it does
// can change at any time, for open connections too.
type proxy struct {
	t        testing.TB
	listener net.Listener
	done     chan struct{}
	wg       sync.WaitGroup

	mu       sync.Mutex // guards the following
	target   string
	up, down trouble // from the client, to the client
	refuse   bool
	lose     *loss
	lost     int
	pairs    map[*pair]struct{}
}

// loss says which answers are lost: those to what the client sends with words in it.
type loss struct {
	words []byte
	share float64
	most  int
}

// pair is one connection through the proxy.
type pair struct {
	client, server *net.TCPConn
	deaf           bool // the next answer is swallowed and the connection ends; under the proxy's mu
}

func startProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("proxy: %v", err)
	}
	p := &proxy{t: t, listener: l, target: target, done: make(chan struct{}), pairs: map[*pair]struct{}{}}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) close() {
	close(p.done)
	_ = p.listener.Close()
	p.cut()
	p.wg.Wait()
}

// set changes what happens to the bytes of either direction.
func (p *proxy) set(up, down trouble) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up, p.down = up, down
}

// redirect sends new connections elsewhere.
func (p *proxy) redirect(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// refusing ends new connections at once, while on.
func (p *proxy) refusing(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = on
}

// loseAnswers carries on what the client sends with words in it, and loses the
// answer, for a share of them, at most so many times.
func (p *proxy) loseAnswers(words string, share float64, most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lose = &loss{[]byte(words), share, most}
	p.lost = 0
}

// losses is how many answers were lost.
func (p *proxy) losses() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// cut ends every open connection, with a FIN.
func (p *proxy) cut() { p.end(false) }

// reset ends every open connection, with a RST.
func (p *proxy) reset() { p.end(true) }

func (p *proxy) end(rst bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		c.close(rst)
	}
}

func (c *pair) close(rst bool) {
	for _, conn := range []*net.TCPConn{c.client, c.server} {
		if rst {
			_ = conn.SetLinger(0)
		}
		_ = conn.Close()
	}
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				p.t.Errorf("proxy: %v", err)
			}
			return
		}
		p.wg.Go(func() { p.serve(client.(*net.TCPConn)) })
	}
}

func (p *proxy) serve(client *net.TCPConn) {
	p.mu.Lock()
	target, refuse := p.target, p.refuse
	p.mu.Unlock()
	if refuse {
		_ = client.SetLinger(0)
		_ = client.Close()
		return
	}
	server, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		_ = client.SetLinger(0)
		_ = client.Close()
		return
	}
	c := &pair{client: client, server: server.(*net.TCPConn)}
	p.mu.Lock()
	p.pairs[c] = struct{}{}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.pump(c, true) })
	both.Go(func() { p.pump(c, false) })
	both.Wait()
	p.mu.Lock()
	delete(p.pairs, c)
	p.mu.Unlock()
	c.close(false)
}

// parcel is bytes on their way, and when they arrive.
type parcel struct {
	data []byte
	due  time.Time
}

// pump carries one direction of a connection.
func (p *proxy) pump(c *pair, up bool) {
	from, to := c.server, c.client
	if up {
		from, to = c.client, c.server
	}
	queue := make(chan parcel, 4096)
	var carrying sync.WaitGroup
	carrying.Go(func() { p.carry(c, to, queue) })
	defer func() {
		close(queue)
		carrying.Wait()
		_ = to.CloseWrite()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !p.post(c, up, bytes.Clone(buf[:n]), queue) {
			return
		}
		if err != nil {
			return
		}
	}
}

// post decides what becomes of bytes that came in. False: the connection is over.
func (p *proxy) post(c *pair, up bool, data []byte, queue chan<- parcel) bool {
	p.mu.Lock()
	tr := p.down
	if up {
		tr = p.up
		if l := p.lose; l != nil && p.lost < l.most && bytes.Contains(data, l.words) && rand.Float64() < l.share {
			p.lost++
			c.deaf = true
		}
	}
	deaf := c.deaf && !up
	p.mu.Unlock()
	if deaf {
		c.close(true)
		return false
	}
	if tr.swallow {
		return true
	}
	wait := tr.latency
	if tr.jitter > 0 {
		wait += rand.N(tr.jitter)
	}
	due := time.Now().Add(wait)
	step := len(data)
	if tr.slice > 0 {
		step = tr.slice
	}
	if tr.rate > 0 {
		step = min(step, max(1, tr.rate/50))
	}
	for len(data) > 0 {
		n := min(step, len(data))
		if tr.rate > 0 {
			due = due.Add(time.Duration(n) * time.Second / time.Duration(tr.rate))
		}
		select {
		case queue <- parcel{data[:n], due}:
		case <-p.done:
			return false
		}
		data = data[n:]
	}
	return true
}

// carry delivers parcels in order, each no sooner than it is due.
func (p *proxy) carry(c *pair, to io.Writer, queue <-chan parcel) {
	ok := true
	for next := range queue {
		if d := time.Until(next.due); ok && d > 0 {
			timer := time.NewTimer(d)
			select {
			case <-timer.C:
			case <-p.done:
				timer.Stop()
				ok = false
			}
		}
		if ok {
			if _, err := to.Write(next.data); err != nil {
				ok = false
				c.close(false)
			}
		}
	}
}
