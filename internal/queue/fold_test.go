package queue

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sluicemail/sluice/internal/mail"
)

func ev(attempt int, o mail.Outcome) Evidence { return Evidence{Attempt: attempt, Outcome: o} }

// again is an operator's round of reopening after an attempt, said what he knows of one.
func again(attempt, round int) Evidence {
	return Evidence{Kind: Reopen, Attempt: attempt, Round: round, Time: int64(1000 * round)}
}

func said(attempt int, o mail.Outcome) Evidence {
	return Evidence{Kind: Settled, Attempt: attempt, Outcome: o}
}

func TestApply(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		in     []Evidence
		want   mail.Outcome
		resent bool
	}{
		"nothing":                             {nil, mail.Pending, false},
		"accepted":                            {[]Evidence{ev(1, mail.Accepted)}, mail.Accepted, false},
		"deferred then accepted":              {[]Evidence{ev(1, mail.Deferred), ev(2, mail.Accepted)}, mail.Accepted, false},
		"unknown, late acceptance":            {[]Evidence{ev(1, mail.Unknown), ev(1, mail.Accepted)}, mail.Accepted, false},
		"unknown never hides an acceptance":   {[]Evidence{ev(1, mail.Accepted), ev(1, mail.Unknown)}, mail.Accepted, false},
		"unknown, late rejection":             {[]Evidence{ev(1, mail.Unknown), ev(1, mail.Rejected)}, mail.Rejected, false},
		"resent":                              {[]Evidence{ev(1, mail.Unknown), ev(2, mail.Accepted)}, mail.Accepted, true},
		"resent, then the first one is heard": {[]Evidence{ev(1, mail.Unknown), ev(2, mail.Rejected), ev(1, mail.Accepted)}, mail.Accepted, true},
		"cancelled":                           {[]Evidence{ev(0, mail.Cancelled)}, mail.Cancelled, false},
		"deferred, cancelled":                 {[]Evidence{ev(1, mail.Deferred), ev(1, mail.Cancelled)}, mail.Cancelled, false},
		"cancelled, but it had gone out":      {[]Evidence{ev(0, mail.Cancelled), ev(1, mail.Accepted)}, mail.Accepted, false},
		"an accepted one is not cancelled":    {[]Evidence{ev(1, mail.Accepted), ev(1, mail.Cancelled)}, mail.Accepted, false},
		"an unknown one does not expire":      {[]Evidence{ev(1, mail.Unknown), ev(1, mail.Expired)}, mail.Unknown, false},
		"rejected, reopened":                  {[]Evidence{ev(1, mail.Rejected), again(1, 1)}, mail.Deferred, false},
		"reopened, accepted":                  {[]Evidence{ev(1, mail.Rejected), again(1, 1), ev(2, mail.Accepted)}, mail.Accepted, false},
		"reopened, rejected":                  {[]Evidence{ev(1, mail.Rejected), again(1, 1), ev(2, mail.Rejected)}, mail.Rejected, false},
		"reopened, the old reply once more":   {[]Evidence{ev(1, mail.Rejected), again(1, 1), ev(1, mail.Rejected)}, mail.Deferred, false},
		"the old reopening once more":         {[]Evidence{ev(1, mail.Rejected), again(1, 1), ev(2, mail.Rejected), again(1, 1)}, mail.Rejected, false},
		"reopened twice":                      {[]Evidence{ev(1, mail.Rejected), again(1, 1), ev(2, mail.Rejected), again(2, 2)}, mail.Deferred, false},
		"an accepted one is not reopened":     {[]Evidence{ev(1, mail.Accepted), again(1, 1)}, mail.Accepted, false},
		"unknown, reopened":                   {[]Evidence{ev(1, mail.Unknown), again(1, 1)}, mail.Deferred, false},
		"unknown, reopened, sent":             {[]Evidence{ev(1, mail.Unknown), again(1, 1), ev(2, mail.Rejected)}, mail.Rejected, true},
		"unknown, reopened, heard of late":    {[]Evidence{ev(1, mail.Unknown), again(1, 1), ev(1, mail.Accepted)}, mail.Accepted, false},
		"unknown, reopened, too old":          {[]Evidence{ev(1, mail.Unknown), again(1, 1), {Attempt: 1, Round: 1, Outcome: mail.Expired}}, mail.Unknown, false},
		"expired, reopened":                   {[]Evidence{ev(0, mail.Expired), again(0, 1)}, mail.Deferred, false},
		"expired again":                       {[]Evidence{ev(0, mail.Expired), again(0, 1), {Round: 1, Outcome: mail.Expired}}, mail.Expired, false},
		"expired, the old expiry once more":   {[]Evidence{ev(0, mail.Expired), again(0, 1), ev(0, mail.Expired)}, mail.Deferred, false},
		"settled":                             {[]Evidence{ev(1, mail.Unknown), said(1, mail.Accepted)}, mail.Accepted, false},
		"settled, the relay says otherwise":   {[]Evidence{ev(1, mail.Unknown), said(1, mail.Accepted), ev(1, mail.Rejected)}, mail.Rejected, false},
		"settled, sent again all the same":    {[]Evidence{ev(1, mail.Unknown), said(1, mail.Rejected), ev(2, mail.Accepted)}, mail.Accepted, true},
		"only an unknown one is settled":      {[]Evidence{ev(1, mail.Deferred), said(1, mail.Accepted)}, mail.Deferred, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s Standing
			for _, e := range tc.in {
				s.Apply(e)
			}
			if s.Outcome != tc.want || s.Resent != tc.resent {
				t.Errorf("got %v, resent %v; want %v, %v", s.Outcome, s.Resent, tc.want, tc.resent)
			}
		})
	}
}

// Evidence in any order and with repeats ends in the same outcome: every write may be
// doubled or late. That holds for what operators and workers decide as well, and no
// order hides that somebody was sent to again after an attempt that may have arrived.
func TestApplyOrderDoesNotMatter(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		log, twice := drawLog(t)
		fold := func(log []Evidence) (s Standing) {
			for _, e := range log {
				s.Apply(e)
			}
			return s
		}
		want := fold(log)
		shuffled := append(append([]Evidence(nil), log...), log...)
		seed := rapid.Uint64().Draw(t, "seed")
		rand.New(rand.NewPCG(seed, 1)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		got := fold(shuffled)
		if got.Outcome != want.Outcome || got.Attempts != want.Attempts || got.Closed != want.Closed ||
			got.Reopened != want.Reopened || twice && !(got.Resent && want.Resent) {
			t.Fatalf("%v gives %+v; shuffled and doubled %v gives %+v", log, want, shuffled, got)
		}
	})
}

// drawLog makes a history: attempts, each perhaps with an unknown beside what came of
// it, and between them what workers and operators decide.
func drawLog(t *rapid.T) (log []Evidence, twice bool) {
	attempts, round := rapid.IntRange(1, 4).Draw(t, "attempts"), 0
	for a := 0; a <= attempts; a++ {
		if a > 0 {
			o := rapid.SampledFrom([]mail.Outcome{mail.Accepted, mail.Rejected, mail.Deferred, mail.Unknown}).Draw(t, "outcome")
			log = append(log, ev(a, o))
			if rapid.Bool().Draw(t, "unknown as well") {
				log = append(log, ev(a, mail.Unknown))
			}
			twice = twice || a < attempts && mayHaveArrived(o)
		}
		for range rapid.IntRange(0, 2).Draw(t, "decisions") {
			switch rapid.IntRange(0, 3).Draw(t, "decision") {
			case 0:
				log = append(log, Evidence{Attempt: a, Round: round, Outcome: mail.Expired})
			case 1:
				log = append(log, Evidence{Attempt: a, Round: round, Outcome: mail.Cancelled})
			case 2:
				round++
				log = append(log, Evidence{Kind: Reopen, Attempt: a, Round: round, Time: int64(100*a + round)})
			case 3:
				o := rapid.SampledFrom([]mail.Outcome{mail.Accepted, mail.Rejected}).Draw(t, "settled as")
				log = append(log, Evidence{Kind: Settled, Attempt: a, Round: round, Outcome: o})
			}
		}
	}
	return log, twice
}

// What is stored and read in the middle of a history goes on as if it had not been.
func TestStateKeepsWhatStandsBehindTheOutcome(t *testing.T) {
	t.Parallel()
	c := testCodec(t)
	rapid.Check(t, func(t *rapid.T) {
		log, _ := drawLog(t)
		cut := rapid.IntRange(0, len(log)).Draw(t, "cut")
		st := make([]Standing, 3)
		var want Standing
		for i, e := range log {
			if i == cut {
				var err error
				if st, err = c.decodeState(c.encodeState(st), len(st)); err != nil {
					t.Fatal(err)
				}
			}
			want.Apply(e)
			st[1].Apply(e)
		}
		if got := st[1]; got.Outcome != want.Outcome || got.Attempts != want.Attempts || got.Closed != want.Closed || got.Reopened != want.Reopened || got.Resent != want.Resent {
			t.Fatalf("%v, stored after %d, gives %+v, want %+v", log, cut, got, want)
		}
		if st[0].Outcome != mail.Pending || st[2].Outcome != mail.Pending {
			t.Fatalf("the neighbours: %+v", st)
		}
	})
}

func testCodec(t testing.TB) *codec {
	t.Helper()
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestStateRoundTrip(t *testing.T) {
	t.Parallel()
	c := testCodec(t)
	in := []Standing{
		{},
		{Outcome: mail.Accepted, Attempts: 2, Time: 1_790_000_000_123, Reply: mail.Reply{Code: 250, Enhanced: "2.0.0", Text: "OK queued as X"}, Resent: true},
		{Outcome: mail.Deferred, Attempts: 1, Time: 1_790_000_000_000, Due: 1_790_000_060_000, Reply: mail.Reply{Code: 451, Text: "나중에"}},
		{Outcome: mail.Cancelled, Time: 5},
		{Outcome: mail.Unknown, Attempts: 1, Time: 6, Closed: true},
	}
	if v, err := c.unpack(c.encodeState(in)); err != nil || v[0] != plainState {
		t.Errorf("stored as version %d, %v: workers of the last version could not read it", v[0], err)
	}
	out, err := c.decodeState(c.encodeState(in), len(in))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(in, out, cmp.AllowUnexported(Standing{})); d != "" {
		t.Error(d)
	}
	if _, err := c.decodeState(c.encodeState(in), len(in)+1); err == nil {
		t.Error("a state of another length was taken")
	}
	if st, err := c.decodeState(nil, 3); err != nil || len(st) != 3 {
		t.Errorf("no state: %v, %v", st, err)
	}
}

func TestBlockRoundTrip(t *testing.T) {
	t.Parallel()
	c := testCodec(t)
	in := &Block{Lines: []int{2, 3, 9}, Emails: []string{"a@b.kr", "c@d.jp", "e@f.kr"}, Values: [][]string{{"홍길동", "", "山田"}, {"1", "2", "3"}}}
	data, err := c.encodeBlock(in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.decodeBlock(data)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(in, out); d != "" {
		t.Error(d)
	}
	in.Values[0][1] = "x\ny"
	if _, err := c.encodeBlock(in); err == nil {
		t.Error("a value with a line feed was stored")
	}
	in.Values[0] = in.Values[0][:2]
	if _, err := c.encodeBlock(in); err == nil {
		t.Error("a short column was stored")
	}
}

func TestClip(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in   string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "abc"}, {"한글", 4, "한"}, {"한글", 2, ""}} {
		if got := clip(tc.in, tc.n); got != tc.want {
			t.Errorf("clip(%q, %d) = %q, want %q", tc.in, tc.n, got, tc.want)
		}
	}
}

func TestTally(t *testing.T) {
	t.Parallel()
	a := count([]Standing{{}, {Outcome: mail.Accepted}, {Outcome: mail.Accepted, Resent: true}, {Outcome: mail.Unknown}})
	b, err := parseTally(a.String())
	b.outcomes[mail.Pending] = 1 // not stored
	if err != nil || a != b {
		t.Errorf("%v read back as %v, %v", a, b, err)
	}
	for _, bad := range []string{"1,2", "x,0,0,0,0,0,0,0", "0,0,0,0,0,0,x,0"} {
		if _, err := parseTally(bad); err == nil {
			t.Errorf("parseTally(%q) took it", bad)
		}
	}
	if a.again != 1 {
		t.Errorf("%d to be sent again", a.again)
	}
	if got := a.change(a); len(got) != 0 {
		t.Errorf("no change gives %v", got)
	}
}

// Whatever stands in Redis, reading it ends in an error or a value, never worse.
func FuzzDecode(f *testing.F) {
	c := testCodec(f)
	block, _ := c.encodeBlock(&Block{Lines: []int{1}, Emails: []string{"a@b.c"}, Values: [][]string{{"v"}}})
	f.Add(block)
	f.Add(c.encodeState([]Standing{{Outcome: mail.Accepted, Attempts: 1}}))
	f.Add(appendEvidence(nil, Evidence{Attempt: 1, Outcome: mail.Accepted, Reply: mail.Reply{Code: 250, Text: strings.Repeat("x", 200)}}))
	f.Add(encodeIntents(nil, []*Intent{nil, {claim: &Claim{Campaign: &Campaign{ID: "c", Stream: mail.Ad}, N: 3}, index: 1, attempt: 1}}))
	f.Fuzz(func(_ *testing.T, data []byte) {
		for _, in := range [][]byte{data, c.pack(data)} {
			_, _ = c.decodeBlock(in)
			_, _ = c.decodeState(in, 2)
			_ = fold(make([]Standing, 2), in)
			_, _ = decodeIntents(in)
		}
	})
}
