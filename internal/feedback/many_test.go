package feedback

import (
	"bufio"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/redistest"
)

// testMany takes in n reports about two campaigns, every twentieth a bounce: a third by
// address, the others by Message-ID, none with the campaign's name; where times says so, again.
func testMany(t *testing.T, n int, times ...bool) {
	r := newRig(t, redistest.Start(t).Addr())
	half := n / 2
	one := r.campaign("one", half, half, func(i int) string { return fmt.Sprintf("one%d@naver.com", i) })
	two := r.campaign("two", half, half, func(i int) string { return fmt.Sprintf("two%d@naver.com", i) })
	reports := func() io.Reader {
		out, in := io.Pipe()
		go func() {
			w := bufio.NewWriter(in)
			for i := range n {
				c := []*queue.Campaign{one, two}[i%2]
				status := `"delivered"`
				if i%20 == 0 || i%20 == 11 {
					status = `"bounced","text":"550 5.1.1 Recipient address rejected: User unknown"`
				}
				who := fmt.Sprintf(`"message_id":%q,"address":"%s%d@naver.com"`, idOf(c, i/2), c.Name, i/2)
				if i%3 == 0 {
					who = fmt.Sprintf(`"address":"%s%d@naver.com"`, c.Name, i/2)
				}
				fmt.Fprintf(w, `{%s,"status":%s,"time":%q}`+"\n", who, status, time.Now().Format(time.RFC3339))
			}
			_ = w.Flush()
			_ = in.Close()
		}()
		return out
	}
	for _, again := range times {
		im, begun := New(r.p), time.Now()
		if err := im.Read(t.Context(), "many", reports()); err != nil {
			t.Fatal(err)
		}
		if err := im.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		took := time.Since(begun)
		want := Summary{Reports: n, Delivered: n * 18 / 20, Bounced: n * 2 / 20, New: n, Suppressed: n * 2 / 20}
		if again {
			want.New, want.Suppressed = 0, 0
		}
		if got := im.Summary(); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		t.Logf("%d reports in %.1f s", n, took.Seconds())
	}
	for _, c := range []*queue.Campaign{one, two} {
		if d, b := r.counts(c); d != half*18/20 || b != half*2/20 {
			t.Errorf("%s: %d delivered, %d bounced", c.Name, d, b)
		}
	}
	if len(r.held) != 0 {
		t.Errorf("campaigns that are over are held: %q", r.held)
	}
}

func TestMany(t *testing.T) {
	t.Parallel()
	testMany(t, 40_000, false, true)
}
