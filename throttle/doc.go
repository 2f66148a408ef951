// Package throttle is the fleet's budget: how many connections to the relay may
// be opened and held, and how many messages begun, over all processes together.
// It knows streams, recipient groups and senders' domains by name, and nothing of
// mail.
//
// The windows, leases and breakers are kept in Redis, one Lua script a step, on
// Redis's own clock; Memory keeps them for processes that are alone. Budget is
// the process's side: it leases messages a few at a time, ahead of their use, and
// takes connections one by one. The package does not dial and does not decide
// what is worth sending.
//
// # What is guaranteed
//
// No window of a limit's length, as the relay sees it, holds more than N: every
// limit is enforced over its window and a slack of 100 ms (5 % of windows from
// 10 s up), which is spent on what happens between being counted and arriving.
//
// Message windows up to a minute are timelines. With window W, slack S and limit
// N, slots lie T = (W+S)/N apart and each is given out once. Slot k, at time k·T,
// may be taken up to late after its time; the message must begin within life
// (45 ms) from when it was taken or from its slot, whichever is later, or the
// token lapses; it may then be under way for jitter. So it arrives between k·T
// and k·T + late + life + jitter, and with late + life + jitter = S message k+N
// arrives at least N·T − S = W after message k. Any N+1 messages contain two that
// are N apart in the timeline, so no window of W holds N+1 of them. For windows
// under 10 s late is 20 ms and jitter 35 ms; from 10 s up jitter is a quarter of
// the slack. A connection that has taken a message may keep it for up to 30 ms of that
// (package smtp: fresh and Prompt), mostly it does for less than one.
//
// At most N messages in W+S is a rate of W/(W+S) of the limit: 90.9 % for 1 s, 95.2 % for
// 2 s and again from 10 s up, 99 % just under 10 s. No scheme does better: if arrivals may be S late, N+1 messages begun within W+S can all
// arrive within W. A drain that always has mail loses nothing beyond that, as
// long as it asks every 40 ms (late and the 20 ms slots may be taken ahead),
// which it can with Redis up to 40 ms away and back.
//
// Longer message windows, and all windows of new connections, are counted in 500
// buckets, and a bucket counts until its end is W+S ago: never too little, and at
// most 0.2 % too long. They may be spent as fast as the others allow. What was
// leased there and not used is given back; slots that passed are gone.
//
// Open connections are leases of 60 s, renewed every second. A lease that was not
// renewed is lost 7 s after the last renewal was asked for on the process's
// monotonic clock, so that the connection is closed long before Redis lets it
// lapse. A process that is frozen stays counted until it is back or the 60 s have
// passed; what a process known to be dead held comes back with ReleaseOwner.
//
// # Classes
//
// A stream, a recipient group and a sender's domain may each have limits of their
// own beside the account's; one script call asks them all. A Class that has none
// of its own draws on the same stock as the others of its stream. A narrower
// timeline may delay a message only so far behind the account's (or the stream's)
// next slot that no slot of it is lost: a group without budget costs the others
// nothing. Beside others that want all there is, a group may get less than its
// own limit.
//
// A learned rate is one more timeline of the account or a group, with the
// lateness of a second's window; it may change from call to call. A learned number
// of connections holds for opening, closes nothing, and shrinks what is kept for
// streams so that one is left for the others. Warm-up is a window of 24 hours that
// grows by the day; in the account's the reserves grow with it.
//
// # Shares
//
// In a timeline a reserve is a right of way: a stream within its reserve may take
// slots 50 ms ahead, one beyond its reserve 35 ms, one without a reserve 20 ms;
// and when one with a better right got fewer than it wanted, the others get none
// until it has asked again (at most 40 ms). So a reserve is served within 100 ms
// of being wanted, and a burst beyond it before anything without a reserve. What
// is not wanted is anyone's. In counted windows nobody may take what another's
// reserve has not used yet, so that ads cannot eat the day's login codes. A
// stream's reserved connections are kept free in the same way, and as many
// openings in each window. Limits of groups, streams and senders know no shares.
//
// # Breakers
//
// The relay knows logins, not streams, and several streams may use the same one
// (Params.LoginName). A login's dials that the relay has not greeted are at most two
// in the whole fleet (of living processes: a dead dialler's count for 10 s more).
// After one was refused there is none until a pause has passed, then one probe at a
// time; pauses grow by half each time, from 1 to 60 s, each drawn within a fifth, so
// that the relay is found to be back after about half the time that it was away; a
// greeting ends them. Where connections of the login are open, the relay is not down
// but full: then half to one second is enough as soon as one of them has ended.
// Refused credentials are not tried again by any stream of the login before Reset;
// others are, at once. Being held counts as no opening.
//
// Of the two dials one is left to a stream that shares the login and does not have
// its reserved connections yet: it need not wait for another's greeting. Who has them
// all, or has none reserved, waits in no order, and asks again after a tenth of a
// second.
//
// # Learning
//
// What the relay says of limits that nobody has configured is learned from: replies
// that messages come too fast, dials refused because too many connections are
// open, connections ended after so many messages, greetings and replies that take
// longer and longer. Processes count what happens (Note) and report it four times
// a second, if there is anything; one of them leads, for as long as it is heard
// of, and draws the conclusions for all. A rate is found from what passed in the
// last second, 10 s, minute, 10 minutes and hour when the relay refused, and kept
// to at 95 %; now and then a little more is tried, the more seldom the more often
// that failed. Nothing learned is beyond Limits or below Adaptive, a few refusals
// in ten thousand mean nothing, and those that come at any rate are got used to.
// What was learned stays in Redis until Reset; Learned shows it. A leader that
// dies or freezes is replaced within two seconds, and what it wants after that is
// not heard.
//
// # How it fails
//
// Without Redis nothing is granted to any stream: calls wait, or return when
// their context ends, and it resumes by itself. Tokens already leased lapse
// within 100 ms. Being throttled is not an error. A process that dies loses the
// slots it had leased and keeps its connections counted for 60 s, or until
// ReleaseOwner. Redis's clock may be set back: the account's time then stands on
// what was seen last. A breaker or warm-up that Redis lost begins anew. Beside all
// that Redis says, each process alone is held to the limit of messages by a
// golang.org/x/time/rate limiter.
//
// A Redis that restarts, or a replica that takes over, may have lost its newest data:
// two seconds of it where the append-only file is written every second. In any 3 s no
// more connections are opened than may be open at once, or than the windows of new
// connections allow in 6 s on average. So at the first attempt to connect after a
// restart (the script sees another run_id) these are charged to every such window,
// once, whoever was granted them and whether that process lives; and no connection is
// granted for 3 s, in which all renew their leases and AssumeFull charges what the
// living know of. Data that turns out to be older than 3 s fills windows of new
// connections up to a minute. Slots are safe by themselves: after a restart they begin
// behind all that were given out. Message windows longer than a minute are charged what
// the living were granted in their last minute; what a process began that died within
// the seconds which Redis lost is missing there. A Redis that says no run_id is taken
// to have lost everything when AssumeFull is called. Where the budget's data were
// deleted, the first process to connect that had connected before notices: it fills
// windows of new connections up to a minute, and charges longer ones as above.
//
// Not covered: a process that is stopped between taking a message or connection
// and writing it; a way to the relay that delays by more than jitter; Redis's
// clock being set forward by a part of a window; Redis and every process lost
// together.
package throttle
