// Package feedback takes in what became of mail that the relay had accepted: JSON
// Lines from a relay's API or webhook, delivery reports (RFC 3464) and complaints
// (RFC 5965), one by one, in a mailbox file or a folder.
//
// A report is about one recipient. Its text is judged by the rules of package verdict,
// as a reply of the relay would be. Then the recipient is looked for: by Message-ID,
// which is a hash of campaign and line, or by address among those the relay has taken
// mail for. What is found goes to the campaign (package queue: its counts and breakers)
// and, where the address is bad or its owner complained, to the suppression list.
//
// Reports of both kinds are not believed alike. JSON Lines come from the operator, so
// a bad address goes on the suppression list even where no campaign is found. A
// delivery report is mail, and anybody can write mail: it counts only where it names a
// mail of ours, and then for the address that we sent that to.
//
// Telling it all again changes nothing: not the counts, not the breakers, not the list.
//
// How it fails: what is wrong with a report is said with its file and line, and stops
// no other one. Without Redis, Read and Flush return an error; what had been taken in
// before stays, and reading the same input again is right. A report whose recipient is
// not found is counted as such and is no error.
package feedback
