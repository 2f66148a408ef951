package relay

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// behaviour is everything about the relay that can be exchanged while it runs.
type behaviour struct {
	profile profileSpec
	rules   [numStages][]*rule
	all     []*rule
	limits  *limiter // nil: none
}

// newBehaviour builds a behaviour from a profile with parameters and the rules that
// come before the profile's.
func newBehaviour(profile string, rules []Rule, seed uint64) (*behaviour, error) {
	spec, err := parseProfile(profile)
	if err != nil {
		return nil, err
	}
	b := &behaviour{profile: spec}
	if spec.limits != nil {
		b.limits = newLimiter(*spec.limits)
	}
	for i, r := range append(append([]Rule(nil), rules...), spec.rules...) {
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("relay: rule %d: %w", i+1, err)
		}
		c := compile(r, i, seed)
		b.all = append(b.all, c)
		at, err := r.Stage.indexes()
		if err != nil {
			return nil, fmt.Errorf("relay: rule %d: %w", i+1, err)
		}
		for _, s := range at {
			b.rules[s] = append(b.rules[s], c)
		}
	}
	return b, nil
}

// rule is a Rule made ready to match.
type rule struct {
	Rule
	texts []string // replies with the codes of continuation lines taken off
	salt  uint64
	hits  atomic.Int64
	first atomic.Pointer[time.Time] // hit, see FirstHit

	mu   sync.Mutex
	seen map[uint64]int // occasions so far by scope key, for Times
}

func compile(r Rule, i int, seed uint64) *rule {
	r.Action = r.action()
	r.From, r.To, r.Domain = strings.ToLower(r.From), strings.ToLower(r.To), strings.ToLower(r.Domain)
	c := &rule{Rule: r}
	// Not salted with its place: a rule put in front leaves the others' choice alone.
	c.salt = fnv(r.Name+"|"+string(r.Stage)+"|"+string(r.Action)+"|"+strings.Join(r.replies(), "|")) ^ mix(seed)
	if c.Name == "" {
		c.Name = fmt.Sprintf("rule %d", i+1)
	}
	for _, text := range r.replies() {
		if r.Action != Garbage {
			text = plainLines(text)
		}
		c.texts = append(c.texts, text)
	}
	return c
}

// plainLines takes "550-a\n550 b" as well as "550 a\nb", and returns the latter.
func plainLines(text string) string {
	code := text[:3]
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, line := range lines {
		if rest, ok := strings.CutPrefix(line, code); ok {
			if rest != "" && (rest[0] == '-' || rest[0] == ' ') {
				rest = rest[1:]
			}
			lines[i] = rest
		}
	}
	return code + " " + strings.Join(lines, "\n")
}

// verdict is what becomes of a command: the rule that decided (nil: none), what it says,
// and whether the command takes effect.
type verdict struct {
	rule   *rule
	text   string // "" where nothing is to be said
	effect bool
}

// judge finds the rule that decides at stage, where normal is what the relay would say.
func (c *conn) judge(at stageIndex, normal string) verdict {
	r, to := c.match(at)
	if r == nil {
		return verdict{nil, normal, true}
	}
	text := c.text(r, to, normal)
	return verdict{r, text, r.takesEffect(at, text)}
}

// match returns the rule that decides at stage, or nil, and the recipient it matched.
func (c *conn) match(at stageIndex) (*rule, string) {
	for _, r := range c.server.behaviour.Load().rules[at] {
		if to, key, ok := c.meets(r, at); ok && r.spend(key) {
			if r.hits.Add(1) == 1 {
				now := time.Now()
				r.first.Store(&now)
			}
			return r, to
		}
	}
	return nil, ""
}

// awaited returns the rule that would decide at stage, without its being used up.
func (c *conn) awaited(at stageIndex) *rule {
	for _, r := range c.server.behaviour.Load().rules[at] {
		if _, key, ok := c.meets(r, at); ok && !r.spent(key) {
			return r
		}
	}
	return nil
}

// meets reports whether all of r's conditions but Times hold, for which recipient, and
// what Times is counted under.
func (c *conn) meets(r *rule, at stageIndex) (to string, key uint64, ok bool) {
	number := c.number
	if at.countsConnections() {
		number = c.id
	}
	switch {
	case r.After > 0 && number < r.After,
		r.Every > 0 && (number == 0 || number%r.Every != 0),
		r.Grouped && c.inGroup < 2,
		r.Stream != "" && r.Stream != c.stream,
		r.From != "" && !glob(r.From, strings.ToLower(c.from)):
		return "", 0, false
	}
	if !at.knowsRecipient() {
		return "", c.scope(r, 0), c.drawn(r, uint64(c.id))
	}
	if at == atRcpt || len(c.to) == 0 {
		key, ok = c.meetsRecipient(r, c.lastTo)
		return c.lastTo, key, ok
	}
	for _, to := range c.to {
		if key, ok := c.meetsRecipient(r, to); ok {
			return to, key, true
		}
	}
	return "", 0, false
}

func (c *conn) meetsRecipient(r *rule, to string) (key uint64, ok bool) {
	to = strings.ToLower(to)
	if r.To != "" && !glob(r.To, to) {
		return 0, false
	}
	if r.Domain != "" && !glob(r.Domain, to[strings.LastIndexByte(to, '@')+1:]) {
		return 0, false
	}
	key = fnv(to)
	return c.scope(r, key), c.drawn(r, key)
}

// drawn decides Share for the recipient or connection that key stands for.
func (c *conn) drawn(r *rule, key uint64) bool {
	if r.Share == 0 {
		return true
	}
	if r.Fresh {
		key = uint64(c.id)<<32 + uint64(c.number)
	}
	return float64(mix(key^r.salt)>>11)/(1<<53) < r.Share
}

// scope is what Times is counted under: inherent where the rule names no scope.
func (c *conn) scope(r *rule, inherent uint64) uint64 {
	switch r.Per {
	case PerConnection:
		return uint64(c.id)
	case PerServer:
		return 0
	}
	return inherent
}

// spend uses up one of r's Times, and reports whether there was one left.
func (r *rule) spend(key uint64) bool {
	if r.Times == 0 {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = map[uint64]int{}
	}
	if r.seen[key] >= r.Times {
		return false
	}
	r.seen[key]++
	return true
}

func (r *rule) spent(key uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Times > 0 && r.seen[key] >= r.Times
}

// text returns what r says for recipient to, or normal if it has no words of its own.
func (c *conn) text(r *rule, to, normal string) string {
	if len(r.texts) == 0 {
		return normal
	}
	text := r.texts[0]
	if n := uint64(len(r.texts)); n > 1 {
		text = r.texts[mix(fnv(strings.ToLower(to))^r.salt+1)%n]
	}
	if strings.IndexByte(text, '{') >= 0 {
		text = strings.NewReplacer("{to}", to, "{from}", c.from).Replace(text)
	}
	return text
}

// takesEffect reports whether a command that meets r at stage still does what it asks
// for, where text is what r says.
func (r *rule) takesEffect(at stageIndex, text string) bool {
	switch r.Action {
	case Drop, Reset, Garbage, Stall, Ignore:
		return r.Accept
	case AcceptDrop:
		return true
	}
	positive := byte('2')
	if at == atData {
		positive = '3'
	}
	return r.Accept || text == "" || text[0] == positive
}

// glob matches s against a pattern of literal bytes, * for any run and ? for one byte.
func glob(pattern, s string) bool {
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// fnv is FNV-1a: the same on every machine and in every run.
func fnv(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// mix spreads neighbouring values over all 64 bits (the finaliser of SplitMix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
