package faulttest

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluicemail/sluice/internal/relay"
)

func mailTo(to, queueID string) relay.Accepted {
	return relay.Accepted{To: to, QueueID: queueID, MessageID: "<" + to + ">", Content: []byte("mark:" + to + ":")}
}

// The oracle sees each thing that can be wrong with a campaign, and nothing else.
func TestJudge(t *testing.T) {
	t.Parallel()
	accepted := row{Address: "a@x", Outcome: "accepted", Attempts: 1, Text: "OK queued as q1"}
	with := func(change func(*row)) []row {
		r := accepted
		change(&r)
		return []row{r}
	}
	one := []relay.Accepted{mailTo("a@x", "q1")}
	two := append(one[:1:1], mailTo("a@x", "q2"))
	for name, c := range map[string]struct {
		rows  []row
		truth []relay.Accepted
		want  account
	}{
		"in order":             {[]row{accepted}, one, account{Accepted: 1}},
		"no row":               {nil, one, account{Lost: 1}},
		"accepted and no mail": {[]row{accepted}, nil, account{Accepted: 1, Lost: 1}},
		"never ended":          {with(func(r *row) { r.Outcome = "deferred" }), nil, account{Lost: 1}},
		"unknown":              {with(func(r *row) { r.Outcome = "unknown" }), nil, account{Unknown: 1}},
		"unknown and there":    {with(func(r *row) { r.Outcome = "unknown" }), one, account{Unknown: 1}},
		"unknown and twice":    {with(func(r *row) { r.Outcome = "unknown" }), two, account{Unknown: 1, Doubled: 1}},
		"doubled":              {[]row{accepted}, two, account{Accepted: 1, Doubled: 1, Unlisted: 1}},
		"doubled and listed":   {with(func(r *row) { r.MaybeTwice, r.Attempts = true, 2 }), two, account{Accepted: 1, Doubled: 1, Listed: 1}},
		"an attempt burnt":     {with(func(r *row) { r.Attempts = 3 }), one, account{Accepted: 1, Burnt: 2}},
		"rejected":             {with(func(r *row) { r.Outcome = "rejected" }), nil, account{Refused: 1}},
		"rejected and there":   {with(func(r *row) { r.Outcome = "rejected" }), one, account{Refused: 1, Mispaired: 1}},
		"another's reply":      {with(func(r *row) { r.Text = "OK queued as q9" }), one, account{Accepted: 1, Mispaired: 1}},
		"two rows":             {[]row{accepted, accepted}, one, account{Accepted: 1, Mispaired: 1}},
		"a stranger's row":     {[]row{accepted, {Address: "b@x", Outcome: "accepted"}}, one, account{Accepted: 1, Mispaired: 1}},
		"a stranger's mail":    {[]row{accepted}, append(one[:1:1], mailTo("b@x", "q2")), account{Accepted: 1, Mispaired: 1}},
		"another's content":    {[]row{accepted}, []relay.Accepted{{To: "a@x", QueueID: "q1", Content: []byte("mark:b@x:")}}, account{Accepted: 1, Mispaired: 1}},
		"a duplicate's row":    {[]row{accepted, {Address: "a@x", Outcome: "duplicate"}}, one, account{Accepted: 1}},
	} {
		c.want.Recipients = 1
		got := judge([]string{"a@x"}, c.rows, c.truth)
		if d := cmp.Diff(c.want, got, cmpopts.IgnoreUnexported(account{})); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if wrong := got.Lost + got.Unlisted + got.Mispaired; (wrong == 0) != (len(got.examples) == 0) {
			t.Errorf("%s: %d faults, examples %q", name, wrong, got.examples)
		}
	}
}

func TestWindows(t *testing.T) {
	t.Parallel()
	zero := time.Unix(1000, 0)
	at := func(ms ...int) (out []time.Time) {
		for _, m := range ms {
			out = append(out, zero.Add(time.Duration(m)*time.Millisecond))
		}
		return out
	}
	for _, c := range []struct {
		events []time.Time
		want   int
	}{
		{at(), 0}, {at(0, 999), 0}, {at(0, 500, 1000), 0}, {at(0, 500, 999), 1}, {at(999, 0, 500, 700), 2},
	} {
		if got := overshoot(c.events, 2, time.Second); got != c.want {
			t.Errorf("%v: %d over, want %d", c.events, got, c.want)
		}
	}
	var truth []relay.Accepted
	for i, e := range at(0, 100, 200, 300) {
		truth = append(truth, relay.Accepted{To: fmt.Sprint(i), Conn: i / 2, Time: e})
	}
	if n := between(truth, zero.Add(100*time.Millisecond), zero.Add(300*time.Millisecond)); n != 2 {
		t.Error("between:", n)
	}
	if d := next(truth, zero.Add(50*time.Millisecond)); d != 50*time.Millisecond {
		t.Error("next:", d)
	}
	if d := resumed(truth, zero.Add(50*time.Millisecond)); d != 150*time.Millisecond {
		t.Error("resumed:", d)
	}
}
