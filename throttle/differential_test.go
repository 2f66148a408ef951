package throttle

import (
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
				p := l.messagePlan(drawStream(rt))
				n := rapid.IntRange(0, 40).Draw(rt, "n")
				var back []unused
				if rapid.Bool().Draw(rt, "back") {
					back = []unused{{last.now, rapid.IntRange(0, last.n).Draw(rt, "unused")}}
				}
				last = same(rt, c, mem, func(s store) (grant, error) { return s.messages(t.Context(), p, n, back) })
			},
			"connect": func(rt *rapid.T) {
				p, name := l.connectPlan(drawStream(rt)), drawLease(rt)
				same(rt, c, mem, func(s store) (grant, error) { return s.connect(t.Context(), p, name, sec) })
			},
			"renew": func(rt *rapid.T) {
				p, names := l.connectPlan(""), []string{drawLease(rt), drawLease(rt)}
				same(rt, c, mem, func(s store) ([]bool, error) { return s.renew(t.Context(), p, names, sec) })
			},
			"release": func(rt *rapid.T) {
				names := []string{drawLease(rt), drawLease(rt)}
				same(rt, c, mem, func(s store) (any, error) { return nil, s.release(t.Context(), names) })
			},
			"release owner": func(rt *rapid.T) {
				same(rt, c, mem, func(s store) (int, error) { return s.releaseOwner(t.Context(), "o1") })
			},
			"charge": func(rt *rapid.T) {
				k := charge{newCounter("c", "", time.Minute, true), rapid.IntRange(0, 9).Draw(rt, "n"), rapid.Bool().Draw(rt, "fill")}
				same(rt, c, mem, func(s store) (any, error) {
					return nil, s.charge(t.Context(), []string{"t:1000000"}, []charge{k})
				})
			},
			"": func(rt *rapid.T) {
				cs := l.messagePlan("auth").counters
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
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(grant{}, usage{}, leaseLeft{}), cmpopts.EquateEmpty(),
		cmpopts.SortSlices(func(a, b leaseLeft) bool { return a.name < b.name })); diff != "" {
		rt.Fatalf("memory (-) and Lua (+) differ:\n%s", diff)
	}
	return got
}

func drawStream(rt *rapid.T) string {
	return rapid.SampledFrom([]string{"auth", "normal", "ad"}).Draw(rt, "stream")
}

func drawLease(rt *rapid.T) string {
	return leaseName(drawStream(rt), rapid.SampledFrom([]string{"o1", "o2"}).Draw(rt, "owner"),
		rapid.SampledFrom([]string{"1", "2", "3"}).Draw(rt, "number"))
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
	if err := l.Validate(); err != nil {
		rt.Fatal(err)
	}
	return l
}
