package verdict

import (
	"maps"
	"slices"
	"strings"
)

// phrase is one phrase of a rule file.
type phrase struct {
	source  string   // as the file has it
	program *program // nil for one in a script without spaces
	cjk     [][]string
}

// index holds the phrases of all rules, each once.
type index struct {
	vocabulary
	list []phrase
	ids  map[string]int // by text, words filled in
	by   [][]int        // by the number of a word: the phrases to try where a text has it
	cjk  []int
}

func newIndex() *index {
	return &index{vocabulary: vocabulary{words: map[string]int32{}, stems: map[string][]stem{}}, ids: map[string]int{}}
}

// clone returns an index to which more can be added without changing x. What is in
// x keeps its numbers.
func (x *index) clone() *index {
	return &index{
		vocabulary: vocabulary{words: maps.Clone(x.words), stems: maps.Clone(x.stems), size: x.size},
		list:       slices.Clip(x.list),
		ids:        maps.Clone(x.ids),
		by:         slices.Clone(x.by),
		cjk:        slices.Clip(x.cjk),
	}
}

// add returns the number of a phrase. text is source with its {words} filled in.
func (x *index) add(source, text string) (int, error) {
	if id, ok := x.ids[text]; ok {
		return id, nil
	}
	p := phrase{source: source}
	if strings.ContainsFunc(text, spaceless) {
		ways, err := parseCJK(text)
		if err != nil {
			return 0, err
		}
		p.cjk = ways
	} else {
		seq, err := parsePhrase(text)
		if err != nil {
			return 0, err
		}
		p.program = compile(seq, &x.vocabulary)
	}
	id := len(x.list)
	x.list = append(x.list, p)
	x.ids[text] = id
	x.file(id)
	return id, nil
}

// file puts a phrase where search will look for it: under the words of the part
// that has the fewest, which is the one that tells most.
func (x *index) file(id int) {
	p := x.list[id].program
	if p == nil {
		x.cjk = append(x.cjk, id)
		return
	}
	words := slices.MinFunc(p.needs, func(a, b set) int { return a.len() - b.len() })
	for n := range x.size {
		if !words.has(n) {
			continue
		}
		for int(n) >= len(x.by) {
			x.by = append(x.by, nil)
		}
		x.by[n] = append(slices.Clip(x.by[n]), id)
	}
}

// search returns the phrases that a text has, as plainText gives it.
func (x *index) search(text string) set {
	found := newSet(len(x.list))
	tried := newSet(len(x.list))
	w := x.read(text)
	for _, word := range w.words {
		for _, n := range word {
			if int(n) >= len(x.by) {
				continue
			}
			for _, id := range x.by[n] {
				if tried.has(int32(id)) {
					continue
				}
				tried.add(int32(id))
				if x.list[id].program.in(&w) {
					found.add(int32(id))
				}
			}
		}
	}
	if strings.ContainsFunc(text, spaceless) {
		for _, id := range x.cjk {
			if hasCJK(x.list[id].cjk, text) {
				found.add(int32(id))
			}
		}
	}
	return found
}
