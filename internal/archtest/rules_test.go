package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// parsePkg makes a package of one file of source.
func parsePkg(t *testing.T, source string) *pkg {
	t.Helper()
	p := &pkg{dir: "p", fset: token.NewFileSet()}
	f, err := parser.ParseFile(p.fset, "p/p.go", source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	p.files = []*file{{"p/p.go", false, source, f}}
	return p
}

// The rules are worth what they catch.
func TestGlobals(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		source string
		bad    bool
	}{
		"sentinel":       {`var e = errors.New("x")`, false},
		"table":          {`var t = map[string]int{"a": 1}; func f() int { return t["a"] }`, false},
		"assertion":      {`var _ error = (*T)(nil)`, false},
		"embed":          {"//go:embed x\nvar s string", false},
		"embed in group": {"var (\n\t//go:embed x\n\ts string\n)", false},
		"no value":       {`var n int`, true},
		"mutex":          {`var m sync.Mutex`, true},
		"pool":           {`var p = sync.Pool{}`, true},
		"pointer":        {`var c = &http.Client{}`, true},
		"made":           {`var m = make(map[string]int)`, true},
		"assigned":       {`var n = 1; func f() { n = 2 }`, true},
		"incremented":    {`var n = 1; func f() { n++ }`, true},
		"table written":  {`var t = map[string]int{}; func f() { t["a"] = 1 }`, true},
		"table deleted":  {`var t = map[string]int{}; func f() { delete(t, "a") }`, true},
		"field written":  {`var t = T{}; func f() { t.a.b[1] = 1 }`, true},
		"address":        {`var n = 1; func f() *int { return &n }`, true},
		"range":          {`var n = 1; func f() { for n = range 3 {} }`, true},
		"shadowed":       {`var n = 1; func f() { n := 2; n = 3; _ = n }`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := parsePkg(t, "package p\n"+tc.source)
			vars, uses := p.globals()
			bad := false
			for _, spec := range vars {
				bad = bad || mutable(spec, p) != ""
			}
			ast.Inspect(p.files[0].File, func(n ast.Node) bool {
				for _, id := range written(n) {
					bad = bad || uses[id] != nil && vars[uses[id]] != nil
				}
				return true
			})
			if bad != tc.bad {
				t.Errorf("%s: complaint %v, want %v", tc.source, bad, tc.bad)
			}
		})
	}
}

func TestCalls(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]bool{
		`import "time"; func f() { time.Sleep(1) }`:       true,
		`import x "time"; func f() { x.Sleep(1) }`:        true,
		`import "my/time2"; func f() { time2.Sleep(1) }`:  false,
		`import "time"; func f() { time.NewTimer(1) }`:    false,
		`import "time"; func f(t T) { t.time.Sleep(1) }`:  false,
		`func f() { Sleep(1) }; var time = T{}`:           false,
		`import "time"; var f = func() { time.Sleep(1) }`: true,
	} {
		p := parsePkg(t, "package p\n"+source)
		found := false
		ast.Inspect(p.files[0].File, func(n ast.Node) bool {
			found = found || n != nil && p.files[0].calls(n, "time", "Sleep")
			return true
		})
		if found != want {
			t.Errorf("%s: found %v, want %v", source, found, want)
		}
	}
}

func TestFuncName(t *testing.T) {
	t.Parallel()
	p := parsePkg(t, "package p\nfunc A() {}\nfunc (T) B() {}\nfunc (t *T) C() {}\n")
	var names []string
	for _, d := range p.files[0].Decls {
		names = append(names, funcName(d.(*ast.FuncDecl)))
	}
	if want := []string{"A", "T.B", "(*T).C"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
}

// The table of layers must have no cycle and name only itself.
func TestLayerTable(t *testing.T) {
	t.Parallel()
	var visit func(dir string, path []string)
	visit = func(dir string, path []string) {
		if slices.Contains(path, dir) {
			t.Fatalf("a cycle in the table: %s", strings.Join(append(path, dir), " -> "))
		}
		for _, next := range mayImport[dir] {
			if _, ok := mayImport[next]; !ok {
				t.Errorf("%s may import %s, which is not in the table", dir, next)
			}
			visit(next, append(path[:len(path):len(path)], dir))
		}
	}
	for dir := range mayImport {
		visit(dir, nil)
	}
}
