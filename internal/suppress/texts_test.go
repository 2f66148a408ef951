package suppress

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// Reason and detail are kept once for all, and read by processes that did not write them.
func TestTextsAreShared(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, l *List) {
		var entries []Entry
		for i := range 600 {
			entries = append(entries, Entry{address(t, fmt.Sprintf("u%d@example.com", i)), All, "no such user", ByVerdict, day(1),
				fmt.Sprintf("550 5.1.1 <u%d@example.com> unknown, session ab%dcd1234", i, i)})
		}
		add(t, l, entries...)
		if n := l.rdb.HLen(t.Context(), l.textsKey()).Val(); n != 2 {
			t.Errorf("%d texts, want 2", n)
		}
		value := l.rdb.HGet(t.Context(), l.bucketKey("u1@example.com"), "u1@example.com").Val()
		if len(value) != 14 {
			t.Errorf("a value of %d bytes, want 14", len(value))
		}
		if got, want := found(t, New(l.rdb, "test"), "u599@example.com"), "all verdict 1 no such user|550 5.1.1 <…> unknown, session …"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// Where there are too many texts, further ones stand in the entries.
func TestTooManyTexts(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, l *List) {
		add(t, l, Entry{address(t, "a@b.kr"), All, "known before", ByOperator, day(1), ""})
		var fill []any
		for i := range maxTexts - 1 {
			fill = append(fill, "x"+strconv.Itoa(i), "t")
		}
		l.rdb.HSet(t.Context(), l.textsKey(), fill...)
		long := strings.Repeat("long ", 31) + "detail"
		add(t, l, Entry{address(t, "b@b.kr"), Ad, "one too many", ByOperator, day(1), long}, Entry{address(t, "b@b.kr"), Auth, "known before", ByOperator, day(1), long})
		if n := l.rdb.HLen(t.Context(), l.textsKey()).Val(); n != maxTexts {
			t.Errorf("%d texts, want %d", n, maxTexts)
		}
		if got, want := found(t, New(l.rdb, "test"), "b@b.kr"), "auth operator 1 known before|"+tidy(long)+"; ad operator 1 one too many|"+tidy(long); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	})
}

// Two texts with one number: the second stands in its entries.
func TestTextsCollide(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, l *List) {
		id := strconv.FormatUint(uint64(textID("no such user")), 10)
		l.rdb.HSet(t.Context(), l.textsKey(), id, "something else")
		add(t, l, Entry{address(t, "a@b.kr"), All, "no such user", ByOperator, day(1), ""})
		other := New(l.rdb, "test")
		other.texts[textID("no such user")] = "something else" // read before
		add(t, other, Entry{address(t, "b@b.kr"), All, "no such user", ByOperator, day(1), ""})
		if got := found(t, New(l.rdb, "test"), "b@b.kr"); got != "all operator 1 no such user|" {
			t.Error(got)
		}
		if got := found(t, New(l.rdb, "test"), "a@b.kr"); got != "all operator 1 no such user|" {
			t.Error(got)
		}
	})
}

// A text that Redis has lost is missing, and no other one stands in for it.
func TestTextsLost(t *testing.T) {
	t.Parallel()
	l := quick(t)
	add(t, l, Entry{address(t, "a@b.kr"), All, "a reason of its own", ByVerdict, day(1), "a detail of its own"})
	l.rdb.Del(t.Context(), l.textsKey())
	if got := found(t, New(l.rdb, "test"), "a@b.kr"); got != "all verdict 1 the relay refused the address|" {
		t.Error(got)
	}
}
