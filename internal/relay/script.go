package relay

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// ParseScript reads rules from YAML: a list of them, each with the fields of Rule in
// snake_case. name is the file's, for errors, which have the form name:line: what.
//
//   - stage: rcpt
//     domain: "*.example.com"
//     share: 10%
//     times: 1
//     reply: 451 4.7.1 Greylisted
//   - {stage: eod, every: 100, action: acceptdrop}
func ParseScript(name string, text []byte) ([]Rule, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err) // says "yaml: line N" itself
	}
	if doc.Kind == 0 {
		return nil, nil // an empty file has no rules
	}
	list := doc.Content[0]
	if list.Kind != yaml.SequenceNode {
		return nil, located(name, list, errors.New("want a list of rules, each beginning with \"- stage:\""))
	}
	var rules []Rule
	for _, item := range list.Content {
		r, err := parseRule(name, item)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	return rules, nil
}

func located(name string, n *yaml.Node, err error) error {
	return fmt.Errorf("%s:%d: %w", name, n.Line, err)
}

func parseRule(name string, item *yaml.Node) (Rule, error) {
	var r Rule
	if item.Kind != yaml.MappingNode {
		return r, located(name, item, errors.New("want a rule with fields such as stage, domain, reply"))
	}
	fields := ruleFields(&r)
	given := map[string]bool{}
	for i := 0; i+1 < len(item.Content); i += 2 {
		key, value := item.Content[i], item.Content[i+1]
		set, known := fields[key.Value]
		switch {
		case !known:
			return r, located(name, key, fmt.Errorf("unknown field %q", key.Value))
		case given[key.Value]:
			return r, located(name, key, fmt.Errorf("field %s is given twice", key.Value))
		}
		given[key.Value] = true
		if err := set(value); err != nil {
			return r, located(name, value, fmt.Errorf("%s: %w", key.Value, err))
		}
	}
	if err := r.check(); err != nil {
		return r, located(name, item, err)
	}
	return r, nil
}

// ruleFields maps each field's name to what reads it.
func ruleFields(r *Rule) map[string]func(*yaml.Node) error {
	return map[string]func(*yaml.Node) error{
		"name":    text(&r.Name),
		"stage":   text((*string)(&r.Stage)),
		"from":    text(&r.From),
		"to":      text(&r.To),
		"domain":  text(&r.Domain),
		"stream":  text(&r.Stream),
		"per":     text((*string)(&r.Per)),
		"action":  text((*string)(&r.Action)),
		"times":   count(&r.Times),
		"after":   count(&r.After),
		"every":   count(&r.Every),
		"bytes":   count(&r.Bytes),
		"count":   count(&r.Count),
		"fresh":   flag(&r.Fresh),
		"grouped": flag(&r.Grouped),
		"accept":  flag(&r.Accept),
		"keep":    flag(&r.Keep),
		"share": scalar(func(s string) (err error) {
			r.Share, err = parseShare(s)
			return err
		}),
		"delay": scalar(func(s string) (err error) {
			if r.Delay, err = time.ParseDuration(s); err != nil {
				return fmt.Errorf("%q: want a duration such as 250ms or 2s", s)
			}
			return nil
		}),
		"reply": func(n *yaml.Node) error {
			if n.Kind != yaml.SequenceNode {
				return text(&r.Reply)(n)
			}
			for _, item := range n.Content {
				var s string
				if err := text(&s)(item); err != nil {
					return err
				}
				r.Replies = append(r.Replies, s)
			}
			return nil
		},
	}
}

func scalar(parse func(string) error) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode {
			return errors.New("want a single value")
		}
		return parse(n.Value)
	}
}

func text(dst *string) func(*yaml.Node) error {
	return scalar(func(s string) error {
		if s == "" {
			return errors.New("is empty")
		}
		*dst = s
		return nil
	})
}

func count(dst *int) func(*yaml.Node) error {
	return scalar(func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return fmt.Errorf("%q: want a whole number, 1 or more", s)
		}
		*dst = n
		return nil
	})
}

func flag(dst *bool) func(*yaml.Node) error {
	return scalar(func(s string) error {
		if s != "true" && s != "false" {
			return fmt.Errorf("%q: want true or false", s)
		}
		*dst = s == "true"
		return nil
	})
}
