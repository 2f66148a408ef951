// Package relay is the rehearsal relay: a real SMTP server for trying out, testing
// and measuring senders. It speaks as NHN Cloud Email's does (banner, EHLO lines,
// STARTTLS or TLS from the first byte, AUTH PLAIN and LOGIN with the mail type as a
// suffix of the user name), and misbehaves on request: by named profile, or by rules
// for a stage, a recipient, a domain or a share of them.
//
// What it is for is the truth. Every message it accepts is recorded before its reply
// leaves, whatever becomes of that reply, so that a test can compare what a sender
// believes with what happened. It also counts what a sender costs: connections,
// round trips, and how many commands came together.
//
// It delivers nothing, keeps no content unless told to, and is meant for loopback and
// test networks: it takes any login unless it is given users, and it has no defence
// against a hostile client beyond bounds on what one connection may make it hold.
//
// Failures: Start returns an error that names the faulty setting. A fault on a
// connection ends that connection only and is counted. When the truth file cannot be
// written, the message is refused with 451 and not recorded.
package relay
