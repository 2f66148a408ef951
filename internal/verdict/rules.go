package verdict

import (
	_ "embed"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

//go:embed rules.yaml
var shipped string

// shippedName is how reports call the shipped rules.
const shippedName = "rules.yaml"

// Rules are the rules in force. They do not change, and any number of goroutines
// may ask them.
type Rules struct {
	rules []rule
	words map[string]string // what {name} stands for in phrases
	hosts map[string]bool   // labels of host names that mean something
	index *index
}

// Default returns the shipped rules.
func Default() (*Rules, error) {
	return (&Rules{index: newIndex()}).Extend(shippedName, strings.NewReader(shipped))
}

// Load returns the shipped rules, with the operator's file before them unless path
// is empty.
func Load(path string) (*Rules, error) {
	r, err := Default()
	if err != nil || path == "" {
		return r, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open rules: %w", err)
	}
	defer f.Close()
	return r.Extend(path, f)
}

// Extend returns new rules: those of a file, which is what decides first, and then
// r's own, less what the file drops. name is the file's, for errors and reports.
// The error names every fault with its line and rule; r is as it was.
func (r *Rules) Extend(name string, file io.Reader) (*Rules, error) {
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read rules %s: %w", name, err)
	}
	next := &Rules{words: maps.Clone(r.words), hosts: maps.Clone(r.hosts), index: r.index.clone()}
	if next.words == nil {
		next.words, next.hosts = map[string]string{}, map[string]bool{}
	}
	l := &loader{file: name, into: next, before: r}
	if err := l.load(data); err != nil {
		return nil, err
	}
	for i := range r.rules {
		if !slices.Contains(l.drop, r.rules[i].name) {
			next.rules = append(next.rules, r.rules[i])
		}
	}
	return next, nil
}

// Judge says what a reply means. Its cost is a few microseconds for a refusal.
func (r *Rules) Judge(in Input) Verdict { return r.Explain(in).Verdict }

// Explanation is a verdict and how it came about.
type Explanation struct {
	Verdict
	Phrase   string // the rule's phrase that was found, "" where the rule has none
	Text     string // what phrases were compared with
	Enhanced string // the enhanced code that counted, given or found in the text
}

// Explain is Judge for people.
func (r *Rules) Explain(in Input) Explanation {
	if in.Stage == "" {
		in.Stage = Any
	}
	q := question{stage: in.Stage, code: in.Code, preset: in.Preset, index: r.index}
	said := in.Text
	if in.Code < 400 {
		switch {
		case in.Code >= 200:
			return Explanation{Verdict: Verdict{Rule: "accepted", Why: "not a refusal", Known: true}}
		case in.Err != nil:
			q.errKind, said = errorKind(in.Err), in.Err.Error()
		}
	}
	e := Explanation{Enhanced: in.Enhanced}
	var buried string
	e.Text, buried = plainText(said, r.hosts)
	if !isEnhanced(e.Enhanced) {
		e.Enhanced = buried
	}
	q.found, q.enhanced = r.index.search(e.Text), parseEnhanced(e.Enhanced)
	if q.code < 400 {
		q.code = q.enhanced.class * 100
	}
	for i := range r.rules {
		rule := &r.rules[i]
		phrase, ok := rule.fits(&q)
		if !ok {
			continue
		}
		e.Verdict = Verdict{Action: rule.action, Reach: rule.reach.at(q.stage), Rule: rule.name, Why: rule.why, Origin: rule.origin, Known: rule.known}
		e.Phrase = phrase
		break
	}
	if e.Action == "" { // possible only when a file has dropped the shipped last rule
		e.Verdict = Verdict{Action: Retry, Reach: Recipient, Rule: "none", Why: "no rule fits; unknown is temporary"}
	}
	if e.Action == Retry || e.Action == RetrySlow || e.Action == ThrottleConnection {
		e.Wait = pauseIn(e.Text)
	}
	return e
}
