package templates

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	texttemplate "text/template"
)

// documents are one message before MIME: line ends are LF, nothing is encoded.
type documents struct {
	subject []byte
	headers [][]byte // values of Options.Headers, in order
	text    []byte
	html    []byte // nil without an html document
}

// all returns the documents in the order of plan.outlines.
func (d *documents) all() [][]byte {
	return append([][]byte{d.subject, d.text, d.html}, d.headers...)
}

// headerTemplate is the parsed value of a custom header.
type headerTemplate struct {
	name string
	tmpl *texttemplate.Template
	use  *define
}

func parseHeader(h Header) (headerTemplate, error) {
	const doc = "value"
	trees, err := parseTrees(`{{define "` + doc + `"}}` + h.Value + `{{end}}`)
	if err != nil {
		return headerTemplate{}, fmt.Errorf("header %q: %w", h.Name, err)
	}
	if len(trees) != 1 || trees[doc] == nil {
		return headerTemplate{}, fmt.Errorf("header %q: {{define}} does not belong here", h.Name)
	}
	use, err := inspectDefine(trees[doc])
	if err == nil && len(use.calls) > 0 {
		err = errors.New("{{template}} does not belong here")
	}
	if err != nil {
		return headerTemplate{}, fmt.Errorf("header %q: %w", h.Name, err)
	}
	tmpl, err := texttemplate.New(treeName).Option("missingkey=error").Funcs(functions()).AddParseTree(doc, trees[doc])
	if err != nil {
		return headerTemplate{}, fmt.Errorf("header %q: %w", h.Name, err)
	}
	return headerTemplate{h.Name, tmpl, use}, nil
}

// dataOf returns what a template sees as dot. Callers add the row's values.
func dataOf(constants map[string]string, s Sender) map[string]any {
	data := make(map[string]any, len(constants)+8)
	for name, value := range constants {
		data[name] = value
	}
	// The map's methods and fields are all that html/template could call on it:
	// none. Values are strings, so no type is trusted markup either.
	sender := map[string]any{}
	for name, value := range s.values() {
		sender[name] = value
	}
	data["sender"] = sender
	return data
}

// execute runs the templates on one recipient's values.
func (p *Program) execute(email string, values []string) (*documents, error) {
	data := maps.Clone(p.data)
	data[emailVariable] = email
	for i, name := range p.columns {
		data[name] = values[i]
	}
	d := &documents{}
	var err error
	if d.subject, err = runText(p.tmpl.text, docSubject, data); err != nil {
		return nil, err
	}
	d.subject = collapse(d.subject)
	for _, h := range p.headers {
		value, err := runText(h.tmpl, h.tmpl.Name(), data)
		if err != nil {
			return nil, fmt.Errorf("header %q: %w", h.name, err)
		}
		d.headers = append(d.headers, collapse(value))
	}
	if p.tmpl.html != nil {
		var out boundedBuffer
		if err := p.tmpl.html.ExecuteTemplate(&out, docHTML, data); err != nil {
			return nil, fmt.Errorf("execute html: %w", err)
		}
		d.html = trimDocument(out.Bytes())
	}
	if p.tmpl.hasText {
		if d.text, err = runText(p.tmpl.text, docText, data); err != nil {
			return nil, err
		}
	} else if d.text, err = textOf(d.html); err != nil {
		return nil, err
	}
	d.text = trimDocument(d.text)
	return d, nil
}

func runText(t *texttemplate.Template, doc string, data map[string]any) ([]byte, error) {
	var out boundedBuffer
	if err := t.ExecuteTemplate(&out, doc, data); err != nil {
		return nil, fmt.Errorf("execute %s: %w", doc, err)
	}
	return out.Bytes(), nil
}

// trimDocument ends a document with exactly one line end.
func trimDocument(b []byte) []byte {
	b = bytes.Trim(b, space)
	return append(b[:len(b):len(b)], '\n')
}

// collapse makes any white space a single space, and trims: a header field has
// one line, however its template is laid out.
func collapse(b []byte) []byte {
	return bytes.Trim(appendCollapsed(nil, string(b)), space)
}

// boundedBuffer refuses to grow beyond maxOutput.
type boundedBuffer struct{ bytes.Buffer }

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxOutput {
		return 0, fmt.Errorf("more than %d MB of output", maxOutput>>20)
	}
	return b.Buffer.Write(p)
}
