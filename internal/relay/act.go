package relay

import (
	"bytes"
	"time"
)

// say answers a command as v says.
func (c *conn) say(at stageIndex, v verdict) {
	if v.rule == nil {
		if v.text != "" {
			c.reply(at, v.text)
		}
		return
	}
	c.perform(at, v.rule, v.text)
}

// perform does what r says, where text is its reply or the normal one.
func (c *conn) perform(at stageIndex, r *rule, text string) {
	if !c.delay(at, r) {
		return
	}
	switch r.Action {
	case Reply, Close, Flood, Lines, Long, Slice, Discard:
		if text == "" {
			break
		}
		c.utter(at, r, text)
		if r.Action == Close || (text[:3] == "421" && !r.Keep) {
			c.end()
		}
	case Drop, AcceptDrop:
		c.end()
		c.abrupt = true
	case Reset:
		c.hangUp()
	case Garbage:
		c.out = append(c.out, garbage(text, r)...)
	case Stall:
		c.stall(at, r.Delay)
	case Ignore:
	}
	if r.Action == Discard {
		c.in.r = c.in.w
	}
}

// delay waits as r says, after what is pending has been sent. False: there is no one to
// talk to any more.
func (c *conn) delay(at stageIndex, r *rule) bool {
	switch {
	case r.Delay == 0, at == atIdle, r.Action == Slice, r.Action == Stall:
		return true
	case at == atConnect:
		c.talksWithin(r.Delay)
		return !c.closing
	}
	if c.flush() != nil {
		return false
	}
	if !c.server.pause(r.Delay) {
		c.closing, c.silent = true, true
		return false
	}
	return true
}

// utter sends text in the manner of r's action.
func (c *conn) utter(at stageIndex, r *rule, text string) {
	switch r.Action {
	case Flood:
		for range atLeast(r.Count, 2) {
			c.reply(at, text)
			c.spill()
		}
	case Lines:
		for range atLeast(r.Count, 1000) - 1 {
			c.out = append(c.out, text[:3]...)
			c.out = append(c.out, "-and so on\r\n"...)
			c.spill()
		}
		c.reply(at, text)
	case Long:
		c.out = append(c.out, text...)
		for n := atLeast(r.Count, 8192) - len(text) - 2; n > 0; {
			chunk := min(n, bufferSize)
			c.out = append(c.out, bytes.Repeat([]byte{'x'}, chunk)...)
			n -= chunk
			c.spill()
		}
		c.out = append(c.out, '\r', '\n')
	case Slice:
		if c.flush() != nil {
			return
		}
		c.reply(at, text)
		c.dribble(r.Delay)
	default:
		c.reply(at, text)
	}
}

// spill keeps what is pending small while a reply without end is made.
func (c *conn) spill() {
	if len(c.out) >= bufferSize {
		_ = c.flush() // a dead socket shows again at the next one
	}
}

// dribble writes what is pending byte by byte.
func (c *conn) dribble(each time.Duration) {
	slow := c.out
	defer func() { c.out = slow[:0] }()
	for i := range slow {
		if each > 0 && !c.server.pause(each) {
			c.closing, c.silent = true, true
			return
		}
		if _, err := c.nc.Write(slow[i : i+1]); err != nil {
			c.closing, c.silent = true, true
			return
		}
	}
}

// hangUp ends the connection with a RST; what is pending is lost.
func (c *conn) hangUp() {
	c.end()
	c.silent, c.abrupt = true, true
	c.out = c.out[:0]
	if c.lag != nil {
		c.lag.reset.Store(true)
		return
	}
	c.leave()
	c.wire.abort()
}

// stall says nothing more until the client gives up, the relay closes or limit has
// passed (0: never).
func (c *conn) stall(at stageIndex, limit time.Duration) {
	if c.flush() != nil {
		return
	}
	defer func() {
		c.end()
		c.silent, c.abrupt = true, true
	}()
	if at == atBody {
		c.server.pause(limit)
		return
	}
	var until time.Time
	if limit > 0 {
		until = time.Now().Add(limit)
	}
	_ = c.nc.SetReadDeadline(until) // a dead socket shows at the read
	for {
		c.in.r = c.in.w
		if c.in.fill() != nil {
			return
		}
	}
}

// garbage is r's own bytes, or a line that is no reply by any reading.
func garbage(text string, r *rule) []byte {
	if len(r.texts) == 0 {
		return []byte("\x00\xff garbage\r\n")
	}
	return []byte(text)
}

func atLeast(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}
