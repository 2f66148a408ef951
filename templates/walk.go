package templates

import (
	"fmt"
	"slices"
	"text/template/parse"
)

// walker goes through one define's tree, records what it uses and stops at the
// first thing a mail template may not do.
type walker struct {
	tree *parse.Tree
	def  *define
	err  error
}

// scope is what holds at a place of the tree.
type scope struct {
	root    bool     // dot is the row, not the subject of a {{with}}
	guarded []string // variables that are known not to be empty
}

func inspectDefine(tree *parse.Tree) (*define, error) {
	w := walker{tree: tree, def: &define{vars: map[string]*variable{}, sender: map[string]bool{}}}
	w.list(tree.Root, scope{root: true})
	return w.def, w.err
}

func (w *walker) fail(n parse.Node, format string, args ...any) {
	if w.err == nil {
		where, _ := w.tree.ErrorContext(n)
		w.err = fmt.Errorf("%s: %s", where, fmt.Sprintf(format, args...))
	}
}

func (w *walker) list(l *parse.ListNode, s scope) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		w.def.nodes++
		switch n := n.(type) {
		case *parse.TextNode:
			w.def.text += len(n.Text)
		case *parse.CommentNode:
		case *parse.ActionNode:
			w.action(n, s)
		case *parse.IfNode:
			w.branch(&n.BranchNode, s, s)
		case *parse.WithNode:
			w.branch(&n.BranchNode, s, scope{root: false, guarded: s.guarded})
		case *parse.TemplateNode:
			w.call(n, s)
		case *parse.RangeNode:
			w.fail(n, "{{range}} is not allowed: every value is a single text")
		default:
			w.fail(n, "%s is not allowed", n)
		}
	}
}

// action is {{pipeline}} in running text.
func (w *walker) action(n *parse.ActionNode, s scope) {
	p := n.Pipe
	if len(p.Decl) == 0 && len(p.Cmds) == 1 && len(p.Cmds[0].Args) == 1 {
		if name, ok := w.variableOf(p.Cmds[0].Args[0], s); ok {
			w.use(name, !slices.Contains(s.guarded, name), false)
			return
		}
	}
	w.pipe(p, s, true)
}

// branch is {{if}} or {{with}}; in is the scope of its first list.
func (w *walker) branch(n *parse.BranchNode, out, in scope) {
	w.pipe(n.Pipe, out, false)
	in.guarded = append(slices.Clone(in.guarded), w.guards(n.Pipe, out)...)
	w.list(n.List, in)
	w.list(n.ElseList, out)
}

// guards returns the variables that are not empty where the condition holds:
// those of {{if .a}}, {{with .a}} and {{if and .a .b}}.
func (w *walker) guards(p *parse.PipeNode, s scope) (names []string) {
	if p == nil || len(p.Cmds) != 1 {
		return nil
	}
	args := p.Cmds[0].Args
	if id, ok := args[0].(*parse.IdentifierNode); ok && id.Ident == "and" {
		args = args[1:]
	} else if len(args) != 1 {
		return nil
	}
	for _, a := range args {
		if name, ok := w.variableOf(a, s); ok {
			names = append(names, name)
		}
	}
	return names
}

// call is {{template "name" .}}.
func (w *walker) call(n *parse.TemplateNode, s scope) {
	w.def.calls = append(w.def.calls, n.Name)
	if n.Pipe == nil {
		w.fail(n, "write {{template %q .}}: without the dot it sees no variables", n.Name)
		return
	}
	if len(n.Pipe.Decl) == 0 && len(n.Pipe.Cmds) == 1 && len(n.Pipe.Cmds[0].Args) == 1 {
		switch a := n.Pipe.Cmds[0].Args[0].(type) {
		case *parse.DotNode:
			if s.root {
				return
			}
		case *parse.VariableNode:
			if len(a.Ident) == 1 && a.Ident[0] == "$" {
				return
			}
		}
	}
	w.fail(n, "{{template %q}} takes the row itself: . or, inside {{with}}, $", n.Name)
}

// pipe looks at every argument of a pipeline. shown says whether its result is
// printed, so that its variables are needed unless a function allows for none.
func (w *walker) pipe(p *parse.PipeNode, s scope, shown bool) {
	if p == nil {
		return
	}
	for _, c := range p.Cmds {
		need := shown
		if id, ok := c.Args[0].(*parse.IdentifierNode); ok {
			need = need && !slices.Contains(emptyAllowed, id.Ident)
		}
		for i, a := range c.Args {
			w.def.nodes++
			w.argument(a, s, need, i == 0)
		}
	}
}

func (w *walker) argument(a parse.Node, s scope, need, first bool) {
	if name, ok := w.variableOf(a, s); ok {
		w.use(name, need && !slices.Contains(s.guarded, name), true)
		return
	}
	switch a := a.(type) {
	case *parse.IdentifierNode:
		if !first || a.Ident != "upper" && a.Ident != "lower" && !slices.Contains(emptyAllowed, a.Ident) {
			w.fail(a, "function %q: want default, upper, lower, and, or, not, eq or ne", a.Ident)
		}
	case *parse.PipeNode:
		w.pipe(a, s, need)
	case *parse.DotNode:
		if s.root {
			w.fail(a, "{{.}} is the whole row: name a variable, as in {{.name}}")
		}
	case *parse.FieldNode, *parse.VariableNode:
		w.field(a, s)
	case *parse.StringNode, *parse.BoolNode, *parse.NumberNode, *parse.NilNode:
	default:
		w.fail(a, "%s is not allowed", a)
	}
}

// field takes what variableOf does not: the sender block, local variables, and
// mistakes.
func (w *walker) field(n parse.Node, s scope) {
	ident, ok := rowPath(n, s)
	switch {
	case ok && len(ident) == 2 && ident[0] == "sender" && slices.Contains(senderFields, ident[1]):
		w.def.sender[ident[1]] = true
	case ok && len(ident) > 0 && ident[0] == "sender":
		w.fail(n, "%s: want .sender.name, .sender.email, .sender.phone or .sender.address", n)
	case ok:
		w.fail(n, "%s: a variable is one name, as in .name", n)
	default:
		if v, local := n.(*parse.VariableNode); local && len(v.Ident) == 1 {
			return
		}
		w.fail(n, "%s: inside {{with}}, the row's variables are written $.name", n)
	}
}

// variableOf returns the row variable that a node names, if it names one.
func (w *walker) variableOf(n parse.Node, s scope) (string, bool) {
	ident, ok := rowPath(n, s)
	if !ok || len(ident) != 1 || ident[0] == "sender" {
		return "", false
	}
	return ident[0], true
}

// rowPath returns the names of .a.b or $.a.b, where that starts at the row.
func rowPath(n parse.Node, s scope) ([]string, bool) {
	switch n := n.(type) {
	case *parse.FieldNode:
		return n.Ident, s.root
	case *parse.VariableNode:
		return n.Ident[1:], n.Ident[0] == "$"
	}
	return nil, false
}

func (w *walker) use(name string, needed, complex bool) {
	v := w.def.vars[name]
	if v == nil {
		v = &variable{}
		w.def.vars[name] = v
	}
	v.needed = v.needed || needed
	v.complex = v.complex || complex
}
