package throttle

import (
	"context"
	"maps"
	"time"
)

// sightings is what Memory keeps for learning.
type sightings struct {
	seen  map[string]int
	owner string // who leads
	until int64
	state []byte
}

func (m *Memory) observe(_ context.Context, owner string, lead time.Duration, counts map[string]int) (view, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, _ := m.tick(nil)
	s := &m.sightings
	if s.seen == nil {
		s.seen = map[string]int{}
	}
	if m.caps == nil {
		m.caps = map[string]float64{}
	}
	for field, n := range counts {
		s.seen[field] += n
	}
	v := view{now: now, perConnection: int(m.caps[learnedPer])}
	epoch, led := m.caps[learnedLead]
	if led && s.owner != owner && s.until > now {
		return v, nil
	}
	if !led {
		s.state = nil
	}
	if !led || s.owner != owner {
		epoch = float64(now)
		v.state = s.state
	}
	m.caps[learnedLead] = epoch
	s.owner, s.until = owner, now+micros(lead)
	v.epoch, v.counts = int64(epoch), s.seen
	s.seen = map[string]int{}
	m.prune(now)
	v.open = len(m.open)
	for _, b := range m.breakers {
		for _, d := range b.dials {
			if d.lapse > now {
				v.open--
			}
		}
	}
	v.open = max(0, v.open)
	return v, nil
}

func (m *Memory) adopt(_ context.Context, epoch int64, state []byte, limits map[string]float64) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.caps[learnedLead] != float64(epoch) {
		return false, nil
	}
	m.caps = map[string]float64{}
	maps.Copy(m.caps, limits)
	m.caps[learnedLead] = float64(epoch)
	m.sightings.state = state
	return true, nil
}

func (m *Memory) recall(context.Context) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, led := m.caps[learnedLead]; !led {
		return nil, nil
	}
	return m.sightings.state, nil
}
