package producer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/suppress"
)

// barred is a suppression list in memory, of addresses for all streams.
type barred struct {
	mu     sync.Mutex
	who    map[string]bool
	err    error
	checks int
	asked  func(n int) // called at the n-th check, from 1
}

func (b *barred) Empty(context.Context) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.who) == 0, nil
}

func (b *barred) Check(_ context.Context, _ mail.Stream, addresses []mail.Address) (hits []suppress.Hit, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.checks++
	if b.asked != nil {
		b.asked(b.checks)
	}
	for i, a := range addresses {
		if b.who[a.Key()] {
			hits = append(hits, suppress.Hit{Index: i, Entry: suppress.Entry{Address: a, Reason: "gone", Source: suppress.ByVerdict, Time: time.Unix(1e9, 0)}})
		}
	}
	return hits, b.err
}

func bar(addresses ...string) *barred {
	b := &barred{who: map[string]bool{}}
	for _, a := range addresses {
		b.who[a] = true
	}
	return b
}

// people is a list of n good rows with a duplicate and an invalid row behind each 100.
func people(n int) (text string, want queue.Door) {
	var b strings.Builder
	b.WriteString("email,name\n")
	for i := range n {
		fmt.Fprintf(&b, "r%d@example.com,n\n", i)
		want.Recipients++
		if i%100 == 99 {
			fmt.Fprintf(&b, "R%d@example.com,n\nnobody,n\n", i)
			want.Recipients, want.Duplicate, want.Invalid = want.Recipients+2, want.Duplicate+1, want.Invalid+1
		}
	}
	return b.String(), want
}

// Who is on the list is counted and stored as suppressed, with the reason, and everybody
// else is sent to: whatever the share, in full blocks and in the order of the list.
func TestSuppressed(t *testing.T) {
	t.Parallel()
	for name, on := range map[string]func(i int) bool{
		"nobody of them": func(int) bool { return false },
		"one":            func(i int) bool { return i == 0 },
		"a fifth":        func(i int) bool { return i%5 == 0 },
		"nearly all":     func(i int) bool { return i%500 != 3 },
		"all":            func(int) bool { return true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, _ := newQueue(t)
			n := 7*BlockSize + 123
			text, want := people(n)
			list, left := bar("somebody@else.kr"), 0
			for i := range n {
				if on(i) {
					list.who[fmt.Sprintf("r%d@example.com", i)] = true
					want.Suppressed++
				} else {
					left++
				}
			}
			r := request(t, text)
			r.Suppress = list
			res, err := Send(t.Context(), q, r)
			if err != nil {
				t.Fatal(err)
			}
			if res.Door != want || res.Campaign.Blocks != (left+BlockSize-1)/BlockSize {
				t.Errorf("%+v in %d blocks, want %+v", res.Door, res.Campaign.Blocks, want)
			}
			queued, refused, last := 0, 0, 0
			err = q.Rows(t.Context(), res.Campaign, func(row queue.Row) error {
				if row.Outcome == mail.Pending {
					queued++
				} else if refused++; refused == 1 {
					last = 0
				}
				if row.Line <= last {
					t.Errorf("line %d after %d", row.Line, last)
				}
				last = row.Line
				if suppressed := row.Outcome == mail.Suppressed; suppressed != (list.who[row.Address]) || suppressed && row.Reply.Text != "gone (on the suppression list since 2001-09-09, by verdict)" {
					t.Errorf("%+v", row)
				}
				return nil
			})
			if err != nil || queued != left || queued+refused != want.Recipients {
				t.Errorf("%d queued, %d refused, %v", queued, refused, err)
			}
			if list.checks > 9 {
				t.Errorf("asked %d times about %d rows", list.checks, want.Recipients)
			}
		})
	}
}

// Nobody on the list: it is not asked about anybody.
func TestEmptySuppression(t *testing.T) {
	t.Parallel()
	q, _ := newQueue(t)
	list := bar()
	r := request(t, "email,name\na@example.com,n\n")
	r.Suppress = list
	if res, err := Send(t.Context(), q, r); err != nil || res.Door.Queued() != 1 || list.checks != 0 {
		t.Errorf("%+v, %v, %d checks", res, err, list.checks)
	}
}

// A list that cannot be read stops the send, and nothing is left of it.
func TestSuppressionFails(t *testing.T) {
	t.Parallel()
	for _, rows := range []int{3, 10 * BlockSize} {
		q, srv := newQueue(t)
		text, _ := people(rows)
		r := request(t, text)
		list := bar("r1@example.com")
		list.err = errors.New("redis is gone")
		r.Suppress = list
		if _, err := Send(t.Context(), q, r); !errors.Is(err, list.err) || !strings.Contains(err.Error(), "nothing is sent unchecked") {
			t.Errorf("%v", err)
		}
		if keys := srv.Keys(); len(keys) != 0 {
			t.Errorf("left in redis: %v", keys)
		}
		if list.checks > asks+1 {
			t.Errorf("asked %d times of a list that fails", list.checks)
		}
	}
}

func TestCheckSuppressed(t *testing.T) {
	t.Parallel()
	text, want := people(700)
	r := request(t, text)
	r.Suppress = bar("r1@example.com", "r2@example.com", "r650@example.com", "r3@example.com", "r4@example.com", "r5@example.com", "r6@example.com")
	want.Suppressed = 7
	res, err := Check(t.Context(), r)
	if err != nil || res.Door != want {
		t.Errorf("%+v, %v", res, err)
	}
	n := map[mail.Outcome]int{}
	for _, f := range res.Faults {
		n[f.Outcome]++
	}
	if n[mail.Suppressed] != maxSuppressed || n[mail.Invalid] != 7 || n[mail.Duplicate] != 7 {
		t.Errorf("shown: %v", n)
	}
}

// A send that was made stays the same send, however the suppression list has changed.
func TestRepeatAfterSuppression(t *testing.T) {
	t.Parallel()
	q, _ := newQueue(t)
	text, _ := people(600)
	var first *Result
	for i, list := range []Suppression{bar("r1@example.com"), bar("r1@example.com", "r2@example.com"), bar(), nil} {
		r := request(t, text)
		r.Suppress = list
		res, err := Send(t.Context(), q, r)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = res
		}
		if res.Existing != (i > 0) || res.Campaign.ID != first.Campaign.ID || res.Door != first.Door {
			t.Errorf("turn %d: %+v", i, res)
		}
	}
	r := request(t, text)
	r.Name, r.Key, r.Suppress = "n", "k", bar()
	if _, err := Send(t.Context(), q, r); err != nil {
		t.Fatal(err)
	}
	other := request(t, text+"another@example.com,n\n")
	other.Name, other.Key, other.Suppress = "n", "k", bar("r1@example.com")
	var in *InputError
	if _, err := Send(t.Context(), q, other); !errors.As(err, &in) {
		t.Errorf("the key with another list: %v", err)
	}
}

// Two producers of one send see a list that changes between them: what they cut is not
// mixed. The one that began first is refused, and everybody is in the campaign once.
func TestTwoProducersAndSuppression(t *testing.T) {
	t.Parallel()
	q, _ := newQueue(t)
	text, _ := people(20 * BlockSize)
	second := request(t, text)
	second.Suppress = bar("r1@example.com")
	var res *Result
	list := bar("r1@example.com", "r2@example.com", "r3@example.com")
	list.asked = func(n int) {
		if n == 10 { // some of the first producer's blocks are stored by now
			var err error
			if res, err = Send(t.Context(), q, second); err != nil {
				t.Error(err)
			}
		}
	}
	first := request(t, text)
	first.Suppress = list
	if _, err := Send(t.Context(), q, first); !errors.Is(err, queue.ErrConflict) {
		t.Errorf("the first producer: %v", err)
	}
	seen := map[string]int{}
	err := q.Rows(t.Context(), res.Campaign, func(row queue.Row) error {
		if row.Outcome == mail.Pending || row.Outcome == mail.Suppressed {
			seen[row.Address]++
		}
		return nil
	})
	if err != nil || len(seen) != 20*BlockSize || res.Door.Suppressed != 1 {
		t.Errorf("%d of %d people, %+v, %v", len(seen), 20*BlockSize, res.Door, err)
	}
	for a, n := range seen {
		if n != 1 {
			t.Errorf("%s is in it %d times", a, n)
		}
	}
}

// An entry for advertising stops no login code; one for all streams does.
func TestSuppressedStreams(t *testing.T) {
	t.Parallel()
	q, srv := newQueue(t)
	rdb := redis.NewClient(&redis.Options{Addr: srv.Addr()})
	t.Cleanup(func() { _ = rdb.Close() })
	list := suppress.New(rdb, "sluice")
	for who, scope := range map[string]suppress.Scope{"ad@example.com": suppress.Ad, "gone@example.com": suppress.All, "Code@example.com": suppress.Auth} {
		a, err := mail.ParseAddress(who)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := list.Add(t.Context(), suppress.Entry{Address: a, Scope: scope, Source: suppress.ByOperator}); err != nil {
			t.Fatal(err)
		}
	}
	for stream, want := range map[mail.Stream]string{
		mail.Ad:     "2 ad@example.com suppressed, 3 gone@example.com suppressed, 4 code@example.com pending",
		mail.Auth:   "2 ad@example.com pending, 3 gone@example.com suppressed, 4 code@example.com suppressed",
		mail.Normal: "2 ad@example.com pending, 3 gone@example.com suppressed, 4 code@example.com pending",
	} {
		r := request(t, "email,name\nad@example.com,n\ngone@example.com,n\ncode@example.com,n\n")
		r.Name, r.Stream, r.Suppress = "to "+string(stream), stream, list
		res, err := Send(t.Context(), q, r)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(want, ", ") {
			if got := rows(t, q, res.Campaign); !strings.Contains(strings.Join(got, ","), line) {
				t.Errorf("%s: %q, want %s", stream, got, line)
			}
		}
	}
}

// BenchmarkSend enqueues 100,000 rows: without a suppression list, with an empty one,
// and with one of 300,000 others.
func BenchmarkSend(b *testing.B) {
	const n = 100_000
	text, want := people(n)
	for _, bc := range []struct {
		name   string
		listed int
	}{{"none", -1}, {"empty", 0}, {"300000", 300_000}} {
		b.Run(bc.name, func(b *testing.B) {
			srv := redistest.Start(b)
			q, err := queue.Open(queue.Options{Connection: queue.Connection{Addrs: []string{srv.Addr()}}})
			if err != nil {
				b.Fatal(err)
			}
			defer q.Close()
			rdb := redis.NewClient(&redis.Options{Addr: srv.Addr()})
			defer rdb.Close()
			list := suppress.New(rdb, "sluice")
			if bc.listed > 0 {
				var file strings.Builder
				file.WriteString("email\n")
				for i := range bc.listed {
					fmt.Fprintf(&file, "listed%d@example.com\n", i)
				}
				if _, err := list.Import(b.Context(), strings.NewReader(file.String()), suppress.Input{Name: "list.csv"}); err != nil {
					b.Fatal(err)
				}
			}
			turn := 0
			for b.Loop() {
				r := benchRequest(b, text)
				r.Name = fmt.Sprintf("c%d", turn)
				turn++
				if bc.listed >= 0 {
					r.Suppress = list
				}
				if res, err := Send(b.Context(), q, r); err != nil || res.Door != want {
					b.Fatalf("%+v, %v", res, err)
				}
			}
			b.ReportMetric(float64(want.Recipients*b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// benchRequest is a request whose list may be read as often as one likes.
func benchRequest(b *testing.B, text string) Request {
	r := request(b, text)
	r.List.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	return r
}
