package feedback

import (
	"cmp"
	"context"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/templates"
)

// person is a recipient of a campaign.
type person struct {
	id, address uint64 // hashes
	line        uint32 // of the list
	at          uint32 // place in the campaign: block × its size + index
}

// index finds a campaign's recipients by Message-ID and by address.
type index struct {
	seed      maphash.Seed
	campaign  *queue.Campaign
	people    []person // by id
	byAddress []uint32 // places in people; made when it is first needed
	sent      map[int][]bool
}

// newIndex reads a campaign's recipients: a second or so a million, and 24 bytes each.
func newIndex(ctx context.Context, q *queue.Queue, c *queue.Campaign, seed maphash.Seed) (*index, error) {
	x := &index{seed: seed, campaign: c, people: make([]person, 0, c.Counts.Queued()), sent: map[int][]bool{}}
	err := q.Recipients(ctx, c, nil, func(n int, b *queue.Block) bool {
		for i, line := range b.Lines {
			x.people = append(x.people, person{
				id:      maphash.String(seed, templates.MessageID(c.ID, line, "")),
				address: maphash.String(seed, key(b.Emails[i])), line: uint32(line), at: uint32(n*c.Size + i),
			})
		}
		return true
	})
	slices.SortFunc(x.people, func(a, b person) int { return cmp.Compare(a.id, b.id) })
	return x, err
}

// key is mail.Address.Key of an address in envelope form.
func key(address string) string { return strings.ToLower(address) }

// ours reports whether a Message-ID has the form of templates.MessageID. One that has is
// looked for by nothing else: an address is in many campaigns.
func ours(id string) bool {
	local, _, ok := strings.Cut(id, "@")
	return ok && len(local) == 26 && strings.Trim(local, "0123456789abcdefghijklmnopqrstuv") == ""
}

// byID finds who a Message-ID was given to. What stands behind the @ is the sender's
// domain and tells nothing more.
func (x *index) byID(id string) (person, bool) {
	want := maphash.String(x.seed, id[:strings.IndexByte(id, '@')+1])
	n, ok := slices.BinarySearchFunc(x.people, want, func(p person, want uint64) int { return cmp.Compare(p.id, want) })
	if !ok {
		return person{}, false
	}
	return x.people[n], true
}

// of finds who has an address, if the relay has taken mail for them.
func (x *index) of(ctx context.Context, q *queue.Queue, a mail.Address) (person, bool, error) {
	if x.byAddress == nil {
		x.byAddress = make([]uint32, len(x.people))
		for i := range x.byAddress {
			x.byAddress[i] = uint32(i)
		}
		slices.SortFunc(x.byAddress, func(a, b uint32) int { return cmp.Compare(x.people[a].address, x.people[b].address) })
	}
	want := maphash.String(x.seed, a.Key())
	n, ok := slices.BinarySearchFunc(x.byAddress, want, func(i uint32, want uint64) int { return cmp.Compare(x.people[i].address, want) })
	if !ok {
		return person{}, false, nil
	}
	p := x.people[x.byAddress[n]]
	block, i := int(p.at)/x.campaign.Size, int(p.at)%x.campaign.Size
	sent, ok := x.sent[block]
	if !ok {
		var err error
		if sent, err = q.Sent(ctx, x.campaign, block); err != nil {
			return p, false, err
		}
		x.sent[block] = sent
	}
	return p, i < len(sent) && sent[i], nil
}

// has reports whether a person has this address.
func (x *index) has(p person, a mail.Address) bool {
	return a != (mail.Address{}) && maphash.String(x.seed, a.Key()) == p.address
}

// addresses returns the addresses of people, by their place in the campaign.
func (x *index) addresses(ctx context.Context, q *queue.Queue, at []uint32) (map[uint32]mail.Address, error) {
	byBlock := map[int][]uint32{}
	var blocks []int
	for _, a := range at {
		n := int(a) / x.campaign.Size
		if byBlock[n] == nil {
			blocks = append(blocks, n)
		}
		byBlock[n] = append(byBlock[n], a)
	}
	out := make(map[uint32]mail.Address, len(at))
	if len(blocks) == 0 {
		return out, nil
	}
	slices.Sort(blocks)
	err := q.Recipients(ctx, x.campaign, blocks, func(n int, b *queue.Block) bool {
		for _, a := range byBlock[n] {
			if i := int(a) - n*x.campaign.Size; i < b.Len() {
				if address, err := mail.ParseAddress(b.Emails[i]); err == nil {
					out[a] = address
				}
			}
		}
		return true
	})
	return out, err
}
