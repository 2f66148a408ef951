package smtp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync/atomic"
	"time"

	"github.com/sluicemail/sluice/internal/fault"
)

// Conn is one connection, greeted, encrypted and logged in. Its owner calls Serve
// (or Quit) once, from one goroutine; after that it is closed. Close may be called
// from anywhere, at any time.
type Conn struct {
	nc     net.Conn // what replies are read from and commands written to: TLS, where there is TLS
	raw    net.Conn // the TCP connection under it
	rd     *replyReader
	ext    Extensions
	mode   Mode
	memory *Memory // nil where the mode was forced
	addr   string
	t      Timeouts
	dialed time.Time

	replies chan arrivals // reader to owner, in order; closed when the reader ends
	arrived arrivals      // owner: what it took from replies last
	taken   int           // owner: and how many of it
	// allowed counts the replies that the relay may have sent so far, one for each
	// command. The owner adds to it before it writes; the reader, which counts what
	// came, compares. What comes beyond it was not asked for.
	allowed atomic.Int64
	failed  atomic.Bool // set by the reader before its last words are in replies
	closed  atomic.Bool // set by Close
	pulse   pulse       // of the owner
	onFail  func()      // set before the reader starts
	end     *Error      // owner: the reader's last words, once read
	writeBy time.Time   // owner: the write deadline that is set
}

// arrival is a reply, or the error that is the last of them. Both are set where a
// reply came that nothing had asked for.
type arrival struct {
	reply Reply
	err   error
}

// arrivals are those of one read: the replies to a group come together, and each that
// is handed over alone wakes the owner.
type arrivals struct {
	list [mostOwed / 2]arrival
	n    int
}

// mostOwed is more than the replies that can be outstanding at one time: dot, MAIL,
// RCPT, DATA, QUIT and the last words. The reader never blocks on a full channel.
const mostOwed = 16

func newConn(cfg *DialConfig, raw net.Conn, h *handshake) *Conn {
	c := &Conn{nc: h.nc, raw: raw, rd: h.rd, ext: h.ext, mode: cfg.Mode, addr: cfg.Addr(),
		t: cfg.Timeouts, dialed: time.Now(), replies: make(chan arrivals, mostOwed)}
	if c.mode == ModeAuto {
		c.mode, c.memory = ModeLockStep, cfg.Memory
		if c.ext.Pipelining {
			c.mode = cfg.Memory.Best(c.addr)
		}
	}
	return c
}

// Extensions returns what the relay offered.
func (c *Conn) Extensions() Extensions { return c.ext }

// Mode returns the mode in use, never ModeAuto.
func (c *Conn) Mode() Mode { return c.mode }

// Close ends the connection at once, without QUIT. A running Serve reports what was
// under way as Unknown or Unsent and returns. It may be called repeatedly.
func (c *Conn) Close() {
	c.closed.Store(true)
	_ = c.raw.Close()
}

// Quit says QUIT and closes, for a connection that has not been served.
func (c *Conn) Quit() {
	c.start(func() {})
	c.shut(true)
}

// start starts the reader. onFail is called from it once, when it ends.
func (c *Conn) start(onFail func()) {
	c.onFail = onFail
	go c.readReplies()
}

// readReplies is the reader: it takes replies off the wire while the owner may be
// busy writing, so that full buffers on both sides cannot lock the two up.
func (c *Conn) readReplies() {
	defer close(c.replies)
	last := c.readUntilEnd()
	c.failed.Store(true)
	_ = c.raw.SetWriteDeadline(past) // nothing more is worth writing
	c.replies <- arrivals{list: [mostOwed / 2]arrival{last}, n: 1}
	c.onFail()
}

func (c *Conn) readUntilEnd() arrival {
	var received int64
	var batch [mostOwed / 2]Reply
	for {
		if err := c.rd.fill(); err != nil {
			return arrival{err: ioError(err)}
		}
		allowed := c.allowed.Load()
		// All replies of one read are looked at before the first is handed on: the
		// owner must not answer one with a new command while an extra one, or garbage,
		// follows.
		n, err := c.parse(batch[:])
		if fault.Off("guard.botched") {
			allowed = math.MaxInt64
		}
		extra := received+int64(n) > allowed || received+int64(n) == allowed && err == nil && c.rd.buffered()
		if extra || err != nil {
			c.failed.Store(true)
		}
		asked := int(min(int64(n), allowed-received))
		if asked > 0 {
			c.hand(batch[:asked])
			received += int64(asked)
		}
		if asked < n {
			return arrival{batch[asked], malformed("a reply that nothing had asked for")}
		}
		if err != nil {
			return arrival{err: err}
		}
		if extra {
			return c.unasked()
		}
	}
}

// hand gives replies to the owner.
func (c *Conn) hand(batch []Reply) {
	a := arrivals{n: len(batch)}
	for i, r := range batch {
		a.list[i].reply = r
	}
	c.replies <- a
}

// parse fills batch with the complete replies that have been read.
func (c *Conn) parse(batch []Reply) (int, error) {
	for n := range batch {
		r, ok, err := c.rd.next()
		if !ok || err != nil {
			return n, err
		}
		batch[n] = r
	}
	return len(batch), nil
}

// unasked reads the rest of a reply that began to come without being asked for: a
// relay that hangs up gives its reason that way.
func (c *Conn) unasked() arrival {
	_ = c.nc.SetReadDeadline(time.Now().Add(c.t.Quit))
	r, err := c.rd.read()
	if err == nil {
		err = malformed("a reply that nothing had asked for")
	}
	return arrival{r, ioError(err)}
}

// await returns the next reply, allowing it the given time from now. An error is
// final and the connection's.
func (c *Conn) await(stage Stage, timeout time.Duration) (Reply, *Error) {
	if !c.pending() {
		select {
		case c.arrived = <-c.replies:
			c.taken = 0
		default:
			c.replyWithin(timeout)
		}
	}
	return c.take(stage, c.arrival())
}

// pending reports whether there is an arrival that needs no waiting for.
func (c *Conn) pending() bool { return c.taken < c.arrived.n }

// arrival returns the next; once the reader has ended, none.
func (c *Conn) arrival() arrival {
	if !c.pending() {
		c.arrived, c.taken = <-c.replies, 0
	}
	if !c.pending() {
		return arrival{}
	}
	c.taken++
	return c.arrived.list[c.taken-1]
}

// replyWithin bounds the reader's present wait; 0 lifts the bound. A connection that
// is failing stays bounded.
func (c *Conn) replyWithin(d time.Duration) {
	var t time.Time
	if d > 0 {
		t = time.Now().Add(d)
	}
	c.replyBy(t)
}

// replyBy is replyWithin with a point in time; the zero one lifts the bound.
func (c *Conn) replyBy(t time.Time) {
	_ = c.nc.SetReadDeadline(t)
	if c.failed.Load() {
		_ = c.nc.SetReadDeadline(time.Now().Add(c.t.Quit))
	}
}

// take turns what the reader handed over into a reply or the end.
func (c *Conn) take(stage Stage, a arrival) (Reply, *Error) {
	c.pulse.step()
	switch {
	case c.end != nil:
		return Reply{}, c.end
	case a.err == nil && a.reply.Code != 0:
		return a.reply, nil
	}
	c.end = &Error{Stage: stage, Reply: a.reply, Err: a.err}
	switch {
	case c.closed.Load():
		c.end.Err = ErrClosed
	case errors.Is(a.err, io.EOF):
		c.end.Err = fmt.Errorf("closed by the relay: %w", a.err)
	}
	return Reply{}, c.end
}

// lastWords waits for what the reader still has to say after a write has failed: a
// relay that stops reading has often said why. The first refusal among the replies
// that are still in the queue counts as that.
func (c *Conn) lastWords(stage Stage) *Error {
	c.replyWithin(c.t.Quit)
	var why Reply
	for {
		r, err := c.take(stage, c.arrival())
		if err == nil {
			if why.Code == 0 && r.refusal() {
				why = r
			}
			continue
		}
		if err.Reply.Code == 0 {
			err.Reply = why
		}
		return err
	}
}

// write sends b, which may take the time the slowest acceptable relay needs for it.
func (c *Conn) write(b []byte) (int, error) {
	allowance := c.t.Command + time.Duration(len(b))*time.Second/time.Duration(c.t.MinRate)
	// Moving a deadline costs a system timer: one that is late by a little stays.
	if at := time.Now().Add(allowance); c.writeBy.Before(at) || c.writeBy.Sub(at) > allowance/16 {
		c.writeBy = at.Add(allowance / 32)
		_ = c.nc.SetWriteDeadline(c.writeBy)
	}
	if c.failed.Load() { // the reader's own deadline may have been replaced just now
		return 0, net.ErrClosed
	}
	defer c.pulse.step()
	return c.nc.Write(b)
}

// shut ends the connection, with QUIT if it is in a state for it, and waits for the
// reader. The reply to QUIT, if any, means nothing (seen in the field: 250, 221,
// silence, RST).
func (c *Conn) shut(quit bool) {
	if quit && !c.failed.Load() {
		c.allowed.Add(1)
		if _, err := c.write([]byte("QUIT\r\n")); err == nil {
			_, _ = c.await(StageIdle, c.t.Quit)
			_ = c.nc.Close() // with TLS, this says goodbye there as well
		}
	}
	_ = c.raw.Close()
	for range c.replies { // until the reader is gone
	}
}

// fetcher runs Source.Next beside a connection that has something else to wait for.
type fetcher struct {
	src    Source
	cancel context.CancelFunc
	ask    chan struct{}
	got    chan fetched
	asked  bool // a Next is outstanding, or its result is in got
	done   chan struct{}
}

type fetched struct {
	tx  Transaction
	err error
}

func newFetcher(ctx context.Context, src Source) *fetcher {
	ctx, cancel := context.WithCancel(ctx)
	f := &fetcher{src: src, cancel: cancel, ask: make(chan struct{}, 1),
		got: make(chan fetched, 1), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		for range f.ask {
			tx, err := src.Next(ctx)
			f.got <- fetched{tx, err}
		}
	}()
	return f
}

// request starts a Next if none is outstanding; its result comes on got.
func (f *fetcher) request() {
	if !f.asked {
		f.asked = true
		f.ask <- struct{}{}
	}
}

// stop ends the fetcher and gives back what it may have fetched.
func (f *fetcher) stop(why error) {
	f.cancel()
	close(f.ask)
	<-f.done
	select {
	case g := <-f.got:
		if g.err == nil {
			g.tx.Done(Result{Kind: Unsent, Stage: StageIdle, Err: why})
		}
	default:
	}
}
