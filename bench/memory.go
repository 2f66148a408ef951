package main

import (
	"fmt"
	"math/rand/v2"

	"github.com/sluicemail/sluice/internal/relay"
)

// memory measures what Redis needs for a recipient.
func (b *bench) memory() error {
	n := b.large
	list, err := b.list(n)
	if err != nil {
		return err
	}
	r, err := b.rig(setup{kind: "sluice", connections: 10, rules: []relay.Rule{postfixReplies()}})
	if err != nil {
		return err
	}
	defer r.close()
	empty, err := r.redis.used(b.ctx)
	if err != nil {
		return err
	}
	if err := r.enqueue(list, "bench"); err != nil {
		return err
	}
	pending, err := r.redis.used(b.ctx)
	if err != nil {
		return err
	}
	b.progress("sending to %d", n)
	if err := r.start(10); err != nil {
		return err
	}
	if err := r.complete(n); err != nil {
		return err
	}
	accepted, err := r.redis.used(b.ctx)
	if err != nil {
		return err
	}
	tasks, few, err := b.taskMemory()
	if err != nil {
		return fmt.Errorf("baseline: %w", err)
	}
	each := func(from, to float64, n int) string { return number((to-from)/float64(n), 1) }
	b.table([]string{"", "recipients", "bytes a recipient"}, [][]string{
		{"pending: e-mail and name", number(float64(n), 0), each(empty, pending, n)},
		{"more once accepted: outcome, time, the relay's reply with a queue id as Postfix makes them", number(float64(n), 0), each(pending, accepted, n)},
		{"baseline: one asynq task a recipient (template, e-mail, name), pending", number(float64(few), 0), number(tasks, 1)},
	})
	b.printf("\nDifferences of used_memory of a real Redis, everything included. Korean names, addresses as people choose them; one run, nothing here depends on time.\n")
	return nil
}

// postfixReplies makes the relay answer with queue ids as unlike each other as those
// of Postfix are: its own, which count upwards, would compress to nothing.
func postfixReplies() relay.Rule {
	const digits = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"
	rnd := rand.New(rand.NewPCG(1, 2))
	replies := make([]string, 1<<16)
	for i := range replies {
		id := []byte("4")
		for range 14 {
			id = append(id, digits[rnd.IntN(len(digits))])
		}
		replies[i] = "250 2.0.0 Ok: queued as " + string(id)
	}
	return relay.Rule{Name: "queue ids", Stage: relay.EOD, Replies: replies}
}

// taskMemory is what the baseline needs for a recipient.
func (b *bench) taskMemory() (float64, int, error) {
	few := min(b.large, 100_000)
	list, err := b.list(few)
	if err != nil {
		return 0, 0, err
	}
	s, err := b.startRedis()
	if err != nil {
		return 0, 0, err
	}
	defer s.stop()
	empty, err := s.used(b.ctx)
	if err != nil {
		return 0, 0, err
	}
	if _, err := enqueueEach(b.ctx, s.rdb, list); err != nil {
		return 0, 0, err
	}
	full, err := s.used(b.ctx)
	return (full - empty) / float64(few), few, err
}
