// Package producer is the front door: it reads a recipient list, judges every row,
// cuts the good ones into blocks, stores them, and lets the workers see the
// campaign only when all of it is stored.
//
// A send is identified by its idempotency key. Done twice, at the same time or one
// after the other, or killed half-way and done again, it is one campaign and
// nobody gets a second mail.
//
// How it fails: what is wrong with the list as a whole (encoding, a missing
// column, a quote that is never closed) is an error before anything is sent, and
// what was stored is removed again. What is wrong with one row makes that row
// invalid, with its line and the reason in the report, and stops nobody else.
package producer
