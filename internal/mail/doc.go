// Package mail holds the words the rest of the program is written in: address,
// stream, outcome, reply. It knows no Redis, no network and no template, and
// imports no other package of this module.
package mail
