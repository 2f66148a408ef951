package throttle

import (
	"context"
	"strings"
	"time"
)

// store keeps the account's windows and leases for the whole fleet. Every
// method is one atomic step on the store's own clock, in microseconds; an error
// means that nothing may be taken as granted, although it may have been counted.
type store interface {
	observer
	// messages leases up to n messages for the plan's class, after giving back
	// what earlier leases left unused.
	messages(ctx context.Context, p *plan, n int, back []unused) (grant, error)
	// connect counts one attempt and takes one open connection until d.lapse has
	// passed, or does neither (grant.n is 0).
	connect(ctx context.Context, p *plan, d dial) (grant, error)
	// settle notes what came of a dial that connect has granted.
	settle(ctx context.Context, r report) error
	// renew puts off the lapse of leases. A lease that is no longer known is taken
	// again if there is room, because a store that lost its newest data must not
	// cost every connection.
	renew(ctx context.Context, p *plan, r renewal) (renewed, error)
	// release gives leases back. Unknown ones are no error.
	release(ctx context.Context, leases []string) error
	// releaseOwner gives back every lease of one owner and returns how many.
	releaseOwner(ctx context.Context, owner string) (int, error)
	// charge counts what the store may have forgotten, and closes every timeline
	// for as long as slots may have been taken ahead.
	charge(ctx context.Context, timelines []string, cs []charge) (restart, error)
	// usage reads the counters, the leases and the breakers.
	usage(ctx context.Context, cs []counter) (usage, error)
	// reset forgets breakers, refused logins and all that was learned.
	reset(ctx context.Context) error
	// forgive forgets that these credentials of a stream's login were refused.
	forgive(ctx context.Context, stream, creds string) error
}

// grant is a store's answer.
type grant struct {
	n     int   // granted
	delay int64 // µs from the store's now to the first slot; negative if it is past
	every int64 // ns from one of the slots to the next
	retry int64 // µs after which asking for more makes sense
	now   int64 // the store's clock, µs
	born  int64 // connect: when its data began, µs; 0: it does not say
	// connect: the relay has refused the credentials, so that there will be none
	refused bool
}

// unused is n messages of a grant at that time that were not begun.
type unused struct {
	at int64
	n  int
}

// dial is one connection that is about to be opened.
type dial struct {
	lease   string
	login   string        // that the stream uses
	creds   string        // fingerprint of the credentials
	lapse   time.Duration // of the lease
	dialing time.Duration // lapse of the dial itself, unless renewed
	most    int           // ungreeted dials of the login at once; 0: no breaker
	kept    []openShare   // of the login's streams: a dial is left to who has fewer
	born    int64         // grant.born of the process's last one; 0: there was none
}

// renewal is a process's leases.
type renewal struct {
	leases         []string
	ungreeted      []bool // by lease: the dial is still under way
	lapse, dialing time.Duration
}

// renewed is the answer: which leases are held, and what was learned meanwhile.
type renewed struct {
	held   []bool
	groups []string // with a learned rate
}

// charge adds n to a counter, or fills it up to n.
type charge struct {
	counter
	n    int
	fill bool
}

// restart is when the last connection was granted of which a store knew when it
// began, and from when on it grants others, both on its clock; 0: there was none, or it
// does not say.
type restart struct{ since, from int64 }

// usage is what the store knows.
type usage struct {
	used     []int // per counter asked for
	leases   []leaseLeft
	firsts   map[string]int64   // by ramp: when its first message began
	breakers map[string]breaker // by login; their dials by stream
	refused  []refusedLogin
	logins   map[string]string // by stream, where it is not one of its own
	now      int64
}

type leaseLeft struct {
	name string
	left time.Duration
}

// Lease names are stream:owner:number, so that a script can count a stream's
// connections and find an owner's without further keys.
func leaseName(stream, owner, number string) string { return stream + ":" + owner + ":" + number }

func splitLease(name string) (stream, owner string) {
	stream, rest, _ := strings.Cut(name, ":")
	owner, _, _ = strings.Cut(rest, ":")
	return stream, owner
}
