package queue

import (
	"embed"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/*.lua
var scriptFiles embed.FS

// scripts are the Lua scripts, one per file of lua/; KEYS, ARGV and result are in
// the head comment of each.
type scripts struct {
	open, choose, claim, release, seize, touch, reclaim *redis.Script
	stage, put, discard, commit, settle, mend           *redis.Script
	where, relist                                       *redis.Script
	gone, purge, unlist, count, accept                  *redis.Script
	beat, rotate, bury, lead                            *redis.Script
	hold, lift, rehold, results, pass, unpark           *redis.Script
	feedback, late, turn                                *redis.Script
}

func loadScripts() (*scripts, error) {
	s := &scripts{}
	holding, err := scriptFiles.ReadFile("lua/holding.lua")
	if err != nil {
		return nil, fmt.Errorf("script holding: %w", err)
	}
	for name, dst := range map[string]**redis.Script{
		"open": &s.open, "choose": &s.choose, "claim": &s.claim, "release": &s.release, "seize": &s.seize,
		"touch": &s.touch, "reclaim": &s.reclaim, "stage": &s.stage, "put": &s.put, "discard": &s.discard,
		"commit": &s.commit, "settle": &s.settle, "mend": &s.mend, "where": &s.where, "relist": &s.relist,
		"gone": &s.gone, "purge": &s.purge, "unlist": &s.unlist, "count": &s.count, "accept": &s.accept,
		"beat": &s.beat, "rotate": &s.rotate, "bury": &s.bury,
		"lead": &s.lead, "hold": &s.hold, "lift": &s.lift, "rehold": &s.rehold, "results": &s.results,
		"pass": &s.pass, "unpark": &s.unpark,
		"feedback": &s.feedback, "late": &s.late, "turn": &s.turn,
	} {
		src, err := scriptFiles.ReadFile("lua/" + name + ".lua")
		if err != nil {
			return nil, fmt.Errorf("script %s: %w", name, err)
		}
		switch name {
		case "purge", "hold", "lift", "results", "late":
			src = append(slices.Clone(holding), src...)
		}
		*dst = redis.NewScript(string(src))
	}
	return s, nil
}
