package suppress

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// eachRedis runs a test on miniredis and on a real server.
func eachRedis(t *testing.T, f func(t *testing.T, l *List)) {
	t.Run("miniredis", func(t *testing.T) {
		t.Parallel()
		f(t, open(t, miniredis.RunT(t).Addr()))
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		f(t, open(t, redistest.Start(t).Addr()))
	})
}

// quick is a list on miniredis.
func quick(t testing.TB) *List { return open(t, miniredis.RunT(t).Addr()) }

func open(t testing.TB, addr string) *List {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = rdb.Close() })
	return New(rdb, "test")
}

func address(t testing.TB, s string) mail.Address {
	t.Helper()
	a, err := mail.ParseAddress(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return a
}

func addresses(t testing.TB, list ...string) (out []mail.Address) {
	t.Helper()
	for _, s := range list {
		out = append(out, address(t, s))
	}
	return out
}

// add adds entries that must be right.
func add(t testing.TB, l *List, entries ...Entry) string {
	t.Helper()
	changes, err := l.Add(context.Background(), entries...)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, c := range changes {
		b.WriteByte(byte(c))
	}
	return b.String()
}

// person makes up an address as Korean customers have them: 22 characters on average.
func person(r *rand.Rand, n int) string {
	names := strings.Fields("minji jiwoo seoyeon hyunwoo jimin sujin younghee junho eunji taehyung dahye sunwoo kim lee park choi jung kang happy angel sky star coffee")
	domains := strings.Fields("naver.com naver.com naver.com naver.com gmail.com gmail.com hanmail.net hanmail.net daum.net nate.com kakao.com sample-company.co.kr")
	sep := []string{"", "", "_", "."}[r.IntN(4)]
	return fmt.Sprintf("%s%s%s%d@%s", names[r.IntN(len(names))], sep, names[r.IntN(len(names))], n%100000, domains[r.IntN(len(domains))])
}
