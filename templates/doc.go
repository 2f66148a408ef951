// Package templates turns one template file and a recipient's values into one
// complete message: headers folded and encoded, text and HTML as
// multipart/alternative, attachments, CRLF lines of at most 998 octets
// (RFC 5322 section 2.1.1), ready for the wire but for dot-stuffing.
//
// A template passes three gates. Load parses it and refuses what could hang or
// blow up (recursion, range, functions that are not on the list). Compile binds
// it to a sender, a stream and fixed values, checks all that needs no recipient,
// and encodes the parts that never change. Render fills in one recipient; it is
// safe for concurrent use, and what it refuses concerns that recipient alone.
//
// Where every variable stands by itself ({{.name}}, not {{if .name}}), rendering
// copies encoded pieces and escapes the values in between. What the escaper does
// at each place is not guessed: it is observed from html/template at compile
// time, and a program that cannot be reproduced exactly executes its templates
// for each message instead.
//
// The package sends nothing, reads no list and knows no Redis. Errors name the
// template and line, the variable or the header; they never hold a value of a
// recipient.
package templates
