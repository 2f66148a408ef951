package archtest

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/sluicemail/sluice"

// pkg is one directory of Go files.
type pkg struct {
	dir   string // "internal/mail"
	fset  *token.FileSet
	files []*file
}

type file struct {
	name string // "internal/mail/address.go"
	test bool
	text string
	*ast.File
}

// tree reads every package under root, leaving out testdata and hidden directories.
func tree(t *testing.T, root string) []*pkg {
	t.Helper()
	byDir := map[string]*pkg{}
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		base := filepath.Base(name)
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (base == "testdata" || base[0] == '.' || base[0] == '_'):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go"):
			return nil
		}
		dir := filepath.Dir(name)
		p := byDir[dir]
		if p == nil {
			p = &pkg{dir: dir, fset: token.NewFileSet()}
			byDir[dir] = p
		}
		return p.add(root, name)
	})
	if err != nil {
		t.Fatal(err)
	}
	var out []*pkg
	for _, p := range byDir {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *pkg) int { return strings.Compare(a.dir, b.dir) })
	return out
}

func (p *pkg) add(root, name string) error {
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return err
	}
	f, err := parser.ParseFile(p.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	p.files = append(p.files, &file{name, strings.HasSuffix(name, "_test.go"), string(text), f})
	return nil
}

// code returns the files that are no tests.
func (p *pkg) code() []*file {
	return slices.DeleteFunc(slices.Clone(p.files), func(f *file) bool { return f.test })
}

// imports returns the paths a file imports.
func (f *file) imports() []string {
	var out []string
	for _, spec := range f.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err == nil {
			out = append(out, path)
		}
	}
	return out
}

// at is where n stands, as file:line.
func (p *pkg) at(n ast.Node) string {
	pos := p.fset.Position(n.Pos())
	return pos.Filename + ":" + strconv.Itoa(pos.Line)
}

// lines is how many lines n takes.
func (p *pkg) lines(n ast.Node) int {
	return p.fset.Position(n.End()).Line - p.fset.Position(n.Pos()).Line + 1
}

// calls reports whether n calls one of the named functions of the imported package.
func (f *file) calls(n ast.Node, path string, names ...string) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains(names, sel.Sel.Name) {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && x.Name == f.nameOf(path)
}

// nameOf is what the file calls the package it imports by path, "" if it does not.
func (f *file) nameOf(path string) string {
	for _, spec := range f.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err != nil || p != path {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path[strings.LastIndexByte(path, '/')+1:]
	}
	return ""
}

// globals are the package-level variables of the code, and uses tells which
// identifier means which; shadowed names are told apart. Imports are not followed:
// only the package's own names matter.
func (p *pkg) globals() (vars map[types.Object]*ast.ValueSpec, uses map[*ast.Ident]types.Object) {
	files := p.code()
	if len(files) == 0 {
		return nil, nil
	}
	name := files[0].Name.Name
	var asts []*ast.File
	for _, f := range p.files {
		if f.Name.Name == name { // tests inside the package may not write either
			asts = append(asts, f.File)
		}
	}
	info := types.Info{Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: noImports{}, Error: func(error) {}, FakeImportC: true}
	// Errors abound, since nothing imported is known; the names still resolve.
	_, _ = conf.Check(name, p.fset, asts, &info)
	vars = map[types.Object]*ast.ValueSpec{}
	for _, f := range files {
		for _, d := range f.Decls {
			gen, ok := d.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, s := range gen.Specs {
				spec := s.(*ast.ValueSpec)
				for _, id := range spec.Names {
					if obj := info.Defs[id]; obj != nil && id.Name != "_" {
						vars[obj] = spec
					}
				}
			}
		}
	}
	return vars, info.Uses
}

type noImports struct{}

func (noImports) Import(string) (*types.Package, error) { return nil, errors.New("not followed") }
