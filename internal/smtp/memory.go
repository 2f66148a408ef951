package smtp

import (
	"fmt"
	"sync"
	"time"
)

// Mode is how far a connection runs ahead of the relay's replies.
type Mode uint8

// The modes. Auto is the best of what the relay offers and Memory allows; any
// other, set in DialConfig, is used whatever the relay offers.
const (
	ModeAuto      Mode = iota
	ModePipelined      // content n, MAIL, RCPT, DATA n+1 in one write: 1 round trip
	ModeGroup          // MAIL, RCPT, DATA in one write, then the content: 2 round trips
	ModeLockStep       // each command waits for its reply: 4 round trips
)

// String returns the mode's name.
func (m Mode) String() string {
	switch m {
	case ModeAuto:
		return "auto"
	case ModePipelined:
		return "pipelined"
	case ModeGroup:
		return "group"
	case ModeLockStep:
		return "lock-step"
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// memoryFor is how long a relay is spared what broke it.
const memoryFor = time.Hour

// strikesOut is how many connections in a row must break at their first pipelined
// group before pipelining is blamed: one may be the network's fault.
const strikesOut = 2

// Memory remembers which relays offer PIPELINING and cannot do it. It is shared by
// all connections of a process and safe for concurrent use. A nil *Memory
// remembers nothing.
type Memory struct {
	now    func() time.Time
	mu     sync.Mutex
	relays map[string]*relayMemory // by host:port
}

type relayMemory struct {
	best    Mode // best mode that may be used; ModeAuto where nothing is known
	until   time.Time
	strikes [ModeLockStep]int // by mode: connections in a row that broke at their first group
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	return &Memory{now: time.Now, relays: make(map[string]*relayMemory)}
}

// Best returns the best mode to use with a relay that offers PIPELINING.
func (m *Memory) Best(hostport string) Mode {
	if m == nil {
		return ModePipelined
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.relays[hostport]
	if r == nil || r.best == ModeAuto {
		return ModePipelined
	}
	if !m.now().Before(r.until) { // time to try again
		delete(m.relays, hostport)
		return ModePipelined
	}
	return r.best
}

// worked records that a whole group sent in mode went through.
func (m *Memory) worked(hostport string, mode Mode) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.relays[hostport]; r != nil {
		r.strikes[mode] = 0
	}
}

// suspect records that a group sent in mode broke. certain means that the relay
// said so; otherwise it only closed the connection, or did not answer.
func (m *Memory) suspect(hostport string, mode Mode, certain bool) {
	if m == nil || mode >= ModeLockStep {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.relays[hostport]
	if r == nil {
		r = &relayMemory{}
		m.relays[hostport] = r
	}
	if r.best > mode {
		return // an older connection; known already
	}
	if r.strikes[mode]++; !certain && r.strikes[mode] < strikesOut {
		return
	}
	r.best, r.until = mode+1, m.now().Add(memoryFor)
}
