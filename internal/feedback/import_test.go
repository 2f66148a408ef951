package feedback

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluicemail/sluice/internal/queue"
)

const noUser = "550 5.1.1 <x@y.kr>: Recipient address rejected: User unknown in virtual mailbox table"

// Each status has its effect, once.
func TestImport(t *testing.T) {
	t.Parallel()
	r := memory(t)
	c := r.campaign("spring", 100, 50, numbered)
	line := func(i int, rest string) string {
		return fmt.Sprintf(`{"message_id":%q,%s}`+"\n", idOf(c, i), rest)
	}
	text := line(0, `"status":"delivered"`) +
		line(1, `"status":"bounced","text":"`+noUser+`"`) +
		line(2, `"status":"complained","time":"2026-05-01T10:00:00+09:00"`) +
		line(3, `"status":"bounced","text":"552 5.2.2 mailbox full"`) +
		line(4, `"status":"bounced"`) +
		line(5, `"status":"delayed","text":"451 4.7.1 greylisted"`) +
		line(6, `"status":"bounced","text":"550 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org"`) +
		line(7, `"status":"bounced","code":599,"text":"the flux capacitor is unhappy"`) +
		`{"address":"R8@naver.com","status":"Delivered"}` + "\n\n" +
		`{"address":"r60@naver.com","status":"delivered"}` + "\n" + // nobody has sent to them
		`{"address":"stranger@naver.com","status":"bounced","reply":"` + noUser + `"}` + "\n" +
		`{"address":"strange@naver.com","status":"complained"}` + "\n" +
		`{"address":"broken","status":"bounced"}` + "\n" +
		"{nonsense\n"
	want := Summary{Reports: 14, Bad: 2, Delivered: 3, Bounced: 6, Complained: 2, Delayed: 1, NoRule: 1, New: 8, Unmatched: 3, Suppressed: 4}
	if d := cmp.Diff(want, r.take("feedback.jsonl", text)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"feedback.jsonl:14: address ***: no @ in it", "feedback.jsonl:15: not a JSON object: character 2 is not what JSON wants there"}, r.faults); d != "" {
		t.Error(d)
	}
	if d, b := r.counts(c); d != 3 || b != 5 {
		t.Errorf("%d delivered, %d bounced", d, b)
	}
	for address, want := range map[string]string{
		"r0@naver.com": "", "r3@naver.com": "", "r4@naver.com": "", "r6@naver.com": "",
		"r2@naver.com": "normal called the mail spam", "strange@naver.com": "ad called the mail spam",
	} {
		if got := r.suppressed(address); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
	for _, address := range []string{"r1@naver.com", "stranger@naver.com"} {
		if got := r.suppressed(address); !strings.HasPrefix(got, "all ") {
			t.Errorf("%s: %q", address, got)
		}
	}
	again := New(r.p)
	if err := again.Read(t.Context(), "again", strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if err := again.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := again.Summary(); s.New != 0 || s.Suppressed != 0 {
		t.Errorf("the same again: %+v", s)
	}
	if d, b := r.counts(c); d != 3 || b != 5 {
		t.Errorf("the same again: %d delivered, %d bounced", d, b)
	}
}

// What only feedback says holds a campaign, before more than the limit is known.
func TestHoldsCampaign(t *testing.T) {
	t.Parallel()
	r := memory(t)
	c := r.campaign("spring", 1000, 200, numbered)
	var b strings.Builder
	for i := range 200 {
		status := `"delivered"`
		if i%5 == 0 {
			status = `"bounced","text":"` + noUser + `"`
		}
		fmt.Fprintf(&b, `{"message_id":%q,"status":%s}`+"\n", idOf(c, i), status)
	}
	r.take("x.jsonl", b.String())
	if len(r.held) != 1 || !strings.HasPrefix(r.held[0], "spring@: 40 hard bounces in 200 accepted mails") {
		t.Errorf("%q", r.held)
	}
}

// Blocks hold their destination group, of the address we sent to.
func TestHoldsGroup(t *testing.T) {
	t.Parallel()
	r := memory(t)
	c := r.campaign("spring", 1000, 200, numbered)
	for i := range 5 {
		r.take("x.jsonl", fmt.Sprintf(`{"message_id":%q,"address":"elsewhere@example.org","status":"bounced","text":"554 5.7.1 Service unavailable; Client host blocked using zen.spamhaus.org"}`, idOf(c, i)))
	}
	if len(r.held) != 1 || !strings.HasPrefix(r.held[0], "spring@naver: 5 blocks within 10m0s") {
		t.Errorf("%q", r.held)
	}
}

// An address that is in several campaigns counts for the newest that has sent to it,
// and was there at the time.
func TestWhichCampaign(t *testing.T) {
	t.Parallel()
	const when = `{"address":"r%d@naver.com","status":"delivered"%s}` + "\n"
	r := memory(t)
	old := r.campaign("old", 10, 10, numbered)
	hourAgo := time.Now().Add(-time.Hour)
	r.rdb.HSet(t.Context(), "sluice:{c:"+old.ID+"}:meta", "created", hourAgo.UnixMilli())
	middle := r.campaign("middle", 10, 5, numbered)
	newest := r.campaign("newest", 10, 0, numbered)
	for i, tc := range []struct {
		text             string
		old, middle, all int
	}{
		{fmt.Sprintf(when, 1, ""), 0, 1, 1},
		{fmt.Sprintf(when, 6, ""), 1, 1, 2},
		{fmt.Sprintf(when, 2, fmt.Sprintf(`,"time":%q`, hourAgo.Format(time.RFC3339))), 2, 1, 3},
		{fmt.Sprintf(when, 3, `,"campaign":"old"`), 3, 1, 4},
		{fmt.Sprintf(when, 3, `,"campaign":"`+old.ID+`"`), 3, 1, 4},
		{fmt.Sprintf(when, 4, `,"campaign":"nobody's"`), 3, 1, 4},
		{fmt.Sprintf(when, 4, `,"campaign":"newest"`), 3, 1, 4},
		{fmt.Sprintf(`{"message_id":%q,"address":"r4@naver.com","status":"delivered"}`, idOf(old, 4)), 4, 1, 5},
		{fmt.Sprintf(`{"message_id":%q,"address":"r3@naver.com","status":"delivered"}`, idOf(&queue.Campaign{ID: "ffff"}, 4)), 4, 1, 5},
		{`{"message_id":"<20261122.17@relay.example>","address":"r0@naver.com","status":"delivered"}`, 4, 2, 6},
	} {
		sum := r.take("x.jsonl", tc.text)
		o, _ := r.counts(old)
		m, _ := r.counts(middle)
		n, _ := r.counts(newest)
		if o != tc.old || m != tc.middle || n != 0 || sum.New != tc.all {
			t.Errorf("step %d: old %d, middle %d, newest %d, new %d; want %+v", i, o, m, n, sum.New, tc)
		}
	}
	if s := r.Summary(); s.Unmatched != 3 {
		t.Errorf("%+v", s)
	}
	// Too old to be looked at, unless it is named.
	r.p.Within = -time.Hour
	s := New(r.p)
	if err := s.Read(t.Context(), "x.jsonl", strings.NewReader(fmt.Sprintf(when, 9, "")+fmt.Sprintf(when, 9, `,"campaign":"old"`))); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if sum := s.Summary(); sum.Unmatched != 1 || sum.New != 1 {
		t.Errorf("%+v", sum)
	}
}

// A dry run needs no Redis.
func TestDryRun(t *testing.T) {
	t.Parallel()
	im := New(Params{Rules: rules(t)})
	if err := im.Read(t.Context(), "-", strings.NewReader(`{"address":"a@b.kr","status":"bounced","text":"550 5.1.1 no such user"}`)); err != nil {
		t.Fatal(err)
	}
	if err := im.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Summary{Reports: 1, Bounced: 1}, im.Summary()); d != "" {
		t.Error(d)
	}
}
