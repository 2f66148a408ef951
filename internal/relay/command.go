package relay

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// command carries out one command line.
func (c *conn) command(line []byte) {
	if !c.acceptable(line) {
		return
	}
	var verb [8]byte
	n, arg := cutVerb(line, &verb)
	switch string(verb[:n]) {
	case "MAIL":
		c.mail(arg)
	case "RCPT":
		c.rcpt(arg)
	case "DATA":
		c.data(arg)
	case "BDAT":
		c.bdat(arg)
	case "RSET":
		c.endTransaction()
		c.say(atRset, c.judge(atRset, "250 2.0.0 Ok"))
	case "EHLO":
		c.hello(arg, true)
	case "HELO":
		c.hello(arg, false)
	case "STARTTLS":
		c.startTLS(arg)
	case "AUTH":
		c.auth(arg)
	case "NOOP":
		c.mustBeLast(atNoop, func() { c.say(atNoop, c.judge(atNoop, "250 2.0.0 Ok")) })
	case "QUIT":
		c.quit()
	case "VRFY":
		c.mustBeLast(atOther, func() { c.reply(atOther, "252 2.5.2 Cannot VRFY user, but will take a message for it") })
	case "HELP":
		c.reply(atOther, "214 2.0.0 RFC 5321, 3207, 4954, 2920")
	case "EXPN":
		c.reply(atOther, "502 5.5.1 EXPN is not supported")
	default:
		c.unknown(verb[:n])
	}
}

// acceptable refuses lines that no command can be: bytes that RFC 5321 does not allow in
// one, and in profile strict a bare LF at the end.
func (c *conn) acceptable(line []byte) bool {
	body, crlf := bytes.CutSuffix(line, []byte("\r\n"))
	if !crlf {
		body = line[:len(line)-1]
	}
	bad := bytes.IndexByte(body, '\r') >= 0 || bytes.IndexByte(body, 0) >= 0
	switch {
	case c.strict() && bad:
		c.refuse(atOther, "554 5.5.2 Closing: this is no SMTP")
	case bad:
		c.fault(atOther, "500 5.5.2 Control character in the command")
	case c.strict() && !crlf:
		c.fault(atOther, "501 5.5.2 Command does not end in CRLF")
	default:
		return true
	}
	return false
}

// unknown answers a verb there is not. Those of HTTP show a client that was talked into
// coming here.
func (c *conn) unknown(verb []byte) {
	switch string(verb) {
	case "GET", "POST", "PUT", "CONNECT", "OPTIONS":
		c.refuse(atOther, "421 4.7.0 "+Host+" Error: this is no HTTP server")
		return
	}
	c.fault(atOther, "500 5.5.1 Command not recognized")
}

// mustBeLast runs do unless more has come with a command that RFC 2920 section 3.1 wants
// last in its group, and the profile is strict about it. Elsewhere it is only counted.
func (c *conn) mustBeLast(at stageIndex, do func()) {
	if c.early() && c.strict() {
		c.refuse(at, "554 5.5.0 Error: improper command pipelining")
		return
	}
	do()
}

func (c *conn) hello(arg []byte, extended bool) {
	if len(arg) == 0 {
		c.fault(atEhlo, "501 5.5.4 Syntax: EHLO hostname")
		return
	}
	// The ")" with nothing to open it is NHN's.
	text := "250 " + Host + " Hello " + string(arg) + " [" + c.clientIP + "])"
	if extended {
		for _, line := range c.capabilities() {
			text += "\n" + line
		}
	}
	c.mustBeLast(atEhlo, func() {
		v := c.judge(atEhlo, text)
		if v.effect {
			// RFC 5321 section 4.1.4: EHLO does what RSET does.
			c.endTransaction()
			c.helo = true
		}
		c.say(atEhlo, v)
	})
}

// capabilities are the EHLO lines that apply now.
func (c *conn) capabilities() []string {
	var lines []string
	for _, line := range c.server.cfg.Capabilities {
		word, _, _ := strings.Cut(strings.ToUpper(line), " ")
		switch {
		case word == "STARTTLS" && !c.offersTLS():
		case (word == "AUTH" || strings.HasPrefix(word, "AUTH=")) && !c.offersAuth():
		case word == "PIPELINING" && c.server.behaviour.Load().profile.noPipe:
		default:
			lines = append(lines, line)
		}
	}
	return lines
}

// offersTLS reports whether STARTTLS can be asked for (RFC 3207 section 4.2: not twice).
func (c *conn) offersTLS() bool { return !c.secure && !c.server.cfg.NoTLS }

func (c *conn) offersAuth() bool {
	return c.secure || c.server.cfg.AllowPlainAuth || c.server.behaviour.Load().profile.plainAuth
}

func (c *conn) startTLS(arg []byte) {
	switch {
	case len(arg) > 0:
		c.fault(atStartTLS, "501 5.5.4 Syntax: STARTTLS")
		return
	case c.secure:
		c.fault(atStartTLS, "503 5.5.1 TLS is already active")
		return
	case !c.offersTLS():
		c.fault(atStartTLS, "502 5.5.1 STARTTLS is not offered")
		return
	}
	// Whatever came with the command was sent in the clear and must not be taken for
	// something said inside TLS (CVE-2011-0411): handshake throws it away.
	c.server.counters.beforeTLS.Add(int64(len(c.in.buffered())))
	c.mustBeLast(atStartTLS, func() {
		v := c.judge(atStartTLS, "220 2.0.0 Ready to start TLS")
		c.say(atStartTLS, v)
		if v.effect && !c.closing && c.flush() == nil {
			c.handshake()
		}
	})
}

func (c *conn) mail(arg []byte) {
	switch {
	case !c.helo:
		c.fault(atMail, "503 5.5.1 Say EHLO first")
		return
	case !c.loggedIn && !c.server.cfg.AuthOptional:
		c.fault(atMail, "530 5.7.0 Authentication required")
		return
	case c.open:
		c.fault(atMail, "503 5.5.1 Nested MAIL command")
		return
	}
	from, params, refusal := c.path(arg, "FROM:")
	if refusal == "" {
		refusal = c.mailParams(params)
	}
	if refusal != "" {
		c.fault(atMail, refusal)
		return
	}
	c.number++
	if c.server.mailSeen(Begun{Stream: c.stream, Conn: c.id}, c.throttled) {
		return
	}
	c.from = from
	v := c.judge(atMail, "250 2.1.0 Ok")
	c.open = v.effect
	c.say(atMail, v)
}

// throttled refuses a message beyond the limits.
func (c *conn) throttled(now time.Time) bool {
	l := c.server.behaviour.Load().limits
	switch {
	case l == nil:
		return false
	case l.perConnection > 0 && c.number > l.perConnection:
		c.refuse(atMail, "421 4.7.0 Too many messages on this connection, closing transmission channel")
	case l.mail(now):
		return false
	case l.code == 421:
		c.refuse(atMail, "421 4.7.0 Too many messages, try again later")
	default:
		c.reply(atMail, "452 4.3.2 Too many messages, slow down")
	}
	return true
}

// mailParams checks the parameters of MAIL against what was offered. It returns the reply
// that refuses them, or "".
func (c *conn) mailParams(params []byte) string {
	for word := range bytes.FieldsSeq(params) {
		key, value, _ := strings.Cut(string(word), "=")
		switch key = strings.ToUpper(key); key {
		case "BODY":
			if !c.offers("8BITMIME") {
				return "555 5.5.4 BODY is not offered"
			}
			switch strings.ToUpper(value) {
			case "7BIT", "8BITMIME":
			default:
				return "501 5.5.4 BODY: want 7BIT or 8BITMIME"
			}
		case "SIZE":
			n, err := strconv.Atoi(value)
			if !c.offers("SIZE") || err != nil || n < 0 {
				return "555 5.5.4 SIZE is not offered, or not a number"
			}
			if limit := c.server.cfg.MaxSize; limit > 0 && n > limit {
				return "552 5.3.4 Message size exceeds fixed limit"
			}
		case "SMTPUTF8":
			if !c.offers(key) {
				return "555 5.5.4 SMTPUTF8 is not offered"
			}
		case "RET", "ENVID":
			if !c.offers("DSN") {
				return "555 5.5.4 DSN is not offered"
			}
		case "AUTH":
		default:
			return "555 5.5.4 Unsupported parameter"
		}
	}
	return ""
}

// maxRecipients of one message: what NHN's API takes, and more than the 100 that RFC 5321
// section 4.5.3.1.8 asks for.
const maxRecipients = 1000

func (c *conn) rcpt(arg []byte) {
	if !c.open || c.chunking {
		c.fault(atRcpt, "503 5.5.1 Need MAIL command")
		return
	}
	to, params, refusal := c.path(arg, "TO:")
	switch {
	case refusal != "":
	case len(params) > 0 && !c.offers("DSN"):
		refusal = "555 5.5.4 Unsupported parameter"
	case len(c.to) >= maxRecipients:
		c.reply(atRcpt, "452 4.5.3 Too many recipients")
		return
	}
	if refusal != "" {
		c.fault(atRcpt, refusal)
		return
	}
	c.lastTo = to
	v := c.judge(atRcpt, "250 2.1.5 Ok")
	if v.effect {
		c.to = append(c.to, to)
	}
	c.say(atRcpt, v)
}

func (c *conn) quit() {
	// Counted as over before the client can know: it may open another at once.
	c.mustBeLast(atQuit, func() {
		v := c.judge(atQuit, "221 2.0.0 Bye")
		if v.effect {
			c.leave()
			c.closing = true
		}
		c.say(atQuit, v)
	})
}
