// Package suppress is the suppression list: whom no mail is sent to, and why. It
// is kept in Redis, shared by producers and workers, and small: under 64 bytes an
// address at a million of them.
//
// An Entry bars an address from one stream or, with Scope All, from every stream.
// A bounced address is on the list for all; somebody who refused advertising is on
// it for "ad", and still gets login codes and receipts. An address can have an
// entry for each scope. Where several bar a mail, the one for all streams is named.
//
// Addresses are compared by mail.Address.Key, like the duplicates of a list: case
// means nothing, not before the @ either.
//
// Nothing is overwritten in silence. Of two entries of one address and scope the
// earlier stands, with its reason, and Add says so.
//
// The list decides nothing: what becomes of a mail to somebody on it, and which
// replies put somebody there, is for others to say.
//
// How it fails: without Redis every call returns an error; nobody is taken to be
// off the list because it could not be read. An entry that does not decode bars
// its address from every stream, and says that it cannot be read, until it is
// removed. A call to Add that fails may have added some of its entries; repeating
// it is harmless.
//
// # How it is kept
//
// Everything is under the hash tag {u}, so in one cluster slot. Addresses are
// spread over 16,384 hashes by a hash of their own: at a million, 61 fields each,
// which Redis keeps as a listpack (hash-max-listpack-entries is 512 by default,
// reached at about seven million addresses; beyond that the list works as before and
// takes more than 100 bytes an address). The value holds scope, source, time and the
// numbers of two texts: reason and detail are kept once for all who share them.
package suppress
