package verdict

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// A phrase of a rule file, such as
//
//	(no such|unknown) (user|mailbox)
//	mailbox (is|was|) full
//	blacklist*
//	quota ... exceed*
//
// is compared with plainText word by word: (a|b) is one or the other, and with an
// empty side perhaps nothing; * is any ending of a word; ... is any number of words
// up to maxGap.
//
// Chinese, Japanese and Korean do not part words with spaces. A phrase with such a
// letter is a list of plain texts, each found anywhere, also inside words.

// Bounds that keep the worst phrase on the worst text within milliseconds.
const (
	maxGap    = 40  // words
	maxGaps   = 2   // in one phrase
	maxDepth  = 10  // groups inside groups
	maxPhrase = 600 // words and groups
	minStem   = 3   // letters before a *
)

type kind uint8

const (
	aWord kind = iota
	aStem      // a word with any ending
	aGroup
	aGap
)

// element is a part of a phrase.
type element struct {
	kind kind
	word string      // aWord, aStem
	alts [][]element // aGroup
}

// nothing reports whether a sequence can stand for no word at all.
func nothing(seq []element) bool {
	for _, e := range seq {
		if e.kind == aWord || e.kind == aStem || e.kind == aGroup && !slices.ContainsFunc(e.alts, nothing) {
			return false
		}
	}
	return true
}

// beginnings returns the words and stems that a sequence can begin with. A gap is
// not looked through: what comes after one is no beginning.
func beginnings(seq []element) []element {
	var out []element
	for _, e := range seq {
		switch e.kind {
		case aWord, aStem:
			return append(out, e)
		case aGroup:
			for _, alt := range e.alts {
				out = append(out, beginnings(alt)...)
			}
			if !slices.ContainsFunc(e.alts, nothing) {
				return out
			}
		case aGap:
			return out
		}
	}
	return out
}

// parsePhrase reads a phrase of words.
func parsePhrase(text string) ([]element, error) {
	p := parser{rest: text}
	alts, err := p.alternatives(0)
	switch {
	case err != nil:
		return nil, err
	case p.rest != "":
		return nil, errors.New("a ) without its (")
	case p.size > maxPhrase:
		return nil, fmt.Errorf("longer than %d words", maxPhrase)
	case p.gaps > maxGaps:
		return nil, fmt.Errorf("%q more than %d times", "...", maxGaps)
	}
	for _, alt := range alts {
		if nothing(alt) || beginsOpen(alt) {
			return nil, errors.New("begins with ..., or may be nothing at all")
		}
	}
	if len(alts) == 1 {
		return alts[0], nil
	}
	return []element{{kind: aGroup, alts: alts}}, nil
}

// beginsOpen reports whether a gap can come before the first word.
func beginsOpen(seq []element) bool {
	for _, e := range seq {
		switch {
		case e.kind == aGap || e.kind == aGroup && slices.ContainsFunc(e.alts, beginsOpen):
			return true
		case e.kind != aGroup || !slices.ContainsFunc(e.alts, nothing):
			return false
		}
	}
	return false
}

// parser reads a phrase from left to right.
type parser struct {
	rest       string
	size, gaps int
}

// alternatives reads a|b|c up to the ) or the end.
func (p *parser) alternatives(depth int) ([][]element, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("groups %d deep", depth)
	}
	var alts [][]element
	for {
		seq, err := p.sequence(depth)
		if err != nil {
			return nil, err
		}
		alts = append(alts, seq)
		if !strings.HasPrefix(p.rest, "|") {
			return alts, nil
		}
		p.rest = p.rest[1:]
	}
}

// sequence reads words, groups and gaps up to |, ) or the end.
func (p *parser) sequence(depth int) ([]element, error) {
	var seq []element
	for {
		p.rest = strings.TrimLeft(p.rest, " ")
		p.size++
		switch {
		case p.rest == "" || p.rest[0] == '|' || p.rest[0] == ')':
			return seq, nil
		case p.rest[0] == '(':
			p.rest = p.rest[1:]
			alts, err := p.alternatives(depth + 1)
			if err != nil {
				return nil, err
			}
			rest, ok := strings.CutPrefix(p.rest, ")")
			if !ok {
				return nil, errors.New("a ( without its )")
			}
			if rest != "" && strings.IndexByte(" |)", rest[0]) < 0 {
				return nil, fmt.Errorf("no space after the ) before %q", rest)
			}
			p.rest = rest
			seq = append(seq, element{kind: aGroup, alts: alts})
		default:
			end := strings.IndexAny(p.rest, " |)(")
			if end < 0 {
				end = len(p.rest)
			} else if p.rest[end] == '(' {
				return nil, fmt.Errorf("no space before the ( after %q", p.rest[:end])
			}
			words, err := p.word(p.rest[:end])
			if err != nil {
				return nil, err
			}
			p.rest = p.rest[end:]
			seq = append(seq, words...)
		}
	}
}

// word reads one word, which plainText may see as several.
func (p *parser) word(w string) ([]element, error) {
	if w == "..." {
		p.gaps++
		return []element{{kind: aGap}}, nil
	}
	stem, open := strings.CutSuffix(w, "*")
	if strings.Contains(stem, "*") {
		return nil, fmt.Errorf("%q: a * may only end a word", w)
	}
	text, _ := plainText(stem, nil)
	var out []element
	for plain := range strings.FieldsSeq(text) {
		out = append(out, element{kind: aWord, word: plain})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%q: no letters, or one of those things that are left out of texts", w)
	}
	if last := &out[len(out)-1]; open {
		if last.kind = aStem; len(last.word) < minStem {
			return nil, fmt.Errorf("%q: want %d letters or more before a *", w, minStem)
		}
	}
	return out, nil
}

// parseCJK reads a phrase in scripts without spaces: ways, each of them texts that
// come in this order.
func parseCJK(text string) ([][]string, error) {
	if strings.ContainsAny(text, "()*") {
		return nil, errors.New("no ( ) or * in scripts without spaces: only | between texts, and ... in them")
	}
	var ways [][]string
	for way := range strings.SplitSeq(text, "|") {
		var parts []string
		for part := range strings.SplitSeq(way, "...") {
			plain, _ := plainText(part, nil)
			plain = strings.TrimSpace(plain)
			if utf8.RuneCountInString(plain) < 2 {
				return nil, fmt.Errorf("%q: want two letters or more", part)
			}
			parts = append(parts, plain)
		}
		ways = append(ways, parts)
	}
	return ways, nil
}

// hasCJK reports whether a text has the texts of one way in order.
func hasCJK(ways [][]string, text string) bool {
	return slices.ContainsFunc(ways, func(parts []string) bool {
		rest := text
		for _, part := range parts {
			_, after, ok := strings.Cut(rest, part)
			if !ok {
				return false
			}
			rest = after
		}
		return true
	})
}
