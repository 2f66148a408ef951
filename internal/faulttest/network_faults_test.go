package faulttest

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/sluicemail/sluice/internal/relay"
)

// networkFaults are group C: what happens between the machines.
func networkFaults() []fault {
	through := setup{proxied: true, rate: 500}
	return []fault{
		{id: "C1", name: "one worker of two cut off from Redis for 7 s, silently, both ways", promise: "no dot meanwhile; the other takes over; nothing twice", runs: 2,
			run: cutOff(trouble{swallow: true}, trouble{swallow: true})},
		{id: "C1b", name: "the same, one way only: what it writes arrives, no answer comes", promise: "as C1", runs: 2,
			run: cutOff(trouble{}, trouble{swallow: true})},
		{id: "C1c", name: "both workers cut off from Redis for 7 s, silently", promise: "nobody declared dead; no dot meanwhile", runs: 1,
			run: allCutOff(setup{proxied: true, rate: 300})},
		{id: "C2", name: "relay cut off silently in mid-campaign (time limits 60 times shorter)", promise: "connections given up; ≤ 2 a connection unknown", runs: 2,
			run: campaign(setup{proxied: true, rate: 500, env: []string{"FAULT_SCALE=60"}, patience: 20 * time.Second}, 1, silentRelay)},
		{id: "C3", name: "RST on every connection to the relay, eight times", promise: "only what had its dot out is unknown", runs: 2, quick: true,
			run: campaign(setup{proxied: true, rate: 300}, 1, resets)},
		{id: "C4", name: "relay 100 ms away with 100 ms of jitter and 64 KB/s a connection; Redis 5 ms away", promise: "no unknown, no attempt used up", runs: 1,
			run: campaign(setup{proxied: true, recipients: 2000, connections: 16, rate: 500}, 1, farAway)},
		{id: "C5", name: "every byte a packet of its own, to relay and Redis and back", promise: "the same outcome", runs: 1,
			run: campaign(through, 1, func(r *rig, out *result) {
				r.toRelay.set(trouble{slice: 1}, trouble{slice: 1})
				r.toRedis.set(trouble{slice: 7}, trouble{slice: 1})
			})},
		{id: "C6", name: "DNS: SERVFAIL, no answer, no address, a dead address before a live one", promise: "mail waits; no attempt used up", runs: 1,
			run: names("servfail", "silence", "empty", "dead first")},
		{id: "C6b", name: "DNS says for 3 s that the relay's name does not exist", promise: "as C6", runs: 1, run: names("nxdomain")},
		{id: "C7", name: "48 file descriptors", promise: "everything is sent", runs: 1, run: fewDescriptors},
		{id: "C8", name: "relay down for 15 s", promise: "few probes, no attempt used up", runs: 2, run: relayDown},
		{id: "C8b", name: "login codes with a ttl of 3 s while the relay is down for 6 s", promise: "expired, none late", runs: 1, run: lateCodes},
	}
}

// cutOff runs two workers, of which one loses Redis and nobody else.
func cutOff(up, down trouble) func(testing.TB) *result {
	return func(t testing.TB) *result {
		t.Helper()
		r, out := begin(t, setup{proxied: true, rate: 400})
		one := r.worker()
		r.send()
		r.under(100)
		r.write("direct.yaml", r.yaml(r.store.Addr(), r.srv.Addr()))
		r.workerOn("direct.yaml")
		gone := time.Now()
		r.toRedis.set(up, down)
		idle(time.Second)
		quiet := r.srv.Truth()
		idle(6 * time.Second)
		// Whoever was cut off sends nothing more on its connections.
		old := map[int]bool{}
		for _, m := range quiet {
			if m.Time.Before(gone) {
				old[m.Conn] = true
			}
		}
		for _, m := range r.srv.Truth()[len(quiet):] {
			if old[m.Conn] {
				out.awayDots++
			}
		}
		r.toRedis.set(trouble{}, trouble{})
		r.toRedis.cut()
		out.crashes = 1
		r.end(out)
		out.recovery = resumed(r.srv.Truth(), gone)
		if !one.alive() {
			out.fail("the worker that was cut off ended")
		}
		return out
	}
}

// allCutOff takes Redis away from two workers, from one of them a second earlier, so
// that the other has seen its last heartbeat, and gives it back a second later. What
// they write meanwhile never arrives.
func allCutOff(s setup) func(testing.TB) *result {
	return func(t testing.TB) *result {
		t.Helper()
		r, out := begin(t, s)
		other := startProxy(t, r.store.Addr())
		r.write("other.yaml", r.yaml(other.addr(), r.srv.Addr()))
		r.worker()
		r.send()
		r.under(20)
		r.workerOn("other.yaml")
		r.under(r.recipients / 3)
		silence := trouble{swallow: true}
		r.toRedis.set(silence, silence)
		idle(time.Second)
		r.redisAway(out, 6*time.Second, func() { other.set(silence, silence) }, func() {
			other.set(trouble{}, trouble{})
			other.cut()
			idle(time.Second)
			r.toRedis.set(trouble{}, trouble{})
			r.toRedis.cut()
		})
		idle(time.Second)
		r.noDeaths(out)
		return r.end(out)
	}
}

func silentRelay(r *rig, out *result) {
	r.under(r.recipients / 3)
	r.toRelay.set(trouble{swallow: true}, trouble{swallow: true})
	begun := time.Now()
	before := r.srv.Stats().Connections
	idle(500 * time.Millisecond)
	r.toRelay.refusing(true)
	idle(12 * time.Second) // the dot's 10 minutes, 60 times shorter, and some
	r.toRelay.refusing(false)
	r.toRelay.set(trouble{}, trouble{})
	back := time.Now()
	if !within(r.patience, func() bool { return r.srv.Stats().Connections > before }) {
		out.fail("no new connection %v after the old ones went silent", time.Since(begun))
	}
	within(r.patience, func() bool { return next(r.srv.Truth(), back) > 0 })
	out.mayUnknown = 2 * r.connections
	out.recovery = resumed(r.srv.Truth(), back)
}

func resets(r *rig, out *result) {
	for i := range 8 {
		r.under((i + 1) * r.recipients / 10)
		r.toRelay.reset()
		at := time.Now()
		within(10*time.Second, func() bool { return next(r.srv.Truth(), at) > 0 })
		out.recovery = max(out.recovery, next(r.srv.Truth(), at))
		out.mayUnknown += r.connections
	}
}

func farAway(r *rig, _ *result) {
	r.toRelay.set(trouble{latency: 50 * time.Millisecond, jitter: 50 * time.Millisecond, rate: 64 << 10},
		trouble{latency: 50 * time.Millisecond, jitter: 50 * time.Millisecond, rate: 64 << 10})
	r.toRedis.set(trouble{latency: 2 * time.Millisecond}, trouble{latency: 3 * time.Millisecond})
}

// nameServer answers what it is told to, for any name.
type nameServer struct {
	mode  atomic.Value // string
	asked atomic.Int64
}

func (n *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	n.asked.Add(1)
	m := new(dns.Msg)
	m.SetReply(q)
	address := func(ip string) {
		if q.Question[0].Qtype == dns.TypeA {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(ip)})
		}
	}
	switch n.mode.Load() {
	case "silence":
		return
	case "servfail":
		m.Rcode = dns.RcodeServerFailure
	case "nxdomain":
		m.Rcode = dns.RcodeNameError
	case "empty":
	case "dead first":
		address("127.0.0.2")
		address("127.0.0.1")
	default:
		address("127.0.0.1")
	}
	_ = w.WriteMsg(m)
}

// names sends through a relay that is reached by name, while its name server fails in
// every way. Connections are short, so that names are looked up all the time.
func names(modes ...string) func(testing.TB) *result {
	return func(t testing.TB) *result {
		t.Helper()
		return sendByName(t, modes)
	}
}

func sendByName(t testing.TB, modes []string) *result {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &nameServer{}
	n.mode.Store("")
	up := make(chan struct{})
	server := &dns.Server{PacketConn: pc, Handler: n, NotifyStartedFunc: func() { close(up) }}
	go func() { _ = server.ActivateAndServe() }()
	<-up
	t.Cleanup(func() { _ = server.Shutdown() })
	r, out := begin(t, setup{rate: 300, env: []string{"FAULT_DNS=" + pc.LocalAddr().String()},
		limits: "limits: {connections: {open: 8, new: [6000/1m]}, messages: [300/1s], per_connection: {messages: 40, age: 5m, idle: 30s}}"})
	_, port, _ := net.SplitHostPort(r.srv.Addr())
	r.write("sluice.yaml", r.yaml(r.store.Addr(), relay.Host+":"+port))
	r.worker()
	r.send()
	for i, mode := range modes {
		n.mode.Store("")
		if !within(40*time.Second, func() bool { return r.sent() >= 200+400*i }) {
			out.fail("no mail after %q", modes[max(0, i-1)])
			break
		}
		n.mode.Store(mode)
		idle(3 * time.Second)
	}
	n.mode.Store("")
	r.end(out)
	out.note("%d lookups for %d connections", n.asked.Load(), r.srv.Stats().Connections)
	return out
}

// fewDescriptors gives a worker fewer descriptors than it has use for.
func fewDescriptors(t testing.TB) *result {
	r, out := begin(t, setup{connections: 40, rate: 800})
	w := startAs(t, r.dir, r.env, []string{"sh", "-c", "ulimit -n 48; exec " + program(t) + " worker --config sluice.yaml"})
	r.workers = append(r.workers, w)
	r.send()
	r.end(out)
	out.note("%d connections at once", r.srv.Stats().OpenMax)
	if !w.alive() {
		out.fail("the worker ended")
	}
	return out
}

// counting is a listener in the relay's place that ends every connection at once.
func relayDown(t testing.TB) *result {
	r, out := begin(t, setup{proxied: true, rate: 400, patience: 20 * time.Second})
	down, attempts := refusingTarget(t)
	r.worker()
	r.send()
	r.under(r.recipients / 3)
	r.toRelay.redirect(down)
	r.toRelay.cut()
	out.mayUnknown = 2 * r.connections // cut with their dots out
	gone := time.Now()
	idle(15 * time.Second)
	n := attempts()
	r.toRelay.redirect(r.srv.Addr())
	back := time.Now()
	r.end(out)
	out.recovery = resumed(r.srv.Truth(), back)
	out.note("%.1f probes a second", float64(n)/back.Sub(gone).Seconds())
	if float64(n) > 3*back.Sub(gone).Seconds() {
		out.fail("%d dials in %v to a relay that is down", n, back.Sub(gone))
	}
	return out
}

// refusingTarget is a listener that hangs up, and how often it did.
func refusingTarget(t testing.TB) (addr string, attempts func() int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String(), func() int { return int(n.Load()) }
}

func lateCodes(t testing.TB) *result {
	r, out := begin(t, setup{proxied: true, stream: "auth", recipients: 60, rate: 400, auth: "reserve: [20/1s], connections: 2, ttl: 3s", patience: 20 * time.Second})
	r.worker()
	r.toRelay.refusing(true)
	r.send()
	enqueued := time.Now()
	idle(6 * time.Second)
	r.toRelay.refusing(false)
	r.end(out)
	out.mayRefuse = r.recipients
	if late := between(r.srv.Truth(), enqueued.Add(4*time.Second), time.Now()); late > 0 {
		out.fail("%d codes were sent after their time", late)
	}
	out.note("%s", fmt.Sprintf("%d expired", out.Refused))
	return out
}
