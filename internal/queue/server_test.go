package queue

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/redistest"
)

func TestCheckServer(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args     []string
		want     Durability
		err      string // part of the error
		warnings int
	}{
		"as it should be":     {nil, KeepSeconds, "", 0},
		"fsync":               {[]string{"--appendfsync", "always"}, KeepEverytime, "", 0},
		"synced each second":  {nil, KeepEverytime, "set appendfsync always", 0},
		"never synced":        {[]string{"--appendfsync", "no"}, KeepEverytime, "its appendfsync is no", 0},
		"not while rewriting": {[]string{"--appendfsync", "always", "--no-appendfsync-on-rewrite", "yes"}, KeepEverytime, "no-appendfsync-on-rewrite no", 0},
		"no CONFIG, fsync":    {[]string{"--rename-command", "CONFIG", ""}, KeepEverytime, "", 1},
		"ACL, fsync":          {[]string{"--user", "default", "on", "nopass", "~*", "&*", "+@all", "-config"}, KeepEverytime, "", 1},
		"ACL":                 {[]string{"--user", "default", "on", "nopass", "~*", "&*", "+@all", "-config"}, KeepSeconds, "", 0},
		"evicts":              {[]string{"--maxmemory-policy", "allkeys-lru"}, KeepSeconds, "maxmemory-policy noeviction", 0},
		"evicts, memory":      {[]string{"--maxmemory-policy", "volatile-ttl"}, KeepNothing, "volatile-ttl", 0},
		"no file":             {[]string{"--appendonly", "no"}, KeepSeconds, "appendonly yes", 0},
		"no file, fsync":      {[]string{"--appendonly", "no"}, KeepEverytime, "redis.durability is fsync", 0},
		"no file, memory":     {[]string{"--appendonly", "no"}, KeepNothing, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			warnings, err := open(t, redistest.Start(t, tc.args...).Addr()).CheckServer(t.Context(), tc.want)
			if len(warnings) != tc.warnings {
				t.Errorf("warnings: %q", warnings)
			}
			if tc.err == "" && err != nil || tc.err != "" && (!errors.Is(err, ErrServer) || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("%v", err)
			}
		})
	}
}

// A server that does not tell, or may not be asked, is warned of and not refused.
func TestCheckServerThatDoesNotTell(t *testing.T) {
	t.Parallel()
	srv := miniredis.RunT(t)
	q := open(t, srv.Addr())
	for _, refusal := range []string{"", "NOPERM this user has no permissions to run the 'info' command"} {
		srv.SetError(refusal)
		if warnings, err := q.CheckServer(t.Context(), KeepSeconds); err != nil || len(warnings) != 2 {
			t.Errorf("%q: %q, %v", refusal, warnings, err)
		}
		if err := q.room(t.Context()); err != nil {
			t.Errorf("%q: %v", refusal, err)
		}
	}
	srv.Close()
	if _, err := q.CheckServer(t.Context(), KeepNothing); !errors.Is(err, ErrUnreachable) {
		t.Errorf("no answer: %v", err)
	}
}

// incompressible makes block n of a list that does not compress well.
func incompressible(n, size int) *Block {
	b := slice(n, size)
	b.Values = [][]string{make([]string, size)}
	x := uint64(n) + 1
	for i := range size {
		var v strings.Builder
		for range 8 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			fmt.Fprintf(&v, "%016x", x)
		}
		b.Values[0][i] = v.String()
	}
	return b
}

// Producers are refused while there is still room for what the workers write.
func TestFull(t *testing.T) {
	t.Parallel()
	q := open(t, redistest.Start(t, "--maxmemory", "24mb").Addr())
	st, err := q.Stage(t.Context(), Campaign{Name: "large", Key: "large", Stream: mail.Ad, From: "s@example.com", Size: 500}, nil)
	if err != nil {
		t.Fatal(err)
	}
	stored := 0
	for ; err == nil; stored++ {
		err = st.Put(t.Context(), stored, incompressible(stored, 500))
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("after %d blocks: %v", stored, err)
	}
	info, err := q.info(t.Context(), "memory")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("refused after %d blocks, used %s of %s", stored, info["used_memory"], info["maxmemory"])
	stored--
	for most := stored; stored > most-4; stored-- { // lest the look at the end's room be in between
		q.rdb.Del(t.Context(), q.keys.recipients(st.c.ID, stored))
	}
	if err := st.Commit(t.Context(), stored, 0, Door{Recipients: stored * 500}); err != nil {
		t.Fatal(err)
	}
	filler := strings.Repeat("x", 1<<20)
	for q.room(t.Context()) == nil {
		q.rdb.Append(t.Context(), "filler", filler)
	}
	if _, err := q.Stage(t.Context(), Campaign{Name: "next", Key: "next", Stream: mail.Ad, From: "s@example.com", Size: 500}, nil); !errors.Is(err, ErrFull) {
		t.Errorf("the next campaign: %v", err)
	}
	if _, err := q.Find(t.Context(), "next"); !errors.Is(err, ErrNoCampaign) {
		t.Errorf("something of it was stored: %v", err)
	}
	again, err := q.Stage(t.Context(), *st.c, nil)
	if err != nil || !again.Existing {
		t.Errorf("the same send again needs no room: %+v, %v", again, err)
	}
	m := join(t, q, Hooks{})
	for n := range stored {
		cl := claim(t, m, st.c, n)
		for i := range cl.Standings {
			m.Record(m.Declare(cl, i), mail.Accepted, mail.Reply{Code: 250, Text: fmt.Sprintf("2.0.0 Ok: queued as %x", i*7919)}, 0)
		}
		settle(t, m, cl)
	}
	if s := summary(t, q, st.c); s.Count(mail.Accepted) != stored*500 {
		t.Errorf("not all was sent: %v", s.Outcomes)
	}
}

// What Redis itself refuses for want of memory is the same to a producer.
func TestFullToTheBrim(t *testing.T) {
	t.Parallel()
	srv := miniredis.RunT(t)
	q := open(t, srv.Addr())
	st := staged(t, q, "d")
	srv.SetError("OOM command not allowed when used memory > 'maxmemory'.")
	if err := st.Put(t.Context(), 0, slice(0, 1)); !errors.Is(err, ErrFull) {
		t.Errorf("%v", err)
	}
	srv.SetError("LOADING Redis is loading the dataset in memory")
	if err := st.Put(t.Context(), 0, slice(0, 1)); err == nil || errors.Is(err, ErrFull) {
		t.Errorf("%v", err)
	}
}
