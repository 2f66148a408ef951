package relay

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

func (c *conn) data(arg []byte) {
	switch {
	case len(arg) > 0:
		c.fault(atData, "501 5.5.4 Syntax: DATA")
		return
	case !c.open || c.chunking:
		c.fault(atData, "503 5.5.1 Need MAIL command")
		return
	}
	c.mustBeLast(atData, func() {
		normal := "354 End data with <CR><LF>.<CR><LF>"
		if len(c.to) == 0 {
			// No fault of a pipelining client: it could not know that RCPT was refused
			// (RFC 2920 section 3.1). A rule may answer 354 all the same.
			normal = "503 5.5.1 No valid recipients"
		}
		v := c.judge(atData, normal)
		if v.rule == nil {
			v.effect = normal[0] == '3'
		}
		c.say(atData, v)
		if v.effect && !c.closing {
			c.receive()
		}
	})
}

// receive reads a content up to the dot.
func (c *conn) receive() {
	d := c.content
	d.begin(true)
	rule, _ := c.match(atBody)
	for {
		used, done := d.feed(c.in.buffered())
		c.in.r += used
		if rule != nil && d.size >= max(1, rule.Bytes) {
			c.perform(atBody, rule, c.text(rule, c.lastTo, ""))
			rule = nil
		}
		if done && !c.closing {
			c.endOfData()
			return
		}
		if c.closing || c.wait(false) != nil || c.closing {
			c.broken()
			return
		}
	}
}

// broken ends the connection in the middle of a content: nothing of it counts.
func (c *conn) broken() {
	c.server.counters.partial.Add(1)
	c.closing = true
}

// bdat carries out BDAT (RFC 3030).
func (c *conn) bdat(arg []byte) {
	word, last, _ := strings.Cut(string(arg), " ")
	size, err := strconv.ParseInt(word, 10, 48)
	switch {
	case !c.offers("CHUNKING"):
		c.fault(atData, "502 5.5.1 BDAT is not offered")
		return
	case err != nil || size < 0 || (last != "" && !strings.EqualFold(last, "LAST")):
		// What follows cannot be told from commands any more.
		c.refuse(atData, "501 5.5.4 Syntax: BDAT size [LAST]")
		return
	}
	wanted := c.open && len(c.to) > 0
	if !c.chunking {
		c.content.begin(false)
	}
	c.chunking = c.open
	if !c.transfer(size) {
		c.broken()
		return
	}
	switch {
	case !wanted:
		c.chunking = false
		c.reply(atData, "503 5.5.1 No valid recipients")
	case last == "":
		c.reply(atData, "250 2.0.0 "+word+" octets received")
	default:
		c.endOfData()
	}
}

// transfer takes size bytes of content as they are.
func (c *conn) transfer(size int64) bool {
	for size > 0 {
		b := c.in.buffered()
		b = b[:min(int64(len(b)), size)]
		used, _ := c.content.feed(b)
		if used == 0 && int64(len(b)) == size {
			c.content.rest(b)
			used = len(b)
		}
		c.in.r += used
		size -= int64(used)
		if used == 0 && (c.wait(false) != nil || c.closing) {
			return false
		}
	}
	return true
}

// endOfData decides about a complete content. What is accepted is recorded before
// anything is said, however the reply then fares.
func (c *conn) endOfData() {
	c.count()
	d := c.content
	k := &c.server.counters
	if bad := d.bareLF + d.bareCR + d.nul + d.long; bad > 0 {
		k.bareLF.Add(d.bareLF)
		k.bareCR.Add(d.bareCR)
		k.nul.Add(d.nul)
		k.long.Add(d.long)
	}
	if refusal := c.refusal(); refusal != "" {
		c.endTransaction()
		c.reply(atEOD, refusal)
		return
	}
	// The wording of NHN's reply is not published; this is the usual one.
	const prefix = "250 2.0.0 OK queued as "
	text := c.server.queued(prefix)
	v := c.judge(atEOD, text)
	if v.effect {
		if err := c.record(text[len(prefix):]); err != nil {
			c.server.cfg.Log.Error("relay: record message", "conn", c.id, "error", err)
			v = verdict{nil, "451 4.3.0 Error: cannot record the message", false}
		}
		c.faults = 0
	}
	c.endTransaction()
	c.say(atEOD, v)
}

// refusal is what the content itself deserves, or "".
func (c *conn) refusal() string {
	limit := c.server.cfg.MaxSize
	switch {
	case len(c.to) == 0:
		return "554 5.5.1 No valid recipients"
	case limit > 0 && c.content.size > limit:
		return "552 5.3.4 Message size exceeds fixed limit"
	}
	if fault := c.content.fault(); fault != "" && c.strict() {
		return "501 5.5.2 Refused: " + fault
	}
	return ""
}

// record adds the message to the truth.
func (c *conn) record(queueID string) error {
	d := c.content
	a := Accepted{
		From: c.from, To: c.to[0], MessageID: d.id, QueueID: queueID,
		Stream: c.stream, User: c.user, Conn: c.id, Time: time.Now(), Size: d.size,
	}
	if len(c.to) > 1 {
		a.To = strings.Join(c.to, " ")
	}
	if !d.skip {
		d.sum.Sum(a.SHA256[:0])
	}
	if d.keep {
		a.Content = bytes.Clone(d.kept)
	}
	if err := c.server.truth.add(a); err != nil {
		return err
	}
	c.server.counters.bytes.Add(int64(d.size))
	if c.server.cfg.OnAccept != nil {
		c.server.cfg.OnAccept(a)
	}
	if b := c.server.behaviour.Load().profile.bounces; b != nil {
		c.server.after.add(b, a, c.server.cfg.Seed)
	}
	return nil
}

// queued returns prefix with a queue id that no other message of this or another run of
// the relay has.
func (s *Server) queued(prefix string) string {
	var buf [64]byte
	b := append(buf[:0], prefix...)
	return string(strconv.AppendUint(b, s.queueBase+s.queueSeq.Add(1), 36))
}
