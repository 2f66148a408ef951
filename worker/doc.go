// Package worker drains the queue: it claims blocks, renders each due recipient's
// mail, waits for the budget, sends over the stream's pipelined connections, and
// records what came of it. It takes dead workers' blocks over and gives its own
// back when it stops.
//
// One lane per stream: asynq jobs say which block to look at, the feed hands the
// due recipients of all claimed blocks to whichever connection is free, so no
// connection drains at a block's end. A lane shares nothing with another lane but
// the member of the ledger and the account's budget.
//
// How it fails: what happens before a message's dot is nobody's attempt, the
// recipient goes back into the feed. After the dot without a reply the recipient
// is unknown. A refused login holds the stream and uses no recipient up. With
// Redis gone nothing new begins; what has its intent confirmed is finished. A
// worker that was declared dead drops everything and joins anew.
package worker
