package list

import (
	"hash/maphash"

	"github.com/sluicemail/sluice/internal/mail"
)

// Seen is a set of addresses, to find the duplicates of a list by mail.Address.Key.
// It keeps 128 bits of two independent hashes for each, at most 40 bytes with
// the room to grow: at a hundred million addresses the odds that two different
// ones pass for one are below one in 10^22, and no list can be made to have
// them, the seeds being this process's own. The zero Seen is empty and ready;
// it is not for use by several goroutines.
type Seen struct {
	seeds [2]maphash.Seed
	set   map[uint64]uint64 // the second hash under the first: a set of pairs would take half as much again
}

// Add puts a into the set and reports whether it is new there.
func (s *Seen) Add(a mail.Address) bool {
	if s.set == nil {
		s.seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
		s.set = make(map[uint64]uint64)
	}
	key := a.Key()
	return s.add(maphash.String(s.seeds[0], key), maphash.String(s.seeds[1], key))
}

// add takes the next free key where another address has the same first hash.
func (s *Seen) add(first, second uint64) bool {
	for {
		there, taken := s.set[first]
		if !taken {
			s.set[first] = second
			return true
		}
		if there == second {
			return false
		}
		first++
	}
}

// Len is the number of different addresses added.
func (s *Seen) Len() int { return len(s.set) }
