// Package smtp is the client side of the wire: one pipelined SMTP connection,
// and a pool of them. It knows nothing of jobs, campaigns or Redis, and imports
// no other package of this module.
//
// In its steady state a connection needs one round trip a message: RFC 2920 lets
// the content lead a group of commands and wants DATA at its end, so one write
// carries "content n, dot, MAIL, RCPT, DATA n+1" and one read brings the four
// replies. Where the relay cannot take that, the connection falls back to a group
// a message and then to lock-step, and a Memory keeps that for an hour.
//
// What it promises, in the order in which it matters:
//
//   - Every Transaction taken from a Source ends in exactly one Done.
//   - Accepted is said only of a 250 in the dot's own place; Refused only of a
//     4xx or 5xx in the place of the command that it answers. Anything the
//     protocol does not allow there makes the connection botched: it is closed,
//     the message whose dot is unanswered is Unknown, the others are Unsent.
//   - The dot never leaves before Confirm has returned nil, and message n+1 never
//     begins before the outcome of n-1 was reported: at most two messages of a
//     connection are declared and undecided at any moment.
//   - A lone dot is sent only where no recipient was accepted.
//   - No credential and no mail before verified TLS, except to loopback hosts or
//     with Insecure; not a byte between STARTTLS and the end of the handshake.
//   - The bytes of an envelope and of a content cannot end a command, add one, or
//     end the message early, however leniently the relay reads line ends.
//
// What it does not do: it does not judge replies (what a 450 means is the
// caller's question), does not retry, and keeps no rate; being told to wait is the
// Source's business.
package smtp
