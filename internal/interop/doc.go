// Package interop tests this program against real mail servers: Postfix, its
// smtp-sink, Exim and OpenSMTPD, as Debian packages them. It holds no code that
// anything imports.
//
// Each server runs on a port of 127.0.0.1 in mount and process namespaces of its
// own, in which its package and its configuration lie over the system's /etc, /usr
// and /var; the system itself sees none of it, and everything ends with the test.
// Hundreds of mails go over a few connections, in every mode that the server takes,
// in plaintext and with STARTTLS. Then each of them must lie in the server's mailbox
// exactly once, octet for octet as it was rendered, after the header fields that
// the server put in front, and each recipient the server refused must have been
// reported as refused, without a connection lost over it.
//
// scripts/interop runs it: it fetches the packages and says what is missing. Without
// the build tag "interop" only the reading of stored mails is tested.
package interop
