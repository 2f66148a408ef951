package relay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// Became is what became of a message after it had been accepted, as profile bounces
// tells it: one for each recipient.
type Became struct {
	Address   string    `json:"address"`
	MessageID string    `json:"message_id"`
	Status    string    `json:"status"` // delivered or bounced
	Text      string    `json:"text,omitempty"`
	Time      time.Time `json:"time"`
}

// bouncing is how profile bounces behaves.
type bouncing struct {
	share, block float64
	after        time.Duration
}

// bounceWords are what real receivers say of addresses that are bad (Postfix, Gmail,
// Naver, Daum, docomo, Outlook.com, Yahoo), and blockWords of senders they do not want.
func bounceWords() []string {
	return []string{
		"550 5.1.1 <{to}>: Recipient address rejected: User unknown in virtual mailbox table",
		"550 5.1.1 The email account that you tried to reach does not exist. Please try double-checking the recipient's email address for typos or unnecessary spaces",
		"550 5.1.1 Suspended(Inactive) user",
		"550 5.2.1 Mailbox is inactive: <{to}>",
		"550 Unknown user {to}",
		"550 5.5.0 Requested action not taken: mailbox unavailable",
		"554 delivery error: dd This user doesn't have a yahoo.com account ({to})",
	}
}

func blockWords() []string {
	return []string{
		"554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
		"550 5.7.1 Our system has detected that this message is likely unsolicited mail. To reduce the amount of spam, this message has been blocked",
		"550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service provider since part of their network is on our block list",
	}
}

// fate is what becomes of a message for one recipient: always the same.
func (b *bouncing) fate(to string, seed uint64) (status, text string) {
	key := fnv(strings.ToLower(to)) ^ mix(seed)
	drawn := float64(mix(key^fnv("bounces"))>>11) / (1 << 53)
	words := bounceWords()
	switch {
	case drawn < b.share:
	case drawn < b.share+b.block:
		words = blockWords()
	default:
		return "delivered", ""
	}
	return "bounced", strings.ReplaceAll(words[mix(key+1)%uint64(len(words))], "{to}", to)
}

// afterlife tells, some time after messages were accepted, what became of them.
type afterlife struct {
	tell func([]Became)
	file *os.File // nil: none
	some chan struct{}
	done chan struct{}

	mu      sync.Mutex
	waiting []later // in the order of acceptance
	closing bool
}

type later struct {
	due    time.Time
	became Became
}

// newAfterlife starts to tell what cfg wants told; nil if that is nothing.
func newAfterlife(cfg Config) (*afterlife, error) {
	if cfg.FeedbackFile == "" && cfg.OnFeedback == nil {
		return nil, nil //nolint:nilnil // nothing is to be told
	}
	a := &afterlife{tell: cfg.OnFeedback, some: make(chan struct{}, 1), done: make(chan struct{})}
	if cfg.FeedbackFile != "" {
		var err error
		if a.file, err = os.OpenFile(cfg.FeedbackFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
			return nil, fmt.Errorf("feedback file: %w", err)
		}
	}
	go a.run(func(err error) { cfg.Log.Error("relay: feedback", "error", err) })
	return a, nil
}

// add notes what becomes of a message, which is told when its time has come.
func (a *afterlife) add(b *bouncing, m Accepted, seed uint64) {
	due := m.Time.Add(b.after)
	a.mu.Lock()
	for _, to := range m.Recipients() {
		status, text := b.fate(to, seed)
		a.waiting = append(a.waiting, later{due, Became{Address: to, MessageID: m.MessageID, Status: status, Text: text, Time: due}})
	}
	a.mu.Unlock()
	a.wake()
}

func (a *afterlife) wake() {
	select {
	case a.some <- struct{}{}:
	default:
	}
}

// run tells until close is called, and then all that is left, at once.
func (a *afterlife) run(fault func(error)) {
	defer close(a.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, next, closing := a.due(time.Now())
		if err := a.write(due); err != nil {
			fault(err)
		}
		if closing {
			return
		}
		timer.Reset(next)
		select {
		case <-a.some:
		case <-timer.C:
		}
	}
}

// tellEvery is how often is looked for what is due: many are told with one write.
const tellEvery = 20 * time.Millisecond

// due takes what is to be told, and says when there may be more.
func (a *afterlife) due(now time.Time) (due []Became, next time.Duration, closing bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for n < len(a.waiting) && (a.closing || !a.waiting[n].due.After(now)) {
		due = append(due, a.waiting[n].became)
		n++
	}
	a.waiting = a.waiting[n:]
	next = time.Hour
	if len(a.waiting) > 0 {
		next = max(tellEvery, a.waiting[0].due.Sub(now))
	}
	return due, next, a.closing
}

// write tells what has come to be, in the file with one write: after a kill it holds
// whole lines.
func (a *afterlife) write(due []Became) error {
	if len(due) == 0 {
		return nil
	}
	if a.tell != nil {
		a.tell(due)
	}
	if a.file == nil {
		return nil
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	for _, b := range due {
		if err := enc.Encode(b); err != nil {
			return fmt.Errorf("encode feedback: %w", err)
		}
	}
	if _, err := a.file.Write(buf.Bytes()); err != nil {
		return fmt.Errorf("write feedback: %w", err)
	}
	return nil
}

// close returns when all has been told.
func (a *afterlife) close() error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	a.closing = true
	a.mu.Unlock()
	a.wake()
	<-a.done
	if a.file == nil {
		return nil
	}
	if err := a.file.Close(); err != nil {
		return fmt.Errorf("close feedback file: %w", err)
	}
	return nil
}

// errNowhere is returned for a profile that tells what becomes of mail, and nobody to tell.
var errNowhere = errors.New("relay: profile bounces tells what becomes of the mail it accepts: say where to with --feedback FILE (FeedbackFile or OnFeedback)")
