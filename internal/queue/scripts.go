package queue

import (
	"embed"
	"fmt"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/*.lua
var scriptFiles embed.FS

// scripts are the Lua scripts, one per file of lua/; KEYS, ARGV and result are in
// the head comment of each.
type scripts struct {
	open, choose, claim, release, seize, touch, reclaim *redis.Script
	stage, put, discard, commit, settle                 *redis.Script
	beat, rotate, bury, hold, lead                      *redis.Script
}

func loadScripts() (*scripts, error) {
	s := &scripts{}
	for name, dst := range map[string]**redis.Script{
		"open": &s.open, "choose": &s.choose, "claim": &s.claim, "release": &s.release, "seize": &s.seize,
		"touch": &s.touch, "reclaim": &s.reclaim, "stage": &s.stage, "put": &s.put, "discard": &s.discard,
		"commit": &s.commit, "settle": &s.settle, "beat": &s.beat, "rotate": &s.rotate, "bury": &s.bury,
		"hold": &s.hold, "lead": &s.lead,
	} {
		src, err := scriptFiles.ReadFile("lua/" + name + ".lua")
		if err != nil {
			return nil, fmt.Errorf("script %s: %w", name, err)
		}
		*dst = redis.NewScript(string(src))
	}
	return s, nil
}
