//go:build !race

package feedback

import "testing"

// A million reports. Beside the race detector it would take minutes.
func TestMillion(t *testing.T) { testMany(t, 1_000_000, false) }
