package queue

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
)

// What is remembered is all of the last pastKept, one piece a log and second, and of what
// is older only what shares its second.
func TestRemembered(t *testing.T) {
	t.Parallel()
	m := &Member{}
	log := logOf{mail.Ad, "c", 1}
	begun := time.Now()
	for i := range 300 { // half a minute
		m.remember(&batch{begun: begun, evidence: []pastWrite{{log, fmt.Appendf(nil, "%03d ", i)}, {logOf{mail.Ad, "other", 2}, []byte("x")}}})
		begun = begun.Add(100 * time.Millisecond)
	}
	var text []byte
	writes := m.remembered()
	slices.SortFunc(writes, func(a, b pastWrite) int { return slices.Compare(a.data, b.data) })
	for _, w := range writes {
		if w.logOf == log {
			text = append(text, w.data...)
		}
	}
	kept, oldest := len(text)/4, 0
	if _, err := fmt.Sscanf(string(text), "%d", &oldest); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if want := int(pastKept / (100 * time.Millisecond)); kept < want || kept > want+12 || oldest != 300-kept {
		t.Errorf("%d writes are kept, the oldest %d, want the last %d and hardly more", kept, oldest, want)
	}
	if len(writes) > 2*(len(m.past)) {
		t.Errorf("%d pieces of two logs in %d seconds", len(writes), len(m.past))
	}
}
