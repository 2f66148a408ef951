package verdict

import (
	"math/bits"
	"slices"
	"strings"
)

// set is a set of small numbers.
type set []uint64

func newSet(size int) set { return make(set, size/64+1) }

// has reports whether n is in s. A set may be older than n.
func (s set) has(n int32) bool { return int(n/64) < len(s) && s[n/64]&(1<<(n%64)) != 0 }

func (s *set) add(n int32) {
	for int(n/64) >= len(*s) {
		*s = append(*s, 0)
	}
	(*s)[n/64] |= 1 << (n % 64)
}

func (s set) len() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

func (s set) meets(o set) bool {
	for i := range min(len(s), len(o)) {
		if s[i]&o[i] != 0 {
			return true
		}
	}
	return false
}

// vocabulary numbers the words and stems of all phrases. A text's word is then a
// few numbers: its own, and those of the stems that it begins with.
type vocabulary struct {
	words map[string]int32
	stems map[string][]stem // by their first letters
	size  int32
}

type stem struct {
	text   string
	number int32
}

func (v *vocabulary) number(e element) int32 {
	if e.kind == aWord {
		if n, ok := v.words[e.word]; ok {
			return n
		}
		v.words[e.word] = v.size
	} else {
		head := e.word[:minStem]
		for _, s := range v.stems[head] {
			if s.text == e.word {
				return s.number
			}
		}
		v.stems[head] = append(slices.Clip(v.stems[head]), stem{e.word, v.size})
	}
	v.size++
	return v.size - 1
}

func (v *vocabulary) all(elements []element) set {
	s := newSet(int(v.size))
	for _, e := range elements {
		s.add(v.number(e))
	}
	return s
}

// wording is a text in numbers.
type wording struct {
	words   [][]int32 // of each word
	present set       // all of them
}

func (v *vocabulary) read(text string) wording {
	n := strings.Count(text, " ")
	w := wording{words: make([][]int32, 0, n), present: newSet(int(v.size))}
	numbers := make([]int32, 0, 3*n)
	for word := range strings.FieldsSeq(text) {
		start := len(numbers)
		if n, ok := v.words[word]; ok {
			numbers = append(numbers, n)
		}
		if len(word) >= minStem {
			for _, s := range v.stems[word[:minStem]] {
				if strings.HasPrefix(word, s.text) {
					numbers = append(numbers, s.number)
				}
			}
		}
		own := numbers[start:len(numbers):len(numbers)]
		for _, n := range own {
			w.present.add(n)
		}
		w.words = append(w.words, own)
	}
	return w
}

type op uint8

const (
	opWord  op = iota // a word of the set
	opSplit           // go on at the next instruction, or at to
	opJump            // go on at to
	opGap
	opFound
)

type instruction struct {
	op  op
	set set
	to  int
}

// program is a phrase made ready for a backtracking matcher.
type program struct {
	begins set   // what the first word must be one of
	needs  []set // of each of these the text must have one
	code   []instruction
}

func compile(seq []element, v *vocabulary) *program {
	p := &program{begins: v.all(beginnings(seq))}
	for _, e := range seq {
		if one := []element{e}; !nothing(one) {
			p.needs = append(p.needs, v.all(beginnings(one)))
		}
	}
	p.sequence(seq, v)
	p.emit(instruction{op: opFound})
	return p
}

func (p *program) emit(i instruction) int {
	p.code = append(p.code, i)
	return len(p.code) - 1
}

func (p *program) sequence(seq []element, v *vocabulary) {
	for _, e := range seq {
		switch e.kind {
		case aGap:
			p.emit(instruction{op: opGap})
		case aGroup:
			p.group(e.alts, v)
		default:
			p.emit(instruction{op: opWord, set: v.all([]element{e})})
		}
	}
}

// group compiles alternatives. Those of one word become one instruction.
func (p *program) group(alts [][]element, v *vocabulary) {
	var single []element
	var ways [][]element
	for _, alt := range alts {
		if len(alt) == 1 && (alt[0].kind == aWord || alt[0].kind == aStem) {
			single = append(single, alt[0])
		} else {
			ways = append(ways, alt)
		}
	}
	var ends []int
	split := -1
	next := func(last bool) {
		if split >= 0 {
			ends = append(ends, p.emit(instruction{op: opJump}))
			p.code[split].to = len(p.code)
		}
		if split = -1; !last {
			split = p.emit(instruction{op: opSplit})
		}
	}
	if len(single) > 0 {
		next(len(ways) == 0)
		p.emit(instruction{op: opWord, set: v.all(single)})
	}
	for i, way := range ways {
		next(i == len(ways)-1)
		p.sequence(way, v)
	}
	for _, e := range ends {
		p.code[e].to = len(p.code)
	}
}

// possible reports whether the text has what the phrase cannot do without.
func (p *program) possible(present set) bool {
	for _, n := range p.needs {
		if !n.meets(present) {
			return false
		}
	}
	return true
}

// in reports whether a text has the phrase.
func (p *program) in(w *wording) bool {
	if !p.possible(w.present) {
		return false
	}
	for at, word := range w.words {
		if oneOf(p.begins, word) && p.match(0, w.words, at) {
			return true
		}
	}
	return false
}

func oneOf(s set, word []int32) bool {
	for _, n := range word {
		if s.has(n) {
			return true
		}
	}
	return false
}

// match reports whether the words from at on are what the program says from pc on.
func (p *program) match(pc int, words [][]int32, at int) bool {
	for {
		switch i := &p.code[pc]; i.op {
		case opWord:
			if at == len(words) || !oneOf(i.set, words[at]) {
				return false
			}
			pc, at = pc+1, at+1
		case opSplit:
			if p.match(pc+1, words, at) {
				return true
			}
			pc = i.to
		case opJump:
			pc = i.to
		case opGap:
			for n := at; n <= len(words) && n <= at+maxGap; n++ {
				if p.match(pc+1, words, n) {
					return true
				}
			}
			return false
		case opFound:
			return true
		}
	}
}
