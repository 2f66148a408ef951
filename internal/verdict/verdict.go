package verdict

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Stage is the part of a session that a reply belongs to.
type Stage string

// The stages. Connect includes the greeting, EHLO includes STARTTLS, EOD is the
// reply to the dot. Any is a reply of which the stage is not known, such as one
// quoted in a delivery report; the empty stage is the same.
const (
	Connect Stage = "connect"
	EHLO    Stage = "ehlo"
	Auth    Stage = "auth"
	Mail    Stage = "mail"
	Rcpt    Stage = "rcpt"
	Data    Stage = "data"
	EOD     Stage = "eod"
	Any     Stage = "any"
)

// Stages lists all stages in the order of a session, Any last.
func Stages() []Stage { return []Stage{Connect, EHLO, Auth, Mail, Rcpt, Data, EOD, Any} }

// ParseStage reads a stage by its name; the empty string is Any.
func ParseStage(s string) (Stage, error) {
	if s == "" {
		return Any, nil
	}
	return parseWord("stage", Stage(s), Stages())
}

// Session reports whether the stage comes before any recipient was named: what is
// said there is said to the sender, and holds at once. Later, one reply is one
// recipient's, and only repetition makes a case.
func (s Stage) Session() bool { return slices.Contains([]Stage{Connect, EHLO, Auth, Mail}, s) }

// Action is what is to be done about a reply.
type Action string

// The actions. docs/verdicts.md says what the program does for each.
const (
	Retry              Action = "retry"               // later, at the same pace
	RetrySlow          Action = "retry_slow"          // hours later, or slower to that destination
	ThrottleConnection Action = "throttle_connection" // fewer or slower connections; no attempt counted
	Suppress           Action = "suppress"            // a bad address: never again
	Fail               Action = "fail"                // the end of this mail; the address stays good
	PauseConfig        Action = "pause_config"        // the operator must put something right first
	PauseBlocked       Action = "pause_blocked"       // reputation or a block: knocking on makes it worse
)

// Actions lists all actions.
func Actions() []Action {
	return []Action{Retry, RetrySlow, ThrottleConnection, Suppress, Fail, PauseConfig, PauseBlocked}
}

// Reach is how far a reply reaches: what else it is true of.
type Reach string

// The reaches, from narrow to wide.
const (
	Recipient   Reach = "recipient"   // this address
	Message     Reach = "message"     // this mail
	Connection  Reach = "connection"  // this connection
	Login       Reach = "login"       // everything sent with this user name
	Destination Reach = "destination" // everything to this receiver
	Campaign    Reach = "campaign"    // every mail with this template and sender
	Relay       Reach = "relay"       // everything through this relay
)

// Reaches lists all reaches.
func Reaches() []Reach {
	return []Reach{Recipient, Message, Connection, Login, Destination, Campaign, Relay}
}

// reachByStage is not a reach of a verdict but a word of rule files: as far as
// the stage says.
const reachByStage Reach = "stage"

func (r Reach) at(s Stage) Reach {
	if r != reachByStage {
		return r
	}
	switch s {
	case Connect, EHLO:
		return Relay
	case Auth, Mail:
		return Login
	}
	return Destination
}

// Input is one reply, or the error that came instead of one.
type Input struct {
	Stage    Stage
	Code     int    // 0 where the text came without one
	Enhanced string // "5.1.1"; "" makes Judge look for one in the text
	Text     string // all lines joined; only the first 2 KB are read
	Err      error  // network or TLS error; judged only where Code says nothing
	Preset   string // the relay's preset, for rules that are about one relay
}

// Verdict is what a reply means.
type Verdict struct {
	Action Action // "" for a code below 400: there is nothing to do
	Reach  Reach
	Rule   string        // name of the rule that decided
	Why    string        // the rule's reason, for people
	Origin string        // where the rule stands: file and line
	Wait   time.Duration // pause asked for in the text, at most 24 h; 0 where none is
	Known  bool          // false: no rule knows this reply, count it
}

// parseWord returns w if it is one of all.
func parseWord[W ~string](what string, w W, all []W) (W, error) {
	if slices.Contains(all, w) {
		return w, nil
	}
	names := make([]string, len(all))
	for i, a := range all {
		names[i] = string(a)
	}
	return "", fmt.Errorf("%s %q: want %s", what, w, strings.Join(names, ", "))
}
