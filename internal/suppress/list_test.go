package suppress

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
)

func day(n int) time.Time { return time.Date(2026, 5, n, 12, 0, 0, 0, time.UTC) }

// found is all that is known of an address, in short.
func found(t *testing.T, l *List, addr string) string {
	t.Helper()
	all, err := l.Find(t.Context(), address(t, addr))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range all[0] {
		out = append(out, fmt.Sprintf("%v %v %d %s|%s", e.Scope, e.Source, e.Time.UTC().Day(), e.Reason, e.Detail))
	}
	return strings.Join(out, "; ")
}

func TestAdd(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, l *List) {
		a := address(t, "Hong.Gildong@Naver.com")
		steps := []struct {
			name  string
			entry Entry
			said  Change
			want  string
		}{
			{"new", Entry{a, Ad, "refused", ByOperator, day(10), ""}, Added, "ad operator 10 refused|"},
			{"another scope", Entry{a, All, "", ByVerdict, day(12), "550 5.1.1 no such user"}, Added,
				"all verdict 12 the relay refused the address|550 5.1.1 no such user; ad operator 10 refused|"},
			{"later", Entry{a, Ad, "newer reason", ByImport, day(11), "x"}, Known,
				"all verdict 12 the relay refused the address|550 5.1.1 no such user; ad operator 10 refused|"},
			{"the same time", Entry{a, Ad, "other reason", ByImport, day(10), "x"}, Known,
				"all verdict 12 the relay refused the address|550 5.1.1 no such user; ad operator 10 refused|"},
			{"earlier", Entry{a, Ad, "older", ByImport, day(9), "long ago"}, Earlier,
				"all verdict 12 the relay refused the address|550 5.1.1 no such user; ad import 9 older|long ago"},
			{"in other letters", Entry{address(t, "HONG.gildong@naver.com"), All, "again", ByFeedback, day(13), ""}, Known,
				"all verdict 12 the relay refused the address|550 5.1.1 no such user; ad import 9 older|long ago"},
		}
		version := int64(0)
		for _, s := range steps {
			if said := add(t, l, s.entry); said != string(rune(s.said)) {
				t.Errorf("%s: said %q, want %q", s.name, said, rune(s.said))
			}
			if got := found(t, l, "hong.gildong@naver.com"); got != s.want {
				t.Errorf("%s:\n got %s\nwant %s", s.name, got, s.want)
			}
			v, err := l.Version(t.Context())
			if err != nil || (s.said == Known) != (v == version) || v < version {
				t.Errorf("%s: version %d after %d, %v", s.name, v, version, err)
			}
			version = v
		}
		if n, err := l.Count(t.Context()); n != 1 || err != nil {
			t.Errorf("%d addresses, %v", n, err)
		}
	})
}

// An entry without a time is of now, by Redis's clock.
func TestAddNow(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, l *List) {
		before, err := l.rdb.Time(t.Context()).Result()
		if err != nil {
			t.Fatal(err)
		}
		a := address(t, "a@b.kr")
		add(t, l, Entry{Address: a, Source: ByOperator})
		all, err := l.Find(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		if late := all[0][0].Time.Sub(before.Truncate(time.Second)); late < 0 || late > time.Minute {
			t.Errorf("%v from now", late)
		}
	})
}

func TestAddRefuses(t *testing.T) {
	t.Parallel()
	l := quick(t)
	a := address(t, "secret.person@b.kr")
	good := Entry{Address: address(t, "good@b.kr"), Source: ByOperator}
	for name, tc := range map[string]struct {
		entry Entry
		want  string
	}{
		"no address":     {Entry{Source: ByOperator}, "no address"},
		"no source":      {Entry{Address: a}, "unknown source(0)"},
		"no such source": {Entry{Address: a, Source: 5}, "unknown source(5)"},
		"no such scope":  {Entry{Address: a, Source: ByOperator, Scope: 4}, "unknown scope(4)"},
		"a long reason":  {Entry{Address: a, Source: ByOperator, Reason: strings.Repeat("가", 27)}, "longer than 80 bytes (81)"},
		"a line break":   {Entry{Address: a, Source: ByOperator, Reason: "a\r\nb"}, "line break"},
		"a NUL":          {Entry{Address: a, Source: ByOperator, Reason: "a\x00b"}, "control character"},
		"not UTF-8":      {Entry{Address: a, Source: ByOperator, Reason: "\xff"}, "UTF-8"},
		"before 1970":    {Entry{Address: a, Source: ByOperator, Time: time.Unix(0, 0)}, "1970"},
		"after 2106":     {Entry{Address: a, Source: ByOperator, Time: time.Unix(1<<32, 0)}, "2106"},
	} {
		_, err := l.Add(t.Context(), good, tc.entry)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "entry 2") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	if n, err := l.Count(t.Context()); n != 0 || err != nil {
		t.Errorf("%d were added, %v", n, err)
	}
	if v, err := l.Version(t.Context()); v != 0 || err != nil {
		t.Errorf("version %d, %v", v, err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, l *List) {
		all := make([]mail.Address, 2*batchSize+10)
		for i := range all {
			all[i] = address(t, fmt.Sprintf("R%d@example.com", i))
		}
		add(t, l,
			Entry{all[3], Ad, "refused", ByOperator, day(1), ""},
			Entry{all[7], Auth, "codes go elsewhere", ByOperator, day(1), ""},
			Entry{all[batchSize], Ad, "refused", ByOperator, day(1), ""},
			Entry{all[batchSize], All, "no such user", ByVerdict, day(2), ""},
			Entry{all[2*batchSize+9], All, "no such user", ByVerdict, day(2), ""},
		)
		for stream, want := range map[mail.Stream]string{
			mail.Ad:     "3 refused, 500 no such user, 1009 no such user",
			mail.Normal: "500 no such user, 1009 no such user",
			mail.Auth:   "7 codes go elsewhere, 500 no such user, 1009 no such user",
		} {
			hits, err := l.Check(t.Context(), stream, all)
			var got []string
			for _, h := range hits {
				if h.Entry.Address != all[h.Index] {
					t.Errorf("hit %d is of another address", h.Index)
				}
				got = append(got, fmt.Sprintf("%d %s", h.Index, h.Entry.Reason))
			}
			if s := strings.Join(got, ", "); err != nil || s != want {
				t.Errorf("%s: %s, %v\nwant %s", stream, s, err, want)
			}
		}
		if hits, err := l.Check(t.Context(), mail.Ad, nil); len(hits) != 0 || err != nil {
			t.Errorf("nobody: %v, %v", hits, err)
		}
	})
	for _, s := range []mail.Stream{"", "sms"} {
		if _, err := quick(t).Check(t.Context(), s, nil); err == nil {
			t.Errorf("stream %q was taken", s)
		}
	}
}

// Without Redis nobody is taken to be off the list.
func TestNoRedis(t *testing.T) {
	t.Parallel()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = lis.Close()
	rdb := redis.NewClient(&redis.Options{Addr: lis.Addr().String(), MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() { _ = rdb.Close() })
	l, a, ctx := New(rdb, "test"), address(t, "a@b.kr"), t.Context()
	for name, f := range map[string]func() error{
		"check":   func() error { _, err := l.Check(ctx, mail.Ad, []mail.Address{a}); return err },
		"find":    func() error { _, err := l.Find(ctx, a); return err },
		"add":     func() error { _, err := l.Add(ctx, Entry{Address: a, Source: ByOperator}); return err },
		"dated":   func() error { _, err := l.Add(ctx, Entry{Address: a, Source: ByOperator, Time: day(1)}); return err },
		"remove":  func() error { _, err := l.Remove(ctx, All, a); return err },
		"count":   func() error { _, err := l.Count(ctx); return err },
		"empty":   func() error { _, err := l.Empty(ctx); return err },
		"version": func() error { _, err := l.Version(ctx); return err },
		"import":  func() error { _, err := l.Import(ctx, strings.NewReader("email\na@b.kr\n"), Input{}); return err },
		"export":  func() error { _, err := l.Export(ctx, &strings.Builder{}, Output{}); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), "suppression list: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, l *List) {
		a, b := address(t, "a@example.com"), address(t, "b@example.com")
		add(t, l, Entry{a, All, "gone", ByVerdict, day(1), "550 x"}, Entry{a, Ad, "refused", ByOperator, day(2), ""}, Entry{b, Ad, "refused", ByOperator, day(2), ""})
		version, err := l.Version(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if removed, err := l.Remove(t.Context(), Normal, a, b); len(removed) != 0 || err != nil {
			t.Errorf("what is not there: %v, %v", removed, err)
		}
		if v, _ := l.Version(t.Context()); v != version {
			t.Errorf("version %d after %d for nothing", v, version)
		}
		removed, err := l.Remove(t.Context(), All, b, address(t, "A@Example.com"), address(t, "nobody@example.com"))
		if err != nil || len(removed) != 1 || removed[0].Reason != "gone" || removed[0].Detail != "550 x" || removed[0].Scope != All {
			t.Errorf("%+v, %v", removed, err)
		}
		if v, _ := l.Version(t.Context()); v <= version {
			t.Errorf("version %d after %d", v, version)
		}
		if got := found(t, l, "a@example.com"); got != "ad operator 2 refused|" {
			t.Errorf("left: %s", got)
		}
		if n, _ := l.Count(t.Context()); n != 2 {
			t.Errorf("%d addresses, want 2", n)
		}
		if removed, err := l.Remove(t.Context(), Ad, a, b); len(removed) != 2 || err != nil {
			t.Errorf("%v, %v", removed, err)
		}
		if empty, err := l.Empty(t.Context()); !empty || err != nil {
			t.Errorf("empty %v, %v", empty, err)
		}
		if n := l.rdb.Exists(t.Context(), l.bucketKey("a@example.com"), l.bucketKey("b@example.com")).Val(); n != 0 {
			t.Errorf("%d hashes are left of nobody", n)
		}
	})
}

// What does not decode bars its address, without hiding what does, and goes when the
// entry for all streams is removed.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	ad := string(record{scope: Ad, source: ByOperator, time: seconds(day(1)), reason: text{inline: "refused"}}.append(nil))
	for name, tc := range map[string]struct{ value, left string }{
		"no length":         {"\x00", ""},
		"no body":           {"\x09", ""},
		"cut short":         {ad[:len(ad)-1], ""},
		"too short":         {"\x04abcd", ""},
		"no texts":          {"\x05\x0babcd", ""},
		"no detail":         {"\x06\x0babcd\x00", ""},
		"a text that ends":  {"\x07\x0babcd\x00\x05", ""},
		"no number":         {"\x08\x0babcd\x00\xff\x01", ""},
		"a scope to come":   {"\x07\x0fabcd\x00\x00", ""},
		"behind a good one": {ad + "\x09", "ad operator 1 refused|"},
		"before a good one": {"\x04abcd" + ad, "ad operator 1 refused|"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachRedis(t, func(t *testing.T, l *List) {
				a, key := address(t, "a@example.com"), "a@example.com"
				if err := l.rdb.HSet(t.Context(), l.bucketKey(key), key, tc.value).Err(); err != nil {
					t.Fatal(err)
				}
				hits, err := l.Check(t.Context(), mail.Auth, []mail.Address{a})
				if err != nil || len(hits) != 1 || hits[0].Entry.Why() != "an entry that cannot be read; remove it for all streams to clear it" {
					t.Errorf("%+v, %v", hits, err)
				}
				if _, err := l.Remove(t.Context(), Normal, a); err != nil {
					t.Error(err)
				}
				if v := l.rdb.HGet(t.Context(), l.bucketKey(key), key).Val(); v != tc.value {
					t.Errorf("removing another scope changed it to %q", v)
				}
				if removed, err := l.Remove(t.Context(), All, a); err != nil || len(removed) != 1 {
					t.Errorf("%v, %v", removed, err)
				}
				if got := found(t, l, key); got != tc.left {
					t.Errorf("left: %q, want %q", got, tc.left)
				}
			})
		})
	}
}

// A newer program may put more behind the texts.
func TestNewerRecord(t *testing.T) {
	t.Parallel()
	l := quick(t)
	b := record{scope: Ad, source: 9, time: seconds(day(1)), reason: text{inline: "why"}}.append(nil)
	b = append(b, "more"...)
	b[0] += 4
	if err := l.rdb.HSet(t.Context(), l.bucketKey("a@b.kr"), "a@b.kr", b).Err(); err != nil {
		t.Fatal(err)
	}
	if got := found(t, l, "a@b.kr"); got != "ad source(9) 1 why|" {
		t.Error(got)
	}
}

// The version never comes to a number again that somebody may have seen.
func TestVersionAfterRestore(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, l *List) {
		for _, a := range addresses(t, "a@b.kr", "c@b.kr", "d@b.kr", "e@b.kr") {
			add(t, l, Entry{Address: a, Source: ByOperator})
		}
		seen, err := l.Version(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for name, change := range map[string]func() error{
			"add": func() error {
				_, err := l.Add(t.Context(), Entry{Address: address(t, "b@b.kr"), Source: ByOperator})
				return err
			},
			"remove": func() error { _, err := l.Remove(t.Context(), All, address(t, "a@b.kr")); return err },
		} {
			l.rdb.HSet(t.Context(), l.metaKey(), "v", 1) // an older copy
			if err := change(); err != nil {
				t.Fatal(err)
			}
			if v, err := l.Version(t.Context()); v <= seen || err != nil {
				t.Errorf("%s: version %d after %d, %v", name, v, seen, err)
			}
		}
		l.rdb.HSet(t.Context(), l.metaKey(), "v", "x")
		if _, err := l.Version(t.Context()); err == nil || !strings.Contains(err.Error(), "meta") {
			t.Errorf("no number: %v", err)
		}
	})
}

// Several processes that add and remove the same addresses keep the count right.
func TestTogether(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, l *List) {
		addrs := addresses(t, "a@b.kr", "b@b.kr", "c@b.kr", "d@b.kr", "e@b.kr")
		entries := make([]Entry, len(addrs))
		for i, a := range addrs {
			entries[i] = Entry{a, Ad, "refused", ByImport, day(1), ""}
		}
		var wg sync.WaitGroup
		for n := range 4 {
			wg.Go(func() {
				other := New(l.rdb, "test")
				for range 20 {
					if _, err := other.Add(t.Context(), entries...); err != nil {
						t.Error(err)
					}
					if _, err := other.Remove(t.Context(), Ad, addrs[n]); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		add(t, l, entries[:2]...)
		all, err := l.Find(t.Context(), addrs...)
		if err != nil {
			t.Fatal(err)
		}
		there := len(slices.DeleteFunc(all, func(e []Entry) bool { return len(e) == 0 }))
		if n, err := l.Count(t.Context()); n != there || there < 3 || err != nil {
			t.Errorf("count %d, there are %d, %v", n, there, err)
		}
	})
}
