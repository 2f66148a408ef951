package relay

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// wire is the socket, where round trips are counted: below TLS, and on the client's side
// of the simulated network.
type wire struct {
	net.Conn
	counters *counters
	wrote    atomic.Bool  // something was written since the last read
	turns    atomic.Int64 // reads that followed a write
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 && w.wrote.Load() {
		w.wrote.Store(false)
		w.turns.Add(1)
		w.counters.roundTrips.Add(1)
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	// Before the write: the answer may be read before Write returns.
	w.wrote.Store(true)
	return w.Conn.Write(p)
}

// kill closes at once. The error of a close has no one to go to.
func (w *wire) kill() { _ = w.Close() }

// abort closes with a TCP RST.
func (w *wire) abort() {
	if tcp, ok := w.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	w.kill()
}

// lag is a connection whose bytes take a time on the way, in order, in either direction:
// a delay line, not a pause for each command. Reads are one goroutine's, writes too;
// Close may come from anywhere.
type lag struct {
	*wire
	oneWay time.Duration
	pause  func(time.Duration) bool // false when the relay closes
	in     chan parcel
	out    chan parcel
	rest   []byte // of the parcel being read
	err    error  // why reading ended

	reset atomic.Bool   // end with RST instead of FIN
	ended chan struct{} // closed by Close: the out side writes what it holds, then closes
	endAt time.Time     // when the end is due; set before ended is closed
	gone  chan struct{} // closed when the socket is
	once  sync.Once

	mu       sync.Mutex
	deadline time.Time // for Read
}

type parcel struct {
	b   []byte
	err error
	due time.Time
}

// inFlight bounds what one direction of a lag holds, in parcels; beyond it the sender is
// held up, as by a full window.
const inFlight = 512

// newLag starts the two directions, which end with the socket or the relay.
func newLag(w *wire, s *Server) *lag {
	l := &lag{
		wire: w, oneWay: s.cfg.RoundTrip / 2, pause: s.pause,
		in: make(chan parcel, inFlight), out: make(chan parcel, inFlight),
		ended: make(chan struct{}), gone: make(chan struct{}),
	}
	s.wg.Go(l.pumpIn)
	s.wg.Go(func() {
		defer s.forget(w)
		l.pumpOut()
	})
	return l
}

func (l *lag) pumpIn() {
	buf := make([]byte, bufferSize)
	for {
		n, err := l.wire.Read(buf)
		if n == 0 && err == nil {
			continue
		}
		p := parcel{append([]byte(nil), buf[:n]...), err, time.Now().Add(l.oneWay)}
		select {
		case l.in <- p:
		case <-l.gone:
			return
		}
		if err != nil {
			return
		}
	}
}

func (l *lag) pumpOut() {
	defer close(l.gone)
	for {
		select {
		case p := <-l.out:
			if !l.deliver(p) {
				return
			}
		case <-l.ended:
			l.drain()
			return
		}
	}
}

// drain delivers what was written before Close, then closes.
func (l *lag) drain() {
	for {
		select {
		case p := <-l.out:
			if !l.deliver(p) {
				return
			}
			continue
		default:
		}
		break
	}
	l.pause(time.Until(l.endAt))
	if l.reset.Load() {
		l.abort()
		return
	}
	l.kill()
}

// deliver waits until p is due and writes it; false means that the socket is closed.
func (l *lag) deliver(p parcel) bool {
	if !l.pause(time.Until(p.due)) {
		l.kill()
		return false
	}
	if _, err := l.wire.Write(p.b); err != nil {
		l.kill()
		return false
	}
	return true
}

// Read returns what is due, waiting for it until the read deadline.
func (l *lag) Read(b []byte) (int, error) {
	if len(l.rest) == 0 {
		if l.err != nil {
			return 0, l.err
		}
		if err := l.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

// next makes the next parcel the one being read, once it is due.
func (l *lag) next() error {
	l.mu.Lock()
	deadline := l.deadline
	l.mu.Unlock()
	var late <-chan time.Time
	if !deadline.IsZero() {
		t := time.NewTimer(time.Until(deadline))
		defer t.Stop()
		late = t.C
	}
	select {
	case p := <-l.in:
		if !l.pause(time.Until(p.due)) {
			return net.ErrClosed
		}
		l.rest, l.err = p.b, p.err
		if len(p.b) == 0 {
			return p.err
		}
		return nil
	case <-l.gone:
		return net.ErrClosed
	case <-late:
		return os.ErrDeadlineExceeded
	}
}

func (l *lag) Write(b []byte) (int, error) {
	p := parcel{append([]byte(nil), b...), nil, time.Now().Add(l.oneWay)}
	select {
	case <-l.ended:
		return 0, net.ErrClosed
	default:
	}
	select {
	case l.out <- p:
		return len(b), nil
	case <-l.gone:
		return 0, net.ErrClosed
	case <-l.ended:
		return 0, net.ErrClosed
	}
}

// Close ends the connection after what was written, and as late as that.
func (l *lag) Close() error {
	l.once.Do(func() {
		l.endAt = time.Now().Add(l.oneWay)
		close(l.ended)
	})
	return nil
}

// SetReadDeadline bounds reads that begin after it; a parcel already on its way is waited
// for, at most one way longer.
func (l *lag) SetReadDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = t
	return nil
}

// SetDeadline sets the read deadline; writes never block for longer than the relay lives.
func (l *lag) SetDeadline(t time.Time) error { return l.SetReadDeadline(t) }

// SetWriteDeadline does nothing, see SetDeadline.
func (l *lag) SetWriteDeadline(time.Time) error { return nil }

// timedOut reports whether err is a passed read deadline.
func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
