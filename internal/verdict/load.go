package verdict

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds on a rule file.
const (
	maxFile    = 1 << 20 // bytes
	maxRules   = 2000
	maxPhrases = 5000 // of all files together
)

// loader reads one rule file. It walks the nodes itself, so that every fault has
// its line and all of them are reported at once.
type loader struct {
	file   string
	into   *Rules
	before *Rules // the rules that this file goes before
	drop   []string
	names  map[string]int // rule name to its line
	faults []error
}

func (l *loader) fault(n *yaml.Node, rule, format string, args ...any) {
	where := fmt.Sprintf("%s:%d: ", l.file, n.Line)
	if rule != "" {
		where += "rule " + rule + ": "
	}
	l.faults = append(l.faults, errors.New(where+fmt.Sprintf(format, args...)))
}

func (l *loader) load(data []byte) error {
	if len(data) > maxFile {
		return fmt.Errorf("%s: larger than %d bytes", l.file, maxFile)
	}
	l.names = map[string]int{}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil // nothing but comments
	case err != nil:
		return fmt.Errorf("%s: not YAML: %s", l.file, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	var second yaml.Node
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: a second document or trailing text after ---: want one document", l.file)
	}
	l.document(doc.Content[0])
	return errors.Join(l.faults...)
}

// document reads the top level. Words and hosts come first, wherever they stand:
// the rules need them.
func (l *loader) document(n *yaml.Node) {
	var rules *yaml.Node
	for key, value := range l.pairs(n, "") {
		switch key.Value {
		case "words":
			for name, w := range l.pairs(value, "") {
				l.into.words[name.Value] = l.scalar(w, "")
			}
		case "hosts":
			for _, w := range l.list(value, "") {
				l.into.hosts[strings.ToLower(w)] = true
			}
		case "drop":
			l.drop = l.list(value, "")
			for _, name := range l.drop {
				if !slices.ContainsFunc(l.before.rules, func(r rule) bool { return r.name == name }) {
					l.fault(value, "", "drop: there is no rule %q", name)
				}
			}
		case "rules":
			rules = value
		default:
			l.fault(key, "", "unknown key %q: want words, hosts, drop or rules", key.Value)
		}
	}
	if rules == nil {
		return
	}
	if rules.Kind != yaml.SequenceNode {
		l.fault(rules, "", "rules: want a list of rules")
		return
	}
	for i, r := range rules.Content {
		if i == maxRules {
			l.fault(r, "", "more than %d rules", maxRules)
			return
		}
		l.rule(r)
		if len(l.into.index.list) > maxPhrases {
			l.fault(r, "", "more than %d different phrases", maxPhrases)
			return
		}
	}
}

// pairs yields the keys and values of a mapping, each key once.
func (l *loader) pairs(n *yaml.Node, rule string) func(func(k, v *yaml.Node) bool) {
	return func(yield func(k, v *yaml.Node) bool) {
		if n.Kind != yaml.MappingNode {
			l.fault(n, rule, "want keys and values")
			return
		}
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind != yaml.ScalarNode || seen[k.Value] {
				l.fault(k, rule, "the key %q is given twice or is no word", k.Value)
				continue
			}
			seen[k.Value] = true
			if !yield(k, n.Content[i+1]) {
				return
			}
		}
	}
}

func (l *loader) scalar(n *yaml.Node, rule string) string {
	if n.Kind != yaml.ScalarNode || n.Value == "" {
		l.fault(n, rule, "want one text")
		return ""
	}
	return n.Value
}

// list reads a list of texts, or one text alone.
func (l *loader) list(n *yaml.Node, rule string) []string {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.SequenceNode {
		return []string{l.scalar(n, rule)}
	}
	var out []string
	for _, item := range n.Content {
		out = append(out, l.scalar(item, rule))
	}
	return out
}

// presets are the relays that a rule can be for: those of relay.preset.
func presets() []string { return []string{"nhn", "ses", "sendgrid", "mailgun", "gmail", "custom"} }

var ruleName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// rule reads one rule.
func (l *loader) rule(n *yaml.Node) {
	r := rule{known: true, reach: reachByStage, origin: fmt.Sprintf("%s:%d", l.file, n.Line)}
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 { // so that faults can name it
			if n.Content[i].Value == "name" {
				r.name = n.Content[i+1].Value
			}
		}
	}
	for key, value := range l.pairs(n, r.name) {
		l.key(&r, key, value)
	}
	switch line, twice := l.names[r.name]; {
	case !ruleName.MatchString(r.name):
		l.fault(n, r.name, "name %q: want lower case words joined by hyphens", r.name)
	case twice:
		l.fault(n, r.name, "the name is taken by line %d", line)
	case slices.ContainsFunc(l.before.rules, func(b rule) bool { return b.name == r.name }) && !slices.Contains(l.drop, r.name):
		l.fault(n, r.name, "the name is a shipped rule's: take another, or drop that one")
	}
	if len(r.errors) > 0 && len(r.codes)+len(r.statuses) > 0 {
		l.fault(n, r.name, "error and code or status exclude each other: an error comes instead of a reply")
	}
	if r.action == "" {
		l.fault(n, r.name, "no action")
	}
	if r.why == "" {
		l.fault(n, r.name, "no why: reports show it")
	}
	l.names[r.name] = n.Line
	l.into.rules = append(l.into.rules, r)
}

// key reads one key of a rule.
func (l *loader) key(r *rule, key, value *yaml.Node) {
	switch key.Value {
	case "name", "why", "source":
		text := l.scalar(value, r.name)
		if key.Value == "why" {
			r.why = text
		}
	case "action":
		r.action = word(l, r, value, Actions())
	case "reach":
		r.reach = word(l, r, value, append(Reaches(), reachByStage))
	case "stage":
		r.stages = each(l, r, value, func(s string) (Stage, error) { return parseWord("stage", Stage(s), Stages()) })
	case "code":
		r.codes = each(l, r, value, parseSpan)
	case "status":
		r.statuses = each(l, r, value, parseStatus)
	case "preset":
		r.presets = each(l, r, value, func(s string) (string, error) { return parseWord("preset", s, presets()) })
	case "error":
		r.errors = each(l, r, value, func(s string) (string, error) { return parseWord("error", s, errorKinds()) })
	case "known":
		r.known = word(l, r, value, []string{"true", "false"}) == "true"
	case "text":
		r.text = l.phrases(value, r.name)
	case "and":
		r.and = l.phrases(value, r.name)
	case "not":
		r.not = l.phrases(value, r.name)
	default:
		l.fault(key, r.name, "unknown key %q: want name, stage, code, status, preset, error, text, and, not, action, reach, known, why or source", key.Value)
	}
}

func word[W ~string](l *loader, r *rule, n *yaml.Node, all []W) W {
	w, err := parseWord("value", W(l.scalar(n, r.name)), all)
	if err != nil {
		l.fault(n, r.name, "%v", err)
	}
	return w
}

func each[T any](l *loader, r *rule, n *yaml.Node, parse func(string) (T, error)) []T {
	var out []T
	for _, s := range l.list(n, r.name) {
		v, err := parse(s)
		if err != nil {
			l.fault(n, r.name, "%v", err)
			continue
		}
		out = append(out, v)
	}
	return out
}

var wordName = regexp.MustCompile(`\{([^{}]*)\}`)

// phrases compiles a list of phrases.
func (l *loader) phrases(n *yaml.Node, rule string) []int {
	var out []int
	for _, source := range l.list(n, rule) {
		text := wordName.ReplaceAllStringFunc(source, func(s string) string {
			w, ok := l.into.words[s[1:len(s)-1]]
			if !ok {
				l.fault(n, rule, "phrase %q: no word %s is defined", source, s)
			}
			return "(" + w + ")"
		})
		id, err := l.into.index.add(source, text)
		if err != nil {
			l.fault(n, rule, "phrase %q: %v", source, err)
			continue
		}
		out = append(out, id)
	}
	return out
}
