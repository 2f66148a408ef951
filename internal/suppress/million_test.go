//go:build !race

package suppress

import "testing"

// A million addresses take at most 64 bytes each. Beside the race detector it would
// take minutes.
func TestMillion(t *testing.T) { testMany(t, 1_000_000, 64) }
