package throttle

import (
	"slices"
	"time"
)

// lot is the tokens of one grant that are left, by slot. They are worked out when they
// are taken: at full speed that costs less than to write each down.
type lot struct {
	before, after time.Time     // the call; the store's clock was read between them
	at            time.Duration // from then to the next slot; negative if it is past
	every         time.Duration // from one slot to the next
	n             int
	granted       int64
}

// newLot puts a grant on our own clock: a token counted from after is never too early,
// and one that ends counted from before never too late.
func newLot(g grant, before, after time.Time) lot {
	return lot{before: before, after: after, at: time.Duration(g.delay) * time.Microsecond, every: time.Duration(g.every), n: g.n, granted: g.now}
}

// only is the lot of one token.
func only(t token) lot {
	return lot{before: t.until.Add(-life), after: t.from, n: 1, granted: t.granted}
}

func (l *lot) head() token {
	at := max(0, l.at)
	return token{from: l.after.Add(at), until: l.before.Add(at + life), granted: l.granted}
}

// shelf holds tokens, the first granted first.
type shelf struct {
	lots []lot // none is empty
	n    int   // tokens
}

func (s *shelf) add(l lot) {
	if l.n > 0 {
		s.lots = append(s.lots, l)
		s.n += l.n
	}
}

// head is the first token. There must be one.
func (s *shelf) head() token { return s.lots[0].head() }

// pop takes it.
func (s *shelf) pop() token {
	t := s.head()
	s.skip()
	return t
}

// skip takes it without looking.
func (s *shelf) skip() {
	l := &s.lots[0]
	l.at += l.every
	s.n--
	if l.n--; l.n == 0 {
		s.lots = slices.Delete(s.lots, 0, 1)
	}
}

// unpop puts a token back in front.
func (s *shelf) unpop(t token) {
	s.lots = slices.Insert(s.lots, 0, only(t))
	s.n++
}
