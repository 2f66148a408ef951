package throttle

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// Memory and the Lua scripts give the same answer to the same calls, whatever
// these are.
func TestMemoryIsRedis(t *testing.T) {
	t.Parallel()
	c, server := clockedMiniredis(t)
	rapid.Check(t, func(rt *rapid.T) {
		server.FlushAll()
		c.now = epoch()
		server.SetTime(c.now)
		mem := clockedMemory()
		l := drawLimits(rt)
		var last grant
		leases := []string{"ad:o1:none"}
		rt.Repeat(map[string]func(*rapid.T){
			"advance": func(rt *rapid.T) {
				d := time.Duration(rapid.Int64Range(-1000, 200_000).Draw(rt, "µs")) * time.Microsecond
				if rapid.IntRange(0, 9).Draw(rt, "far") == 0 {
					d *= 10_000
				}
				c.advance(d)
				mem.advance(d)
			},
			"messages": func(rt *rapid.T) {
				p := l.messagePlan(drawClass(rt))
				n := rapid.IntRange(0, 40).Draw(rt, "n")
				var back []unused
				if rapid.Bool().Draw(rt, "back") {
					back = []unused{{last.now, rapid.IntRange(0, last.n).Draw(rt, "unused")}}
				}
				last = same(rt, c, mem, func(s store) (grant, error) { return s.messages(t.Context(), p, n, back) })
			},
			"connect": func(rt *rapid.T) {
				stream := drawStream(rt)
				p, name := l.connectPlan(stream), fmt.Sprintf("%s:o%d:%d", stream, rapid.IntRange(1, 2).Draw(rt, "owner"), len(leases))
				leases = append(leases, name)
				d := dial{lease: name, lapse: sec, dialing: sec / 2, login: drawLogin(rt, stream), creds: drawCreds(rt), most: rapid.SampledFrom([]int{0, 2, 2}).Draw(rt, "most")}
				if d.login == "auth" {
					d.kept = p.shares
				}
				same(rt, c, mem, func(s store) (grant, error) { return s.connect(t.Context(), p, d) })
			},
			"renew": func(rt *rapid.T) {
				p := l.connectPlan("")
				r := renewal{leases: []string{drawLease(rt, leases), drawLease(rt, leases)}, ungreeted: []bool{false, true}, lapse: sec, dialing: sec / 2}
				same(rt, c, mem, func(s store) (renewed, error) { return s.renew(t.Context(), p, r) })
			},
			"settle": func(rt *rapid.T) {
				r := drawReport(rt, leases)
				same(rt, c, mem, func(s store) (any, error) { return nil, s.settle(t.Context(), r) })
			},
			"learn": func(rt *rapid.T) {
				field := rapid.SampledFrom([]string{learnedRate, learnedRate + ":naver", learnedOpen}).Draw(rt, "field")
				value := rapid.SampledFrom([]float64{0, 1, 2.5, 3, 6000, 12_345.678, 90_000}).Draw(rt, "value")
				c.learn(field, value)
				mem.learn(field, value)
			},
			"forgive": func(rt *rapid.T) {
				stream, creds := drawStream(rt), drawCreds(rt)
				same(rt, c, mem, func(s store) (any, error) { return nil, s.forgive(t.Context(), stream, creds) })
			},
			"reset": func(*rapid.T) {
				same(rt, c, mem, func(s store) (any, error) { return nil, s.reset(t.Context()) })
			},
			"release": func(rt *rapid.T) {
				names := []string{drawLease(rt, leases), drawLease(rt, leases)}
				same(rt, c, mem, func(s store) (any, error) { return nil, s.release(t.Context(), names) })
			},
			"release owner": func(rt *rapid.T) {
				same(rt, c, mem, func(s store) (int, error) { return s.releaseOwner(t.Context(), "o1") })
			},
			"charge": func(rt *rapid.T) {
				k := charge{newCounter("c", "", time.Minute, true), rapid.IntRange(0, 9).Draw(rt, "n"), rapid.Bool().Draw(rt, "fill")}
				same(rt, c, mem, func(s store) (restart, error) {
					return s.charge(t.Context(), []string{"t:1000000"}, []charge{k})
				})
			},
			"": func(rt *rapid.T) {
				cs := l.inquiry().counters
				same(rt, c, mem, func(s store) (usage, error) { return s.usage(t.Context(), cs) })
			},
		})
	})
}

func same[T any](rt *rapid.T, lua, mem store, f func(store) (T, error)) T {
	rt.Helper()
	got, err1 := f(lua)
	want, err2 := f(mem)
	if err1 != nil || err2 != nil {
		rt.Fatal(err1, err2)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(grant{}, restart{}, usage{}, leaseLeft{}, renewed{}, breaker{}, ungreeted{}, refusedLogin{}),
		cmpopts.EquateEmpty(), cmpopts.IgnoreMapEntries(func(_ string, b breaker) bool { return b.since == 0 && len(b.dials) == 0 }),
		cmpopts.SortSlices(func(a, b refusedLogin) bool { return a.login+" "+a.creds < b.login+" "+b.creds }),
		cmpopts.SortSlices(func(a, b string) bool { return a < b }),
		cmpopts.SortSlices(func(a, b leaseLeft) bool { return a.name < b.name })); diff != "" {
		rt.Fatalf("memory (-) and Lua (+) differ:\n%s", diff)
	}
	return got
}

func drawStream(rt *rapid.T) string {
	return rapid.SampledFrom([]string{"auth", "normal", "ad"}).Draw(rt, "stream")
}

func drawClass(rt *rapid.T) Class {
	return Class{
		Stream: drawStream(rt),
		Group:  rapid.SampledFrom([]string{"", "naver", "google"}).Draw(rt, "group"),
		Sender: rapid.SampledFrom([]string{"", "new.example"}).Draw(rt, "sender"),
	}
}

func drawCreds(rt *rapid.T) string {
	return rapid.SampledFrom([]string{"f1", "f2", ""}).Draw(rt, "credentials")
}

// drawLogin mostly draws the same for all streams.
func drawLogin(rt *rapid.T, stream string) string {
	return rapid.SampledFrom([]string{"auth", "auth", "auth", stream}).Draw(rt, "login")
}

func drawReport(rt *rapid.T, leases []string) report {
	lease := drawLease(rt, leases)
	stream, _ := splitLease(lease)
	return report{
		lease: lease, stream: stream, creds: drawCreds(rt),
		news:  rapid.SampledFrom([]news{newsGreeted, newsRefused, newsRefused, newsLogin}).Draw(rt, "news"),
		why:   rapid.SampledFrom([]string{"", "421 4.3.2 no"}).Draw(rt, "why"),
		after: rapid.SampledFrom([]time.Duration{0, 0, sec}).Draw(rt, "after"),
		first: 100 * time.Millisecond, most: sec, jitter: rapid.Float64Range(0, 1).Draw(rt, "jitter"),
	}
}

// drawLease draws one of the leases asked for, granted or not.
func drawLease(rt *rapid.T, leases []string) string {
	return rapid.SampledFrom(leases).Draw(rt, "lease")
}

func drawLimits(rt *rapid.T) Limits {
	l := Limits{Open: rapid.IntRange(4, 8).Draw(rt, "open"), Streams: map[string]Share{
		"auth":   {Reserve: []Window{{2, sec}, {9, hour}}, Connections: 2},
		"normal": {Reserve: []Window{{3, 10 * sec}, {10, hour}}, Connections: rapid.IntRange(0, 1).Draw(rt, "kept")},
	}}
	all := []Window{{rapid.IntRange(20, 200).Draw(rt, "1s"), sec}, {700, 10 * sec}, {rapid.IntRange(40, 400).Draw(rt, "1h"), hour}}
	for _, w := range all {
		if rapid.Bool().Draw(rt, "has") {
			l.Messages = append(l.Messages, w)
		}
	}
	if rapid.Bool().Draw(rt, "new") {
		l.New = []Window{{6, 2 * sec}, {15, time.Minute}}
	}
	if rapid.Bool().Draw(rt, "narrow") {
		l.Streams["ad"] = Share{Messages: []Window{{rapid.IntRange(5, 200).Draw(rt, "ad"), sec}, {60, hour}}, New: []Window{{2, 2 * sec}}}
		l.Groups = map[string][]Window{"naver": {{rapid.IntRange(5, 100).Draw(rt, "naver"), sec}, {20, hour}}}
	}
	if rapid.Bool().Draw(rt, "warm up") {
		l.WarmUp = map[string]Ramp{Everyone: {20, 1.7, 1000}, "new.example": {5, 1.3, 50}}
	}
	if err := l.Validate(); err != nil {
		rt.Fatal(err)
	}
	return l
}
