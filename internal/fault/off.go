//go:build !faults

package fault

import (
	"net"
	"time"
)

// Here is a point at which the process may be told to die.
func Here(string) {}

// HereFor is Here for one of many, named by key.
func HereFor(_, _ string) {}

// Part is a point in the middle of b, which is about to be written: half of it may
// be written before the process dies.
func Part(string, []byte, func([]byte) (int, error)) {}

// Off reports whether a guard is left out.
func Off(string) bool { return false }

// Scaled shortens a wait that is too long to be waited for in a test.
func Scaled(d time.Duration) time.Duration { return d }

// Resolver is what names are looked up with; nil is the system's.
func Resolver() *net.Resolver { return nil }
