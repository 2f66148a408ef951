package worker

import (
	"errors"
	"testing"
	"time"
)

func TestAddresses(t *testing.T) {
	t.Parallel()
	var a addresses
	now := time.Unix(1000, 0)
	step := func(want string, err error, list ...string) {
		t.Helper()
		a.list = list
		if got := a.next(); got != want {
			t.Errorf("of %q: %q, want %q", list, got, want)
		}
		now = now.Add(time.Second)
		a.told(err, now)
	}
	refused := errors.New("refused")
	step("", refused)
	step("1", nil, "1", "2")
	step("1", refused, "1", "2")
	step("2", nil, "1", "2")
	step("2", nil, "1", "2")     // whom it has answered
	step("2", nil, "2", "1")     // in whatever order the name gives them
	step("2", refused, "1", "2") // both are gone
	step("1", refused, "1", "2")
	step("2", refused, "1", "2")
	step("3", nil, "1", "2", "3")
	step("1", nil, "1", "2")
	step("1", nil, "2", "1")
}
