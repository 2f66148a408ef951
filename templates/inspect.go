package templates

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template/parse"
)

// Bounds on a template, so that neither parsing nor executing one can take long
// (execution cannot be cancelled). Calls are counted as often as they expand.
const (
	maxActions = 5_000
	maxAction  = 8 << 10 // bytes between {{ and }}
	maxNodes   = 100_000
	maxOutput  = 5 << 20 // bytes of one document
)

const emailVariable = "email"

// treeName is what text/template calls a file in its errors: "at line:12: …".
const treeName = "at line"

// senderFields are the parts of the sender block, as in {{.sender.phone}}.
var senderFields = []string{"name", "email", "phone", "address"}

// emptyAllowed are the functions whose arguments may be empty; together with upper
// and lower they are all that may be called.
var emptyAllowed = []string{"default", "and", "or", "not", "eq", "ne"}

// usage is what a template asks for, over everything its documents reach.
type usage struct {
	vars   map[string]*variable // by name; email among them where it is used
	sender map[string]bool      // fields of the sender block
	docs   map[string][]string  // document → the variables it reaches
}

// names returns the variables that do not come by themselves, sorted.
func (u usage) names() []string {
	names := make([]string, 0, len(u.vars))
	for name := range u.vars {
		if name != emailVariable {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

type variable struct {
	needed  bool // stands somewhere without having been asked for first
	complex bool // stands in more than an action of its own
}

// parseTrees parses source into its defines. What is cheap to refuse before
// parsing is refused before: the parser recurses as deep as the source nests.
func parseTrees(source string) (map[string]*parse.Tree, error) {
	if n := strings.Count(source, "{{"); n > maxActions {
		return nil, fmt.Errorf("%d actions: more than %d", n, maxActions)
	}
	for rest := source; ; {
		_, after, ok := strings.Cut(rest, "{{")
		if !ok {
			break
		}
		action, _, _ := strings.Cut(after, "}}")
		if len(action) > maxAction {
			return nil, fmt.Errorf("an action of more than %d bytes", maxAction)
		}
		rest = after
	}
	trees := map[string]*parse.Tree{}
	main := parse.New(treeName)
	main.Mode = parse.SkipFuncCheck
	if _, err := main.Parse(source, "", "", trees); err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "template: "))
	}
	for _, n := range main.Root.Nodes {
		if !parse.IsEmptyTree(n) {
			where, what := main.ErrorContext(n)
			return nil, fmt.Errorf("%s: %s stands outside of {{define}}", where, what)
		}
	}
	delete(trees, treeName)
	return trees, nil
}

// inspect walks every define and adds up what the documents reach.
func inspect(trees map[string]*parse.Tree) (usage, error) {
	u := usage{vars: map[string]*variable{}, sender: map[string]bool{}, docs: map[string][]string{}}
	if trees[docSubject] == nil || trees[docHTML] == nil && trees[docText] == nil {
		return u, errors.New(`want {{define "subject"}} and at least one of {{define "html"}} and {{define "text"}}`)
	}
	defines := map[string]*define{}
	for _, name := range slices.Sorted(maps.Keys(trees)) {
		d, err := inspectDefine(trees[name])
		if err != nil {
			return u, err
		}
		defines[name] = d
	}
	r := reach{defines: defines, cost: map[string]cost{}, open: map[string]bool{}}
	for _, doc := range []string{docSubject, docHTML, docText} {
		if trees[doc] == nil {
			continue
		}
		c, err := r.visit(doc)
		if err != nil {
			return u, err
		}
		if c.nodes > maxNodes || c.text > maxOutput {
			return u, fmt.Errorf("%s expands to more than %d nodes or %d MB", doc, maxNodes, maxOutput>>20)
		}
		u.docs[doc] = slices.Sorted(maps.Keys(c.vars))
	}
	for name, d := range defines {
		if _, reached := r.cost[name]; !reached {
			return u, fmt.Errorf("{{define %q}} is never used: documents are subject, html and text", name)
		}
		u.add(d)
	}
	return u, nil
}

// define is one {{define}} by itself.
type define struct {
	vars   map[string]*variable
	sender map[string]bool
	calls  []string
	nodes  int
	text   int // bytes of literal text
}

// reach adds up defines along their calls and refuses circles.
type reach struct {
	defines map[string]*define
	cost    map[string]cost
	open    map[string]bool
}

type cost struct {
	nodes, text int
	vars        map[string]bool
}

func (r *reach) visit(name string) (cost, error) {
	if c, ok := r.cost[name]; ok {
		return c, nil
	}
	d := r.defines[name]
	if d == nil {
		return cost{}, fmt.Errorf("{{template %q}}: no such define", name)
	}
	if r.open[name] {
		return cost{}, fmt.Errorf("{{define %q}} calls itself", name)
	}
	r.open[name] = true
	defer delete(r.open, name)
	sum := cost{d.nodes, d.text, map[string]bool{}}
	for v := range d.vars {
		sum.vars[v] = true
	}
	for _, callee := range d.calls {
		c, err := r.visit(callee)
		if err != nil {
			return cost{}, err
		}
		// Capped just above the limits: doubling calls would overflow an int.
		sum.nodes = min(sum.nodes+c.nodes, maxNodes+1)
		sum.text = min(sum.text+c.text, maxOutput+1)
		maps.Copy(sum.vars, c.vars)
	}
	r.cost[name] = sum
	return sum, nil
}

func (u usage) clone() usage {
	vars := make(map[string]*variable, len(u.vars))
	for name, v := range u.vars {
		copied := *v
		vars[name] = &copied
	}
	return usage{vars, maps.Clone(u.sender), u.docs}
}

// add merges what one define uses.
func (u usage) add(d *define) {
	for name, use := range d.vars {
		if u.vars[name] == nil {
			u.vars[name] = &variable{}
		}
		u.vars[name].needed = u.vars[name].needed || use.needed
		u.vars[name].complex = u.vars[name].complex || use.complex
	}
	maps.Copy(u.sender, d.sender)
}
