package queue

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Connection says how Redis is reached.
type Connection struct {
	Addrs              []string // one for a single server, several for sentinels
	Master             string   // sentinel: name of the monitored master; "" = single server
	DB                 int
	Username, Password string
	SentinelUsername   string
	SentinelPassword   string
	TLS                *tls.Config // nil = no TLS
}

// Options configure Open.
type Options struct {
	Connection Connection
	Prefix     string // of every key; "" = "sluice". Two installations on one Redis differ in it
	Log        *slog.Logger
	Breakers   *Breakers // what stops a campaign or a group; nil = DefaultBreakers
	Retention  Retention // when workers remove what is stored of a campaign
}

// Queue is a handle on one installation's data in Redis. It is safe for concurrent
// use.
type Queue struct {
	conn    Connection
	rdb     *redis.Client
	keys    keys
	scripts *scripts
	codec   *codec
	guard   *guard
	log     *slog.Logger

	breakers   Breakers
	retention  Retention
	rewindMost time.Duration // see the constant
	newer      sync.Map      // campaigns with data of a newer program that were told of, by id
}

// callTimeout bounds one ordinary call to Redis.
const callTimeout = 5 * time.Second

// Open prepares a handle; it makes no connection. Close it after use.
func Open(o Options) (*Queue, error) {
	if len(o.Connection.Addrs) == 0 {
		return nil, errors.New("redis: no address")
	}
	s, err := loadScripts()
	if err != nil {
		return nil, err
	}
	c, err := newCodec()
	if err != nil {
		return nil, err
	}
	if o.Prefix == "" {
		o.Prefix = "sluice"
	}
	if strings.ContainsAny(o.Prefix, "{}: \r\n") {
		return nil, fmt.Errorf("key prefix %q: braces, colons and white space are not allowed", o.Prefix)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	q := &Queue{
		conn: o.Connection, keys: keys{o.Prefix}, scripts: s, codec: c, log: o.Log,
		breakers: DefaultBreakers(), retention: o.Retention, rewindMost: rewindMost,
	}
	if o.Breakers != nil {
		q.breakers = *o.Breakers
	}
	if err := q.breakers.check(); err != nil {
		return nil, err
	}
	q.guard = &guard{restarts: make(chan struct{}, 1)}
	q.rdb = q.conn.client(clientOptions{onConnect: q.guard.onConnect})
	return q, nil
}

// Close releases the connections of this handle; members and servers made from it
// have connections of their own.
func (q *Queue) Close() error { return q.rdb.Close() }

// Ping reports whether Redis answers, and names the address where it does not.
func (q *Queue) Ping(ctx context.Context) error {
	if err := q.rdb.Ping(ctx).Err(); err != nil {
		return q.unreachable(err)
	}
	return nil
}

// ErrUnreachable marks that Redis does not answer, or not to this login. What waits
// goes on by itself once it does.
var ErrUnreachable = errors.New("redis does not answer")

// refusedError is the ErrUnreachable of a Redis that answers, and refuses what is asked.
type refusedError struct {
	text string
	err  error
}

func (e *refusedError) Error() string   { return e.text + ": " + e.err.Error() }
func (e *refusedError) Unwrap() []error { return []error{ErrUnreachable, e.err} }

func (q *Queue) unreachable(err error) error {
	addrs := strings.Join(q.conn.Addrs, ", ")
	switch {
	case redis.IsAuthError(err):
		check := "check the user and the password in redis.url"
		if q.conn.Master != "" {
			check += ", and the sentinels' own, sentinel_username and sentinel_password"
		}
		return &refusedError{fmt.Sprintf("redis at %s answers and refuses the login (%s)", addrs, check), err}
	case redis.IsPermissionError(err):
		return &refusedError{fmt.Sprintf("redis at %s answers and does not allow its user this (grant it with ACL SETUSER, or name another user in redis.url)", addrs), err}
	case errors.As(err, new(redis.Error)):
		return &refusedError{fmt.Sprintf("redis at %s answers, and does not carry this out", addrs), err}
	}
	return fmt.Errorf("%w at %s (is it running, and is redis.url right?): %w", ErrUnreachable, addrs, err)
}

// Wait returns once Redis answers, or with ctx's error. It logs the outage once, and
// once more where a refused login comes of it, or the other way round: an operator has
// something else to mend then.
func (q *Queue) Wait(ctx context.Context) error {
	for told, refused := false, false; ; {
		err := q.Ping(ctx)
		if err == nil {
			if told {
				q.log.Info("redis answers again")
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if now := errors.As(err, new(*refusedError)); !told || now != refused {
			q.log.Error("waiting for redis", "err", err)
			told, refused = true, now
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// Client makes a client of its own for a part of the program that keeps other data
// in the same Redis, such as the budget. The caller closes it.
func (c Connection) Client() *redis.Client { return c.client(clientOptions{}) }

// clientOptions are what differs between the program's Redis clients.
type clientOptions struct {
	poolSize  int
	retries   int // go-redis's own repeats of a failed command; -1 = none
	onConnect func(context.Context, *redis.Conn) error
	hook      redis.Hook
}

// client builds a go-redis client. ContextTimeoutEnabled, because go-redis ignores
// the deadline of a context otherwise. It says neither its name nor that it wants
// maintenance notices: both are commands that a tight ACL refuses.
func (c Connection) client(o clientOptions) *redis.Client {
	var rdb *redis.Client
	if c.Master != "" {
		rdb = redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: c.Master, DisableIdentity: true, SentinelAddrs: c.Addrs, SentinelUsername: c.SentinelUsername, SentinelPassword: c.SentinelPassword,
			DB: c.DB, Username: c.Username, Password: c.Password, TLSConfig: c.TLS,
			ContextTimeoutEnabled: true, PoolSize: o.poolSize, MaxRetries: o.retries, OnConnect: o.onConnect,
			ReadTimeout: callTimeout, WriteTimeout: callTimeout, DialerRetries: 1,
		})
	} else {
		rdb = redis.NewClient(&redis.Options{
			Addr: c.Addrs[0], Network: network(c.Addrs[0]), DisableIdentity: true,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
			DB:                       c.DB, Username: c.Username, Password: c.Password, TLSConfig: c.TLS,
			ContextTimeoutEnabled: true, PoolSize: o.poolSize, MaxRetries: o.retries, OnConnect: o.onConnect,
			ReadTimeout: callTimeout, WriteTimeout: callTimeout, DialerRetries: 1,
		})
	}
	if o.hook != nil {
		rdb.AddHook(o.hook)
	}
	return rdb
}

func network(addr string) string {
	if strings.HasPrefix(addr, "/") {
		return "unix"
	}
	return "tcp"
}

// pause waits for d or until ctx ends, whose error it then returns.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// now is Redis's clock in milliseconds since the Unix epoch: the only clock that
// decides anything across processes.
func (q *Queue) now(ctx context.Context) (int64, error) {
	t, err := q.rdb.Time(ctx).Result()
	if err != nil {
		return 0, fmt.Errorf("redis time: %w", err)
	}
	return t.UnixMilli(), nil
}
