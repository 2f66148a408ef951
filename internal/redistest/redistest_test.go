package redistest

import "testing"

func TestKillAndRestart(t *testing.T) {
	t.Parallel()
	s := Start(t)
	s.Freeze()
	s.Thaw()
	s.Kill()
	if err := ping(s.Addr()); err == nil {
		t.Fatal("a killed server answers")
	}
	s.Restart()
	if err := ping(s.Addr()); err != nil {
		t.Fatalf("after restart: %v", err)
	}
}
