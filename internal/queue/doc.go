// Package queue is the Redis boundary: what is stored of a campaign, who may send
// which block of it, what became of every recipient, and the asynq jobs that wake
// the workers up. No asynq name leaves it.
//
// The ledger is the truth; jobs are hints. Recipients lie in compressed blocks. A
// worker process joins as a member (a nonce of its own), claims blocks, declares
// each message it is about to send in its record and waits until Redis has
// confirmed that, and appends what came of it to the block's outcome log. Outcomes
// are evidence: they are taken from anyone at any time, keyed by recipient and
// attempt, so taking one twice changes nothing. Claims and intents are fenced: a
// member that was declared dead has its record renamed away, and every later
// write of it comes back refused.
//
// How it fails: with Redis gone every call waits or returns an error, and nothing
// may be sent, because no intent is confirmed. A job that is lost is made again by
// the reconciler; a job that runs twice finds the block claimed, or nothing due.
// After a crash at most two messages a connection have an intent and no outcome:
// they are recorded as unknown. When Redis itself restarts and has lost its last
// seconds, the members that outlived it write them again from memory first.
//
// What may not be sent is held, with the reason: a campaign, a stream, a login, or a
// destination group of a stream. Members read the holds with their heartbeat and say
// which they obey, so that Pause returns when it is true. Breakers hold by themselves:
// members tell what came of their mails, and one script adds it up for the fleet and
// judges. The first of a campaign are its canary: the others wait for their results.
// What becomes of mail after the relay has accepted it is noted by line, once, and told
// to the same breakers.
//
// Keys carry cluster tags ({c:CAMPAIGN}, {s:STREAM}, {w}); no script crosses tags. The
// group commit is a transaction that does, so all keys have to be in one Redis.
package queue
