package throttle

import "context"

// plainly is the store of a budget that does not learn: for it the configured limits
// alone hold. What was learned could only be taken back by trying more, which nobody
// may be doing; and those who do learn go on keeping to it.
type plainly struct{ store }

func (s plainly) messages(ctx context.Context, p *plan, n int, back []unused) (grant, error) {
	return s.store.messages(ctx, p.plainly(), n, back)
}

func (s plainly) connect(ctx context.Context, p *plan, d dial) (grant, error) {
	return s.store.connect(ctx, p.plainly(), d)
}

func (s plainly) renew(ctx context.Context, p *plan, r renewal) (renewed, error) {
	a, err := s.store.renew(ctx, p, r)
	a.groups = nil // so that no group has a supply of its own for nothing
	return a, err
}

func (p *plan) plainly() *plan {
	q := *p
	q.plain = true
	return &q
}

// Learns reports whether this budget keeps to what is learned of the relay's limits.
func (b *Budget) Learns() bool { return !b.p.Adaptive.Off }
