package relay

import (
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Server is a running relay. Its methods may be called from any goroutine.
type Server struct {
	cfg       Config
	listener  net.Listener
	tls       *tls.Config
	caPEM     []byte
	behaviour atomic.Pointer[behaviour]
	users     atomic.Pointer[map[string]string] // points to nil: any pair
	counters  counters
	truth     ledger
	after     *afterlife    // nil: nobody wants to know
	queueBase uint64        // makes queue ids of two runs differ
	queueSeq  atomic.Uint64 // last queue id given out
	done      chan struct{} // closed by Close
	wg        sync.WaitGroup

	mu        sync.Mutex // guards the following
	closed    bool
	conns     map[*wire]struct{}
	open      int64
	openMax   int64
	connected []time.Time
	begun     []Begun
}

// Start listens and serves until Close. An error names the setting at fault.
func Start(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	s := &Server{cfg: cfg, done: make(chan struct{}), conns: map[*wire]struct{}{}, queueBase: uint64(now.UnixMicro())}
	if s.after, err = newAfterlife(cfg); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	if err := s.prepare(now); err != nil {
		return nil, errors.Join(err, s.truth.close(), s.after.close())
	}
	s.wg.Go(s.accept)
	return s, nil
}

// prepare makes ready all that a relay needs, the listener last.
func (s *Server) prepare(now time.Time) error {
	cfg := s.cfg
	if err := s.SetProfile(cfg.Profile, cfg.Rules...); err != nil {
		return err
	}
	s.SetUsers(cfg.Users)
	if err := s.prepareTLS(now); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	var err error
	if cfg.TruthFile != "" {
		s.truth.file, err = os.OpenFile(cfg.TruthFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return fmt.Errorf("relay: truth file: %w", err)
		}
	}
	if s.listener, err = net.Listen("tcp", cfg.Addr); err != nil {
		return fmt.Errorf("relay: listen: %w", err)
	}
	return nil
}

func (s *Server) prepareTLS(now time.Time) error {
	cert := s.cfg.Certificate
	if cert == nil {
		var err error
		if cert, s.caPEM, err = selfMade(now); err != nil {
			return err
		}
	}
	s.tls = &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12}
	if v := s.cfg.MaxTLSVersion; v != 0 {
		s.tls.MaxVersion = v
		s.tls.MinVersion = min(v, tls.VersionTLS12)
	}
	return nil
}

// Addr returns host:port of the listener.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// CAPEM returns the CA that signed the relay's own certificate, in PEM; nil if the
// configuration gave a certificate.
func (s *Server) CAPEM() []byte { return s.caPEM }

// SetProfile exchanges the behaviour while the relay runs: profile and rules as in
// Config, with fresh windows and counts. Open connections meet it at their next command.
func (s *Server) SetProfile(profile string, rules ...Rule) error {
	b, err := newBehaviour(profile, rules, s.cfg.Seed)
	if err != nil {
		return err
	}
	if b.profile.bounces != nil && s.after == nil {
		return errNowhere
	}
	s.behaviour.Store(b)
	return nil
}

// SetUsers exchanges the logins; nil takes any pair. Connections already logged in stay so.
func (s *Server) SetUsers(users map[string]string) { s.users.Store(&users) }

// Truth returns every accepted message so far, in the order of acceptance.
func (s *Server) Truth() []Accepted {
	all := make([]Accepted, 0, s.truth.len())
	for a := range s.truth.each() {
		all = append(all, a)
	}
	return all
}

// Messages yields what Truth returns without copying it.
func (s *Server) Messages() iter.Seq[Accepted] { return s.truth.each() }

// Begun is one MAIL command that was in order, whether or not it was then refused: what
// a limit on messages counts.
type Begun struct {
	Time    time.Time // when it was read
	Stream  string    // mail type of the login, as in Accepted
	Conn    int       // the connection's number, from 1
	Refused bool      // by a limit of the profile
}

// Begun returns every MAIL command so far that was in order, in the order of their times.
func (s *Server) Begun() []Begun {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Begun(nil), s.begun...)
}

// MailTimes returns the times of Begun.
func (s *Server) MailTimes() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	times := make([]time.Time, len(s.begun))
	for i, b := range s.begun {
		times[i] = b.Time
	}
	return times
}

// Stats returns what the relay has seen so far.
func (s *Server) Stats() Stats {
	st := s.counters.snapshot()
	st.Messages = int64(s.truth.len())
	for _, r := range s.behaviour.Load().all {
		if n := r.hits.Load(); n > 0 {
			if st.RuleHits == nil {
				st.RuleHits = map[string]int64{}
			}
			st.RuleHits[r.Name] += n
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Connections, st.Open, st.OpenMax = int64(len(s.connected)), s.open, s.openMax
	st.ConnectTimes = append([]time.Time{}, s.connected...)
	return st
}

// FirstHit returns when a rule in force first decided, just before it answered; zero if
// it has not. Together with Begun it says what still came after a refusal.
func (s *Server) FirstHit(name string) (at time.Time) {
	for _, r := range s.behaviour.Load().all {
		if first := r.first.Load(); first != nil && r.Name == name && (at.IsZero() || first.Before(at)) {
			at = *first
		}
	}
	return at
}

// Close stops listening, ends every connection at once, and returns when nothing of the
// relay runs any more. Truth and Stats go on answering. It may be called twice.
func (s *Server) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	conns := make([]*wire, 0, len(s.conns))
	for w := range s.conns {
		conns = append(conns, w)
	}
	s.mu.Unlock()
	var err error
	if first {
		close(s.done)
		err = s.listener.Close()
	}
	for _, w := range conns {
		w.kill()
	}
	s.wg.Wait()
	if !first {
		return nil
	}
	if err != nil {
		err = fmt.Errorf("relay: close listener: %w", err)
	}
	return errors.Join(err, s.truth.close(), s.after.close())
}

func (s *Server) accept() {
	for {
		nc, err := s.listener.Accept()
		switch {
		case err == nil:
			s.admit(nc)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			// Out of descriptors, most likely: those in use have to end first.
			s.cfg.Log.Warn("relay: accept", "error", err)
			s.pause(50 * time.Millisecond)
		}
	}
}

// admit registers a connection and serves it.
func (s *Server) admit(nc net.Conn) {
	now := time.Now()
	w := &wire{Conn: nc, counters: &s.counters}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		w.kill()
		return
	}
	s.conns[w] = struct{}{}
	s.connected = append(s.connected, now)
	s.open++
	s.openMax = max(s.openMax, s.open)
	c := newConn(s, w, len(s.connected))
	c.openAtStart = s.open
	s.wg.Go(c.serve)
	s.mu.Unlock()
}

// left takes one connection from those open.
func (s *Server) left() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
}

// forget takes a closed socket out of those Close has to end.
func (s *Server) forget(w *wire) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, w)
}

// mailSeen notes a MAIL command and reports whether a limit refuses it.
func (s *Server) mailSeen(b Begun, refused func(now time.Time) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.Time = time.Now() // under the lock, so that the log is in order
	b.Refused = refused(b.Time)
	s.begun = append(s.begun, b)
	return b.Refused
}

// pause waits for d, or returns false when the relay closes.
func (s *Server) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.done:
		return false
	}
}
