package relay

import (
	"fmt"
	"strings"
	"time"
)

// Action is what a rule does besides waiting.
type Action string

// The actions. "Earlier replies" are those of commands that came in the same group and
// have not been written yet.
const (
	// Reply sends Rule.Reply, or the normal reply if there is none. A 421 then closes
	// (RFC 5321 section 3.8) unless Rule.Keep is set. It is the default.
	Reply Action = "reply"
	// Close does as Reply does and closes the connection whatever the reply was.
	Close Action = "close"
	// Drop closes without a reply, and without TLS's close_notify; earlier replies are sent.
	Drop Action = "drop"
	// Reset ends the connection with a TCP RST; earlier replies are lost.
	Reset Action = "reset"
	// AcceptDrop is Drop with the command taking effect: at eod, the message is recorded.
	AcceptDrop Action = "acceptdrop"
	// Garbage sends Rule.Reply as it stands, with no line end added, or noise.
	Garbage Action = "garbage"
	// Stall never answers; with a delay, the connection is dropped after it. At stage
	// body nothing is read meanwhile either, and the delay is required.
	Stall Action = "stall"
	// Flood sends the reply Rule.Count times over. Default 2.
	Flood Action = "flood"
	// Lines sends the reply as Rule.Count lines. Default 1000.
	Lines Action = "lines"
	// Long sends the reply as one line of Rule.Count bytes. Default 8192.
	Long Action = "long"
	// Slice sends the reply byte by byte, with Rule.Delay before each.
	Slice Action = "slice"
	// Ignore sends nothing, and the connection goes on.
	Ignore Action = "ignore"
	// Discard sends the reply and throws away what else has arrived by then.
	Discard Action = "discard"
)

func actions() []Action {
	return []Action{Reply, Close, Drop, Reset, AcceptDrop, Garbage, Stall, Flood, Lines, Long, Slice, Ignore, Discard}
}

// Scope says what a rule's Times is counted for.
type Scope string

// The scopes.
const (
	PerRecipient  Scope = "recipient"
	PerConnection Scope = "connection"
	PerServer     Scope = "server"
)

// Rule makes the relay do something other than accept. A command meets the rules in
// order, and the first whose conditions all hold decides; a command that is out of
// order or malformed gets its 5xx first. The zero value of a condition always holds.
type Rule struct {
	// Name is for RuleHits and messages.
	Name string
	// Stage is where the rule acts. Required.
	Stage Stage

	// From, To and Domain are patterns for the envelope sender, a recipient and a
	// recipient's domain; * stands for any characters, ? for one; case means nothing.
	// To and Domain are for the stages that know a recipient: rcpt, data, body, eod.
	From, To, Domain string
	// Stream holds for logins of this mail type: auth, normal or ad.
	Stream string
	// Share, above 0 and up to 1, holds for that share of recipients, chosen by a
	// hash, so that one recipient always meets the same fate; at stages that know no
	// recipient, for that share of connections. 0 is every one.
	Share float64
	// Fresh draws Share anew for every message, by connection and message number.
	Fresh bool
	// Times holds for the first so many occasions that meet all other conditions,
	// counted per Per. Default scope: the recipient where one is known, else the server.
	Times int
	Per   Scope
	// After holds from the n-th message of a connection on; at stages up to auth, from
	// the n-th connection on.
	After int
	// Every holds for each n-th message of a connection, or n-th connection.
	Every int
	// Grouped holds for a command that came together with an earlier one.
	Grouped bool
	// Bytes, at stage body, is how much content must have come in. Default 1.
	Bytes int

	// Reply is a reply code, usually an enhanced code, and text; \n starts another line.
	// {to} and {from} stand for the envelope's addresses.
	Reply string
	// Replies are several of them, one chosen for each recipient by the same hash.
	Replies []string
	// Delay comes before whatever is sent. At stage idle it is the time of silence.
	Delay time.Duration
	// Action is what is done. Default Reply.
	Action Action
	// Count is how much of it, see Flood, Lines and Long.
	Count int
	// Accept lets the command take effect although the reply does not say so: at eod,
	// the message is recorded. Without it, only a positive reply takes effect.
	Accept bool
	// Keep leaves the connection open after a 421 or a refused greeting.
	Keep bool
}

// check returns an error that names the field, its value and what is allowed.
func (r Rule) check() error {
	at, err := r.Stage.indexes()
	if err != nil {
		return err
	}
	for _, n := range []struct {
		name string
		v    int
	}{{"times", r.Times}, {"after", r.After}, {"every", r.Every}, {"bytes", r.Bytes}, {"count", r.Count}} {
		if n.v < 0 {
			return fmt.Errorf("%s %d: want 0 or more", n.name, n.v)
		}
	}
	if !(r.Share >= 0 && r.Share <= 1) { // also refuses NaN
		return fmt.Errorf("share %v: want more than 0, up to 1 (or 100%%)", r.Share)
	}
	if r.Delay < 0 {
		return fmt.Errorf("delay %v: want 0 or more", r.Delay)
	}
	if err := r.checkWords(at); err != nil {
		return err
	}
	if err := r.checkReplies(at); err != nil {
		return err
	}
	if (r.action() == Reply) && len(r.replies()) == 0 && r.Delay == 0 {
		return fmt.Errorf("a rule without reply, delay or action does nothing")
	}
	return nil
}

func (r Rule) checkWords(at []stageIndex) error {
	known := len(at) == 1 && at[0].knowsRecipient()
	switch {
	case r.To != "" && !known:
		return fmt.Errorf("to: stage %s knows no recipient; use rcpt, data, body or eod", r.Stage)
	case r.Domain != "" && !known:
		return fmt.Errorf("domain: stage %s knows no recipient; use rcpt, data, body or eod", r.Stage)
	case r.Per == PerRecipient && !known:
		return fmt.Errorf("per recipient: stage %s knows no recipient; use rcpt, data, body or eod", r.Stage)
	case r.Stream != "" && !knownStream(r.Stream):
		return fmt.Errorf("stream %q: want auth, normal or ad", r.Stream)
	case r.Bytes != 0 && r.Stage != Body:
		return fmt.Errorf("bytes %d: only stage body has bytes", r.Bytes)
	case r.Stage == Body && r.action() == Stall && r.Delay == 0:
		return fmt.Errorf("stall at stage body wants a delay: how long nothing is read")
	case r.Stage == Idle && r.Delay == 0:
		return fmt.Errorf("stage idle wants a delay: the time of silence")
	case r.Per != "" && r.Per != PerRecipient && r.Per != PerConnection && r.Per != PerServer:
		return fmt.Errorf("per %q: want recipient, connection or server", string(r.Per))
	}
	for _, a := range actions() {
		if r.action() == a {
			return nil
		}
	}
	return fmt.Errorf("action %q: want one of %v", string(r.Action), actions())
}

func (r Rule) checkReplies(at []stageIndex) error {
	if r.Reply != "" && len(r.Replies) > 0 {
		return fmt.Errorf("reply: give one or a list, not both")
	}
	if r.action() == Garbage {
		return nil
	}
	for _, text := range r.replies() {
		if !wellFormed(text) {
			return fmt.Errorf("reply %q: want a code from 200 to 599 and text, such as \"451 4.7.1 Greylisted\"", text)
		}
	}
	// Nothing is normally said at these stages, so there is no normal reply to send.
	if silent := at[0] == atBody || at[0] == atIdle; silent && len(r.replies()) == 0 {
		switch r.action() {
		case Close, Flood, Lines, Long, Slice:
			return fmt.Errorf("action %s at stage %s wants a reply", r.Action, r.Stage)
		}
	}
	return nil
}

func (r Rule) action() Action {
	if r.Action == "" {
		return Reply
	}
	return r.Action
}

func (r Rule) replies() []string {
	if r.Reply != "" {
		return []string{r.Reply}
	}
	return r.Replies
}

// wellFormed reports whether text can be sent as a reply: a code, then a space or the
// end, and no byte that would break the line.
func wellFormed(text string) bool {
	if len(text) < 3 || text[0] < '2' || text[0] > '5' || !digit(text[1]) || !digit(text[2]) {
		return false
	}
	if len(text) > 3 && text[3] != ' ' && text[3] != '-' && text[3] != '\n' {
		return false
	}
	return !strings.ContainsAny(text, "\r\x00")
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func knownStream(s string) bool { return s == "auth" || s == "normal" || s == "ad" }
