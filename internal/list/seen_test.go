package list

import (
	"fmt"
	"runtime"
	"testing"
)

func TestSeen(t *testing.T) {
	t.Parallel()
	var s Seen
	if s.Len() != 0 {
		t.Errorf("the zero Seen has %d", s.Len())
	}
	for _, tc := range []struct {
		address string
		fresh   bool
	}{
		{"hong@example.com", true},
		{"hong@example.com", false},
		{"Hong@EXAMPLE.com", false},
		{"hong@example.net", true},
		{"hon@gexample.com", true},
		{"a@예시.한국", true},
		{"A@xn--vv4b11d.xn--3e0b707e", false},
	} {
		if got := s.Add(address(t, tc.address)); got != tc.fresh {
			t.Errorf("Add(%s) = %v, want %v", tc.address, got, tc.fresh)
		}
	}
	if s.Len() != 4 {
		t.Errorf("Len = %d, want 4", s.Len())
	}
}

func TestSeenOneHashTheSame(t *testing.T) {
	t.Parallel()
	s := Seen{set: map[uint64]uint64{}}
	for i, tc := range []struct {
		first, second uint64
		fresh         bool
	}{
		{1, 10, true}, {1, 11, true}, {2, 12, true}, {1, 11, false}, {2, 12, false}, {1, 10, false}, {3, 10, true},
	} {
		if got := s.add(tc.first, tc.second); got != tc.fresh {
			t.Errorf("%d: add(%d, %d) = %v, want %v", i, tc.first, tc.second, got, tc.fresh)
		}
	}
}

// Not parallel: it measures the heap.
func TestSeenMemory(t *testing.T) {
	const most = 40 // bytes an address
	var s Seen
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for _, n := range []int{100_000, 200_000} {
		for i := s.Len(); i < n; i++ {
			s.Add(address(t, fmt.Sprintf("user%d@example.com", i)))
		}
		if each := float64(heap()-before) / float64(n); each > most {
			t.Errorf("%.1f B an address at %d, want at most %d", each, n, most)
		}
	}
	runtime.KeepAlive(&s)
}

func TestSafeCell(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                  "",
		"Kim":               "Kim",
		"a=b":               "a=b",
		"a@b.co":            "a@b.co",
		"=1+1":              "'=1+1",
		"=cmd|'/C calc'!A0": "'=cmd|'/C calc'!A0",
		"+82 10":            "'+82 10",
		"-1":                "'-1",
		"@SUM(A1)":          "'@SUM(A1)",
		"|x":                "'|x",
		"%0A":               "'%0A",
		"\t=1":              "'\t=1",
		"\r=1":              "'\r=1",
		"\n=1":              "'\n=1",
		"\x00=1":            "'\x00=1",
		"  =1":              "'  =1",
		"\u3000=1":          "'\u3000=1",
		"＝1":                "'＝1",
		"＋1":                "'＋1",
		"－1":                "'－1",
		"＠x":                "'＠x",
		"  ":                "  ",
	} {
		if got := SafeCell(in); got != want {
			t.Errorf("SafeCell(%q) = %q, want %q", in, got, want)
		}
	}
}
