package deployments

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

const (
	redisPassword = "s3cret-of-the-sluice-user"
	adminPassword = "s3cret-of-the-test"
)

// redisServer is Redis as compose.yaml starts it, with the shipped configuration and
// ACL file, and one more user for the test to look around with.
type redisServer struct {
	t       testing.TB
	dir     string // its data, and what is /etc/redis in the container
	port    string
	command []string
	*process
}

func startRedis(t testing.TB) *redisServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &redisServer{t: t, dir: t.TempDir()}
	_, s.port, _ = net.SplitHostPort(l.Addr().String())
	write(t, s.dir, "redis.conf", replace(t, read(t, "redis/redis.conf"), "/etc/redis/", s.dir+"/"))
	write(t, s.dir, "users.acl.in", read(t, "redis/users.acl")+"user admin on >"+adminPassword+" ~* &* +@all\n")
	for _, a := range readCompose(t).Services["redis"].Command {
		a = strings.NewReplacer("/sluice/users.acl", s.dir+"/users.acl.in", "/sluice/", s.dir+"/", "/etc/redis/", s.dir+"/").Replace(interpolate(t, a, nil))
		s.command = append(s.command, strings.ReplaceAll(a, "--bind '*'", "--bind 127.0.0.1 --port "+s.port))
	}
	if !strings.Contains(strings.Join(s.command, " "), "--port") {
		t.Fatalf("compose.yaml starts redis with %q: want --bind '*'", s.command)
	}
	_ = l.Close() // another process could take the port now: Redis would then say so
	s.restart()
	return s
}

// restart starts the server on the data there is.
func (s *redisServer) restart() {
	s.t.Helper()
	cmd := exec.Command(s.command[0], s.command[1:]...)
	cmd.Dir, cmd.Env = s.dir, environ(map[string]string{"REDIS_PASSWORD": redisPassword})
	s.process = start(s.t, cmd)
	s.says("Ready to accept connections")
}

// client logs in as a user; "" does not log in.
func (s *redisServer) client(user, password string) *redis.Client {
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + s.port, Username: user, Password: password})
	s.t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// refusals are the commands of the user that the ACL refused since the last start.
func (s *redisServer) refusals() []string {
	s.t.Helper()
	all, err := s.client("admin", adminPassword).ACLLog(context.Background(), 100).Result()
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for _, e := range all {
		out = append(out, fmt.Sprintf("%s: %s refused %d times because of its %s", e.Username, e.Object, e.Count, e.Reason))
	}
	return out
}

func TestRedis(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	ctx := context.Background()
	admin := s.client("admin", adminPassword)
	for key, want := range map[string]string{
		"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": "", "protected-mode": "yes",
	} {
		if got := admin.ConfigGet(ctx, key).Val()[key]; got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	// In protected mode Redis takes nobody from elsewhere while the default user, even
	// one that is off, has no password.
	user, err := admin.Do(ctx, "ACL", "GETUSER", "default").Result()
	if flags := fmt.Sprint(user); err != nil || !strings.Contains(flags, "off") || strings.Contains(flags, "nopass") {
		t.Errorf("the default user is %v, %v", user, err)
	}
	if err := s.client("", "").Ping(ctx).Err(); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
		t.Errorf("PING without a login: %v, want NOAUTH", err)
	}
	if err := s.client("default", "x").Ping(ctx).Err(); err == nil {
		t.Error("the default user can log in")
	}
	s.refusesOthers(t)
	s.healthy(t)
}

// TestRedisKeepsScripts restarts Redis after a script. The append-only file has what
// the script did as a transaction, which Redis runs as the default user when it reads
// the file, and leaves out where that user may not (redis#14541).
func TestRedisKeepsScripts(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	ctx := context.Background()
	const script = "redis.call('SET', 'sluice:a', '1') return redis.call('HSET', 'sluice:b', 'field', '1')"
	if err := s.client("sluice", redisPassword).Eval(ctx, script, nil).Err(); err != nil {
		t.Fatal(err)
	}
	s.kill()
	s.restart()
	rdb := s.client("sluice", redisPassword)
	if n, err := rdb.Exists(ctx, "sluice:a", "sluice:b").Result(); err != nil || n != 2 {
		t.Errorf("%d of 2 keys are left, %v:\n%s", n, err, s.out.String())
	}
}

// refusesOthers tries what the program's user must not be able to do.
func (s *redisServer) refusesOthers(t *testing.T) {
	t.Helper()
	rdb := s.client("sluice", redisPassword)
	ctx := context.Background()
	if err := rdb.Set(ctx, "sluice:names", "x", 0).Err(); err != nil {
		t.Fatalf("a key of its own: %v", err)
	}
	for _, line := range []string{
		"FLUSHALL", "FLUSHDB", "CONFIG GET maxmemory", "CONFIG SET appendonly no", "KEYS *", "SCAN 0", "ACL LIST", "ACL SETUSER sluice +@all",
		"SHUTDOWN NOSAVE", "REPLICAOF 127.0.0.1 1", "BGREWRITEAOF", "SCRIPT FLUSH", "FUNCTION LIST", "MONITOR", "MODULE LIST",
		"CLIENT LIST", "CLIENT KILL ID 1", "SWAPDB 0 1", "MOVE sluice:names 1", "MIGRATE 127.0.0.1 1 sluice:names 0 1", "RESTORE sluice:x 0 x",
		"GET other", "SET other 1", "DEL asynq:{others}:pending", "GET asynq:schedulers", "RENAME sluice:names other",
		"SUBSCRIBE other", "PUBLISH asynq:cancel x",
	} {
		var args []any
		for f := range strings.FieldsSeq(line) {
			args = append(args, f)
		}
		if err := rdb.Do(ctx, args...).Err(); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
			t.Errorf("%s: %v, want NOPERM", line, err)
		}
	}
	refused := regexp.MustCompile(`can't (run|access)|permission`) // before Redis 7.2, and since
	for _, script := range []string{"return redis.call('FLUSHALL')", "return redis.call('GET', 'other')"} {
		if err := rdb.Eval(ctx, script, nil).Err(); err == nil || !refused.MatchString(err.Error()) {
			t.Errorf("%s: %v, want it refused", script, err)
		}
	}
	if n := len(s.refusals()); n == 0 {
		t.Error("the ACL log is empty: it would not show what a campaign is refused")
	}
}

// healthy runs the health check of compose.yaml.
func (s *redisServer) healthy(t *testing.T) {
	t.Helper()
	test := readCompose(t).Services["redis"].Healthcheck.Test
	if len(test) != 2 || test[0] != "CMD-SHELL" {
		t.Fatalf("healthcheck %q: want CMD-SHELL and a command", test)
	}
	check := func(password string) error {
		cmd := exec.Command("sh", "-c", replace(t, interpolate(t, test[1], nil), "redis-cli ", "redis-cli -p "+s.port+" "))
		cmd.Env = environ(map[string]string{"REDIS_PASSWORD": password})
		return cmd.Run()
	}
	if err := check(redisPassword); err != nil {
		t.Errorf("%q: %v", test[1], err)
	}
	if check("wrong") == nil {
		t.Errorf("%q is content with an error reply", test[1])
	}
}

// TestACL compares the user's commands with those that the scripts call: ours, and
// asynq's. A script is refused at the first command that is missing, which may be in a
// branch that no other test takes.
func TestACL(t *testing.T) {
	t.Parallel()
	allowed := map[string]bool{}
	for _, m := range regexp.MustCompile(` \+([a-z]+)`).FindAllStringSubmatch(read(t, "redis/users.acl"), -1) {
		allowed[strings.ToUpper(m[1])] = false // true once something needs it
	}
	need := func(command, where string) {
		command = strings.ToUpper(command)
		if _, ok := allowed[command]; !ok {
			t.Errorf("redis/users.acl does not allow %s, which %s calls", command, where)
		}
		allowed[command] = true
	}
	call := regexp.MustCompile(`redis\.call\(['"](\w+)['"]`)
	for _, pattern := range []string{"../internal/queue/lua/*.lua", "../internal/suppress/lua/*.lua", "../throttle/lua/*.lua"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, f := range files {
			for _, m := range call.FindAllStringSubmatch(read(t, f), -1) {
				need(m[1], f)
			}
		}
	}
	scripts := 0
	for _, m := range regexp.MustCompile("(?s)var (\\w+Cmd) = redis\\.NewScript\\(`(.*?)`\\)").FindAllStringSubmatch(asynqSource(t), -1) {
		// Groups of tasks and asynq's scheduler are not used.
		if regexp.MustCompile(`Group|[aA]ggregat|Scheduler`).MatchString(m[1]) {
			continue
		}
		scripts++
		for _, c := range call.FindAllStringSubmatch(m[2], -1) {
			need(c[1], "asynq's "+m[1])
		}
	}
	if scripts < 10 {
		t.Errorf("only %d scripts of asynq found: where have they gone?", scripts)
	}
	// What is called without a script.
	for _, c := range strings.Fields("PING SELECT INFO TIME MULTI EXEC EVAL EVALSHA SUBSCRIBE PUBSUB SISMEMBER SMEMBERS SADD APPEND HVALS ZREVRANGE") {
		need(c, "the program")
	}
	for c, needed := range allowed {
		if !needed {
			t.Errorf("redis/users.acl allows %s, which nothing calls", c)
		}
	}
}

// asynqSource is the file of asynq that talks to Redis.
func asynqSource(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/hibiken/asynq").Output()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "internal/rdb/rdb.go"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A file of users has to have one line a user and no comments, or Redis does not start.
func TestACLFileHasNoComments(t *testing.T) {
	t.Parallel()
	lines := slices.Collect(strings.Lines(read(t, "redis/users.acl")))
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "user default off resetpass ~* &* +@all") || !strings.HasPrefix(lines[1], "user sluice on #@PASSWORD_SHA256@ ") {
		t.Errorf("want the users default (off) and sluice, in a line each:\n%s", strings.Join(lines, ""))
	}
}
