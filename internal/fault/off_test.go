//go:build !faults

package fault

import (
	"testing"
	"time"
)

// Without the build tag no setting does anything.
func TestNothingHappens(t *testing.T) {
	t.Setenv("FAULT_POINTS", "here=kill@1;part=kill@1")
	t.Setenv("FAULT_OFF", "guard")
	t.Setenv("FAULT_SCALE", "10")
	t.Setenv("FAULT_DNS", "127.0.0.1:53")
	t.Setenv("FAULT_COUNT", "1")
	Here("here")
	HereFor("here", "key")
	Part("part", []byte("text"), func([]byte) (int, error) {
		t.Error("a part was written")
		return 0, nil
	})
	if Off("guard") || Scaled(time.Minute) != time.Minute || Resolver() != nil {
		t.Error("a setting is obeyed without the build tag")
	}
	if n := testing.AllocsPerRun(100, func() { Here("here"); HereFor("here", "key") }); n != 0 {
		t.Errorf("%v allocations at a point that does nothing", n)
	}
}
