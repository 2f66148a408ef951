package throttle

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Refusal is what became of a dial that brought no connection.
type Refusal struct {
	// Login says that the relay answered and did not take the credentials.
	Login bool
	// Why is the relay's reply or the error, for people. The first 200 bytes are
	// kept.
	Why string
	// After is when the relay said to come back; 0: it did not.
	After time.Duration
}

// BreakerState is what a login's dials have come to.
type BreakerState string

// A closed breaker lets two dials be under way at once. An open one lets none,
// until the pause has passed; a half-open one waits for what comes of its probe.
// Refused credentials are not tried again until Reset.
const (
	Closed       BreakerState = "closed"
	Open         BreakerState = "open"
	HalfOpen     BreakerState = "half-open"
	LoginRefused BreakerState = "login refused"
)

// Breaker is what keeps the fleet from dialling one login, as one of the streams that
// use it sees it: of these all is the same but Stream and Ungreeted.
type Breaker struct {
	Stream    string
	State     BreakerState
	Login     string    // fingerprint of the credentials that were refused
	Since     time.Time // when it left Closed
	Next      time.Time // of the next probe; zero if none is waited for
	Refusals  int       // in a row
	Ungreeted int       // dials of the stream under way
	Why       string
}

// mostUngreeted is how many dials of a login may be under way in the fleet.
const mostUngreeted = 2

// breaker is one login in the store, and the dials of the stream of that name. Times
// are µs.
type breaker struct {
	since int64 // when it opened; 0: closed
	last  int64 // when the refusal came that counted last
	next  int64 // no dial before
	early int64 // but from then on, if a place has become free since
	fails int   // refusals in a row
	at    int   // connections that were open and well at the last of them
	why   string
	dials []ungreeted
}

// ungreeted is a dial that is under way.
type ungreeted struct {
	lease        string
	start, lapse int64
}

// refusedLogin is a login's credentials that the relay did not take.
type refusedLogin struct {
	login, creds, why string
	since             int64
}

// news is what came of a dial.
type news string

const (
	newsGreeted news = "greeted"
	newsRefused news = "refused"
	newsLogin   news = "login"
)

// report tells the store what came of a dial.
type report struct {
	lease, stream, creds string
	news                 news
	why                  string
	after                time.Duration
	first, most          time.Duration // pauses before probes
	jitter               float64       // 0 to 1
}

// drop removes dials that have lapsed, and the one named, which it returns.
func (b *breaker) drop(lease string, now int64) (mine ungreeted, found bool) {
	b.dials = slices.DeleteFunc(b.dials, func(d ungreeted) bool {
		if d.lease == lease {
			mine, found = d, d.lapse > now
		}
		return d.lease == lease || d.lapse <= now
	})
	return mine, found
}

// keep puts off the lapse of a dial. One that is not known any more is taken to
// begin now.
func (b *breaker) keep(lease string, now, lapse int64) {
	for i := range b.dials {
		if b.dials[i].lease == lease {
			b.dials[i].lapse = lapse
			return
		}
	}
	b.dials = append(b.dials, ungreeted{lease, now, lapse})
}

func dialling(list []ungreeted, lease string) bool {
	return slices.ContainsFunc(list, func(d ungreeted) bool { return d.lease == lease })
}

// probed tells whether one of the dials is the probe.
func (b *breaker) probed(list []ungreeted) bool {
	return slices.ContainsFunc(list, func(d ungreeted) bool { return d.start >= b.last })
}

// gate tells whether one more dial may begin beside those of the list, and if not,
// after how many µs that may change (0: not known). open are the login's greeted
// connections.
func (b *breaker) gate(list []ungreeted, open int, now int64) (ok bool, retry int64) {
	if b.since == 0 {
		return true, 0
	}
	if b.probed(list) {
		return false, 0
	}
	at := b.next
	if open < b.at {
		at = min(at, b.early)
	}
	return now >= at, max(0, at-now)
}

// hear notes what came of a dial. One that began before the last refusal says
// nothing new: it neither closes the breaker nor lengthens the pause.
func (b *breaker) hear(r report, mine ungreeted, open int, now int64) {
	if b.since != 0 && mine.start < b.last {
		return
	}
	if r.news != newsRefused { // the relay answers
		*b = breaker{dials: b.dials}
		return
	}
	if b.since == 0 {
		b.since = now
	}
	b.fails++
	pause, early := r.pauses(b.fails)
	if after := micros(r.after); after > 0 {
		pause = max(pause, after)
		early = pause
	}
	b.last, b.next, b.early, b.at, b.why = now, now+pause, now+early, open, r.why
}

// Pauses before probes grow by half each time, and are drawn within a fifth. So the
// pause after an outage is about half as long as the outage was.
const (
	pauseGrows  = 1.5
	pauseSpread = 0.2
)

// pauses are how long after the nth refusal in a row the next probe is made, µs: at
// most, and as soon as one of the open connections has ended.
func (r report) pauses(n int) (pause, early int64) {
	first, most := float64(micros(r.first)), float64(micros(r.most))
	// A power of 1.5 up to here is exact, so that the scripts get the same.
	full := min(first*math.Pow(pauseGrows, float64(min(n-1, 30))), most)
	pause = int64(min(full*(1-pauseSpread+2*pauseSpread*r.jitter), most))
	return pause, min(pause, int64(first*(1+r.jitter)/2))
}

// show puts a breaker on our own clock, for one of the streams that use it. list are
// the dials of all of them.
func (b breaker) show(stream string, list []ungreeted, now int64, clock time.Time) Breaker {
	s := Breaker{Stream: stream, State: Closed, Refusals: b.fails, Why: b.why}
	if b.since == 0 {
		return s
	}
	at := func(t int64) time.Time { return clock.Add(time.Duration(t-now) * time.Microsecond) }
	s.Since = at(b.since)
	if b.probed(list) {
		s.State = HalfOpen
		return s
	}
	s.State, s.Next = Open, at(b.next)
	return s
}

// users are the streams known to use a login. A stream that has moved on to another
// login is none of the login of its own name.
func (u usage) users(login string) []string {
	var list []string
	for stream, of := range u.logins {
		if of == login {
			list = append(list, stream)
		}
	}
	if _, moved := u.logins[login]; !moved {
		list = append(list, login)
	}
	return list
}

// showBreakers lists, for each stream, all that is not as it should be with its
// login, and what is under way.
func (u usage) showBreakers(clock time.Time) []Breaker {
	logins := map[string]bool{}
	for name, b := range u.breakers {
		b.drop("", u.now)
		u.breakers[name] = b
		logins[name] = true
		if of, shared := u.logins[name]; shared {
			logins[of] = true
		}
	}
	var list []Breaker
	for login := range logins {
		list = append(list, u.showLogin(login, clock)...)
	}
	for _, r := range u.refused {
		for _, stream := range u.users(r.login) {
			list = append(list, Breaker{
				Stream: stream, State: LoginRefused, Login: r.creds, Why: r.why,
				Since: clock.Add(time.Duration(r.since-u.now) * time.Microsecond),
			})
		}
	}
	slices.SortFunc(list, func(a, b Breaker) int {
		return cmp.Or(cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.State, b.State), cmp.Compare(a.Login, b.Login))
	})
	return list
}

func (u usage) showLogin(login string, clock time.Time) []Breaker {
	streams := u.users(login)
	var dials []ungreeted
	for _, stream := range streams {
		dials = append(dials, u.breakers[stream].dials...)
	}
	var list []Breaker
	for _, stream := range streams {
		s := u.breakers[login].show(stream, dials, u.now, clock)
		s.Ungreeted = len(u.breakers[stream].dials)
		if s.State != Closed || s.Ungreeted > 0 {
			list = append(list, s)
		}
	}
	return list
}

// whyBytes is how much of a reason is kept.
const whyBytes = 200

// plain makes a reason one line of text that can be shown anywhere.
func plain(why string) string {
	why = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(why, "?"))
	if len(why) > whyBytes {
		why = strings.ToValidUTF8(why[:whyBytes], "")
	}
	return why
}
