package throttle

import (
	"context"
	_ "embed" // the scripts
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/observe.lua
var observeLua string

//go:embed lua/observe_adopt.lua
var observeAdoptLua string

// observeScripts are the scripts of learning; their last two keys are their own.
type observeScripts struct{ observe, adopt *redis.Script }

func newObserveScripts(script func(body ...string) *redis.Script) observeScripts {
	return observeScripts{observe: script(observeLua), adopt: script(observeAdoptLua)}
}

func (s *redisStore) observeCall() *call {
	c := s.call()
	c.keys = append(c.keys, s.base+"seen", s.base+"learned")
	return c
}

func (s *redisStore) observe(ctx context.Context, owner string, lead time.Duration, counts map[string]int) (view, error) {
	c := s.observeCall()
	c.add(owner, micros(lead), len(counts))
	for _, field := range names(counts) {
		c.add(field, counts[field])
	}
	r, err := c.run(ctx, s, s.observing.observe).Slice()
	if err != nil {
		return view{}, err
	}
	return readView(r)
}

// readView reads what observe.lua answers.
func readView(r []any) (view, error) {
	bad := fmt.Errorf("budget script answered %v, want a view", r)
	if len(r) != 6 {
		return view{}, bad
	}
	now, ok1 := r[0].(int64)
	per, ok2 := r[1].(int64)
	epoch, ok3 := r[2].(int64)
	state, ok4 := r[3].(string)
	open, ok5 := r[4].(int64)
	list, ok6 := r[5].([]any)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 || len(list)%2 != 0 {
		return view{}, bad
	}
	v := view{now: now, perConnection: int(per), epoch: epoch, open: int(open), counts: make(map[string]int, len(list)/2)}
	if state != "" {
		v.state = []byte(state)
	}
	for i := 0; i < len(list); i += 2 {
		field, _ := list[i].(string)
		text, _ := list[i+1].(string)
		n, err := strconv.Atoi(text)
		if err != nil {
			return view{}, bad
		}
		v.counts[field] = n
	}
	return v, nil
}

func (s *redisStore) adopt(ctx context.Context, epoch int64, state []byte, limits map[string]float64) (bool, error) {
	c := s.observeCall()
	c.add(epoch, state, len(limits))
	for _, field := range names(limits) {
		c.add(field, strconv.FormatFloat(limits[field], 'g', -1, 64))
	}
	n, err := c.run(ctx, s, s.observing.adopt).Int()
	return n == 1, err
}

func (s *redisStore) recall(ctx context.Context) ([]byte, error) {
	p := s.c.Pipeline()
	leads := p.HExists(ctx, s.base+"state", learnedLead)
	state := p.HGet(ctx, s.base+"learned", "state")
	if _, err := p.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	if text, err := state.Bytes(); err == nil && leads.Val() {
		return text, nil
	}
	return nil, nil
}
