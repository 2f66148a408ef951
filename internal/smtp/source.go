package smtp

import (
	"context"
	"fmt"
	"time"
)

// Message is what goes over the wire for one recipient.
type Message struct {
	From, To string // bare mailboxes, ASCII: hong@example.com
	// Content is the whole message, header and body, in CRLF lines of at most 998
	// octets, not dot-stuffed. A missing CRLF at the very end is added. It must not
	// change until Done is called.
	Content []byte
}

// Transaction is one message for one recipient, implemented by the caller.
//
// All calls for one Transaction come from one goroutine, in the order Message,
// Begin, Confirm, Done; a connection that breaks skips straight to Done, and so does one
// that cannot send a message soon enough after it was taken, or drains: that message is
// Unsent at StageIdle, nothing of it was written, and the connection goes on. Done is
// called exactly once for every Transaction a Source handed out, also where Begin
// was never called.
//
// On one connection Done of a message is called before Begin of the next but one:
// Done(n-1) < Begin(n+1).
type Transaction interface {
	// Message returns what is to be sent. It is called once, must not block, and
	// what it returns stays valid until Done.
	Message() Message
	// Begin is called before MAIL is written, by a Confirm of another message at most. It
	// declares the intent to send and must not block.
	Begin()
	// Confirm returns nil once that intent is on record. Not a byte of content is
	// written before. It may block until ctx ends (30 s, or the connection's
	// death); any error closes the connection and leaves the message Unsent.
	Confirm(ctx context.Context) error
	// Done reports how it ended. It must be quick: the connection waits for it.
	Done(Result)
}

// Kind says how a Transaction ended.
type Kind uint8

// The ways a Transaction can end.
const (
	// Accepted: 250 to the dot. Reply holds it.
	Accepted Kind = iota + 1
	// Refused: the relay said 4xx or 5xx to this message; Stage and Reply hold it.
	Refused
	// Unsent: provably not sent, and not the message's fault. Err says why; where
	// the relay gave a reason (421), Reply holds it.
	Unsent
	// Unknown: the dot may have reached the relay, and no valid reply came back.
	Unknown
	// Invalid: not written at all, because content, envelope or size break a rule
	// that no later attempt mends. Err wraps ErrContent, ErrEnvelope or ErrSize.
	Invalid
)

// String returns the word for k.
func (k Kind) String() string {
	switch k {
	case Accepted:
		return "accepted"
	case Refused:
		return "refused"
	case Unsent:
		return "unsent"
	case Unknown:
		return "unknown"
	case Invalid:
		return "invalid"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Result is the end of one Transaction.
type Result struct {
	Kind  Kind
	Stage Stage // where it ended: mail, rcpt, data or eod
	Reply Reply // Accepted, Refused: the relay's words
	Err   error // Unsent, Unknown, Invalid: the reason
	// Took is the time from the last write of a content, with its dot, to the reply to
	// that. Zero where no dot was answered.
	Took time.Duration
}

// Supply is what a Source has at this moment.
type Supply uint8

// What TryNext can say.
const (
	Empty     Supply = iota // nothing to send
	Ready                   // here is one
	Throttled               // there is work, and no budget for it now
)

// Source feeds connections. One Source serves all connections of a pool and is
// safe for concurrent use. What it hands out is ready to go: its budget is taken
// and its content rendered, because after DATA it must be sent without delay.
type Source interface {
	// TryNext never blocks. The Transaction is non-nil exactly where Supply is Ready.
	TryNext() (Transaction, Supply)
	// Waiting reports whether there is work, with or without budget for it now. It takes
	// nothing and never blocks.
	Waiting() bool
	// Next blocks until there is one, or ctx ends. Any other error means that
	// nothing will ever come again: the connection, or the pool, drains.
	Next(ctx context.Context) (Transaction, error)
}

// Limits bound the life of a connection. Zero means no limit.
type Limits struct {
	Messages int           // transactions begun
	Age      time.Duration // since the connection was dialled
	Idle     time.Duration // without a message
}
