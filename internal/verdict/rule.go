package verdict

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// rule is one rule of a file, compiled. Conditions that are not set hold always.
type rule struct {
	name, why, origin string

	stages   []Stage
	codes    []span
	statuses []status
	presets  []string
	errors   []string
	text     []int // one of these phrases
	and      []int // and one of these
	not      []int // and none of these

	action Action
	reach  Reach
	known  bool
}

// span is a range of reply codes, both ends included. 4xx and 5xx are 400-499 and
// 500-599, and also fit a reply without a code whose enhanced code says so.
type span struct{ from, to int }

func parseSpan(s string) (span, error) {
	if digit, ok := strings.CutSuffix(s, "xx"); ok && (digit == "4" || digit == "5") {
		n := int(digit[0]-'0') * 100
		return span{n, n + 99}, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 400 || n > 599 {
		return span{}, fmt.Errorf("code %q: want 4xx, 5xx or a code from 400 to 599", s)
	}
	return span{n, n}, nil
}

// status is a pattern for enhanced codes: "5.7.1", "x.7.1" (4 or 5), "5.7.x" or
// "5.7.606-649".
type status struct {
	class    int // 0 is any
	subject  int // -1 is any
	from, to int // of the detail
}

const statusForm = `want a form like 5.7.1, x.7.1, 5.7.x or 5.7.606-649`

func parseStatus(s string) (status, error) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || !slices.Contains([]string{"4", "5", "x"}, parts[0]) {
		return status{}, fmt.Errorf("status %q: %s", s, statusForm)
	}
	p := status{subject: -1, to: 999}
	if parts[0] != "x" {
		p.class = int(parts[0][0] - '0')
	}
	if parts[1] != "x" {
		n, ok := number(parts[1])
		if !ok {
			return status{}, fmt.Errorf("status %q: %s", s, statusForm)
		}
		p.subject = n
	}
	if parts[2] == "x" {
		return p, nil
	}
	from, to, isRange := strings.Cut(parts[2], "-")
	if !isRange {
		to = from
	}
	var ok1, ok2 bool
	p.from, ok1 = number(from)
	p.to, ok2 = number(to)
	if !ok1 || !ok2 || p.from > p.to || p.subject < 0 {
		return status{}, fmt.Errorf("status %q: %s", s, statusForm)
	}
	return p, nil
}

func number(s string) (int, bool) {
	if !digits(s) {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}

// enhanced is an enhanced code in numbers; class 0 where there is none.
type enhanced struct{ class, subject, detail int }

func parseEnhanced(s string) enhanced {
	if !isEnhanced(s) {
		return enhanced{}
	}
	subject, detail, _ := strings.Cut(s[2:], ".")
	e := enhanced{class: int(s[0] - '0')}
	e.subject, _ = number(subject)
	e.detail, _ = number(detail)
	return e
}

func (p status) fits(e enhanced) bool {
	return e.class != 0 && (p.class == 0 || p.class == e.class) &&
		(p.subject < 0 || p.subject == e.subject) && e.detail >= p.from && e.detail <= p.to
}

// question is an Input, prepared for all rules.
type question struct {
	stage    Stage
	code     int // the reply code; where there is none, 400 or 500 by the enhanced code
	enhanced enhanced
	preset   string
	errKind  string // "" where a reply is judged
	found    set    // of phrases
	index    *index
}

// fits reports whether the rule's conditions hold, and by which phrase.
func (r *rule) fits(q *question) (by string, ok bool) {
	switch {
	case len(r.errors) > 0 != (q.errKind != "") || len(r.errors) > 0 && !slices.Contains(r.errors, q.errKind):
		return "", false
	case len(r.stages) > 0 && !slices.Contains(r.stages, q.stage):
		return "", false
	case len(r.codes) > 0 && !slices.ContainsFunc(r.codes, func(s span) bool { return q.code >= s.from && q.code <= s.to }):
		return "", false
	case len(r.statuses) > 0 && !slices.ContainsFunc(r.statuses, func(s status) bool { return s.fits(q.enhanced) }):
		return "", false
	case len(r.presets) > 0 && !slices.Contains(r.presets, q.preset):
		return "", false
	}
	if len(r.text) > 0 {
		if by, ok = q.first(r.text); !ok {
			return "", false
		}
	}
	if len(r.and) > 0 {
		if _, ok = q.first(r.and); !ok {
			return "", false
		}
	}
	if len(r.not) > 0 {
		if _, ok = q.first(r.not); ok {
			return "", false
		}
	}
	return by, true
}

// first returns the first of the phrases that the text has.
func (q *question) first(phrases []int) (string, bool) {
	for _, id := range phrases {
		if q.found.has(int32(id)) {
			return q.index.list[id].source, true
		}
	}
	return "", false
}
