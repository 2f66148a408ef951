package relay

import (
	"sync/atomic"
	"time"
)

// Stats is what the relay saw since it started. Counts of what a sender costs are
// taken at the socket, below TLS and on the sender's side of the simulated network.
type Stats struct {
	Connections int64 `json:"connections"` // accepted by the listener, refused greetings included
	Open        int64 `json:"open"`        // now
	OpenMax     int64 `json:"open_max"`    // most at once; one is over when QUIT is read or the socket closed
	Messages    int64 `json:"messages"`    // recorded
	Bytes       int64 `json:"bytes"`       // of their contents, after un-dot-stuffing

	// RoundTrips counts how often the client sent something after the relay had. Without
	// RoundTrip in Config a group that the network tore apart can count twice; with it,
	// it is what the client waited for.
	RoundTrips int64 `json:"round_trips"`
	// Commands counts commands and dots; Groups, how often two or more of them came in
	// one round trip; MaxCommandsInGroup, the most that did.
	Commands           int64 `json:"commands"`
	Groups             int64 `json:"groups"`
	MaxCommandsInGroup int64 `json:"max_commands_in_group"`

	// Replies counts replies by stage and class, such as Replies["rcpt"]["5xx"].
	Replies map[Stage]map[string]int64 `json:"replies"`
	// RuleHits counts how often each rule fired, by its name or its place: "rule 1".
	RuleHits map[string]int64 `json:"rule_hits,omitempty"`

	AuthAttempts   int64 `json:"auth_attempts"`
	AuthFailures   int64 `json:"auth_failures"`
	AuthInClear    int64 `json:"auth_in_clear"`    // AUTH commands without TLS, refused ones too
	TLSConnections int64 `json:"tls_connections"`  // handshakes completed
	TLSFailures    int64 `json:"tls_failures"`     // handshakes begun and not completed
	EarlyTalkers   int64 `json:"early_talkers"`    // client spoke when it had to wait (RFC 2920 section 3.1)
	BytesBeforeTLS int64 `json:"bytes_before_tls"` // sent with STARTTLS, before the handshake

	BareLF          int64 `json:"bare_lf"` // in contents
	BareCR          int64 `json:"bare_cr"`
	NUL             int64 `json:"nul"`
	LongLines       int64 `json:"long_lines"`       // longer than 998 without CRLF
	PartialContents int64 `json:"partial_contents"` // begun, and the connection ended before the dot
	CutByRule       int64 `json:"cut_by_rule"`      // connections a rule or a limit ended

	// ConnectTimes holds when each connection was accepted.
	ConnectTimes []time.Time `json:"connect_times"`
}

// BadBytes is the number of bytes and lines in contents that RFC 5321 forbids.
func (s Stats) BadBytes() int64 { return s.BareLF + s.BareCR + s.NUL + s.LongLines }

// counters is the live form of Stats.
type counters struct {
	bytes                                 atomic.Int64
	roundTrips, commands, groups          atomic.Int64
	groupMax                              atomic.Int64
	replies                               [numStages][6]atomic.Int64
	authAttempts, authFailures, authClear atomic.Int64
	tlsDone, tlsFailed                    atomic.Int64
	early, beforeTLS                      atomic.Int64
	bareLF, bareCR, nul, long             atomic.Int64
	partial, cut                          atomic.Int64
}

func (c *counters) snapshot() Stats {
	st := Stats{
		Bytes:      c.bytes.Load(),
		RoundTrips: c.roundTrips.Load(), Commands: c.commands.Load(),
		Groups: c.groups.Load(), MaxCommandsInGroup: c.groupMax.Load(),
		Replies:      map[Stage]map[string]int64{},
		AuthAttempts: c.authAttempts.Load(), AuthFailures: c.authFailures.Load(), AuthInClear: c.authClear.Load(),
		TLSConnections: c.tlsDone.Load(), TLSFailures: c.tlsFailed.Load(),
		EarlyTalkers: c.early.Load(), BytesBeforeTLS: c.beforeTLS.Load(),
		BareLF: c.bareLF.Load(), BareCR: c.bareCR.Load(), NUL: c.nul.Load(), LongLines: c.long.Load(),
		PartialContents: c.partial.Load(), CutByRule: c.cut.Load(),
	}
	names := stageNames()
	for i := range c.replies {
		for class := range c.replies[i] {
			n := c.replies[i][class].Load()
			if n == 0 {
				continue
			}
			m := st.Replies[names[i]]
			if m == nil {
				m = map[string]int64{}
				st.Replies[names[i]] = m
			}
			m[string(rune('0'+class))+"xx"] = n
		}
	}
	return st
}

// raise sets a to v if that is more.
func raise(a *atomic.Int64, v int64) {
	for {
		old := a.Load()
		if v <= old || a.CompareAndSwap(old, v) {
			return
		}
	}
}
