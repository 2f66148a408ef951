package relay

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"strings"
	"sync"
	"time"
)

// Digest is a SHA-256 sum, in hexadecimal where it is text.
type Digest [32]byte

// String returns the sum in lower-case hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) != 2*len(d) {
		return fmt.Errorf("digest %q: want 64 hexadecimal digits", b)
	}
	if _, err := hex.Decode(d[:], b); err != nil {
		return fmt.Errorf("digest %q: %w", b, err)
	}
	return nil
}

// Accepted is one message the relay took responsibility for, whether or not its client
// was told so.
type Accepted struct {
	// From is the envelope sender, "" for the null path.
	From string `json:"from"`
	// To is the envelope recipient; with several, all of them with a space between, see
	// Recipients.
	To string `json:"to"`
	// MessageID is the content's Message-ID with its angle brackets, "" if it has none.
	MessageID string `json:"message_id"`
	// QueueID is what the reply named: "250 2.0.0 OK queued as QueueID".
	QueueID string `json:"queue_id"`
	// SHA256 is taken over the content after un-dot-stuffing, without the final dot.
	SHA256 Digest `json:"sha256"`
	// Stream is the mail type of the login: auth, normal or ad; normal if it had none.
	Stream string `json:"stream"`
	// User is the login without its suffix; JSON shows its first two characters only.
	User string `json:"user"`
	// Conn is the connection's number, from 1.
	Conn int `json:"conn"`
	// Time is when it was recorded.
	Time time.Time `json:"time"`
	// Size is the content's size in bytes, as hashed.
	Size int `json:"size"`
	// Content is the content itself, if Config.KeepContent is set.
	Content []byte `json:"-"`
}

// Recipients returns every recipient of the message.
func (a Accepted) Recipients() []string { return strings.Fields(a.To) }

// MarshalJSON hides the AppKey: this is what ends up in files and on screens.
func (a Accepted) MarshalJSON() ([]byte, error) {
	line, err := a.line()
	return bytes.TrimSuffix(line, []byte("\n")), err
}

// line is the record as a line of JSON, with < and > as they are: every Message-ID has them.
func (a Accepted) line() ([]byte, error) {
	type plain Accepted
	if len(a.User) > 2 {
		a.User = a.User[:2] + "***"
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(plain(a))
	return buf.Bytes(), err
}

// truthChunk is how many records are allocated at once: growing one slice of a million
// would copy hundreds of megabytes again and again.
const truthChunk = 1024

// ledger holds every accepted message in the order of acceptance.
type ledger struct {
	mu     sync.Mutex
	chunks [][]Accepted
	n      int
	file   *os.File // nil: memory only
}

// add records a, first in the file if there is one. On an error nothing is recorded.
func (l *ledger) add(a Accepted) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		line, err := a.line()
		if err != nil {
			return fmt.Errorf("encode truth: %w", err)
		}
		// One write with O_APPEND: after a kill the file holds whole lines.
		if _, err := l.file.Write(line); err != nil {
			return fmt.Errorf("write truth: %w", err)
		}
	}
	last := len(l.chunks) - 1
	if last < 0 || len(l.chunks[last]) == truthChunk {
		l.chunks = append(l.chunks, make([]Accepted, 0, truthChunk))
		last++
	}
	l.chunks[last] = append(l.chunks[last], a)
	l.n++
	return nil
}

func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

// each yields the messages recorded when it was called. Full chunks never change, and
// appending to the last one leaves what this view of it covers alone, so no lock is
// held while the caller looks.
func (l *ledger) each() iter.Seq[Accepted] {
	return func(yield func(Accepted) bool) {
		l.mu.Lock()
		chunks := append([][]Accepted(nil), l.chunks...)
		l.mu.Unlock()
		for _, chunk := range chunks {
			for _, a := range chunk {
				if !yield(a) {
					return
				}
			}
		}
	}
}

func (l *ledger) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("close truth file: %w", err)
	}
	return nil
}
