package suppress

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/sluicemail/sluice/internal/mail"
)

// maxTexts bounds how many different reasons and details are kept under a number, at
// about 100 bytes each. Further ones stand in their entries, at full length.
const maxTexts = 8192

// shortText is what costs no more in an entry than its number does.
const shortText = 3

// encode makes the records of prepared entries, and has Redis keep their texts.
func (l *List) encode(ctx context.Context, entries []Entry) ([]string, error) {
	kept, err := l.keepTexts(ctx, entries)
	if err != nil {
		return nil, err
	}
	of := func(s string) text {
		if id := kept[s]; id != 0 {
			return text{id: id}
		}
		return text{inline: s}
	}
	records, buf := make([]string, len(entries)), []byte(nil)
	for i, e := range entries {
		r := record{scope: e.Scope, source: e.Source, time: seconds(e.Time), reason: of(e.Reason), detail: of(e.Detail)}
		buf = r.append(buf[:0])
		records[i] = string(buf)
	}
	return records, nil
}

// keepTexts returns the numbers of those texts of the entries that have one in Redis.
func (l *List) keepTexts(ctx context.Context, entries []Entry) (map[string]uint32, error) {
	kept := map[string]uint32{}
	var fresh []string
	l.mu.Lock()
	for _, e := range entries {
		for _, s := range [...]string{e.Reason, e.Detail} {
			if _, seen := kept[s]; seen || len(s) <= shortText {
				continue
			}
			id := textID(s)
			if l.texts[id] != s {
				fresh = append(fresh, s)
				id = 0
			}
			kept[s] = id
		}
	}
	l.mu.Unlock()
	if len(fresh) == 0 {
		return kept, nil
	}
	args := make([]any, 1, 1+2*len(fresh))
	args[0] = maxTexts
	for _, s := range fresh {
		args = append(args, strconv.FormatUint(uint64(textID(s)), 10), s)
	}
	said, err := l.keep.Run(ctx, l.rdb, []string{l.textsKey()}, args...).Text()
	if err != nil {
		return nil, err
	}
	if len(said) != len(fresh) {
		return nil, fmt.Errorf("%d answers for %d texts", len(said), len(fresh))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range fresh {
		if said[i] == 'y' {
			kept[s] = textID(s)
			l.texts[kept[s]] = s
		}
	}
	return kept, nil
}

// decode takes the stored values of addresses apart, fetching the texts that this
// process has not seen yet. Entries are in order of their scopes.
func (l *List) decode(ctx context.Context, addresses []mail.Address, values []string) ([][]Entry, error) {
	all, broken := make([][]record, len(values)), make([]bool, len(values))
	for i, v := range values {
		if v == "" {
			continue
		}
		records, ok := parseRecords(v)
		all[i], broken[i] = records, !ok
	}
	texts, err := l.fetchTexts(ctx, all)
	if err != nil {
		return nil, fmt.Errorf("read suppression list: %w", err)
	}
	out := make([][]Entry, len(values))
	for i, records := range all {
		if broken[i] {
			out[i] = append(out[i], unreadable(addresses[i]))
		}
		for _, r := range records {
			out[i] = append(out[i], r.entry(addresses[i], texts))
		}
		slices.SortStableFunc(out[i], func(a, b Entry) int { return cmp.Compare(a.Scope, b.Scope) })
	}
	return out, nil
}

// fetchTexts returns the texts of records by their numbers. One that Redis has lost is
// missing.
func (l *List) fetchTexts(ctx context.Context, all [][]record) (map[uint32]string, error) {
	texts, asked := map[uint32]string{}, map[uint32]bool{}
	var ids []uint32
	var fields []string
	l.mu.Lock()
	for _, records := range all {
		for _, r := range records {
			for _, id := range [...]uint32{r.reason.id, r.detail.id} {
				if id == 0 || asked[id] {
					continue
				}
				asked[id] = true
				if s, known := l.texts[id]; known {
					texts[id] = s
					continue
				}
				ids, fields = append(ids, id), append(fields, strconv.FormatUint(uint64(id), 10))
			}
		}
	}
	l.mu.Unlock()
	if len(ids) == 0 {
		return texts, nil
	}
	got, err := l.rdb.HMGet(ctx, l.textsKey(), fields...).Result()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, v := range got {
		if s, ok := v.(string); ok {
			texts[ids[i]], l.texts[ids[i]] = s, s
		}
	}
	return texts, nil
}
