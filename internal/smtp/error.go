package smtp

import (
	"errors"
	"fmt"
	"strings"
)

// Stage is the part of a session in which something happened.
type Stage string

// The stages of a session, in order. Idle is between two messages.
const (
	StageConnect  Stage = "connect" // dial and greeting
	StageTLS      Stage = "tls"
	StageEHLO     Stage = "ehlo"
	StageStartTLS Stage = "starttls"
	StageAuth     Stage = "auth"
	StageIdle     Stage = "idle"
	StageMail     Stage = "mail"
	StageRcpt     Stage = "rcpt"
	StageData     Stage = "data"
	StageEOD      Stage = "eod" // content and the dot after it
)

// Errors to ask for with errors.Is.
var (
	// ErrLogin: the relay refused user or password (a 5xx to AUTH). Trying again
	// with the same ones only gets the account locked.
	ErrLogin = errors.New("login refused")
	// ErrNoStartTLS: the relay, or somebody in between, does not offer STARTTLS.
	ErrNoStartTLS = errors.New("no STARTTLS offered")
	// ErrPlaintext: credentials or mail would travel unencrypted.
	ErrPlaintext = errors.New("refusing plaintext")
	// ErrBotched: the relay said something that the protocol does not allow there.
	ErrBotched = errors.New("unexpected reply")
	// ErrStale: the relay ended the connection while no message was under way.
	ErrStale = errors.New("closed by the relay while idle")
	// ErrTimeout: the relay took too long over one reply, or read too slowly.
	ErrTimeout = errors.New("relay too slow")
	// ErrClosed: the connection was closed from our side, by Close or a hard stop.
	ErrClosed = errors.New("connection closed by us")
	// ErrUnconfirmed: the intent was not confirmed, so the content was not sent.
	ErrUnconfirmed = errors.New("intent not confirmed")
	// ErrContent: the content breaks RFC 5321 section 2.3.8 or 4.5.3.1.6, or has
	// 8-bit octets where the relay offers no 8BITMIME.
	ErrContent = errors.New("content unfit for the wire")
	// ErrEnvelope: an address is not a plain ASCII mailbox.
	ErrEnvelope = errors.New("address unfit for the envelope")
	// ErrSize: the content is larger than the relay says it takes (RFC 1870).
	ErrSize = errors.New("content larger than the relay takes")
	// ErrConfig: the connection was configured in a way that cannot work.
	ErrConfig = errors.New("bad connection settings")
)

// Error is what went wrong with a connection, and at which stage. Reply is set
// where the relay gave a reason.
type Error struct {
	Stage Stage
	Reply Reply
	Err   error
}

// Error names the stage, the reply and the cause. Mailboxes that the relay quotes
// are masked.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(string(e.Stage))
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Reply.Code != 0 {
		fmt.Fprintf(&b, ": relay said %q", e.Reply)
	}
	return maskMailboxes(b.String())
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, ErrLogin) ask IsLogin.
func (e *Error) Is(target error) bool { return target == ErrLogin && e.IsLogin() }

// IsLogin reports whether the relay refused the login for good: 535 and its kin,
// not 454.
func (e *Error) IsLogin() bool { return e.Stage == StageAuth && e.Reply.Code/100 == 5 }

// Temporary reports whether trying again later, unchanged, may help. What is not
// known to be permanent is temporary.
func (e *Error) Temporary() bool {
	if e.Reply.Code/100 == 5 {
		return false
	}
	for _, permanent := range []error{ErrConfig, ErrPlaintext, ErrNoStartTLS, errCertificate,
		ErrContent, ErrEnvelope, ErrSize} {
		if errors.Is(e.Err, permanent) {
			return false
		}
	}
	return true
}

// maskMailboxes hides local parts in what a relay says, so that an error can be
// logged.
func maskMailboxes(s string) string {
	at := strings.IndexByte(s, '@')
	if at < 0 {
		return s
	}
	var b strings.Builder
	for ; at >= 0; at = strings.IndexByte(s, '@') {
		start := strings.LastIndexAny(s[:at], " <>\"'(),;:[]=\t") + 1
		b.WriteString(s[:start])
		if start < at {
			b.WriteByte(s[start])
		}
		b.WriteString("***@")
		s = s[at+1:]
	}
	b.WriteString(s)
	return b.String()
}
