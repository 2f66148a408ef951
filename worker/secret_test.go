package worker

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/relay"
	"github.com/sluicemail/sluice/internal/smtp"
	"github.com/sluicemail/sluice/throttle"
)

// A changed secret is taken up by a worker that has not seen the old one refused: it knows
// from the hold on the login, or from the budget that lets nobody dial.
func TestSecretChangedForOthers(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(*bench){"held as well": (*bench).holdLogin, "refused in the budget": (*bench).refuseLogin} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, relay.Config{}, nil)
			b.conf.PerConnection.Messages = 1 // whoever is to get mail needs a dial
			var mended atomic.Bool
			b.conf.Credentials = func(_ context.Context, s mail.Stream) (smtp.DialConfig, string, error) {
				conf := b.conf.Streams[s].Dial
				if !mended.Load() {
					return conf, "key-1", nil
				}
				conf.Password = "another"
				return conf, "key-2", nil
			}
			b.start()
			if s := b.settled(b.send(mail.Ad, "first@example.com")); s.Count(mail.Accepted) != 1 {
				t.Fatalf("%v", s.Outcomes)
			}
			refuse(b)
			b.relay.SetUsers(map[string]string{"app": "another"})
			tried := b.relay.Stats().AuthAttempts
			c := b.send(mail.Ad, people(3)...)
			mended.Store(true)
			if s := b.settled(c); s.Count(mail.Accepted) != 3 {
				t.Errorf("%v", s.Outcomes)
			}
			if n := b.relay.Stats().AuthAttempts - tried; n > 3 {
				t.Errorf("%d logins for three connections: the refused one was tried", n)
			}
		})
	}
}

// holdLogin is what a worker does that sees its login refused.
func (b *bench) holdLogin() {
	b.refuseLogin()
	if err := b.q.HoldLogin(b.t.Context(), mail.Ad, "key-1", "535"); err != nil {
		b.t.Fatal(err)
	}
}

// refuseLogin is what is left of one that dies then.
func (b *bench) refuseLogin() {
	budget, err := b.conf.Budget("other", func(string) string { return "key-1" })
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = budget.Run(ctx) })
	defer running.Wait()
	defer cancel()
	dialling, giveUp := context.WithTimeout(ctx, time.Minute)
	defer giveUp()
	lease, err := budget.Connect(dialling, string(mail.Ad))
	if err != nil {
		b.t.Fatal(err)
	}
	lease.Refused(throttle.Refusal{Login: true, Why: "535"})
	lease.Release()
	b.eventually("the budget has heard", func() bool {
		u, err := budget.Usage(ctx)
		return err == nil && len(u.Breakers) > 0 && u.Breakers[0].State == throttle.LoginRefused
	})
}
