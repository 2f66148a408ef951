package smtp

import (
	"testing"
	"time"
)

func TestLearner(t *testing.T) {
	t.Parallel()
	bye := func(stage Stage) *Error { return &Error{Stage: stage, Reply: Reply{Code: 421}} }
	stale := &Error{Stage: StageIdle, Err: ErrStale}
	var l learner
	want := func(why string, lim Limits) {
		t.Helper()
		if got := l.limits(Limits{}); got != lim {
			t.Errorf("%s: %+v, want %+v", why, got, lim)
		}
	}
	l.see(bye(StageMail), 7, 0)
	want("once", Limits{})
	l.see(nil, 7, 0)
	l.see(bye(StageEOD), 7, 0)
	want("a 421 to a dot is about the message", Limits{})
	l.see(bye(StageMail), 9, 0)
	want("another count", Limits{})
	l.see(bye(StageIdle), 9, 0)
	want("the same twice", Limits{Messages: 9})
	l.see(stale, 50, 10*time.Second)
	l.see(stale, 5, 60*time.Second)
	want("idle times that differ", Limits{Messages: 9})
	l.see(stale, 5, 59*time.Second)
	want("idle times that agree", Limits{Messages: 9, Idle: 59 * time.Second * 9 / 10})
	if got := l.limits(Limits{Messages: 5, Idle: time.Second}); got != (Limits{Messages: 5, Idle: time.Second}) {
		t.Errorf("looser than configured: %+v", got)
	}
	for range 100 {
		if age := l.limits(Limits{Age: 100 * time.Second}).Age; age < 90*time.Second || age > 100*time.Second {
			t.Fatalf("age %v", age)
		}
	}
}

func TestPacer(t *testing.T) {
	t.Parallel()
	var p pacer
	now := time.Unix(1000, 0)
	for i := range 40 {
		bound := min(maxPause, firstPause<<min(i, 10))
		if pause := p.failed(now); pause < bound/10 || pause > bound || p.notBefore != now.Add(pause) {
			t.Errorf("pause %d is %v, want up to %v", i, pause, bound)
		}
	}
	if p.worked(); p.failures != 0 || !p.notBefore.IsZero() {
		t.Error("a success does not end the pauses")
	}
	old := &Error{Stage: StageIdle, Err: ErrStale}
	for name, tc := range map[string]struct {
		err     *Error
		settled int64
		lived   time.Duration
		want    bool
	}{
		"planned end":         {nil, 0, 0, false},
		"never of use":        {old, 0, time.Second, true},
		"idled for long":      {old, 0, time.Minute, false},
		"broke after a few":   {&Error{Stage: StageMail}, 3, time.Minute, true},
		"broke after a share": {&Error{Stage: StageMail}, 10, 0, false},
	} {
		if got := pointless(tc.err, tc.settled, tc.lived); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
