package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Durability is what the Redis server must keep of what it was told.
type Durability string

// The durabilities, weakest first.
const (
	KeepNothing   Durability = "memory" // a restart of Redis may lose everything
	KeepSeconds   Durability = "aof"    // the append-only file, synced each second
	KeepEverytime Durability = "fsync"  // the append-only file, synced before each answer
)

// ErrServer is returned for a Redis server that would lose what it is given. It stays
// so until its configuration, or this program's, is changed.
var ErrServer = errors.New("this redis server is not set up to keep mail")

// ErrFull is returned to producers when Redis has no room for more. What is queued is
// being sent all the same, and makes room once the retention of older campaigns ends.
var ErrFull = errors.New("the queue is full")

// How full (per cent of maxmemory) Redis may be for producers. What lies above it is for
// the workers: their outcomes take up to three times the room of the recipients.
const fullAt = 70

const (
	evictionFix = "set maxmemory-policy noeviction in redis.conf (at once: redis-cli CONFIG SET maxmemory-policy noeviction; managed Redis: the parameter group)"
	appendFix   = "set appendonly yes in redis.conf (at once: redis-cli CONFIG SET appendonly yes; managed Redis: the parameter group), " +
		"or, if losing the queue with Redis does not matter, redis.durability: memory"
	syncFix = "set appendfsync always in redis.conf (at once: redis-cli CONFIG SET appendfsync always; managed Redis: the parameter group), " +
		"or, if losing the last seconds with Redis and its workers does not matter, redis.durability: aof"
	rewriteFix = "set no-appendfsync-on-rewrite no in redis.conf (at once: redis-cli CONFIG SET no-appendfsync-on-rewrite no)"
)

// CheckServer asks Redis, by INFO, whether it keeps what is written to it, and by CONFIG
// when it syncs, which INFO has no field for. What is wrong for certain is an ErrServer
// with the fix; what Redis does not tell is a warning.
func (q *Queue) CheckServer(ctx context.Context, want Durability) (warnings []string, err error) {
	info, err := q.info(ctx)
	if err != nil {
		return nil, q.unreachable(err)
	}
	switch policy := info["maxmemory_policy"]; policy {
	case "noeviction":
	case "":
		warnings = append(warnings, "redis does not say whether it forgets data when its memory is full; make sure that it does not: "+evictionFix)
	default:
		return nil, fmt.Errorf("%w: its eviction policy is %s, which drops queued mail and outcomes when memory is full; %s", ErrServer, clip(policy, 40), evictionFix)
	}
	if want == KeepNothing {
		return warnings, nil
	}
	switch info["aof_enabled"] {
	case "1":
	case "":
		warnings = append(warnings, "redis does not say whether its append-only file is on; make sure that it is: "+appendFix)
	default:
		return nil, fmt.Errorf("%w: redis.durability is %s and its append-only file is off, so its crash loses outcomes, and mail is sent twice; %s", ErrServer, want, appendFix)
	}
	if status := info["aof_last_write_status"]; status != "" && status != "ok" {
		warnings = append(warnings, "the last write to redis's append-only file failed; it refuses writes until its disk has room")
	}
	if want != KeepEverytime {
		return warnings, nil
	}
	warning, err := q.checkSync(ctx)
	if err != nil {
		return nil, err
	}
	if warning != "" {
		warnings = append(warnings, warning)
	}
	return warnings, nil
}

// checkSync asks whether Redis syncs before each answer. Managed ones have no CONFIG,
// and an ACL may forbid it: no reason to refuse a server that may well be right.
func (q *Queue) checkSync(ctx context.Context) (warning string, err error) {
	set, err := q.rdb.ConfigGet(ctx, "*appendfsync*").Result()
	var refusal redis.Error
	if err != nil && !errors.As(err, &refusal) {
		return "", q.unreachable(err)
	}
	switch when := set["appendfsync"]; {
	case when == "":
		return "redis.durability is fsync, and redis does not say when it syncs; make sure that it does so before each answer: " + syncFix, nil
	case when != "always":
		return "", fmt.Errorf("%w: redis.durability is fsync and its appendfsync is %s, so its crash loses outcomes of the last seconds, and mail is sent twice; %s",
			ErrServer, clip(when, 40), syncFix)
	case set["no-appendfsync-on-rewrite"] == "yes": // it then syncs nothing for as long as a rewrite takes
		return "", fmt.Errorf("%w: redis.durability is fsync and its no-appendfsync-on-rewrite is yes, so its crash while it rewrites its file loses outcomes, and mail is sent twice; %s",
			ErrServer, rewriteFix)
	}
	return "", nil
}

// info reads what Redis says of itself. What it forbids to ask is empty.
func (q *Queue) info(ctx context.Context, section ...string) (map[string]string, error) {
	text, err := q.rdb.Info(ctx, section...).Result()
	var refusal redis.Error
	if err != nil && !errors.As(err, &refusal) {
		return nil, err
	}
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if field, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok {
			info[field] = value
		}
	}
	return info, nil
}

// room returns ErrFull when Redis has none for a producer. A Redis that names no limit
// has room.
func (q *Queue) room(ctx context.Context) error {
	info, err := q.info(ctx, "memory")
	if err != nil {
		return q.unreachable(err)
	}
	number := func(field string) int64 {
		n, _ := strconv.ParseInt(info[field], 10, 64)
		return n
	}
	// What Redis itself leaves out when it compares with the limit: buffers of the
	// append-only file and of replicas.
	used, most := number("used_memory")-number("mem_not_counted_for_evict"), number("maxmemory")
	if most <= 0 || used*100 < most*fullAt {
		return nil
	}
	return fmt.Errorf("%w: redis uses %d of its %d MiB, and producers may fill %d %%, so that workers can go on sending; "+
		"raise maxmemory, shorten redis.retention, or send again when more has been sent", ErrFull, used>>20, most>>20, fullAt)
}

// lookEvery is how many bytes a producer stores between two looks at the room there is.
const lookEvery = 256 << 10

// makesRoom is room for a producer that is about to store size bytes: it looks now and
// then.
func (s *Staging) makesRoom(ctx context.Context, size int) error {
	if s.unseen.Add(int64(size)) < lookEvery {
		return nil
	}
	s.unseen.Store(0)
	return s.q.room(ctx)
}

// full turns Redis's own refusal to store into ErrFull.
func full(err error) error {
	var refusal redis.Error
	if errors.As(err, &refusal) && strings.Contains(refusal.Error(), "OOM command not allowed") {
		return fmt.Errorf("%w: redis has reached its maxmemory: raise it, or send again when more has been sent: %w", ErrFull, err)
	}
	return err
}
