package faulttest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// soak is one long run: campaign after campaign over the same Redis, relay and three
// worker processes, while something is broken every few seconds.
type soak struct {
	*rig
	out    *result
	team   []*process
	thaw   map[*process]time.Time // frozen ones, and when they go on
	counts map[string]int         // of what was done
	blows  int                    // to Redis
	lost   int64                  // writes that Redis had acknowledged and lost
}

// TestSoak kills at random for as long as -soak says, half of the time with each of
// the policies for unknowns.
func TestSoak(t *testing.T) {
	if *soakFor == 0 {
		t.Skip("scripts/soak runs it")
	}
	var all result
	counts := map[string]int{}
	var lost int64
	for _, policy := range []string{"hold", "resend"} {
		s := newSoak(t, policy)
		s.last(*soakFor / 2)
		all.merge(s.out)
		for what, n := range s.counts {
			counts[what] += n
		}
		lost += s.lost
	}
	text := fmt.Sprintf("%d campaigns, %d recipients over ten connections of three workers.\n\n"+
		"Workers: %d SIGKILL, %d frozen for 5 to 9 s, %d frozen for less, %d told to stop and started anew. "+
		"Redis: %d kill -9, %d of them under heavy write load (%d acknowledged writes lost), %d with its last second cut off its file.\n\n"+
		"Lost %d; got two mails %d, of those not listed %d; unknown %d, sent again and listed %d; wrongly paired %d; most over the limit in a second %d; "+
		"sent while Redis was away %d; attempts used up %d.\n",
		counts["campaigns"], all.Recipients, counts["kill"], counts["freeze"], counts["stall"], counts["restart"],
		counts["redis"]+counts["redis load"]+counts["redis cut"], counts["redis load"], lost, counts["redis cut"],
		all.Lost, all.Doubled, all.Unlisted, all.Unknown, all.Listed, all.Mispaired, all.over, all.awayDots, all.Burnt)
	t.Log(text)
	if *writeTo != "" {
		text += fmt.Sprintf("\n`%s` wrote this: %s.\n", command(), machine())
		if err := fill(*writeTo, "soak", text); err != nil {
			t.Error(err)
		}
	}
}

func command() string {
	return fmt.Sprintf("scripts/soak -duration %v -kills %d -redis-kills %d -recipients %d", *soakFor, *soakKills, *soakRedis, *soakCampaign)
}

func newSoak(t *testing.T, policy string) *soak {
	r, out := begin(t, setup{recipients: *soakCampaign, connections: 10, rate: 1500, policy: policy})
	s := &soak{rig: r, out: out, thaw: map[*process]time.Time{}, counts: map[string]int{}}
	for range 3 {
		s.team = append(s.team, r.worker())
	}
	return s
}

// last soaks until its time is over and it has done what it is to do.
func (s *soak) last(d time.Duration) {
	s.t.Helper()
	end := time.Now().Add(d)
	kills, blows := (*soakKills+1)/2, (*soakRedis+1)/2
	events := kills*100/killShare + blows
	every := d / time.Duration(events) * 9 / 10
	for n := 1; time.Now().Before(end) || s.counts["kill"] < kills || s.blows < blows; n++ {
		s.begins(fmt.Sprintf("%s%d", s.policy, n))
		s.send()
		s.counts["campaigns"]++
		crashes := s.out.crashes
		for stuck := time.Now(); !s.done(); {
			before := s.sent()
			s.disturb(every, s.blows < blows && rand.IntN(events) < blows)
			if s.sent() > before {
				stuck = time.Now()
			} else if time.Since(stuck) > time.Minute {
				s.out.fail("campaign %s stands still", s.name)
				break
			}
		}
		s.wakeAll()
		s.finish(s.patience)
		s.still()
		one := s.judge()
		if most := 2 * s.connections * (s.out.crashes - crashes); one.Unknown+one.Listed > most {
			s.out.fail("campaign %s: %d unknown or sent again, where %d are the most", s.name, one.Unknown+one.Listed, most)
		}
		s.t.Logf("%s: %+v", s.name, one)
		s.out.add(one)
	}
	s.out.mayUnknown = 2 * s.connections * s.out.crashes
	s.out.over = overshoot(s.srv.MailTimes(), s.rate, time.Second)
	if bad := s.out.complaints(); len(bad) > 0 {
		s.t.Errorf("%s:\n  %s", s.policy, strings.Join(bad, "\n  "))
	}
}

// done reports whether the campaign has ended.
func (s *soak) done() bool {
	sum, ok := s.show()
	return ok && sum.State == "done"
}

// disturb breaks something, and lets some time pass.
func (s *soak) disturb(every time.Duration, redisToo bool) {
	begun := time.Now()
	s.wake(false)
	if redisToo {
		s.blow()
	} else {
		s.strike()
	}
	idle(every/2 + rand.N(every) - time.Since(begun))
}

// killShare is how many of a hundred strikes are a SIGKILL. The others are what a
// worker meets besides, and are not counted as kills.
const killShare = 80

// strike does something to one worker.
func (s *soak) strike() {
	i := rand.IntN(len(s.team))
	p := s.team[i]
	if _, frozen := s.thaw[p]; frozen {
		return
	}
	switch n := rand.IntN(100); {
	case n < killShare:
		s.counts["kill"]++
		s.out.crashes++
		p.kill()
		s.team[i] = s.worker()
	case n < 88:
		s.counts["freeze"]++
		s.out.crashes++
		p.signal(syscall.SIGSTOP)
		s.thaw[p] = time.Now().Add(5*time.Second + rand.N(4*time.Second))
	case n < 93:
		s.counts["stall"]++
		s.out.crashes++ // it may come to more than 4 s in all
		p.signal(syscall.SIGSTOP)
		s.thaw[p] = time.Now().Add(rand.N(3 * time.Second))
	default:
		s.counts["restart"]++
		p.signal(syscall.SIGTERM)
		if code := p.wait(40 * time.Second); code != 0 {
			s.out.fail("a worker told to stop ends with %d: %s", code, tail(p.errs.String(), 500))
			p.kill()
		}
		s.team[i] = s.worker()
	}
}

// wake lets those go on whose time has come, or all.
func (s *soak) wake(all bool) {
	for p, at := range s.thaw {
		if all || time.Now().After(at) {
			p.signal(syscall.SIGCONT)
			delete(s.thaw, p)
		}
	}
}

func (s *soak) wakeAll() {
	s.wake(true)
	for i, p := range s.team {
		if !p.alive() {
			s.out.fail("a worker ended by itself: %s", tail(p.errs.String(), 500))
			s.team[i] = s.worker()
		}
	}
}

// blow kills Redis: plainly, under a load that makes its file lag, or as a power loss
// would. In the latter two it loses what it had acknowledged. A worker that dies in
// the same seconds takes with it what Redis lost (durability: fsync is for that), so
// they are left alone then.
func (s *soak) blow() {
	s.blows++
	kind := []string{"redis", "redis load", "redis cut"}[rand.IntN(3)]
	s.counts[kind]++
	if kind == "redis" {
		s.redisAway(s.out, rand.N(2*time.Second), s.store.Kill, s.store.Restart)
		return
	}
	s.wakeAll()
	idle(5 * time.Second)
	if kind == "redis load" {
		s.blowUnderLoad()
		return
	}
	file := aofTail(s.t, s.store.Dir())
	kept := sizeOf(s.t, file)
	idle(time.Second)
	s.redisAway(s.out, 100*time.Millisecond, func() {
		s.store.Kill()
		if aofTail(s.t, s.store.Dir()) != file {
			return // rewritten meanwhile: then nothing is cut off
		}
		if err := os.Truncate(file, kept); err != nil {
			s.t.Fatal(err)
		}
	}, s.store.Restart)
}

// blowUnderLoad kills Redis while it is written to as fast as it goes.
func (s *soak) blowUnderLoad() {
	ctx, stop := context.WithCancel(s.t.Context())
	defer stop()
	var acknowledged atomic.Int64
	var writers sync.WaitGroup
	value := strings.Repeat("x", 256<<10)
	for w := range 8 {
		writers.Go(func() {
			rdb := redis.NewClient(&redis.Options{Addr: s.store.Addr(), MaxRetries: -1})
			defer rdb.Close()
			for i := 0; ctx.Err() == nil; i++ {
				pipe := rdb.TxPipeline()
				pipe.Set(ctx, fmt.Sprintf("load:%d:%d", w, i%50), value, 0)
				n := pipe.Incr(ctx, "load:n")
				if _, err := pipe.Exec(ctx); err != nil {
					return
				}
				for old := acknowledged.Load(); n.Val() > old && !acknowledged.CompareAndSwap(old, n.Val()); old = acknowledged.Load() {
				}
			}
		})
	}
	idle(3 * time.Second)
	s.redisAway(s.out, 100*time.Millisecond, func() {
		s.store.Kill()
		stop()
		writers.Wait()
	}, s.store.Restart)
	stored, _ := s.rdb.Get(s.t.Context(), "load:n").Int64()
	s.lost += max(0, acknowledged.Load()-stored)
}
