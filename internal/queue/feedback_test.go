package queue

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"pgregory.net/rapid"

	"github.com/sluicemail/sluice/internal/mail"
)

// sent stores a campaign of n+100 recipients, the first n of whom the relay has accepted.
// Their lines begin with 2.
func sent(t testing.TB, q *Queue, name string, n int) *Campaign {
	t.Helper()
	c := store(t, q, name, 2, max(n, 100))
	m := silent(t, q)
	cl := claim(t, m, c, 0)
	for i := range n {
		accept(m, cl, i)
	}
	if err := m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	q.rdb.Del(t.Context(), q.keys.beats()) // nobody waits for what it obeys
	return c
}

// fateOf is one recipient a line.
func fateOf(f Fate, lines ...int) []Told {
	var out []Told
	for _, l := range lines {
		out = append(out, Told{Line: l, Fate: f, Text: fmt.Sprintf("550 a%d@b.kr is not wanted", l)})
	}
	return out
}

func lines(from, n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = from + i
	}
	return out
}

func feedback(t testing.TB, q *Queue, c *Campaign, told []Told) Heard {
	t.Helper()
	h, err := q.Feedback(t.Context(), c, told)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// What comes in afterwards is measured by all that was accepted, each recipient once.
func TestFeedback(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := sent(t, q, "spring", 400)
		for range 3 {
			if h := feedback(t, q, c, fateOf(Bounced, lines(2, 20)...)); h.Campaign != nil {
				t.Fatalf("5 %% hold it: %+v", h.Campaign)
			}
		}
		h := feedback(t, q, c, fateOf(Bounced, 22))
		if h.Campaign == nil || !strings.HasPrefix(h.Campaign.Why, "21 hard bounces in 400 accepted mails") ||
			len(h.Campaign.Examples) != 3 || strings.Contains(strings.Join(h.Campaign.Examples, ""), "22@b.kr") {
			t.Fatalf("%+v", h.Campaign)
		}
		if s := summary(t, q, c); s.State(time.Now()) != HoldHeld || s.Bounced != 21 || s.Delivered != 0 {
			t.Errorf("%s, %d bounced, %d delivered", s.State(time.Now()), s.Bounced, s.Delivered)
		}
		if err := q.Resume(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if h := feedback(t, q, c, fateOf(Bounced, lines(2, 41)...)); h.Campaign != nil || h.Changed != 20 {
			t.Errorf("what was known when it was resumed counts again: %+v", h)
		}
		if h := feedback(t, q, c, fateOf(Bounced, 44)); h.Campaign == nil {
			t.Error("21 more do not hold it")
		}
	})
}

// A campaign of which everybody has been sent to is not held: there is nothing to hold.
func TestFeedbackAfterTheEnd(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 100)
		m := silent(t, q)
		sendDue(t, m, claim(t, m, c, 0), accepted)
		if h := feedback(t, q, c, fateOf(Bounced, lines(2, 90)...)); h.Campaign != nil || h.Changed != 90 {
			t.Errorf("%+v", h)
		}
		if s := summary(t, q, c); s.State(time.Now()) != "done" || s.Bounced != 90 {
			t.Errorf("%s, %d bounced", s.State(time.Now()), s.Bounced)
		}
	})
}

// Blocks hold the group they happened in, when so many happened within the time.
func TestFeedbackBlocks(t *testing.T) {
	t.Parallel()
	now := time.Now()
	block := func(group string, at time.Time, lines ...int) []Told {
		told := fateOf(Blocked, lines...)
		for i := range told {
			told[i].Group, told[i].Time = group, at
		}
		return told
	}
	cases := map[string]struct {
		told     [][]Told
		group    bool // naver is held
		campaign bool
	}{
		"five in one call":        {[][]Told{block("naver", now, lines(2, 5)...)}, true, false},
		"five in five calls":      {[][]Told{block("naver", now, 2), block("naver", now, 3), block("naver", now, 4), block("naver", now, 5), block("naver", now, 6)}, true, false},
		"no time is now":          {[][]Told{block("naver", time.Time{}, lines(2, 5)...)}, true, false},
		"a clock that is ahead":   {[][]Told{block("naver", now.Add(time.Hour), lines(2, 5)...)}, true, false},
		"four":                    {[][]Told{block("naver", now, lines(2, 4)...)}, false, false},
		"one, five times":         {[][]Told{block("naver", now, 2), block("naver", now, 2), block("naver", now, 2), block("naver", now, 2), block("naver", now, 2)}, false, false},
		"eleven minutes ago":      {[][]Told{block("naver", now.Add(-11*time.Minute), lines(2, 5)...)}, false, false},
		"one of them too old":     {[][]Told{block("naver", now.Add(-11*time.Minute), 2), block("naver", now, lines(3, 4)...)}, false, false},
		"elsewhere":               {[][]Told{block("kakao", now, lines(2, 5)...)}, false, false},
		"five in no group":        {[][]Told{block("", now, lines(2, 5)...)}, false, true},
		"many, in many groups":    {[][]Told{block("a", now, 2, 3), block("b", now, 4, 5), block("c", now, 6, 7)}, false, true},
		"bounces are no blocks":   {[][]Told{fateOf(Bounced, lines(2, 5)...)}, false, false},
		"a failure says no block": {[][]Told{fateOf(Failed, lines(2, 50)...)}, false, false},
	}
	eachCase(t, cases, func(t *testing.T, q *Queue, tc struct {
		told     [][]Told
		group    bool
		campaign bool
	}) {
		c := sent(t, q, "spring", 60)
		group, campaign := false, false
		for _, told := range tc.told {
			h := feedback(t, q, c, told)
			if hold := h.Groups["naver"]; hold != nil {
				group = true
				if !strings.HasPrefix(hold.Why, "5 blocks within 10m0s") || hold.Until.IsZero() || len(hold.Examples) != 3 || strings.Contains(hold.Examples[0], "a4@") {
					t.Errorf("%+v", hold)
				}
			}
			campaign = campaign || h.Campaign != nil
		}
		if group != tc.group || campaign != tc.campaign {
			t.Errorf("group held %v, campaign held %v", group, campaign)
		}
		stored := q.rdb.HExists(t.Context(), q.keys.held(mail.Ad), groupMark+"naver").Val()
		if stored != tc.group {
			t.Errorf("the hold is stored: %v", stored)
		}
	})
}

// A reporter's clock that is ahead does not make a block last longer.
func TestFeedbackFromTheFuture(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := sent(t, q, "spring", 10)
		feedback(t, q, c, []Told{{Line: 2, Fate: Blocked, Group: "naver", Time: time.Now().Add(time.Hour)}})
		kept := q.rdb.HGet(t.Context(), q.keys.window(mail.Ad, groupMark+"naver"), "lt").Val()
		if at, err := strconv.ParseInt(kept, 10, 64); err != nil || time.UnixMilli(at).After(time.Now().Add(time.Minute)) {
			t.Errorf("%q, %v", kept, err)
		}
	})
}

// Of what is told of one recipient the worst stands, in whatever order and however
// often it is told; counts and letters agree.
func TestFeedbackInAnyOrder(t *testing.T) {
	t.Parallel()
	q := open(t, miniredis.RunT(t).Addr())
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		n++
		c := store(t, q, fmt.Sprint("c", n), 1, 3)
		want := map[int]Fate{}
		changed := 0
		for range rapid.IntRange(1, 5).Draw(r, "calls") {
			var told []Told
			before := len(want)
			for range rapid.IntRange(0, 8).Draw(r, "told") {
				line := rapid.SampledFrom([]int{0, 1, 2, 3, 4, 70_000, 70_001, 200_000}).Draw(r, "line")
				f := Fate(rapid.SampledFrom([]byte(fates)).Draw(r, "fate"))
				told = append(told, Told{Line: line, Fate: f})
				if old, ok := want[line]; !ok || f.rank() > old.rank() {
					want[line] = f
				}
			}
			h, err := q.Feedback(t.Context(), c, told)
			if err != nil {
				r.Fatal(err)
			}
			changed += h.Changed
			if len(want) > before && h.Changed == 0 {
				r.Fatal("something new changed nothing")
			}
		}
		counts := map[string]int{}
		kept := q.rdb.Get(t.Context(), q.keys.fates(c.ID)).Val()
		for line, f := range want {
			counts[string(f)]++
			if kept[line] != byte(f) {
				r.Fatalf("line %d: %q, want %q", line, kept[line], f)
			}
		}
		if n := len(kept) - strings.Count(kept, "\x00"); n != len(want) {
			r.Fatalf("%d letters, want %d", n, len(want))
		}
		got, err := q.fateCounts(t.Context(), c.ID)
		if err != nil {
			r.Fatal(err)
		}
		for _, f := range fates {
			if got[string(f)] != counts[string(f)] {
				r.Fatalf("%q: counted %d, want %d", f, got[string(f)], counts[string(f)])
			}
		}
	})
}

// Nothing is stored of a campaign that is gone, or not there yet.
func TestFeedbackOfNoCampaign(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := &Campaign{ID: "0123456789abcdef", Name: "gone", Stream: mail.Ad, Counts: Door{Recipients: 9}}
		if _, err := q.Feedback(t.Context(), c, fateOf(Bounced, 2, 3)); !errors.Is(err, ErrNoCampaign) {
			t.Errorf("%v", err)
		}
		if n := q.rdb.DBSize(t.Context()).Val(); n != 0 {
			t.Errorf("%d keys are left", n)
		}
	})
}

func TestRecipientsAndSent(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 70, 2)
		m := silent(t, q)
		cl := claim(t, m, c, 3)
		accept(m, cl, 1)
		if err := m.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		q.rdb.Set(t.Context(), q.keys.recipients(c.ID, 40), "damaged", 0)
		var blocks []int
		if err := q.Recipients(t.Context(), c, nil, func(n int, b *Block) bool {
			if b.Lines[0] != 2*n+2 || b.Emails[1] != fmt.Sprintf("r%d@example.com", 2*n+1) {
				t.Errorf("block %d: %+v", n, b)
			}
			blocks = append(blocks, n)
			return n < 66
		}); err != nil {
			t.Fatal(err)
		}
		if want := slices.DeleteFunc(lines(0, 67), func(n int) bool { return n == 40 }); !slices.Equal(blocks, want) {
			t.Errorf("blocks %v", blocks)
		}
		blocks = nil
		if err := q.Recipients(t.Context(), c, []int{50, 40, 2}, func(n int, _ *Block) bool {
			blocks = append(blocks, n)
			return true
		}); err != nil || !slices.Equal(blocks, []int{50, 2}) {
			t.Errorf("blocks %v, %v", blocks, err)
		}
		if sent, err := q.Sent(t.Context(), c, 3); err != nil || !slices.Equal(sent, []bool{false, true}) {
			t.Errorf("%v, %v", sent, err)
		}
	})
}
