package queue

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/alicebob/miniredis/v2"

	"github.com/sluicemail/sluice/internal/mail"
)

// tellAll gives letters to the breakers of a campaign, up to each bad one in a call, and
// returns how many were told when it was held, and why.
func tellAll(t testing.TB, q *Queue, c *Campaign, letters ...string) (told int, why string) {
	t.Helper()
	for _, part := range letters {
		for rest := part; rest != ""; {
			n := strings.IndexAny(rest, "hbBu") + 1
			if n == 0 {
				n = len(rest)
			}
			w := q.wireWindow(c, c.ID, &windowResults{letters: []byte(rest[:n])})
			rest = rest[n:]
			told += n
			held, err := q.judge(t.Context(), c.Stream, []wireWindow{w})
			if err != nil {
				t.Fatal(err)
			}
			if len(held) > 0 {
				h, err := decodeHold(held[1])
				if err != nil || held[0] != c.ID {
					t.Fatalf("%v, %v", held, err)
				}
				return told, h.Why
			}
		}
	}
	return told, ""
}

func TestBreakers(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		letters string
		told    int // when it is held; 0 = never
		why     string
	}{
		"a fifth is invalid":           {strings.Repeat("aaaah", 100), 30, "6 hard bounces in 30 results; the limit is 5%, of at least 100"},
		"all are invalid":              {strings.Repeat("h", 100), 6, "6 hard bounces in 6 results"},
		"a bad beginning":              {"hhhhh" + strings.Repeat("a", 600), 0, ""},
		"4 % for ever":                 {strings.Repeat(strings.Repeat("a", 24)+"h", 80), 0, ""},
		"5 % for ever":                 {strings.Repeat(strings.Repeat("a", 19)+"h", 100), 0, ""},
		"gets bad late":                {strings.Repeat("a", 600) + strings.Repeat("h", 100), 626, "26 hard bounces in 500 results"},
		"long ago":                     {strings.Repeat("a", 500) + strings.Repeat("h", 25) + strings.Repeat("a", 500) + strings.Repeat("h", 25), 0, ""},
		"three blocks in fifty":        {"aBaa" + strings.Repeat("a", 40) + "BaaaB", 49, "3 blocks in the last 49 results; the limit is 3 of 50"},
		"three blocks in fifty-one":    {"B" + strings.Repeat("a", 49) + "BB", 0, ""},
		"five blocks in ten minutes":   {strings.Repeat("B"+strings.Repeat("a", 60), 5), 245, "5 blocks in 10 minutes"},
		"blocks that groups see to":    {strings.Repeat("bbaa"+strings.Repeat("a", 96), 9), 0, ""},
		"blocks over many groups":      {strings.Repeat("baaaa", 20), 26, "6 blocks in 26 results"},
		"a relay restarts":             {strings.Repeat("a", 300) + strings.Repeat("u", 20) + strings.Repeat("a", 300), 0, ""},
		"a fifth is unknown":           {strings.Repeat("aaaau", 100), 105, "21 unknown outcomes in 105 results"},
		"deferred and refused content": {strings.Repeat("o", 1000), 0, ""},
	}
	eachRedis(t, func(t *testing.T, q *Queue) {
		for name, tc := range cases {
			told, why := tellAll(t, q, store(t, q, name, 1, 3), tc.letters)
			if tc.told == 0 && why != "" || tc.told != 0 && (told != tc.told || !strings.HasPrefix(why, tc.why)) {
				t.Errorf("%s: held after %d: %q; want after %d: %q", name, told, why, tc.told, tc.why)
			}
		}
	})
}

// Blocks long ago do not count towards those of ten minutes.
func TestOldBlocksLapse(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 3)
		gap := strings.Repeat("a", 60)
		tellAll(t, q, c, "B"+gap, "B"+gap, "B"+gap, "B"+gap)
		key := q.keys.window(mail.Ad, c.ID)
		times := strings.Fields(q.rdb.HGet(t.Context(), key, "t").Val())
		if len(times) != 4 {
			t.Fatalf("times of blocks: %v", times)
		}
		times[0] = fmt.Sprint(time.Now().Add(-11 * time.Minute).UnixMilli())
		q.rdb.HSet(t.Context(), key, "t", strings.Join(times, " "))
		if _, why := tellAll(t, q, c, "B"+gap); why != "" {
			t.Errorf("the first was 11 minutes ago, and yet %s", why)
		}
		if _, why := tellAll(t, q, c, "B"); why == "" {
			t.Error("five within ten minutes hold nothing")
		}
	})
}

// However results are cut into calls, the decision is the same: that of a plain count.
func TestBreakersDoNotCareAboutBatches(t *testing.T) {
	t.Parallel()
	q := open(t, miniredis.RunT(t).Addr())
	c := store(t, q, "spring", 1, 3)
	rapid.Check(t, func(r *rapid.T) {
		q.breakers = Breakers{
			Campaign: Limits{Bounced: Limit{0.2, 40, 10}, Unknown: Limit{0.3, 20, 5}, Blocked: Limit{0.25, 30, 12}},
			Blocks:   Blocks{Few: 2, Of: 6}, Period: time.Hour, Most: time.Hour,
		}
		letters := []byte(rapid.StringOfN(rapid.SampledFrom([]rune("aaaaaaaaaahbBuo")), 1, 120, -1).Draw(r, "letters"))
		q.rdb.Del(t.Context(), q.keys.held(mail.Ad), q.keys.window(mail.Ad, c.ID))
		want := q.breakers.model(letters)
		got := byte(0)
		for rest := letters; len(rest) > 0 && got == 0; {
			n := rapid.IntRange(1, len(rest)).Draw(r, "batch")
			held, err := q.judge(t.Context(), mail.Ad, []wireWindow{q.wireWindow(c, c.ID, &windowResults{letters: rest[:n]})})
			if err != nil {
				r.Fatal(err)
			}
			rest = rest[n:]
			if len(held) > 0 {
				for name, letter := range map[string]byte{"bounces": 'h', "blocks": 'b', "unknown": 'u'} {
					if strings.Contains(held[1], name) {
						got = letter
					}
				}
			}
		}
		if got != want {
			r.Fatalf("%s: held for %q, want %q", letters, got, want)
		}
	})
}

// model judges letters one by one, with nothing kept but the letters.
func (b Breakers) model(letters []byte) byte {
	tail := func(n, of int) []byte { return letters[max(0, n-of):n] }
	count := func(in []byte, set string) (k int) {
		for _, l := range in {
			if strings.IndexByte(set, l) >= 0 {
				k++
			}
		}
		return k
	}
	for n := 1; n <= len(letters); n++ {
		letter := letters[n-1]
		if letter == 'B' && count(tail(n, b.Blocks.Of), "B") >= b.Blocks.Few {
			return 'b'
		}
		for kind, l := range map[byte]Limit{'h': b.Campaign.Bounced, 'b': b.Campaign.Blocked, 'u': b.Campaign.Unknown} {
			set := string(kind)
			if kind == 'b' {
				set = "bB"
			}
			last := tail(n, l.Of)
			if strings.IndexByte(set, letter) >= 0 && float64(count(last, set)) > l.Share*float64(max(len(last), l.Least)) {
				return kind
			}
		}
	}
	return 0
}

// Resuming begins the count anew, after an operator's pause too.
func TestResumeForgetsResults(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 500)
		for range 3 {
			if _, why := tellAll(t, q, c, "hhhhh"); why != "" {
				t.Error(why)
			}
			if err := q.Pause(t.Context(), c, "test"); err != nil {
				t.Fatal(err)
			}
			if err := q.Resume(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// What several workers see adds up, and one decision holds for all of them.
func TestResultsOfTheFleet(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 500)
		one, two := join(t, q, Hooks{}), join(t, q, Hooks{})
		for i := range 30 {
			m := []*Member{one, two}[i%2]
			m.Result(c, "", ResultAccepted, "")
			if i%5 == 0 {
				m.Result(c, "", ResultBounced, fmt.Sprintf("550 5.1.1 <r%d@example.com> unknown", i))
			}
		}
		for _, m := range []*Member{one, two} {
			eventually(t, "the campaign is held for both", func() bool { _, ok := m.Held(mail.Ad, c.ID); return ok })
		}
		h, err := q.heldBy(t.Context(), c)
		if err != nil || h == nil || h.State != HoldHeld || !strings.Contains(h.Why, "6 hard bounces") || h.Lift != "sluice campaign resume spring" {
			t.Fatalf("%+v, %v", h, err)
		}
		if len(h.Examples) != 3 || !strings.HasPrefix(h.Examples[0], "550 5.1.1 <r***@example.com>") {
			t.Errorf("examples %q", h.Examples)
		}
		if s := summary(t, q, c); s.State(time.Now()) != HoldHeld {
			t.Errorf("state %s", s.State(time.Now()))
		}
		// What comes in from mail already begun is not counted; resuming begins anew.
		if _, why := tellAll(t, q, c, "hhhhhhhhhh"); why != "" {
			t.Errorf("held while held: %s", why)
		}
		if err := q.Resume(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if told, why := tellAll(t, q, c, "hhhhhhhhhh"); told != 6 {
			t.Errorf("after resuming: held after %d, %s", told, why)
		}
		if err := q.Cancel(t.Context(), c, "test"); err != nil {
			t.Fatal(err)
		}
		tellAll(t, q, c, strings.Repeat("h", 50))
		if h, _ := q.heldBy(t.Context(), c); h.State != HoldCancelled {
			t.Errorf("a breaker has lifted a cancellation: %+v", h)
		}
	})
}

// A block narrows down to its group where there is one, and one group holds no other.
func TestBlockedGroup(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c, other := store(t, q, "spring", 1, 500), store(t, q, "summer", 1, 1)
		m := join(t, q, Hooks{})
		m.Result(c, "naver", ResultBlocked, "550 5.7.1 blocked")
		m.Result(c, "kakao", ResultBlocked, "550 5.7.1 blocked")
		m.Result(other, "naver", ResultBlocked, "554 blocked") // of a campaign of one
		m.Result(c, "kakao", ResultBlocked, "550 5.7.1 blocked")
		if err := m.tell(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, group := range []string{"naver", "kakao"} {
			if h, ok := m.HeldGroup(mail.Ad, group); ok {
				t.Errorf("two blocks hold %s: %+v", group, h)
			}
		}
		m.Result(c, "naver", ResultBlocked, "550 5.7.1 blocked")
		if err := m.tell(t.Context()); err != nil {
			t.Fatal(err)
		}
		h, ok := m.HeldGroup(mail.Ad, "naver") // without waiting for a heartbeat
		if !ok || h.Until.Sub(h.Since) != time.Hour || len(h.Examples) != 3 {
			t.Errorf("%+v, %v", h, ok)
		}
		if _, ok := m.HeldGroup(mail.Ad, "kakao"); ok {
			t.Error("the other group is held")
		}
		if h, ok := m.Held(mail.Ad, c.ID); ok {
			t.Errorf("the campaign is held: %+v", h)
		}
		for range 3 {
			m.Result(c, "", ResultBlocked, "550 5.7.1 blocked")
		}
		if err := m.tell(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, ok := m.Held(mail.Ad, c.ID); !ok {
			t.Error("blocks of nobody's group hold nothing")
		}
	})
}

// One recipient's reply never stops a campaign, nor do a few.
func TestSmallCampaignsAreNotJudged(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "code", 1, 1)
		m := silent(t, q)
		m.Result(c, "", ResultBlocked, "550 blocked")
		if len(m.books.campaigns) != 0 {
			t.Error("a campaign of one is judged")
		}
	})
}

// What cannot be told is told later, and Redis being gone for long costs no memory.
func TestResultsOutliveAnOutage(t *testing.T) {
	t.Parallel()
	srv := miniredis.RunT(t)
	q := open(t, srv.Addr())
	c := store(t, q, "spring", 1, 500)
	m := silent(t, q)
	srv.SetError("LOADING")
	for i := range 6 {
		m.Result(c, "", ResultBounced, fmt.Sprintf("550 %d", i))
		if err := m.tell(t.Context()); err == nil {
			t.Fatal("told although redis refuses")
		}
	}
	srv.SetError("")
	if err := m.tell(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h, ok := m.Held(mail.Ad, c.ID); !ok || !slices.Equal(h.Examples, []string{"550 3", "550 4", "550 5"}) {
		t.Errorf("%+v, %v", h, ok)
	}
	if err := q.Resume(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	srv.SetError("LOADING")
	for range 2 * maxWindow {
		m.Result(c, "", ResultAccepted, "")
	}
	if n := len(m.books.campaigns[c.ID].windows[c.ID].letters); n > maxWindow {
		t.Errorf("%d letters are kept", n)
	}
	for i := range 60 {
		m.Result(c, "", ResultBounced, fmt.Sprintf("551 %d", i))
		if i == 30 {
			if err := m.tell(t.Context()); err == nil {
				t.Fatal("told although redis refuses")
			}
		}
	}
	srv.SetError("")
	if err := m.tell(t.Context()); err != nil {
		t.Fatal(err)
	}
	h, ok := m.Held(mail.Ad, c.ID)
	if !ok || !slices.Equal(h.Examples, []string{"551 57", "551 58", "551 59"}) {
		t.Errorf("%+v, %v", h, ok)
	}
}

func TestBreakersCheck(t *testing.T) {
	t.Parallel()
	good := DefaultBreakers()
	if err := good.check(); err != nil {
		t.Error(err)
	}
	if err := (Breakers{Period: 1e9, Most: 1e9}).check(); err != nil {
		t.Errorf("all off: %v", err)
	}
	for want, change := range map[string]func(*Breakers){
		"campaign bounced: share":    func(b *Breakers) { b.Campaign.Bounced.Share = 1 },
		"campaign blocked: share":    func(b *Breakers) { b.Campaign.Blocked.Share = -0.1 },
		"campaign unknown: at least": func(b *Breakers) { b.Campaign.Unknown.Of = maxWindow + 1 },
		"group bounced: at least":    func(b *Breakers) { b.Group.Bounced.Least = 501 },
		"one reply would decide":     func(b *Breakers) { b.Group.Unknown = Limit{0.05, 10, 10} },
		"breaker on blocks: 5":       func(b *Breakers) { b.Blocks.Within = 0 },
		"breaker on blocks: 51":      func(b *Breakers) { b.Blocks.Few = 51 },
		"hold of a group":            func(b *Breakers) { b.Most = time.Minute },
	} {
		b := DefaultBreakers()
		change(&b)
		if _, err := Open(Options{Connection: Connection{Addrs: []string{"x"}}, Breakers: &b}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// A list of which a fifth is bad is stopped long before it does harm.
func TestBadListIsStoppedEarly(t *testing.T) {
	t.Parallel()
	q := open(t, miniredis.RunT(t).Addr())
	c := store(t, q, "spring", 1, 3)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var letters strings.Builder
		for range 2000 {
			letters.WriteByte("aaaah"[rng.IntN(5)])
		}
		told, why := tellAll(t, q, c, letters.String())
		if why == "" || told > 200 {
			t.Errorf("held after %d: %q", told, why)
		}
		if err := q.Resume(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkResult(b *testing.B) {
	q := open(b, miniredis.RunT(b).Addr())
	m, err := q.Join(b.Context(), Hooks{})
	if err != nil {
		b.Fatal(err)
	}
	defer m.close()
	c := &Campaign{ID: "c", Stream: mail.Ad, Counts: Door{Recipients: 1000}}
	for b.Loop() {
		m.Result(c, "naver", ResultAccepted, "")
	}
}
