package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// readYAML sets what the document says. It walks the nodes itself rather than
// decode them, so that every problem has its line, all are found, and the text of
// a value is taken as it stands: a password of 0123 is no number.
func (l *loader) readYAML(name string, data []byte) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return // nothing but comments
	case err != nil:
		l.syntax(name, err)
		return
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		l.fault(name, "", "a second document or trailing text after ---: want one document")
		return
	}
	r := &yamlReader{loader: l, name: name}
	r.section(doc.Content[0], "")
}

var yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// syntax reports what the parser could not read. The parser quotes the document
// only where an alias is unknown, which is what an unquoted password that begins
// with an asterisk is taken for.
func (l *loader) syntax(name string, err error) {
	m := yamlError.FindStringSubmatch(strings.ReplaceAll(err.Error(), "\n", " "))
	switch {
	case m == nil:
		l.fault(name, "", "not YAML")
	case strings.Contains(m[2], "anchor"):
		l.fault(name, "", "a value begins with *: put it in quotes")
	case m[1] != "" && strings.Contains(m[2], "alphabetic or numeric"):
		l.fault(name+":"+m[1], "", "a name or value begins with * or &: put it in quotes")
	case m[1] != "":
		l.fault(name+":"+m[1], "", "not YAML: %s", m[2])
	default:
		l.fault(name, "", "not YAML: %s", m[2])
	}
}

type yamlReader struct {
	*loader
	name string // of the file
}

func (r *yamlReader) at(n *yaml.Node) string { return fmt.Sprintf("%s:%d", r.name, n.Line) }

// section reads a mapping at path ("" for the whole document). It goes no deeper
// than the keys there are.
func (r *yamlReader) section(n *yaml.Node, path string) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Anchor == "" {
		return // a heading with everything under it commented out
	}
	if n.Kind != yaml.MappingNode || n.Anchor != "" {
		r.fault(r.at(n), path, "want a section with the keys %s", oneOf(r.children(path)))
		return
	}
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.Tag == "!!merge" {
			r.fault(r.at(k), path, "want plain keys: %s", oneOf(r.children(path)))
			continue
		}
		at := join(path, k.Value)
		if line, again := first[k.Value]; again {
			r.fault(r.at(k), at, "given twice, first on line %d", line)
			continue
		}
		first[k.Value] = k.Line
		r.entry(k, v, path)
	}
}

func (r *yamlReader) entry(k, v *yaml.Node, path string) {
	at := join(path, k.Value)
	known, ok := r.byPath[at]
	if f, named := r.family(path); named && !ok {
		r.member(f, k, v)
		return
	}
	if ok && !strings.Contains(k.Value, ".") {
		r.scalar(known, v)
		return
	}
	if len(r.children(at)) > 0 && !strings.Contains(k.Value, ".") {
		r.section(v, at)
		return
	}
	r.fault(r.at(k), printable(at), "unknown key%s", r.meant(k.Value, path))
}

// member reads what stands below a name that the operator chose.
func (r *yamlReader) member(f family, k, v *yaml.Node) {
	if err := f.check(k.Value); err != nil {
		r.fault(r.at(k), printable(join(f.path, k.Value)), "%v", err)
		return
	}
	r.admit(f, k.Value, r.at(k))
	r.section(v, join(f.path, k.Value))
}

func printable(s string) string {
	if strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return strconv.Quote(s)
	}
	return s
}

// meant suggests a neighbour with a similar name, else the same name elsewhere,
// else lists what there is.
func (r *yamlReader) meant(name, path string) string {
	siblings := r.children(path)
	if s := suggest(name, siblings); s != "" {
		return s
	}
	for _, k := range r.keys() {
		if strings.HasSuffix(k.path, "."+name) || k.path == name {
			return "; did you mean " + k.path + "?"
		}
	}
	return "; want " + oneOf(siblings)
}

func (r *yamlReader) scalar(k key, v *yaml.Node) {
	if v.Kind == yaml.SequenceNode && k.isList() && v.Anchor == "" {
		raw := make([]string, len(v.Content))
		for i, n := range v.Content {
			if !r.plain(k, n) {
				return
			}
			raw[i] = n.Value
		}
		r.set(k, r.at(v), raw)
		return
	}
	if !r.plain(k, v) {
		return
	}
	raw := []string{v.Value}
	if k.isList() {
		raw = splitList(v.Value)
	}
	r.set(k, r.at(v), raw)
}

// plain reports whether n is a value that means what it looks like. A value that
// begins with one of YAML's special characters is taken for something else and
// would arrive empty.
func (r *yamlReader) plain(k key, n *yaml.Node) bool {
	const quote = `: put a value that begins with #, &, * or ! in quotes, and write an empty one as ""`
	switch {
	case n.Kind == yaml.AliasNode, n.Anchor != "", n.Style&yaml.TaggedStyle != 0:
		r.fault(r.at(n), k.path, "a YAML anchor, alias or tag"+quote)
	case n.Kind != yaml.ScalarNode && k.isList():
		r.fault(r.at(n), k.path, "want %s", k.value.(list).example())
	case n.Kind != yaml.ScalarNode:
		r.fault(r.at(n), k.path, "want one value, not a list or a section")
	case n.Tag == "!!null":
		r.fault(r.at(n), k.path, "no value"+quote)
	default:
		return true
	}
	return false
}

// children returns the names right below path, in the order of the table.
func (r *yamlReader) children(path string) []string {
	var out []string
	f, named := r.family(path)
	for _, k := range r.keys() {
		if named && slices.ContainsFunc(f.names(), func(name string) bool { return strings.HasPrefix(k.path, join(path, name)+".") }) {
			continue
		}
		rest := k.path
		if path != "" {
			var ok bool
			if rest, ok = strings.CutPrefix(k.path, path+"."); !ok {
				continue
			}
		}
		name, _, _ := strings.Cut(rest, ".")
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	if named {
		out = append(out, f.what)
	}
	for _, f := range r.families() {
		if path == "" && !slices.Contains(out, f.path) {
			out = append(out, f.path)
		}
	}
	return out
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
