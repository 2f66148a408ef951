package main

import (
	"context"
	"fmt"
	"io"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
)

// holdJSON is a hold that is not a campaign's.
type holdJSON struct {
	Stream   string   `json:"stream"`
	What     string   `json:"what"` // stream, login or group
	Group    string   `json:"group,omitempty"`
	Why      string   `json:"why"`
	Since    string   `json:"since"`
	Until    string   `json:"until,omitempty"` // it lifts itself then
	Lift     string   `json:"lift"`            // what lifts it
	Examples []string `json:"examples,omitempty"`
}

// withQueue calls f with the configured Redis's queue.
func (a *app) withQueue(ctx context.Context, cfg *config.Config, f func(*queue.Queue) error) error {
	log, err := a.logger()
	if err != nil {
		return err
	}
	q, err := openQueue(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer q.Close()
	return f(q)
}

// holds returns what `limits reset` would lift.
func (a *app) holds(ctx context.Context, cfg *config.Config) ([]holdJSON, error) {
	out := []holdJSON{}
	err := a.withQueue(ctx, cfg, func(q *queue.Queue) error {
		holds, err := q.StreamHolds(ctx)
		for _, h := range holds {
			out = append(out, holdJSON{string(h.Stream), h.What, h.Group, h.Why, jsonTime(h.Since), jsonTime(h.Until), h.Lift, h.Examples})
		}
		return err
	})
	return out, err
}

func printHolds(w io.Writer, holds []holdJSON) {
	for i, h := range holds {
		if i == 0 {
			fmt.Fprint(w, "\nheld\tstream\tsince\tlifted by\treason\n")
		}
		what := h.What
		if h.Group != "" {
			what += " " + h.Group
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", what, h.Stream, h.Since, h.Lift, h.Why)
	}
}

// liftHolds takes the holds off all streams, logins and destination groups, but not off
// campaigns: each of those has a reason of its own, to be looked at by itself.
func (a *app) liftHolds(ctx context.Context, cfg *config.Config) error {
	groups, err := cfg.Groups.Table()
	if err != nil {
		return usageError(err)
	}
	return a.withQueue(ctx, cfg, func(q *queue.Queue) error {
		for _, s := range mail.Streams() {
			if err := q.LiftStream(ctx, s); err != nil {
				return err
			}
			for _, g := range groups.Names() {
				if err := q.LiftGroup(ctx, s, g); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
