package templates

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io"
	"os"
	"strings"
	texttemplate "text/template"
	"text/template/parse"
	"unicode/utf8"

	"github.com/sluicemail/sluice/internal/mail"
)

// The documents of a message. A template defines subject and at least one of
// html and text.
const (
	docSubject = "subject"
	docHTML    = "html"
	docText    = "text"
)

// maxSource bounds one template file, in bytes. Pictures belong into attachments.
const maxSource = 1 << 20

// Template is one parsed and checked template. It is immutable.
type Template struct {
	name    string
	source  string
	version string
	meta    meta
	use     usage
	text    *texttemplate.Template
	html    *htmltemplate.Template // nil without an html document
	hasText bool
}

// Info describes a template to a person.
type Info struct {
	Name        string      `json:"name"`
	Language    string      `json:"language,omitempty"`
	Stream      mail.Stream `json:"stream,omitempty"`
	Description string      `json:"description,omitempty"`
	Variables   []string    `json:"variables"`          // all of them, sorted
	Optional    []string    `json:"optional,omitempty"` // those that a row need not have
}

// ErrUnknown says that there is no template of that name.
var ErrUnknown = errors.New("unknown template")

// Load returns the shipped template of that name ("newsletter" is Korean,
// "newsletter.ja" and "newsletter.en" are translations) or reads the file at
// that path. A file called like a shipped template is reached as ./newsletter.
func Load(nameOrPath string) (*Template, error) {
	if source, ok := shippedSource(nameOrPath); ok {
		return Parse(canonicalName(nameOrPath), source)
	}
	source, err := readFile(nameOrPath)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w %q: neither a file nor one of the shipped ones (%s)",
			ErrUnknown, nameOrPath, strings.Join(shippedNames(), ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("template %q: %w", nameOrPath, err)
	}
	return Parse(nameOrPath, source)
}

func readFile(path string) (string, error) {
	// A FIFO or a device would block or never end.
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	if err != nil {
		return "", err
	}
	return string(b), nil
}

// Parse checks a template that is already in memory; name stands in its errors.
func Parse(name, source string) (*Template, error) {
	t := &Template{name: name, source: source}
	sum := sha256.Sum256([]byte(source))
	t.version = hex.EncodeToString(sum[:8])
	if err := t.parse(); err != nil {
		return nil, fmt.Errorf("template %s: %w", name, err)
	}
	return t, nil
}

func (t *Template) parse() error {
	switch {
	case len(t.source) > maxSource:
		return fmt.Errorf("larger than %d KB", maxSource>>10)
	case !utf8.ValidString(t.source):
		return errors.New("not UTF-8: save it as UTF-8")
	case strings.ContainsRune(t.source, 0):
		return errors.New("contains a NUL character")
	}
	source := strings.TrimPrefix(t.source, "\ufeff")
	source = strings.ReplaceAll(source, "\r\n", "\n")
	source = strings.ReplaceAll(source, "\r", "\n")
	var err error
	if t.meta, err = parseMeta(source); err != nil {
		return err
	}
	trees, err := parseTrees(source)
	if err != nil {
		return err
	}
	if t.use, err = inspect(trees); err != nil {
		return err
	}
	if err := t.meta.check(t.use); err != nil {
		return err
	}
	return t.build(trees)
}

// build makes the executable templates. html/template rewrites the trees it
// executes, so it gets copies.
func (t *Template) build(trees map[string]*parse.Tree) error {
	t.text = texttemplate.New(treeName).Option("missingkey=error").Funcs(functions())
	t.hasText = trees[docText] != nil
	html := htmltemplate.New(treeName).Option("missingkey=error").Funcs(functions())
	for name, tree := range trees {
		if _, err := t.text.AddParseTree(name, tree.Copy()); err != nil {
			return err
		}
		if _, err := html.AddParseTree(name, tree.Copy()); err != nil {
			return err
		}
	}
	if trees[docHTML] == nil {
		return nil
	}
	t.html = html
	// html/template decides how to escape when it first executes, and only then
	// says where a variable stands in a place it cannot protect.
	data := dataOf(map[string]string{}, Sender{})
	for _, v := range t.Variables() {
		data[v] = "x"
	}
	data["email"] = "x@x.example"
	if err := t.html.ExecuteTemplate(&boundedBuffer{}, docHTML, data); err != nil {
		return fmt.Errorf("execute html: %w", err)
	}
	return nil
}

// Name returns the shipped name or the path the template was loaded from.
func (t *Template) Name() string { return t.name }

// Version identifies the template's content: the first 16 hex digits of the
// SHA-256 of its source.
func (t *Template) Version() string { return t.version }

// Variables returns, sorted, the variables that a row or a fixed value has to
// fill. email, the sender block and nothing else come by themselves.
func (t *Template) Variables() []string { return t.use.names() }

// Optional returns, sorted, the variables whose value may be empty, because the
// template asks for them before it shows them ({{if .x}}, {{default "y" .x}}) or
// its front matter has a default.
func (t *Template) Optional() []string {
	var names []string
	for _, name := range t.Variables() {
		_, hasDefault := t.meta.defaults[name]
		if hasDefault || !t.use.vars[name].needed {
			names = append(names, name)
		}
	}
	return names
}

// Info returns what the front matter says about the template.
func (t *Template) Info() Info {
	return Info{Name: t.name, Language: t.meta.language, Stream: t.meta.stream,
		Description: t.meta.description, Variables: t.Variables(), Optional: t.Optional()}
}

// functions are all that a template may call. None of them can make output out
// of proportion to its input.
func functions() map[string]any {
	return map[string]any{
		"default": func(fallback, value string) string {
			if value == "" {
				return fallback
			}
			return value
		},
		"upper": strings.ToUpper,
		"lower": strings.ToLower,
	}
}
