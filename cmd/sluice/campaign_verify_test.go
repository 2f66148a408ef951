package main

import (
	"context"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/redistest"
)

// A campaign whose recipients Redis has lost is repaired from its list and sent.
func TestVerify(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL()})
	list := r.list(1200)
	if code, _, errs := r.run(t.Context(), r.send(list)...); code != 0 {
		t.Fatalf("%d %s", code, errs)
	}
	rdb := redis.NewClient(&redis.Options{Addr: srv.Addr()})
	defer rdb.Close()
	lost := rdb.Keys(t.Context(), "sluice:{c:*}:r:*").Val()
	if len(lost) != 3 {
		t.Fatalf("%v", lost)
	}
	rdb.Del(t.Context(), lost[0])
	rdb.Set(t.Context(), lost[1], "\xff\xff", 0)
	r.start("worker")
	eventually(t, "what can be sent is, the rest is set aside", func() bool {
		_, out, _ := r.run(t.Context(), "campaign", "show", "c1", "--json")
		s := lastJSON(t, out)
		return s.SetAside > 0 && s.Pending == 0
	})
	_, out, _ := r.run(t.Context(), "campaign", "show", "c1")
	if !strings.Contains(out, "sluice campaign verify c1 --to FILE") {
		t.Errorf("show: %s", out)
	}
	other := r.write("other.csv", "email,name\nx@example.com,x\n")
	if code, _, errs := r.run(t.Context(), "campaign", "verify", "c1", "--to", other); code != exitUsage || !strings.Contains(errs, "byte for byte") {
		t.Errorf("another list: %d %s", code, errs)
	}
	code, out, errs := r.run(t.Context(), "campaign", "verify", "c1", "--to", list)
	if code != 0 || !strings.Contains(out, "2 blocks of recipients stored again") {
		t.Fatalf("verify: %d %s %s", code, out, errs)
	}
	// Of the block that was gone altogether it cannot be known that nothing was sent, and
	// the stream's policy is to hold: the operator says.
	if code, _, errs = r.run(t.Context(), "campaign", "retry", "c1", "--only", "unknown"); code != 0 {
		t.Fatalf("retry: %d %s", code, errs)
	}
	eventually(t, "everybody has it", func() bool {
		_, out, _ := r.run(context.Background(), "campaign", "show", "c1", "--json")
		return lastJSON(t, out).Accepted == 1200
	})
	reconcile(t, values(r.report("c1")), r.relay.Truth())
	if n := len(r.relay.Truth()); n != 1200 {
		t.Errorf("%d mails for 1200 recipients", n)
	}
	if code, out, _ = r.run(t.Context(), "campaign", "verify", "c1", "--to", list, "--json"); code != 0 || !strings.Contains(out, `"recipients":1200,"blocks_restored":0,"refused_restored":0,"records_replaced":0,"unknown":0,`) {
		t.Errorf("once more: %d %s", code, out)
	}
	for args, want := range map[string]string{"": "--to is needed", "--to x --encoding nonsense": "--encoding", "--rewound --to " + list: "campaign pause c1 first"} {
		if code, _, errs := r.run(t.Context(), append([]string{"campaign", "verify", "c1"}, strings.Fields(args)...)...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("verify %s: %d %s", args, code, errs)
		}
	}
}
