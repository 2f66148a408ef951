package queue

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/alicebob/miniredis/v2"
)

// A Redis that refuses a login answers: whoever reads the error is not to look for one
// that is down. It counts as unreachable all the same, since it may be mended there.
func TestRefusedLogin(t *testing.T) {
	t.Parallel()
	const password = "wr0ng-s3cret"
	for name, tc := range map[string]struct {
		with   Connection
		refuse func(*miniredis.Miniredis)
		want   []string
	}{
		"no password":    {Connection{}, func(m *miniredis.Miniredis) { m.RequireAuth("right") }, []string{"NOAUTH", "refuses the login", "the password in redis.url"}},
		"wrong password": {Connection{Password: password}, func(m *miniredis.Miniredis) { m.RequireAuth("right") }, []string{"WRONGPASS", "refuses the login"}},
		"wrong user":     {Connection{Username: "u", Password: password}, func(m *miniredis.Miniredis) { m.RequireUserAuth("v", "right") }, []string{"WRONGPASS", "refuses the login"}},
		"no permission": {Connection{}, func(m *miniredis.Miniredis) {
			m.SetError("NOPERM User default has no permissions to run the 'ping' command")
		}, []string{"NOPERM", "does not allow its user this", "ACL SETUSER"}},
		"away": {Connection{Password: password}, (*miniredis.Miniredis).Close, []string{"redis does not answer at", "is it running"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := miniredis.RunT(t)
			addr := srv.Addr()
			tc.with.Addrs = []string{addr}
			q, err := Open(Options{Connection: tc.with})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = q.Close() })
			tc.refuse(srv)
			err = q.Ping(t.Context())
			if !errors.Is(err, ErrUnreachable) {
				t.Fatalf("%v, want ErrUnreachable", err)
			}
			for _, want := range append(tc.want, addr) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in %q", want, err)
				}
			}
			if away := strings.Contains(err.Error(), "does not answer"); away != (name == "away") || strings.Contains(err.Error(), password) {
				t.Errorf("%q", err)
			}
		})
	}
}

// Who waits for Redis says what for, once for each reason, and goes on once the login
// is mended on the side of Redis.
func TestWaitForLogin(t *testing.T) {
	t.Parallel()
	srv := miniredis.RunT(t)
	var log syncBuffer
	q, err := Open(Options{Connection: Connection{Addrs: []string{srv.Addr()}, Password: "s3cret"}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	srv.RequireAuth("other")
	done := make(chan error, 1)
	go func() { done <- q.Wait(t.Context()) }()
	eventually(t, "it waits for a login", func() bool { return strings.Contains(log.String(), "refuses the login") })
	srv.Close()
	eventually(t, "it waits for a server", func() bool { return strings.Contains(log.String(), "redis does not answer") })
	srv.RequireAuth("s3cret")
	if err := srv.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := log.String(); strings.Count(got, "waiting for redis") != 2 || strings.Contains(got, "s3cret") {
		t.Errorf("logged\n%s", got)
	}
}

// syncBuffer may be read while a log is written to it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
