package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
)

// Result is what came of one attempt, as the breakers see it.
type Result byte

const (
	ResultAccepted Result = 'a'
	ResultBounced  Result = 'h' // the address is bad
	ResultBlocked  Result = 'b' // the sender is: reputation, block lists, policy
	ResultUnknown  Result = 'u'
	ResultOther    Result = 'o' // deferred, or refused for a reason of its own
)

// blockedAlone is, in a window's letters, a block that nothing narrower is held for.
const blockedAlone Result = 'B'

// bad reports whether a breaker counts the result.
func (r Result) bad() bool { return r == ResultBounced || r == ResultBlocked || r == ResultUnknown }

// results collects what came of mails until it is told to the breakers.
type results struct {
	mu        sync.Mutex
	campaigns map[string]*campaignResults // by id
	due       chan struct{}               // capacity 1: there is something to tell

	telling sync.Mutex // held while something is told, so that who waits for it has waited for all
}

type campaignResults struct {
	campaign *Campaign
	windows  map[string]*windowResults // by the field of the hold that may follow
}

type windowResults struct {
	letters  []byte
	examples map[Result][]string
}

func (w *windowResults) add(letter, r Result, text string) {
	if len(w.letters) >= maxWindow { // Redis has been gone for long: the latest count
		w.letters = slices.Delete(w.letters, 0, maxWindow/2)
	}
	w.letters = append(w.letters, byte(letter))
	if r.bad() && text != "" {
		w.example(r, text)
	}
}

// example keeps the latest replies.
func (w *windowResults) example(r Result, text string) {
	if w.examples == nil {
		w.examples = map[Result][]string{}
	}
	w.examples[r] = append(w.examples[r], text)
	if extra := len(w.examples[r]) - maxExamples; extra > 0 {
		w.examples[r] = slices.Delete(w.examples[r], 0, extra)
	}
}

// alone is the number of recipients up to which no breaker judges a campaign: it could
// not stop anything.
const alone = 2

// Result tells the breakers what came of an attempt for a recipient of a destination
// group ("" = none), with the reply that says so, "" of one that took the mail. It never
// blocks; the breakers learn of it within a quarter of a second.
func (m *Member) Result(c *Campaign, group string, r Result, text string) {
	if c.Counts.Queued() <= alone && group == "" {
		return
	}
	if r.bad() {
		text = clean(text)
	}
	b := &m.books
	b.mu.Lock()
	cr := b.campaigns[c.ID]
	if cr == nil {
		cr = &campaignResults{c, map[string]*windowResults{}}
		if b.campaigns == nil {
			b.campaigns = map[string]*campaignResults{}
		}
		b.campaigns[c.ID] = cr
	}
	letter := r
	if r == ResultBlocked {
		letter = blockedAlone
	}
	if group != "" {
		cr.window(groupMark+group).add(letter, r, text)
		letter = r
		if r == ResultBlocked {
			letter = ResultOther // the group is held for it, and the campaign goes on with the others
		}
	}
	if c.Counts.Queued() > alone {
		cr.window(c.ID).add(letter, r, text)
	}
	b.mu.Unlock()
	select {
	case b.due <- struct{}{}:
	default:
	}
}

func (cr *campaignResults) window(field string) *windowResults {
	w := cr.windows[field]
	if w == nil {
		w = &windowResults{}
		cr.windows[field] = w
	}
	return w
}

// tellEvery is how often the breakers are told at most.
const tellEvery = 250 * time.Millisecond

func (m *Member) resultsLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.books.due:
		}
		if err := m.tell(ctx); err != nil && ctx.Err() == nil {
			m.q.log.Debug("telling the breakers", "err", err)
			select {
			case m.books.due <- struct{}{}:
			default:
			}
		}
		if pause(ctx, tellEvery) != nil {
			return
		}
	}
}

// tell gives the breakers what was collected, and obeys at once what they decide. After
// an error it may be told twice, which makes a window stricter for a moment and changes
// no outcome.
func (m *Member) tell(ctx context.Context) error {
	b := &m.books
	b.telling.Lock()
	defer b.telling.Unlock()
	b.mu.Lock()
	told := b.campaigns
	b.campaigns = nil
	b.mu.Unlock()
	byStream := map[mail.Stream][]wireWindow{}
	for _, cr := range told {
		s := cr.campaign.Stream
		for field, w := range cr.windows {
			byStream[s] = append(byStream[s], m.q.wireWindow(cr.campaign, field, w))
		}
	}
	var errs error
	for s, windows := range byStream {
		for part := range slices.Chunk(windows, 200) {
			held, err := m.q.judge(ctx, s, part)
			errs = errors.Join(errs, err)
			for i := 0; i+1 < len(held); i += 2 {
				m.tripped(s, told, held[i], held[i+1])
			}
		}
	}
	if errs != nil {
		b.putBack(told)
	}
	return errs
}

// tripped obeys and reports what a breaker has just held.
func (m *Member) tripped(s mail.Stream, told map[string]*campaignResults, field, data string) {
	h := m.noteHold(s, field, data)
	log := m.q.log.With("stream", string(s), "why", h.Why, "lift", h.Lift)
	if cr := told[field]; cr != nil {
		log.Error("campaign held by a breaker", "campaign", cr.campaign.Name, "examples", h.Examples)
		return
	}
	log.Error("destination group held by a breaker", "group", field[len(groupMark):], "examples", h.Examples)
}

// putBack keeps what could not be told before what has come up since.
func (b *results) putBack(told map[string]*campaignResults) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, cr := range b.campaigns {
		old := told[id]
		if old == nil {
			told[id] = cr
			continue
		}
		for field, w := range cr.windows {
			before := old.window(field)
			before.letters = append(before.letters, w.letters...)
			if extra := len(before.letters) - maxWindow; extra > 0 {
				before.letters = slices.Delete(before.letters, 0, extra)
			}
			for r, texts := range w.examples {
				for _, text := range texts {
					before.example(r, text)
				}
			}
		}
	}
	b.campaigns = told
}

// wireWindow is how results.lua is told of one window.
type wireWindow struct {
	Field    string              `json:"field"`
	Kind     string              `json:"kind"`
	Letters  string              `json:"letters"`
	Late     map[string]int      `json:"late,omitempty"`
	Total    int                 `json:"total"`
	Examples map[string][]string `json:"examples,omitempty"`
	Hold     storedHold          `json:"hold"`
	Period   int64               `json:"period"`
}

func (q *Queue) wireWindow(c *Campaign, field string, w *windowResults) wireWindow {
	out := wireWindow{Field: field, Kind: "campaign", Letters: string(w.letters), Hold: storedHold{State: HoldHeld, Lift: liftCampaign(c)}}
	if field != c.ID {
		out.Kind, out.Period, out.Hold.Lift = "group", q.breakers.Period.Milliseconds(), ""
	}
	for r, texts := range w.examples {
		if len(texts) == 0 {
			continue // it would be null, which Lua has no word for
		}
		if out.Examples == nil {
			out.Examples = map[string][]string{}
		}
		out.Examples[string(r)] = texts
	}
	return out
}

// judge takes results into their windows and returns field and hold of what was held.
func (q *Queue) judge(ctx context.Context, s mail.Stream, windows []wireWindow) ([]string, error) {
	limits, err := json.Marshal(q.breakers.wire())
	if err != nil {
		return nil, fmt.Errorf("encode limits: %w", err)
	}
	data, err := json.Marshal(windows)
	if err != nil {
		return nil, fmt.Errorf("encode results: %w", err)
	}
	keys := []string{q.keys.held(s)}
	for _, w := range windows {
		keys = append(keys, q.keys.window(s, w.Field))
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	held, err := q.scripts.results.Run(ctx, q.rdb, keys, limits, data).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("judge results: %w", err)
	}
	return held, nil
}
