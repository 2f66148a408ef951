package main

import (
	"strings"
	"testing"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/relay"
)

// The relay sees one login where the user's name is the same.
func TestLoginName(t *testing.T) {
	t.Parallel()
	for preset, want := range map[config.Preset][3]string{config.NHN: {"auth", "normal", "ad"}, config.Custom: {"auth", "auth", "auth"}} {
		var got [3]string
		for i, s := range mail.Streams() {
			got[i] = loginName(config.Relay{Preset: preset, User: "app"}, s)
		}
		if got != want {
			t.Errorf("%s: %v, want %v", preset, got, want)
		}
	}
}

// A password that the relay has refused to one stream is tried by no other that logs in
// as the same user; each says why it is held.
func TestWrongPasswordOfOneLogin(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), relay: relay.Config{Users: map[string]string{"app": "another"}},
		yaml: func(s *relay.Server) string {
			return strings.Replace(relayYAML(s, ""), "preset: nhn", "preset: custom", 1)
		}})
	r.start("worker")
	list := r.list(10)
	code, _, errs := r.run(t.Context(), r.send(list, "--wait", "--json")...)
	if code != exitHeld || !strings.Contains(errs, "refused the login of stream ad") || !strings.Contains(errs, "535") {
		t.Errorf("%d %s", code, errs)
	}
	tried := r.relay.Stats().AuthAttempts
	args := append(r.send(list, "--wait", "--json"), "--stream", "normal", "--name", "c2")
	if code, _, errs = r.run(t.Context(), args...); code != exitHeld || !strings.Contains(errs, "refused the login of stream normal") || !strings.Contains(errs, "535") {
		t.Errorf("%d %s", code, errs)
	}
	if n := r.relay.Stats().AuthAttempts; n != tried {
		t.Errorf("%d more attempts to log in", n-tried)
	}
	t.Logf("%d attempts", tried)
	for _, b := range shownLimits(t, r).Breakers {
		if b.State != "login refused" || !strings.Contains(b.Why, "535") {
			t.Errorf("%+v", b)
		}
	}
}
