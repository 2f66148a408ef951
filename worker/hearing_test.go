package worker

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/relay"
)

// The budget hears how long the relay took to answer each content, whether it took or
// refused it; of a recipient refused before there is nothing to hear.
func TestReplyTimesAreHeard(t *testing.T) {
	t.Parallel()
	const delay = 300 * time.Millisecond
	b := newVerdictBench(t,
		relay.Rule{Stage: relay.Rcpt, To: target, Reply: "550 5.1.1 No such user"},
		relay.Rule{Stage: relay.EOD, To: "r3@example.com", Delay: delay, Reply: "552 5.2.2 Mailbox full"},
		relay.Rule{Stage: relay.EOD, Delay: delay, Reply: "250 2.0.0 ok"},
	)
	b.start()
	b.send(mail.Ad, append(people(5), target)...)
	b.eventually("five are heard of", func() bool {
		heard, passed := 0, 0
		for field, text := range b.rdb.HGetAll(t.Context(), seenKey).Val() {
			n, _ := strconv.Atoi(text)
			quarter, isReply := strings.CutPrefix(field, "r:")
			switch {
			case field == "p":
				passed = n
			case isReply:
				heard += n
				// Quarters of octaves of µs: 72 begins at 2^18, of which a reply took more.
				if q, err := strconv.Atoi(quarter); err != nil || q < 72 {
					t.Errorf("%d replies are said to have come before %v: %s", n, delay, field)
				}
			}
		}
		if heard > 5 {
			t.Fatalf("%d reply times, want 5", heard)
		}
		return heard == 5 && passed == 6
	})
}
