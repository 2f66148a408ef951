package queue

import (
	"context"
	"strings"
)

// Claimed reports whether anybody has a claim on any block of a campaign, dead or
// alive. Of a cancelled campaign that nobody has, nothing is sent any more: whoever
// claims a block of it is told to mark it, see claim.lua.
func (q *Queue) Claimed(ctx context.Context, c *Campaign) (bool, error) {
	blocks, err := q.rdb.HKeys(ctx, q.keys.claims(c.Stream)).Result()
	if err != nil {
		return false, q.unreachable(err)
	}
	for _, id := range blocks {
		if strings.HasPrefix(id, c.ID+"/") {
			return true, nil
		}
	}
	return false, nil
}
