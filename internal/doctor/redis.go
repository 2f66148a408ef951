package doctor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// redisChecks are those of the server. INFO tells what CONFIG would: managed ones
// forbid the latter.
func (e *exam) redisChecks() []check {
	if e.cfg.Redis == nil {
		return []check{{id: "redis.reachable", run: func(context.Context) Line {
			return warned("redis.url is embedded: nothing is kept when the process ends, and nothing is shared with a worker").
				to("set redis.url to a Redis for anything but trying things out")
		}}}
	}
	up := []string{"redis.reachable"}
	fromInfo := func(judge func() Line) func(context.Context) Line {
		return func(context.Context) Line { return judge() }
	}
	return []check{
		{id: "redis.reachable", run: e.redisReachable},
		{id: "redis.version", needs: up, run: fromInfo(e.redisVersion)},
		{id: "redis.role", needs: up, run: fromInfo(e.redisRole)},
		{id: "redis.loading", needs: up, run: fromInfo(e.redisLoading)},
		{id: "redis.persistence", needs: up, run: fromInfo(e.redisPersistence)},
		{id: "redis.eviction", needs: up, run: fromInfo(e.redisEviction)},
		{id: "redis.memory", needs: up, run: fromInfo(e.redisMemory)},
		{id: "redis.latency", needs: []string{"redis.loading"}, after: []string{"relay.roundtrip"}, run: e.redisLatency},
		{id: "redis.clock", needs: []string{"redis.loading"}, run: e.redisClock},
	}
}

func (e *exam) redisReachable(ctx context.Context) Line {
	err := e.cfg.Redis.Ping(ctx)
	loading := err != nil && strings.HasPrefix(err.Error(), "LOADING")
	if err != nil && !loading {
		return e.redisTrouble(err)
	}
	text, err := e.cfg.Redis.Info(ctx)
	if err != nil {
		return e.redisTrouble(err)
	}
	if e.info = parseInfo(text); e.info["redis_version"] == "" {
		return failed("%s answers, but INFO has no redis_version: %s", e.cfg.RedisName, clean(text)).
			to("redis.url must name a Redis or Valkey server")
	}
	return passed("%s answers", e.cfg.RedisName)
}

// redisTrouble explains why Redis cannot be used.
func (e *exam) redisTrouble(err error) Line {
	text := err.Error()
	l := failed("%s: %s", e.cfg.RedisName, clean(text))
	switch {
	case strings.HasPrefix(text, "NOAUTH"), strings.HasPrefix(text, "WRONGPASS"), strings.HasPrefix(text, "ERR invalid password"):
		return l.to("put the right user and password into redis.url: redis://USER:PASSWORD@HOST:6379/0 (user default where there is none)")
	case strings.HasPrefix(text, "NOPERM"):
		return l.to("let the user of redis.url do it: ACL SETUSER USER +ping +info +time, besides what deployments/ lists for the worker")
	case errors.Is(err, syscall.ECONNREFUSED):
		return l.to("nothing listens there: start Redis, or correct host and port in redis.url")
	case notFound(err):
		return l.to("the host of redis.url is not in DNS: correct it")
	case timeOut(err):
		return failed("%s gave no answer within %s", e.cfg.RedisName, short(e.cfg.Timeout)).
			to("check that Redis runs and is not hung (redis-cli -h HOST PING), and that no firewall drops the packets; a Redis that wants TLS needs rediss:// in redis.url")
	case strings.Contains(text, "tls:"), strings.Contains(text, "x509:"):
		return l.to("rediss:// needs a server that speaks TLS on that port, with a certificate of a trusted authority for the host of redis.url")
	}
	return l.to("check redis.url and that Redis runs; one that wants TLS needs rediss://")
}

// parseInfo reads the reply to INFO. Of a field that comes twice the first counts.
func parseInfo(text string) map[string]string {
	info := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if _, again := info[name]; ok && !again {
			info[name] = value
		}
	}
	return info
}

// number reads a field of INFO; one that is missing is 0.
func (e *exam) number(field string) int64 {
	n, _ := strconv.ParseInt(e.info[field], 10, 64)
	return n
}

func (e *exam) redisVersion() Line {
	version := e.info["redis_version"]
	if v := e.info["valkey_version"]; v != "" {
		return passed("Valkey %s, which speaks as Redis %s", clean(v), clean(version))
	}
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, err1 := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	switch {
	case err1 != nil || err2 != nil:
		return warned("version %q is none that can be compared", clean(version)).to("use Redis 6.2 or later, or Valkey")
	case a < 6 || a == 6 && b < 2:
		return failed("version %s; the queue needs commands of 6.2", clean(version)).to("upgrade to Redis 6.2 or later, or Valkey")
	}
	return passed("version %s", clean(version))
}

func (e *exam) redisRole() Line {
	if e.info["redis_mode"] == "cluster" || e.info["cluster_enabled"] == "1" {
		return failed("the server is part of a Redis Cluster, which is not supported").
			to("use a single server, or one with replicas behind Sentinel (redis-sentinel://)")
	}
	switch role := e.info["role"]; role {
	case "master":
		return passed("master, with %d replicas", e.number("connected_slaves"))
	case "slave":
		return failed("the server is a replica: it refuses writes").
			to("point redis.url at its master, %s:%s, or use redis-sentinel:// to follow the master", clean(e.info["master_host"]), clean(e.info["master_port"]))
	default:
		return warned("INFO says role %q", clean(role)).to("redis.url must name the master")
	}
}

func (e *exam) redisLoading() Line {
	if e.info["loading"] == "1" {
		return failed("the server is still reading its data from disk (about %d s to go) and refuses every command", e.number("loading_eta_seconds")).
			to("wait until it is done, then run sluice doctor again")
	}
	return passed("all data loaded")
}

func (e *exam) redisPersistence() Line {
	const on = "set appendonly yes and appendfsync everysec (with redis.durability fsync: always) in redis.conf (at once: redis-cli CONFIG SET appendonly yes; managed Redis: the parameter group)"
	switch {
	case e.info["aof_enabled"] == "":
		return warned("INFO does not say whether the append-only file is on").to("make sure that it is: %s", on)
	case e.info["aof_enabled"] == "1" && e.info["aof_last_write_status"] != "ok":
		return failed("the last write to the append-only file failed (aof_last_write_status:%s): what is queued now is lost in a crash", clean(e.info["aof_last_write_status"])).
			to("free disk space, or look into the Redis log for the reason")
	case e.info["aof_enabled"] == "1":
		return passed("append-only file on, last write ok (when it is synced cannot be seen without CONFIG: want appendfsync everysec, with redis.durability fsync always)")
	case e.number("connected_slaves") > 0:
		return warned("no append-only file; %d replicas are all that outlives a crash, and they lag", e.number("connected_slaves")).to("%s", on)
	}
	snapshot := "never"
	if t := e.number("rdb_last_save_time"); t > 0 {
		snapshot = time.Unix(t, 0).UTC().Format(time.RFC3339)
	}
	return failed("no append-only file: a crash of Redis loses everything since the last snapshot (%s, %s changes since), and then mail is lost or sent twice",
		snapshot, clean(e.info["rdb_changes_since_last_save"])).to("%s", on)
}

func (e *exam) redisEviction() Line {
	const fix = "set maxmemory-policy noeviction in redis.conf (at once: redis-cli CONFIG SET maxmemory-policy noeviction; managed Redis: the parameter group)"
	policy := e.info["maxmemory_policy"]
	switch {
	case policy == "":
		return warned("INFO does not say what is evicted when memory is full").to("make sure that nothing is: %s", fix)
	case policy == "noeviction":
		return passed("noeviction: a full Redis refuses new mail rather than forgetting old")
	case e.number("maxmemory") == 0:
		return failed("maxmemory_policy:%s would drop queued mail and outcomes once maxmemory is set (it is not, today)", clean(policy)).to(fix)
	}
	return failed("maxmemory_policy:%s drops queued mail and outcomes when memory is full", clean(policy)).to(fix)
}

func (e *exam) redisMemory() Line {
	used, most, of := e.number("used_memory"), e.number("maxmemory"), "maxmemory"
	if most <= 0 {
		most, of = e.number("total_system_memory"), "the machine's memory (no maxmemory is set)"
	}
	if most <= 0 {
		return noted("%s in use, no maxmemory is set", bytesOf(used))
	}
	share := 100 * float64(used) / float64(most)
	why := fmt.Sprintf("%s in use, %.0f%% of %s", bytesOf(used), share, of)
	const fix = "raise maxmemory (redis.conf, or a larger instance) to well above what the largest campaign needs"
	switch {
	case share >= 95:
		return failed("%s: new mail is about to be refused", why).to(fix)
	case share >= 75:
		return warned("%s", why).to(fix)
	}
	return passed("%s", why)
}

func bytesOf(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

const (
	pings       = 9
	slowRedis   = 5 * time.Millisecond
	notableTrip = time.Millisecond // below it, being slower than the relay is no matter
)

func (e *exam) redisLatency(ctx context.Context) Line {
	ping := func() error { return e.cfg.Redis.Ping(ctx) }
	if err := ping(); err != nil { // the first may have to connect
		return e.redisTrouble(err)
	}
	trips := make([]time.Duration, pings)
	for i := range trips {
		var err error
		if trips[i], err = e.cfg.timed(ping); err != nil {
			return e.redisTrouble(err)
		}
	}
	const fix = "run the workers near Redis (the same zone, no VPN between), and look at redis-cli --latency and SLOWLOG GET"
	trip := median(trips)
	switch {
	case trip > slowRedis:
		return warned("a round trip takes %s (median of %d PINGs), more than %s: Redis will hold the relay up", short(trip), pings, short(slowRedis)).to(fix)
	case e.rtt > 0 && trip > e.rtt && trip > notableTrip:
		return warned("a round trip takes %s (median of %d PINGs), longer than to the relay (%s)", short(trip), pings, short(e.rtt)).to(fix)
	}
	return passed("a round trip takes %s (median of %d PINGs)", short(trip), pings)
}

// maxSkew is how far clocks may be apart. Leases of jobs are scored with the workers'
// clocks.
const maxSkew = 2 * time.Second

// redisClock compares clocks by the quickest of three answers. The answer was made
// at some time during the call, so half of its round trip is uncertain.
func (e *exam) redisClock(ctx context.Context) Line {
	var skew, trip time.Duration
	for i := range 3 {
		before := e.cfg.now()
		t, err := e.cfg.Redis.Time(ctx)
		if err != nil {
			return e.redisTrouble(err)
		}
		took := e.cfg.now().Sub(before)
		if i == 0 || took < trip {
			skew, trip = t.Sub(before.Add(took/2)), took
		}
	}
	if skew.Abs() > maxSkew+trip/2 {
		word := "ahead of"
		if skew < 0 {
			word = "behind"
		}
		return warned("Redis's clock is %s %s this machine's; leases and schedules go wrong", short(skew.Abs()), word).
			to("let both follow NTP: timedatectl set-ntp true (or chrony) here and on the Redis machine")
	}
	return passed("Redis's clock and this machine's agree within %s", short(skew.Abs()+trip/2))
}
