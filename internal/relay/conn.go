package relay

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"time"
)

// conn is one client's session. One goroutine owns it.
type conn struct {
	server      *Server
	wire        *wire
	lag         *lag     // nil without a simulated network
	nc          net.Conn // wire, lag, or TLS over either
	in          input
	out         []byte // replies not written yet
	id          int    // from 1
	openAtStart int64  // connections open when this one came, itself included
	clientIP    string

	closing  bool      // leave after what is in out
	silent   bool      // leave without writing out
	abrupt   bool      // leave without TLS's own end, as a crash does
	gone     bool      // no longer counted as open
	deadline time.Time // read deadline in force
	turn     int64     // round trip that the current group came in
	inGroup  int64     // commands of that group so far
	faults   int       // commands that were refused as malformed or out of order

	// Session state of RFC 5321.
	helo      bool
	secure    bool
	loggedIn  bool
	user      string
	stream    string
	open      bool // a transaction is
	from      string
	sender    string // the last from of all, to spare making it again
	to        []string
	lastTo    string // recipient of the last RCPT, accepted or not
	number    int    // MAIL commands so far
	chunking  bool   // a BDAT transfer is under way
	content   *content
	idleFired bool
}

func newConn(s *Server, w *wire, id int) *conn {
	return &conn{server: s, wire: w, nc: w, id: id, stream: "normal", content: newContent(s.cfg)}
}

// serve talks to the client until either side ends it.
func (c *conn) serve() {
	defer c.finish()
	if addr, ok := c.wire.RemoteAddr().(*net.TCPAddr); ok {
		c.clientIP = addr.IP.String()
	}
	if c.server.cfg.RoundTrip > 0 {
		c.lag = newLag(c.wire, c.server)
		c.nc = c.lag
	}
	c.in = input{src: c.nc, buf: make([]byte, bufferSize)}
	if c.server.cfg.Implicit && !c.handshake() {
		return
	}
	c.greet()
	for !c.closing {
		line, ok := c.readLine()
		if !ok {
			return
		}
		c.count()
		c.command(line)
	}
}

// finish writes what is left, closes, and gives the place back.
func (c *conn) finish() {
	if !c.silent {
		_ = c.flush() // the client may be gone; there is no one to tell
	}
	c.leave()
	var nc io.Closer = c.nc
	if c.abrupt && c.lag != nil {
		nc = c.lag
	} else if c.abrupt {
		nc = c.wire
	}
	_ = nc.Close() // nobody is left to hear of it
	if c.lag == nil {
		c.server.forget(c.wire)
	}
}

// leave ends the connection for the count of open ones, before the client can know that
// it is over and open another.
func (c *conn) leave() {
	if !c.gone {
		c.gone = true
		c.server.left()
	}
}

// greet answers the connection itself.
func (c *conn) greet() {
	b := c.server.behaviour.Load()
	if wait := b.profile.greetWait; wait > 0 && c.talksWithin(wait) && b.profile.strict {
		c.refuse(atConnect, "554 5.5.1 Protocol error: client talked before the greeting")
		return
	}
	if l := b.limits; l != nil {
		full := l.open > 0 && c.openAtStart > int64(l.open)
		if full || !l.connect(time.Now()) {
			c.refuse(atConnect, "421 4.7.0 Too many connections, try again later")
			return
		}
	}
	v := c.judge(atConnect, "220 "+Host+" SMTP Server (NHN Cloud Email SMTP) ready")
	c.say(atConnect, v)
	if !v.effect && !v.rule.Keep && v.rule.Action != Ignore && v.rule.Action != Garbage {
		c.end()
	}
}

// talksWithin waits for d before the greeting, and counts a client that speaks meanwhile.
func (c *conn) talksWithin(d time.Duration) bool {
	_ = c.nc.SetReadDeadline(time.Now().Add(d)) // a dead socket shows at the read
	err := c.in.fill()
	c.deadline = time.Time{}
	if err != nil && !timedOut(err) {
		c.closing = true
		return false
	}
	return err == nil && c.early()
}

// early counts bytes the client sent when it had to wait.
func (c *conn) early() bool {
	if len(c.in.buffered()) == 0 {
		return false
	}
	c.server.counters.early.Add(1)
	return true
}

// refuse answers and ends the connection by the relay's own decision.
func (c *conn) refuse(at stageIndex, text string) {
	c.reply(at, text)
	c.end()
}

// end leaves after what is in out, by decision of a rule or limit.
func (c *conn) end() {
	if !c.closing {
		c.server.counters.cut.Add(1)
	}
	c.closing = true
}

// readLine returns the next command line with its line end; false ends the connection.
func (c *conn) readLine() ([]byte, bool) {
	for {
		line, ok, err := c.in.take()
		if ok {
			c.idleFired = false
			return line, true
		}
		if err != nil {
			if !c.skipLongLine() {
				return nil, false
			}
			continue
		}
		if err := c.wait(true); err != nil {
			return nil, false
		}
		if c.closing {
			return nil, false
		}
	}
}

// skipLongLine answers a line that no command can be.
func (c *conn) skipLongLine() bool {
	for !c.in.skipLine() {
		if err := c.wait(false); err != nil {
			return false
		}
	}
	c.count()
	c.fault(atOther, "500 5.5.2 Line too long")
	return !c.closing
}

// wait writes what is pending and reads more. Between commands an idle rule or the idle
// time-out may end the connection instead.
func (c *conn) wait(betweenCommands bool) error {
	if err := c.flush(); err != nil {
		return err
	}
	now := time.Now()
	timeout := c.server.cfg.IdleTimeout
	var idle *rule
	if betweenCommands && !c.idleFired {
		if idle = c.awaited(atIdle); idle != nil {
			timeout = idle.Delay
		}
	}
	// Moving a deadline costs a system timer; a second's grain is enough for minutes.
	if at := now.Add(timeout); idle != nil || at.Sub(c.deadline).Abs() > time.Second {
		c.deadline = at
		if err := c.nc.SetReadDeadline(at); err != nil {
			return err
		}
	}
	err := c.in.fill()
	if err == nil || !timedOut(err) {
		return err
	}
	c.deadline = time.Time{}
	if idle != nil {
		c.idleFired = true
		c.say(atIdle, c.judge(atIdle, ""))
		return nil
	}
	c.refuse(atIdle, "421 4.4.2 "+Host+" Error: timeout exceeded")
	return nil
}

// flush writes all replies at once: those to a pipelined group cost one packet.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.nc.Write(c.out)
	c.out = c.out[:0]
	if err != nil {
		c.closing, c.silent = true, true
	}
	return err
}

// reply adds a reply to those pending. text is a code, a space and text, with \n between
// lines.
func (c *conn) reply(at stageIndex, text string) {
	if class := text[0] - '0'; class < 6 {
		c.server.counters.replies[at][class].Add(1)
	}
	c.out = appendReply(c.out, text)
}

func appendReply(out []byte, text string) []byte {
	code, rest := text[:3], ""
	if len(text) > 4 {
		rest = text[4:]
	}
	for {
		line, more, found := strings.Cut(rest, "\n")
		out = append(out, code...)
		if !found {
			out = append(out, ' ')
			out = append(out, line...)
			return append(out, '\r', '\n')
		}
		out = append(out, '-')
		out = append(out, line...)
		out = append(out, '\r', '\n')
		rest = more
	}
}

// fault refuses a malformed or misplaced command; too many of them end the connection.
func (c *conn) fault(at stageIndex, text string) {
	c.reply(at, text)
	c.faults++
	most := 20
	if c.strict() {
		most = 3
	}
	if c.faults >= most {
		c.refuse(atOther, "421 4.7.0 "+Host+" Error: too many errors")
	}
}

func (c *conn) strict() bool { return c.server.behaviour.Load().profile.strict }

// count books a command into the group it came in.
func (c *conn) count() {
	k := &c.server.counters
	k.commands.Add(1)
	if turn := c.wire.turns.Load(); turn != c.turn {
		c.turn, c.inGroup = turn, 0
	}
	c.inGroup++
	if c.inGroup == 2 {
		k.groups.Add(1)
	}
	if c.inGroup > k.groupMax.Load() {
		raise(&k.groupMax, c.inGroup)
	}
}

// handshake turns the connection into a TLS one. What the client said before is forgotten
// (RFC 3207 section 4.2).
func (c *conn) handshake() bool {
	v := c.judge(atTLS, "")
	c.say(atTLS, v)
	if !v.effect || c.closing || c.flush() != nil {
		c.closing = true
		return false
	}
	t := tls.Server(c.nc, c.server.tls)
	_ = c.nc.SetReadDeadline(time.Now().Add(c.server.cfg.IdleTimeout)) // a dead socket shows in the handshake
	c.deadline = time.Time{}
	if err := t.Handshake(); err != nil {
		c.server.counters.tlsFailed.Add(1)
		if !errors.Is(err, io.EOF) {
			c.server.cfg.Log.Debug("relay: TLS handshake", "conn", c.id, "error", err)
		}
		c.closing = true
		return false
	}
	c.server.counters.tlsDone.Add(1)
	c.nc, c.secure = t, true
	c.in = input{src: t, buf: c.in.buf}
	c.helo, c.loggedIn, c.user, c.stream = false, false, "", "normal"
	c.endTransaction()
	return true
}

func (c *conn) endTransaction() {
	c.open, c.chunking = false, false
	c.from, c.lastTo = "", ""
	c.to = c.to[:0]
}

// offers reports whether EHLO announces the extension named by the first word.
func (c *conn) offers(extension string) bool {
	if extension == "PIPELINING" && c.server.behaviour.Load().profile.noPipe {
		return false
	}
	return slices.ContainsFunc(c.server.cfg.Capabilities, func(line string) bool {
		word, _, _ := strings.Cut(line, " ")
		return strings.EqualFold(word, extension)
	})
}

// cutVerb splits a command line into its verb in upper case and the rest, both without
// surrounding white space.
func cutVerb(line []byte, verb *[8]byte) (n int, arg []byte) {
	line = bytes.TrimRight(line, " \t\r\n")
	for n < len(line) && line[n] != ' ' {
		if n == len(verb) {
			return 0, nil
		}
		b := line[n]
		if b >= 'a' && b <= 'z' {
			b -= 'a' - 'A'
		}
		verb[n] = b
		n++
	}
	return n, bytes.TrimLeft(line[n:], " ")
}
