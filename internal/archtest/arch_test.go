// Package archtest checks the shape of the source tree: which package imports
// which, that each has documentation and tests, how long files and functions are,
// and that nothing at package level changes. It reads the source and runs none of
// it. What it cannot judge, it leaves to review.
package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mayImport is the table of layers: package, and the packages of this module that
// its code (not its tests) may import. A new package needs a line here.
var mayImport = map[string][]string{
	"internal/mail":        {},
	"internal/fault":       {}, // does nothing but in the fault bench's build
	"internal/smtp":        {"internal/fault"},
	"internal/relay":       {},
	"throttle":             {},
	"internal/config":      {"internal/mail", "internal/destination"},
	"internal/list":        {"internal/mail"},
	"internal/queue":       {"internal/fault", "internal/mail"},
	"internal/suppress":    {"internal/mail", "internal/list"},
	"internal/verdict":     {},
	"internal/destination": {},
	"internal/feedback":    {"internal/mail", "internal/queue", "internal/suppress", "internal/verdict", "templates"},
	"templates":            {"internal/mail"},
	"internal/archtest":    {},
	"internal/redistest":   {}, // imported by tests only, which is why no line lists it
	"deployments":          {}, // tests only: it holds files for other programs

	"internal/doctor":    {"internal/config", "internal/mail"},
	"internal/interop":   {}, // tests only, against other people's servers
	"internal/faulttest": {}, // tests only, of the whole program

	// The two that put the others to use.
	"producer": {"internal/mail", "internal/list", "internal/queue", "internal/suppress", "templates"},
	"worker": {"internal/fault", "internal/mail", "internal/queue", "internal/smtp", "internal/suppress", "internal/verdict",
		"templates", "throttle"},

	"cmd/sluice": {"internal/mail", "internal/config", "internal/doctor", "internal/list", "internal/queue", "internal/relay",
		"internal/destination", "internal/feedback", "internal/smtp", "internal/suppress", "internal/verdict", "producer", "templates", "throttle", "worker"},

	// A program too: it wires the parts for measuring, beside what they are measured against.
	"bench": {"internal/mail", "internal/queue", "internal/relay", "internal/smtp", "internal/suppress", "internal/verdict", "producer", "templates", "throttle", "worker"},
}

// onlyIn says which packages' code may name a library whose words must not spread.
var onlyIn = map[string][]string{
	"github.com/hibiken/asynq":   {"internal/queue", "bench"},
	"github.com/redis/go-redis/": {"internal/queue", "internal/suppress", "throttle", "cmd/sluice", "bench"},
}

// The usual bounds. Longer is not wrong by itself, but has to say why, below.
const (
	maxFile   = 400 // lines of a file
	maxFunc   = 60  // lines of a function
	maxParams = 5   // parameters of a function
)

// exceptions lists what may break a bound or a rule, and why. The name is a file,
// or a directory and function such as "internal/smtp.(*Conn).read". One that is
// no longer needed is a failure too.
var exceptions = map[string]string{
	"bench/main.go": "context.Background: it is a program, and this is its main function",
}

// review collects complaints, less what is excepted.
type review struct {
	t    *testing.T
	used map[string]bool
}

func (r *review) complain(where, what, format string, args ...any) {
	r.t.Helper()
	if exceptions[what] != "" {
		r.used[what] = true
		return
	}
	r.t.Errorf("%s: %s", where, fmt.Sprintf(format, args...))
}

func TestArchitecture(t *testing.T) {
	t.Parallel()
	r := &review{t, map[string]bool{}}
	packages := tree(t, "../..")
	if len(packages) < 3 {
		t.Fatalf("only %d packages found: is this the module?", len(packages))
	}
	for _, p := range packages {
		r.layers(p)
		r.documented(p)
		r.sizes(p)
		r.globals(p)
		for _, f := range p.files {
			r.words(p, f)
			r.calls(p, f)
		}
	}
	for what, why := range exceptions {
		if !r.used[what] {
			t.Errorf("the exception %q (%s) is not needed any more: take it out of the table", what, why)
		}
	}
}

// layers holds imports to the table. Tests may join packages as they need, but
// nobody imports the program.
func (r *review) layers(p *pkg) {
	allowed, known := mayImport[p.dir]
	if !known {
		r.complain(p.dir, p.dir, "package is not in the table of layers: add it to mayImport in internal/archtest and to CONTRIBUTING.md")
		return
	}
	for _, f := range p.files {
		for _, path := range f.imports() {
			ours, isOurs := strings.CutPrefix(path, module+"/")
			if isOurs && strings.HasPrefix(ours, "cmd/") && ours != p.dir {
				r.complain(f.name, f.name, "imports %s: move what is needed out of the program", ours)
			}
			if f.test {
				continue
			}
			if isOurs && !slices.Contains(allowed, ours) {
				r.complain(f.name, f.name, "imports %s, and %s may import %q: declare an interface here and wire it in cmd/sluice", ours, p.dir, allowed)
			}
			for library, dirs := range onlyIn {
				if strings.HasPrefix(path, library) && !slices.Contains(dirs, p.dir) {
					r.complain(f.name, f.name, "imports %s, which only %q may: ask them for what is needed in the words of internal/mail", path, dirs)
				}
			}
		}
	}
}

func (r *review) documented(p *pkg) {
	var docs []string
	tests := false
	for _, f := range p.files {
		tests = tests || f.test
		if f.Doc != nil && !strings.HasSuffix(f.Name.Name, "_test") {
			docs = append(docs, f.name)
		}
	}
	switch {
	case len(docs) == 0:
		r.complain(p.dir, p.dir, "no package comment: say what it does, what it does not, and how it fails, above one package clause")
	case len(docs) > 1:
		r.complain(p.dir, p.dir, "package comments in %q: keep one", docs)
	}
	if !tests {
		r.complain(p.dir, p.dir, "no _test.go: what is not tested does not work")
	}
}

func (r *review) sizes(p *pkg) {
	for _, f := range p.code() {
		if n := strings.Count(f.text, "\n"); n > maxFile {
			r.complain(f.name, f.name, "%d lines, more than %d: split it by what it holds", n, maxFile)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			name := p.dir + "." + funcName(fn)
			if n := p.lines(fn); n > maxFunc {
				r.complain(p.at(fn), name, "%s has %d lines, more than %d: take a step out of it", name, n, maxFunc)
			}
			if n := fn.Type.Params.NumFields(); n > maxParams {
				r.complain(p.at(fn), name, "%s has %d parameters, more than %d: pass a struct", name, n, maxParams)
			}
			if fn.Recv == nil && fn.Name.Name == "init" {
				r.complain(p.at(fn), name, "init: nothing runs before main; build it in cmd/sluice")
			}
		}
	}
}

// funcName is Name, Type.Name or (*Type).Name.
func funcName(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	recv := types.ExprString(fn.Recv.List[0].Type)
	if strings.HasPrefix(recv, "*") {
		recv = "(" + recv + ")"
	}
	return recv + "." + fn.Name.Name
}

// globals wants package-level variables to be constants that Go cannot express:
// set where they are declared to something that is not made to change, and never
// written, not by tests either.
func (r *review) globals(p *pkg) {
	vars, uses := p.globals()
	for obj, spec := range vars {
		if why := mutable(spec, p); why != "" {
			r.complain(p.at(spec), p.dir+"."+obj.Name(), "the package variable %s %s: make it a field of what uses it", obj.Name(), why)
		}
	}
	for _, f := range p.files {
		ast.Inspect(f.File, func(n ast.Node) bool {
			for _, id := range written(n) {
				if obj := uses[id]; obj != nil && vars[obj] != nil {
					r.complain(p.at(id), p.dir+"."+obj.Name(), "writes to the package variable %s: make it a field of what uses it", obj.Name())
				}
			}
			return true
		})
	}
}

// mutable says why a variable is one that is going to change, or "".
func mutable(spec *ast.ValueSpec, p *pkg) string {
	if len(spec.Values) == 0 {
		if embedded(spec, p) {
			return ""
		}
		return "is declared without a value"
	}
	for _, v := range spec.Values {
		switch v := v.(type) {
		case *ast.UnaryExpr:
			if v.Op == token.AND {
				return "is a pointer to something shared"
			}
		case *ast.CallExpr:
			if id, ok := v.Fun.(*ast.Ident); ok && (id.Name == "make" || id.Name == "new") {
				return "is made empty, to be filled"
			}
		case *ast.CompositeLit:
			if t := types.ExprString(v.Type); strings.HasPrefix(t, "sync.") || strings.HasPrefix(t, "atomic.") {
				return "is a " + t
			}
		}
	}
	return ""
}

// embedded reports whether the linker fills the variable.
func embedded(spec *ast.ValueSpec, p *pkg) bool {
	line := p.fset.Position(spec.Pos()).Line
	for _, f := range p.files {
		if p.fset.File(f.Pos()) != p.fset.File(spec.Pos()) {
			continue
		}
		for _, group := range f.Comments {
			for _, c := range group.List {
				if strings.HasPrefix(c.Text, "//go:embed ") && line-p.fset.Position(c.Pos()).Line <= len(group.List) && c.Pos() < spec.Pos() {
					return true
				}
			}
		}
	}
	return false
}

// written returns the variables that the statement or expression n changes, or lets
// others change.
func written(n ast.Node) []*ast.Ident {
	var targets []ast.Expr
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			targets = n.Lhs
		}
	case *ast.IncDecStmt:
		targets = []ast.Expr{n.X}
	case *ast.RangeStmt:
		if n.Tok == token.ASSIGN {
			targets = []ast.Expr{n.Key, n.Value}
		}
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			targets = []ast.Expr{n.X}
		}
	case *ast.CallExpr:
		if id, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 && slices.Contains([]string{"delete", "clear", "copy"}, id.Name) {
			targets = n.Args[:1]
		}
	}
	var out []*ast.Ident
	for _, e := range targets {
		if id := rootOf(e); id != nil {
			out = append(out, id)
		}
	}
	return out
}

// rootOf finds x in x, x.f, x[i], *x, (x) and x[i:j].
func rootOf(e ast.Expr) *ast.Ident {
	for {
		switch v := e.(type) {
		case *ast.Ident:
			return v
		case *ast.SelectorExpr:
			e = v.X
		case *ast.IndexExpr:
			e = v.X
		case *ast.SliceExpr:
			e = v.X
		case *ast.StarExpr:
			e = v.X
		case *ast.ParenExpr:
			e = v.X
		default:
			return nil
		}
	}
}

var unfinished = regexp.MustCompile(`\b(TODO|FIXME)\b`)

// words looks at comments. This package has to write the words it looks for.
func (r *review) words(p *pkg, f *file) {
	if p.dir == "internal/archtest" {
		return
	}
	for _, group := range f.Comments {
		if unfinished.MatchString(group.Text()) {
			r.complain(p.at(group), f.name, "a note of something unfinished: do it, or open an issue")
		}
	}
}

// calls looks for calls that have no place where they stand.
func (r *review) calls(p *pkg, f *file) {
	ast.Inspect(f.File, func(n ast.Node) bool {
		switch {
		case n == nil:
			return false
		case f.test && f.calls(n, "time", "Sleep"):
			r.complain(p.at(n), f.name, "time.Sleep in a test: wait for a signal, or poll with a deadline")
		case !f.test && !strings.HasPrefix(p.dir, "cmd/") && f.calls(n, "context", "Background", "TODO"):
			r.complain(p.at(n), f.name, "context.Background below cmd: take a ctx, or context.WithoutCancel of one for what outlives it")
		}
		return true
	})
}
