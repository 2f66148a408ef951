package mail

import "fmt"

// Stream is NHN Cloud's mail type. It is part of the SMTP login (AppKey#ad),
// so every stream has its own login, connections, queue and policy, while all
// streams share the account's limits.
type Stream string

// The three streams there are.
const (
	Auth   Stream = "auth"   // login codes: short-lived, never behind other mail
	Normal Stream = "normal" // receipts, notices
	Ad     Stream = "ad"     // advertising: newsletters, campaigns
)

// Streams lists every stream, most urgent first.
func Streams() []Stream { return []Stream{Auth, Normal, Ad} }

// ParseStream returns the stream called s, or an error that names what is allowed.
func ParseStream(s string) (Stream, error) {
	switch st := Stream(s); st {
	case Auth, Normal, Ad:
		return st, nil
	}
	return "", fmt.Errorf("stream %q: want auth, normal or ad", s)
}
