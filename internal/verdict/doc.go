// Package verdict judges what a relay or a receiver said: how far a reply reaches
// (one recipient, the login, a destination, …) and what is to be done about it.
//
// The first digit alone is wrong for one real reply in five: block lists and
// missing DNS records are announced with 4xx, rate limits with 5xx, and the same
// text means one thing at RCPT and another after DATA. So the rules go by what is
// said (rules.yaml, in a small language of phrases), then by the enhanced code
// (RFC 3463, RFC 5248 and IANA's list), then by class. The first rule that fits
// decides. Mail addresses, IP addresses and host names in a reply never matter,
// but for the names of block lists.
//
// What it does not do: it counts nothing, waits for nothing and remembers nothing.
// That one recipient's reply must not stop a campaign is the caller's to see to: a
// pause said at RCPT or after DATA is one vote, said at connect, AUTH or MAIL it is
// the decision (Stage.Session).
//
// How it fails: Judge cannot fail. What no rule knows is Known == false, so that it
// can be counted: before RCPT and with 4xx it is temporary, with 5xx it is the end
// of this mail and no more than that. Rule files are checked as a whole; errors
// name file, line and rule.
package verdict
