package throttle

// Class is a kind of message, by everything that may have a limit of its own.
// "" is none.
type Class struct {
	Stream string // whose reserve and limits; also the login
	Group  string // of recipients
	Sender string // domain of the sender, for warm-up
}

// supply is what this process has leased for one class of messages.
type supply struct {
	plan  *plan
	stock *stock
}

// fold drops what has no limit of its own, so that messages which the same
// limits bind come out of one stock.
func (b *Budget) fold(c Class) Class {
	if c.Group != "" && len(b.p.Limits.Groups[c.Group]) == 0 && !(*b.capped.Load())[c.Group] {
		c.Group = ""
	}
	if c.Sender != "" {
		if _, ramp := b.p.Limits.WarmUp[c.Sender]; !ramp || c.Sender == Everyone {
			c.Sender = ""
		}
	}
	return c
}

// latest is the class that was asked for last and what came of it: one message mostly
// is of the class of the one before.
type latest struct {
	class  Class
	capped *map[string]bool // Budget.capped then
	*supply
}

// supply returns the supply of a class, making it on first use.
func (b *Budget) supply(c Class) *supply {
	capped := b.capped.Load()
	if last := b.last.Load(); last != nil && last.capped == capped && last.class == c {
		return last.supply
	}
	s := b.find(b.fold(c))
	b.last.Store(&latest{c, capped, s})
	return s
}

// find returns the supply of a folded class.
func (b *Budget) find(c Class) *supply {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.supplies[c]
	if s == nil {
		p := b.p.Limits.messagePlan(c)
		s = &supply{plan: p, stock: newStock(p.chunk(), p.returns())}
		b.supplies[c] = s
		poke(b.added)
	}
	return s
}

// learnGroups notes which groups have a learned rate, and so a supply of their
// own.
func (b *Budget) learnGroups(groups []string) {
	known := *b.capped.Load()
	same := len(groups) == len(known)
	for _, g := range groups {
		same = same && known[g]
	}
	if same {
		return
	}
	next := make(map[string]bool, len(groups))
	for _, g := range groups {
		next[g] = true
	}
	b.capped.Store(&next)
}
