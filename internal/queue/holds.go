package queue

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
)

// What a StreamHold may hold.
const (
	HoldsStream = "stream"
	HoldsLogin  = "login"
	HoldsGroup  = "group"
)

// StreamHold is a hold on a whole stream, on one of its logins, or on its mail to a
// destination group.
type StreamHold struct {
	Hold
	Stream mail.Stream
	What   string
	Group  string // of HoldsGroup
}

// StreamHolds returns the holds that stand and are not a campaign's: what LiftStream and
// LiftGroup lift.
func (q *Queue) StreamHolds(ctx context.Context) ([]StreamHold, error) {
	now, err := q.now(ctx)
	if err != nil {
		return nil, err
	}
	pipe, read := q.rdb.Pipeline(), map[mail.Stream]*redis.MapStringStringCmd{}
	for _, s := range mail.Streams() {
		read[s] = pipe.HGetAll(ctx, q.keys.held(s))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, q.unreachable(err)
	}
	out := []StreamHold{}
	for _, s := range mail.Streams() {
		first := len(out)
		for field, data := range read[s].Val() {
			h := StreamHold{Stream: s}
			switch group, ok := strings.CutPrefix(field, groupMark); {
			case ok:
				h.What, h.Group = HoldsGroup, group
			case field == wholeStream:
				h.What = HoldsStream
			case strings.HasPrefix(field, wholeStream):
				h.What = HoldsLogin
			default:
				continue
			}
			// One that does not decode holds, too, and says so.
			if h.Hold, _ = decodeHold(data); h.stands(now) {
				out = append(out, h)
			}
		}
		slices.SortFunc(out[first:], func(a, b StreamHold) int {
			return cmp.Or(cmp.Compare(a.What, b.What), cmp.Compare(a.Group, b.Group), a.Since.Compare(b.Since))
		})
	}
	return out, nil
}
