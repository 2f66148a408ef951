package producer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/suppress"
)

// withheld is a suppression list of single addresses.
type withheld []string

func (w withheld) Empty(context.Context) (bool, error) { return len(w) == 0, nil }

func (w withheld) Check(_ context.Context, _ mail.Stream, addresses []mail.Address) (hits []suppress.Hit, err error) {
	for i, a := range addresses {
		if slices.Contains(w, a.String()) {
			hits = append(hits, suppress.Hit{Index: i, Entry: suppress.Entry{Reason: "on the list"}})
		}
	}
	return hits, nil
}

// What Redis lost of a campaign is made again from its list, block by block as it was:
// who was refused or suppressed then is so now, whatever the suppression list says today.
func TestVerify(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("email,name\n")
	for i := range 3 * BlockSize {
		fmt.Fprintf(&b, "r%d@example.com,n%d\n", i, i)
		if i%100 == 7 {
			fmt.Fprintf(&b, "nobody%d,x\nr%d@example.com,again\n", i, i)
		}
	}
	for name, tc := range map[string]struct {
		suppressed withheld
		lose       func(key string) bool
		want       queue.Found
	}{
		"nothing":    {nil, func(string) bool { return false }, queue.Found{}},
		"recipients": {nil, func(key string) bool { return strings.Contains(key, "}:r:") }, queue.Found{Blocks: 3}},
		"recipients, some suppressed": {withheld{"r3@example.com", "r700@example.com"},
			func(key string) bool { return strings.Contains(key, "}:r:") }, queue.Found{Blocks: 3}},
		"refused rows": {nil, func(key string) bool { return strings.Contains(key, "}:x:") }, queue.Found{Doors: 1}},
		"all but the campaign itself": {nil, func(key string) bool { return !strings.HasSuffix(key, "}:meta") && !strings.HasSuffix(key, "}:prog") },
			queue.Found{Blocks: 3, Doors: 1, Records: 3, Unknown: 3 * BlockSize, Rescheduled: 3, Schedule: true, Index: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, srv := newQueue(t)
			r := request(t, b.String())
			if tc.suppressed != nil {
				r.Suppress = tc.suppressed
			}
			res, err := Send(t.Context(), q, r)
			if err != nil {
				t.Fatal(err)
			}
			before := rows(t, q, res.Campaign)
			for _, key := range srv.Keys() {
				if tc.lose(key) {
					srv.Del(key)
				}
			}
			v := Verification{List: request(t, b.String()).List}
			got, err := Verify(t.Context(), q, res.Campaign, v)
			if err != nil || got != tc.want {
				t.Errorf("%+v, %v; want %+v", got, err, tc.want)
			}
			after := rows(t, q, res.Campaign)
			if tc.want.Unknown > 0 {
				for i := range after {
					after[i] = strings.Replace(after[i], "unknown", "pending", 1)
				}
			}
			if !slices.Equal(before, after) {
				t.Error("the rows are not what they were")
			}
		})
	}
}

// Another list, or one that cannot be cut as it was, changes nothing.
func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	list := "email,name\na@example.com,n\nb@example.com,n\nc@example.com,n\n"
	q, srv := newQueue(t)
	r := request(t, list)
	r.Suppress = withheld{"b@example.com"}
	res, err := Send(t.Context(), q, r)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range srv.Keys() {
		if strings.Contains(key, "}:r:") {
			srv.Del(key)
		}
	}
	var in *InputError
	if _, err := Verify(t.Context(), q, res.Campaign, Verification{List: request(t, list+"d@example.com,n\n").List}); !errors.As(err, &in) || !strings.Contains(err.Error(), "byte for byte") {
		t.Errorf("another list: %v", err)
	}
	for _, key := range srv.Keys() {
		if strings.Contains(key, "}:x:") {
			srv.Del(key)
		}
	}
	if _, err := Verify(t.Context(), q, res.Campaign, Verification{List: request(t, list).List}); err == nil || !strings.Contains(err.Error(), "who was suppressed") {
		t.Errorf("who was suppressed is lost: %v", err)
	}
	for _, key := range srv.Keys() {
		if strings.Contains(key, "}:r:") {
			t.Errorf("stored: %s", key)
		}
	}
}
