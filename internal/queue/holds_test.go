package queue

import (
	"strings"
	"testing"

	"github.com/sluicemail/sluice/internal/mail"
)

// All that stands is listed with what lifts it, but for campaigns, and nothing once it
// is lifted.
func TestStreamHolds(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 2, 1)
		ctx := t.Context()
		want := func(want ...string) []StreamHold {
			t.Helper()
			holds, err := q.StreamHolds(ctx)
			var have []string
			for _, h := range holds {
				have = append(have, strings.Join([]string{string(h.Stream), h.What, h.Group, h.Why}, " "))
			}
			if err != nil || strings.Join(have, "; ") != strings.Join(want, "; ") {
				t.Errorf("%v: %q, want %q", err, have, want)
			}
			return holds
		}
		want()
		for _, err := range []error{
			q.HoldCampaign(ctx, c, "bounces"), q.HoldGroup(ctx, mail.Ad, "naver", "blocked", "554 listed"), q.HoldGroup(ctx, mail.Ad, "daum", "slow"),
			q.HoldLogin(ctx, mail.Ad, "f1", "535 no"), q.HoldLogin(ctx, mail.Normal, "", "no certificate"),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		holds := want("normal stream  no certificate", "ad group daum slow", "ad group naver blocked", "ad login  535 no")
		for _, h := range holds {
			if group := h.What == HoldsGroup; group == h.Until.IsZero() || group != strings.HasPrefix(h.Lift, "itself, at ") || group == strings.Contains(h.Lift, "sluice limits reset") {
				t.Errorf("%+v", h)
			}
		}
		for _, err := range []error{q.LiftGroup(ctx, mail.Ad, "naver"), q.LiftStream(ctx, mail.Ad), q.LiftStream(ctx, mail.Normal)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		want("ad group daum slow")
	})
}
