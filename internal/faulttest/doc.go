// Package faulttest is the fault bench: it breaks the whole program while it sends,
// and counts what became of every recipient. It holds no code that anything imports.
//
// The program runs as it does in earnest, as processes of its own: workers and
// producers built with the tag "faults" (see internal/fault for what that lets them
// be told), a real redis-server, and between them, where a fault wants it, a TCP
// proxy that delays, cuts, swallows and loses answers. The relay is the rehearsal
// relay, in the bench's own process, so that its ground truth is at hand. The bench
// uses nothing of the program but its commands and their JSON.
//
// After each run the oracle compares three accounts of the same campaign: the list
// that went in, the ledger (campaign report), and what the relay accepted. It counts
// who was lost, who got two mails and whether that is listed, whose outcome is
// unknown, whose mail went to somebody else, what went over the limit, how long it
// took to go on, and which attempts were used up by an outage.
//
// A fault that did not happen is a failure of the run, as is a campaign that does not
// end. The ordinary tests run a selection in less than a minute; scripts/faults runs
// everything and writes docs/faults.md, scripts/soak kills at random for half an hour.
package faulttest
