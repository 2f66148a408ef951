package relay

import "fmt"

// Stage is a point of the conversation at which a rule can act, and under which
// replies are counted.
type Stage string

// The stages. Any stands for every stage that answers a command, and the greeting.
const (
	Connect  Stage = "connect"  // the greeting
	Ehlo     Stage = "ehlo"     // EHLO and HELO
	StartTLS Stage = "starttls" // the STARTTLS command
	TLS      Stage = "tls"      // the handshake
	Auth     Stage = "auth"     // the verdict on a login
	Mail     Stage = "mail"     // MAIL
	Rcpt     Stage = "rcpt"     // RCPT
	Data     Stage = "data"     // DATA
	Body     Stage = "body"     // while content comes in
	EOD      Stage = "eod"      // the dot, or the last BDAT chunk
	Rset     Stage = "rset"     // RSET
	Noop     Stage = "noop"     // NOOP
	Quit     Stage = "quit"     // QUIT
	Idle     Stage = "idle"     // nothing said for the rule's delay
	Other    Stage = "other"    // replies only: VRFY, HELP, unknown commands
	Any      Stage = "any"      // rules only
)

// stageIndex is a Stage as an array index.
type stageIndex uint8

const (
	atConnect stageIndex = iota
	atEhlo
	atStartTLS
	atTLS
	atAuth
	atMail
	atRcpt
	atData
	atBody
	atEOD
	atRset
	atNoop
	atQuit
	atIdle
	atOther
	numStages
)

func stageNames() [numStages]Stage {
	return [...]Stage{Connect, Ehlo, StartTLS, TLS, Auth, Mail, Rcpt, Data, Body, EOD, Rset, Noop, Quit, Idle, Other}
}

// indexes returns the stages that a rule for s acts at.
func (s Stage) indexes() ([]stageIndex, error) {
	if s == Any {
		return []stageIndex{atConnect, atEhlo, atStartTLS, atAuth, atMail, atRcpt, atData, atEOD, atRset, atNoop, atQuit}, nil
	}
	names := stageNames()
	for i, n := range names[:atOther] {
		if n == s {
			return []stageIndex{stageIndex(i)}, nil
		}
	}
	return nil, fmt.Errorf("stage %q: want one of %v or any", string(s), names[:atOther])
}

// knowsRecipient reports whether a recipient is known at i.
func (i stageIndex) knowsRecipient() bool {
	return i == atRcpt || i == atData || i == atBody || i == atEOD
}

// countsConnections reports whether After and Every count connections at i; elsewhere
// they count the messages of one connection.
func (i stageIndex) countsConnections() bool { return i <= atAuth }
