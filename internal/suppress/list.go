package suppress

import (
	"context"
	_ "embed" // the scripts
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
)

//go:embed lua/add.lua
var addLua string

//go:embed lua/remove.lua
var removeLua string

//go:embed lua/keep.lua
var keepLua string

// buckets is how many hashes the addresses are spread over. It is part of what is
// stored and can never change.
const buckets = 1 << 14

// batchSize is how many addresses go into one script or pipeline: a script of that
// many keeps Redis from others for a millisecond or two.
const batchSize = 500

// List is one installation's suppression list. It is safe for concurrent use.
type List struct {
	rdb               redis.UniversalClient
	prefix            string // of every key, up to the colon behind the hash tag
	add, remove, keep *redis.Script

	mu    sync.Mutex
	texts map[uint32]string // guarded by mu: those known to be kept in Redis under their number
}

// New returns the list kept under prefix in rdb. It sends nothing.
func New(rdb redis.UniversalClient, prefix string) *List {
	return &List{
		rdb: rdb, prefix: prefix + ":{u}:", texts: map[uint32]string{},
		add: redis.NewScript(addLua), remove: redis.NewScript(removeLua), keep: redis.NewScript(keepLua),
	}
}

func (l *List) metaKey() string  { return l.prefix + "meta" }  // hash: n = addresses, v = version
func (l *List) textsKey() string { return l.prefix + "texts" } // hash: number → reason or detail

// bucketKey is the hash that holds an address, by its key. The function is part of what
// is stored: FNV-1a of 32 bits, folded to 14.
func (l *List) bucketKey(key string) string {
	h := uint32(2166136261)
	for i := 0; i < len(key); i++ {
		h = (h ^ uint32(key[i])) * 16777619
	}
	return l.bucket(int((h >> 18) ^ (h & (buckets - 1))))
}

func (l *List) bucket(n int) string {
	const digits = "0123456789abcdef"
	return l.prefix + string([]byte{digits[n>>12], digits[n>>8&15], digits[n>>4&15], digits[n&15]})
}

// Change says what Add did with an entry.
type Change uint8

// The changes.
const (
	Added   Change = 'a' // there was no entry of this scope for the address
	Earlier Change = 'e' // it took the place of a later one, reason and all
	Known   Change = 'k' // an earlier one, or one of the same second, stands as it was
)

// Add puts entries on the list and says for each what that changed. An entry that is
// not as Entry wants it is an error, and none of the entries is added then.
func (l *List) Add(ctx context.Context, entries ...Entry) ([]Change, error) {
	ready, undated := make([]Entry, len(entries)), false
	for i, e := range entries {
		p, err := e.prepared()
		if err != nil {
			return nil, fmt.Errorf("entry %d for %s: %w", i+1, e.Address.Masked(), err)
		}
		ready[i] = p
		undated = undated || p.Time.IsZero()
	}
	if undated {
		now, err := l.rdb.Time(ctx).Result()
		if err != nil {
			return nil, fmt.Errorf("add to suppression list: %w", err)
		}
		for i := range ready {
			if ready[i].Time.IsZero() {
				ready[i].Time = now
			}
		}
	}
	changes := make([]Change, 0, len(entries))
	for len(ready) > 0 {
		n := min(batchSize, len(ready))
		said, err := l.addBatch(ctx, ready[:n])
		if err != nil {
			return nil, fmt.Errorf("add to suppression list: %w", err)
		}
		changes = append(changes, said...)
		ready = ready[n:]
	}
	return changes, nil
}

func (l *List) addBatch(ctx context.Context, entries []Entry) ([]Change, error) {
	records, err := l.encode(ctx, entries)
	if err != nil {
		return nil, err
	}
	keys, args := make([]string, 1, 1+len(entries)), make([]any, 0, 2*len(entries))
	keys[0] = l.metaKey()
	for i, e := range entries {
		key := e.Address.Key()
		keys = append(keys, l.bucketKey(key))
		args = append(args, key, records[i])
	}
	said, err := l.add.Run(ctx, l.rdb, keys, args...).Text()
	if err != nil {
		return nil, err
	}
	if len(said) != len(entries) {
		return nil, fmt.Errorf("%d answers for %d entries", len(said), len(entries))
	}
	changes := make([]Change, len(said))
	for i := range changes {
		changes[i] = Change(said[i])
	}
	return changes, nil
}

// Remove takes the entries of exactly this scope off the list and returns what they
// were. An entry of another scope stays, and may go on to bar the address: Find tells.
func (l *List) Remove(ctx context.Context, scope Scope, addresses ...mail.Address) ([]Entry, error) {
	var removed []Entry
	for len(addresses) > 0 {
		part := addresses[:min(batchSize, len(addresses))]
		addresses = addresses[len(part):]
		keys, args := []string{l.metaKey()}, []any{int(scope)}
		for _, a := range part {
			key := a.Key()
			keys, args = append(keys, l.bucketKey(key)), append(args, key)
		}
		before, err := l.remove.Run(ctx, l.rdb, keys, args...).StringSlice()
		if err == nil && len(before) != len(part) {
			err = fmt.Errorf("%d answers for %d addresses", len(before), len(part))
		}
		if err != nil {
			return removed, fmt.Errorf("remove from suppression list: %w", err)
		}
		all, err := l.decode(ctx, part, before)
		if err != nil {
			return removed, fmt.Errorf("removed, but not read: %w", err)
		}
		for _, entries := range all {
			for _, e := range entries {
				if e.Scope == scope {
					removed = append(removed, e)
				}
			}
		}
	}
	return removed, nil
}

// Find returns all entries of each address, those for all streams first.
func (l *List) Find(ctx context.Context, addresses ...mail.Address) ([][]Entry, error) {
	values, err := l.values(ctx, addresses)
	if err != nil {
		return nil, err
	}
	return l.decode(ctx, addresses, values)
}

// Hit is an address that gets no mail.
type Hit struct {
	Index int // among the addresses asked about
	Entry Entry
}

// Check returns which of the addresses get no mail of the stream, and why, by rising
// index. It asks Redis once for each 500 addresses.
func (l *List) Check(ctx context.Context, s mail.Stream, addresses []mail.Address) ([]Hit, error) {
	scope, err := scopeOf(s)
	if err != nil {
		return nil, err
	}
	values, err := l.values(ctx, addresses)
	if err != nil {
		return nil, err
	}
	var at []int
	var who []mail.Address
	var what []string
	for i, v := range values {
		if v != "" {
			at, who, what = append(at, i), append(who, addresses[i]), append(what, v)
		}
	}
	all, err := l.decode(ctx, who, what)
	if err != nil {
		return nil, err
	}
	var hits []Hit
	for i, entries := range all {
		for _, e := range entries {
			if e.Scope.bars(scope) {
				hits = append(hits, Hit{at[i], e})
				break
			}
		}
	}
	return hits, nil
}

// values reads what is stored for the addresses, "" where there is nothing.
func (l *List) values(ctx context.Context, addresses []mail.Address) ([]string, error) {
	values := make([]string, 0, len(addresses))
	for len(addresses) > 0 {
		part := addresses[:min(batchSize, len(addresses))]
		addresses = addresses[len(part):]
		pipe := l.rdb.Pipeline()
		asked := make([]*redis.StringCmd, len(part))
		for i, a := range part {
			key := a.Key()
			asked[i] = pipe.HGet(ctx, l.bucketKey(key), key)
		}
		if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
			return nil, fmt.Errorf("read suppression list: %w", err)
		}
		for _, c := range asked {
			v, err := c.Result()
			if err != nil && !errors.Is(err, redis.Nil) {
				return nil, fmt.Errorf("read suppression list: %w", err)
			}
			values = append(values, v)
		}
	}
	return values, nil
}

// Count returns the number of addresses on the list, of whatever scope.
func (l *List) Count(ctx context.Context) (int, error) {
	n, err := l.meta(ctx, "n")
	return int(n), err
}

// Version returns a number that rises with every change: who keeps it can tell for
// one cheap call whether what was checked has to be checked again. It is 0 as long as
// nobody was ever on the list. After Redis came back from an older copy it may be any
// other number than before: compare for being different.
func (l *List) Version(ctx context.Context) (int64, error) { return l.meta(ctx, "v") }

// Empty reports whether nobody is on the list.
func (l *List) Empty(ctx context.Context) (bool, error) {
	n, err := l.Count(ctx)
	return n == 0, err
}

func (l *List) meta(ctx context.Context, field string) (int64, error) {
	s, err := l.rdb.HGet(ctx, l.metaKey(), field).Result()
	if errors.Is(err, redis.Nil) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read suppression list: %w", err)
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("suppression list: field %s of %s is no number", field, l.metaKey())
	}
	return n, nil
}

// seconds is t as it is stored.
func seconds(t time.Time) uint32 { return uint32(t.Unix()) }
