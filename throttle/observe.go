package throttle

import (
	"math/bits"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is what happened.
type Kind int

// What a process notes. Each message ends in exactly one of the first three.
const (
	// Accepted: the relay answered a message, and did not say that there are too
	// many. It may have refused it for another reason. Took is the time from the
	// end of the message to its reply.
	Accepted Kind = iota
	// Throttled: the relay said that messages of this account come too fast.
	Throttled
	// ThrottledGroup: the same, but of the destination group alone.
	ThrottledGroup
	// Crowded: it refused a dial or its greeting because too many connections are
	// open.
	Crowded
	// Greeted: it took a dial. Took is the time from the dial to the greeting.
	Greeted
	// Ended: it ended a connection in the place of an answer to one more message,
	// after N of them, and did not say why (421). That message is not noted.
	Ended
	// Retired: we closed a connection that was well, after N messages.
	Retired
)

// Event is one thing that happened between this process and the relay.
type Event struct {
	Class Class
	Kind  Kind
	N     int           // Ended, Retired: messages that the connection had carried
	Took  time.Duration // Accepted, Greeted; 0: not known
}

// notes counts what happened since the last report. Counting costs an atomic
// addition or two.
type notes struct {
	account   noted
	groups    sync.Map // *noted by name
	known     atomic.Int64
	crowded   atomic.Int64
	carried   atomic.Int64 // most messages of a connection we closed
	replies   times
	greetings times

	mu    sync.Mutex
	ended map[int]int // connections by messages carried
}

type noted struct{ passed, throttled atomic.Int64 }

// times counts durations in quarters of octaves.
type times [4 * 40]atomic.Int64

// mostEnds bounds how many different numbers of messages are reported at once.
const mostEnds = 64

// Note counts an event. It never blocks, and never calls the store.
func (b *Budget) Note(e Event) {
	n := &b.watch.notes
	switch e.Kind {
	case Accepted:
		n.account.passed.Add(1)
		n.replies.add(e.Took)
		if g := n.group(e.Class.Group); g != nil {
			g.passed.Add(1)
		}
	case Throttled:
		n.account.throttled.Add(1)
	case ThrottledGroup:
		n.account.passed.Add(1)
		if g := n.group(e.Class.Group); g != nil {
			g.throttled.Add(1)
		}
	case Crowded:
		n.crowded.Add(1)
	case Greeted:
		n.greetings.add(e.Took)
	case Ended:
		n.mu.Lock()
		if _, known := n.ended[e.N]; known || len(n.ended) < mostEnds {
			n.ended[e.N]++
		}
		n.mu.Unlock()
	case Retired:
		for most := n.carried.Load(); int64(e.N) > most && !n.carried.CompareAndSwap(most, int64(e.N)); {
			most = n.carried.Load()
		}
	}
}

// group returns the counts of a group, nil for none.
func (n *notes) group(name string) *noted {
	if name == "" {
		return nil
	}
	if g, ok := n.groups.Load(name); ok {
		return g.(*noted)
	}
	if checkName("group", name) != nil || n.known.Add(1) > mostGroups {
		return nil
	}
	g, _ := n.groups.LoadOrStore(name, &noted{})
	return g.(*noted)
}

func (t *times) add(d time.Duration) {
	if d <= 0 {
		return
	}
	us := max(uint64(d/time.Microsecond), 4)
	octave := bits.Len64(us) - 1
	i := 4*octave + int(us>>(octave-2)&3)
	t[min(i, len(t)-1)].Add(1)
}

// quarter is the middle of one of the times, µs.
func quarter(i int) int64 { return (int64(1) << (i / 4)) * int64(9+2*(i%4)) / 8 }

// Names of what is reported, and after the colon of which. All can be added up
// over processes.
const (
	fieldPassed    = "p" // or p:GROUP
	fieldThrottled = "t" // or t:GROUP
	fieldCrowded   = "c"
	fieldEnded     = "e:" // messages
	fieldCarried   = "x:" // messages
	fieldReply     = "r:" // quarter
	fieldGreeting  = "g:" // quarter
)

// harvest takes what was counted.
func (n *notes) harvest() map[string]int {
	h := map[string]int{}
	take := func(field string, c *atomic.Int64) {
		if c.Load() != 0 {
			h[field] += int(c.Swap(0))
		}
	}
	take(fieldPassed, &n.account.passed)
	take(fieldThrottled, &n.account.throttled)
	take(fieldCrowded, &n.crowded)
	n.groups.Range(func(name, g any) bool {
		take(fieldPassed+":"+name.(string), &g.(*noted).passed)
		take(fieldThrottled+":"+name.(string), &g.(*noted).throttled)
		return true
	})
	for i := range n.replies {
		take(fieldReply+strconv.Itoa(i), &n.replies[i])
	}
	for i := range n.greetings {
		take(fieldGreeting+strconv.Itoa(i), &n.greetings[i])
	}
	if most := n.carried.Swap(0); most > 0 {
		h[fieldCarried+strconv.FormatInt(most, 10)] = 1
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for messages, times := range n.ended {
		h[fieldEnded+strconv.Itoa(messages)] = times
	}
	clear(n.ended)
	return h
}

// readSample makes a sample of what all processes reported.
func readSample(counts map[string]int, now int64, open int) sample {
	s := sample{at: now - now%tick, open: open, messages: map[string]traffic{"": {}}, ended: map[int]int{}}
	var replies, greetings [len(times{})]int
	for field, n := range counts {
		kind, of, _ := strings.Cut(field, ":")
		number, err := strconv.Atoi(of)
		isNumber := err == nil && number >= 0
		t := s.messages[of]
		switch {
		case n <= 0:
		case kind == fieldPassed:
			t.passed = n
			s.messages[of] = t
		case kind == fieldThrottled:
			t.throttled = n
			s.messages[of] = t
		case field == fieldCrowded:
			s.crowded = n
		case !isNumber:
		case kind+":" == fieldEnded:
			s.ended[number] = n
		case kind+":" == fieldCarried:
			s.carried = max(s.carried, number)
		case kind+":" == fieldReply && number < len(replies):
			replies[number] = n
		case kind+":" == fieldGreeting && number < len(greetings):
			greetings[number] = n
		}
	}
	s.reply, s.greeting = middle(replies[:]), middle(greetings[:])
	for _, n := range replies {
		s.replies += n
	}
	return s
}

// middle is the median of counted times, µs; 0 if there are none.
func middle(counted []int) int64 {
	all := 0
	for _, n := range counted {
		all += n
	}
	for i, n := range counted {
		if all -= 2 * n; n > 0 && all <= 0 {
			return quarter(i)
		}
	}
	return 0
}
