package main

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/relay"
)

// What the demo's ledger says is what its relay saw, recipient by recipient.
func TestDemoAccounting(t *testing.T) {
	t.Parallel()
	srv, err := relay.Start(relay.Config{Profile: "demo", Users: map[string]string{demoUser: demoPassword}})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	log := slog.New(slog.DiscardHandler)
	e, err := startEmbedded(config.Default(), log)
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	var out, errs safeBuffer
	a := &app{stdio: stdio{in: strings.NewReader(""), out: &out, err: &errs}}
	err = a.demoOn(t.Context(), demoFlags{recipients: 20_000, json: true}, demoParts{srv, e, log})
	var exit *exitError
	if !errors.As(err, &exit) || exit.code != exitPartial {
		t.Fatalf("%v; want exit code %d, since the relay refuses a few\n%s", err, exitPartial, errs.String())
	}
	s := lastJSON(t, out.String())
	rows := ledgerRows(t, e.q, "demo")
	reconcile(t, rows, srv.Truth())
	if s.Recipients != 20_000 || s.Accepted != count(rows, mail.Accepted) || s.Rejected != count(rows, mail.Rejected) || s.State != "done" {
		t.Errorf("the summary %+v is not what the rows say", s)
	}
	seen := map[string]bool{}
	for _, m := range srv.Truth() {
		if seen[m.To] {
			t.Errorf("%s got two mails", m.To)
		}
		seen[m.To] = true
		if m.Stream != "ad" {
			t.Fatalf("%s was sent on stream %s", m.To, m.Stream)
		}
	}
	if len(seen) != s.Accepted {
		t.Errorf("the relay accepted %d, the ledger %d", len(seen), s.Accepted)
	}
	retried := 0
	for _, r := range rows {
		if r.Attempts > 1 && r.Outcome == "accepted" {
			retried++
		}
	}
	if retried == 0 || s.Rejected == 0 {
		t.Errorf("%d retried, %d rejected: a newcomer is to see both", retried, s.Rejected)
	}
}

// Somebody sits before it: those that are put off are tried again in a second or two.
func TestDemoIsShort(t *testing.T) {
	t.Parallel()
	if wait := 30 * demoRetry().First; wait > 2*time.Second {
		t.Errorf("a mail that a receiver slows down waits %v", wait)
	}
}

func TestDemoUsage(t *testing.T) {
	t.Parallel()
	code, _, errs := sluice(t, "", "demo", "--recipients", "0")
	if code != exitUsage || !strings.Contains(errs, "--recipients 0") {
		t.Errorf("%d %s", code, errs)
	}
}
