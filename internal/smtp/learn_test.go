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
	now := time.Unix(1000, 0)
	want := func(why string, lim Limits) {
		t.Helper()
		if got := l.limits(Limits{}, now); got != lim {
			t.Errorf("%s: %+v, want %+v", why, got, lim)
		}
	}
	l.see(bye(StageMail), 17, 0, now)
	want("once", Limits{})
	l.see(nil, 17, 0, now)
	l.see(bye(StageEOD), 17, 0, now)
	want("a 421 to a dot is about the message", Limits{})
	l.see(bye(StageMail), 19, 0, now)
	want("another count", Limits{})
	l.see(bye(StageIdle), 19, 0, now)
	want("the same twice", Limits{Messages: 19})
	for range 3 {
		l.see(bye(StageMail), 2, 0, now)
	}
	want("a small one three times", Limits{Messages: 19})
	l.see(bye(StageMail), 2, 0, now)
	want("a small one four times", Limits{Messages: 2})
	l.see(stale, 50, 10*time.Second, now)
	l.see(stale, 5, 60*time.Second, now)
	want("idle times that differ", Limits{Messages: 2})
	l.see(stale, 5, 59*time.Second, now.Add(time.Second))
	want("idle times that agree, of two that rested at the same time", Limits{Messages: 2})
	now = now.Add(forgetAfter)
	l.see(stale, 5, 59*time.Second, now)
	want("idle times that agree", Limits{Messages: 2, Idle: 59 * time.Second * 9 / 10})
	if got := l.limits(Limits{Messages: 1, Idle: time.Second}, now); got != (Limits{Messages: 1, Idle: time.Second}) {
		t.Errorf("looser than configured: %+v", got)
	}
	now = now.Add(time.Second)
	want("the count was found too long ago", Limits{Idle: 59 * time.Second * 9 / 10})
	now = now.Add(forgetAfter)
	want("all was", Limits{})
	for range 100 {
		if age := l.limits(Limits{Age: 100 * time.Second}, now).Age; age < 90*time.Second || age > 100*time.Second {
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
		if pause := p.failed(now, false); pause < bound/10 || pause > bound || p.notBefore != now.Add(pause) {
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
		"never of use":        {old, 0, time.Second / 2, true},
		"idled briefly":       {old, 0, 2 * time.Second, false},
		"idled for long":      {old, 0, time.Minute, false},
		"of use, then idle":   {old, 1, time.Second / 2, false},
		"broke after a few":   {&Error{Stage: StageMail}, 3, time.Minute, true},
		"broke after a share": {&Error{Stage: StageMail}, 10, 0, false},
	} {
		if got := pointless(tc.err, tc.settled, tc.lived); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
