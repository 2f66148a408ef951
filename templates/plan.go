package templates

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// plan is the documents taken apart: what is always the same, and where which
// value stands, escaped how.
type plan struct {
	subject outline
	headers []outline
	text    outline
	html    outline
}

// outline is literals[0] place[0] literals[1] … literals[n].
type outline struct {
	literals [][]byte
	places   []place
}

type place struct {
	column int // index into the row's values; emailColumn: the address
	escape escape
}

const emailColumn = -1

// errComplex says that a program has to execute its templates for each message.
var errComplex = errors.New("a variable does not stand by itself")

// newPlan takes the documents apart by watching them being executed. It fails
// with errComplex, and with nothing worse, wherever it could not reproduce
// exactly what html/template and text/template do.
func newPlan(p *Program) (*plan, error) {
	for name, v := range p.use.vars {
		if _, fixed := p.data[name]; v.complex && !fixed {
			return nil, errComplex
		}
	}
	watch := observer{p: p}
	pl, err := watch.locate()
	if err != nil {
		return nil, err
	}
	if err := watch.identify(pl); err != nil {
		return nil, err
	}
	return pl, watch.verify(pl)
}

func (pl *plan) outlines() []*outline {
	all := []*outline{&pl.subject, &pl.text, &pl.html}
	for i := range pl.headers {
		all = append(all, &pl.headers[i])
	}
	return all
}

// observer executes a program's templates on values of its own.
type observer struct{ p *Program }

// locate finds the places by giving every variable a token that no escaper
// changes: letters and digits.
func (w observer) locate() (*plan, error) {
	token := func(column int) string { return fmt.Sprintf("zq%sn%dqz", w.p.tmpl.version, column+1) }
	values := make([]string, len(w.p.columns))
	for i := range values {
		values[i] = token(i)
	}
	docs, err := w.p.execute(token(emailColumn), values)
	if err != nil {
		return nil, err
	}
	pl := &plan{headers: make([]outline, len(docs.headers))}
	contents := docs.all()
	for i, o := range pl.outlines() {
		*o = split(contents[i], len(values), token)
	}
	return pl, nil
}

func split(doc []byte, columns int, token func(int) string) (o outline) {
	for {
		at, column := -1, 0
		for c := emailColumn; c < columns; c++ {
			if i := bytes.Index(doc, []byte(token(c))); i >= 0 && (at < 0 || i < at) {
				at, column = i, c
			}
		}
		if at < 0 {
			o.literals = append(o.literals, doc)
			return o
		}
		o.literals = append(o.literals, doc[:at:at])
		o.places = append(o.places, place{column: column})
		doc = doc[at+len(token(column)):]
	}
}

// identify finds out how each place escapes: whatever it does to every hostile
// text, one of our escapes must do as well.
func (w observer) identify(pl *plan) error {
	candidates := map[*outline][][]escape{}
	for _, o := range pl.outlines() {
		for range o.places {
			candidates[o] = append(candidates[o], escapes())
		}
	}
	for i := range max(len(hostileValues), len(hostileAddresses)) {
		email, values := w.hostile(i)
		docs, err := w.p.execute(email, values)
		if err != nil {
			return err
		}
		for j, doc := range docs.all() {
			o := pl.outlines()[j]
			if !narrow(o, candidates[o], doc, email, values) {
				return errComplex
			}
		}
	}
	for o, sets := range candidates {
		for i, set := range sets {
			o.places[i].escape = set[0]
		}
	}
	return nil
}

// narrow keeps, for each place, the escapes that explain doc.
func narrow(o *outline, sets [][]escape, doc []byte, email string, values []string) bool {
	rest, ok := bytes.CutPrefix(doc, o.literals[0])
	for i, pc := range o.places {
		if !ok {
			return false
		}
		value, next := valueAt(pc, email, values), o.literals[i+1]
		var after []byte
		sets[i] = slices.DeleteFunc(sets[i], func(e escape) bool {
			tail, found := bytes.CutPrefix(rest, e.append(nil, value))
			if !found || !bytes.HasPrefix(tail, next) {
				return true
			}
			after = tail[len(next):]
			return false
		})
		rest, ok = after, len(sets[i]) > 0
	}
	return ok && len(rest) == 0
}

// verify compares the plan with the templates on values that are mixed otherwise,
// and on values that are all alike.
func (w observer) verify(pl *plan) error {
	for n := range 3 * len(hostileValues) {
		email, values := w.hostile(n)
		if n >= 2*len(hostileValues) {
			for i := range values {
				values[i] = values[0]
			}
		}
		docs, err := w.p.execute(email, values)
		if err != nil {
			return err
		}
		for i, doc := range docs.all() {
			if !bytes.Equal(doc, pl.outlines()[i].append(nil, email, values)) {
				return errComplex
			}
		}
	}
	return nil
}

// hostile returns the nth set of values, columns next to each other never alike;
// each round combines them differently.
func (w observer) hostile(n int) (email string, values []string) {
	values = make([]string, len(w.p.columns))
	for i := range values {
		values[i] = hostileValues[(n+i*(1+n/len(hostileValues)))%len(hostileValues)]
		if w.p.limits[i].header {
			// Such a value is refused before it gets anywhere near.
			values[i] = strings.Map(func(r rune) rune {
				if r < ' ' || r >= 0x7f && r < 0xa0 {
					return '_'
				}
				return r
			}, values[i])
		}
	}
	return hostileAddresses[n%len(hostileAddresses)], values
}

func valueAt(pc place, email string, values []string) string {
	if pc.column == emailColumn {
		return email
	}
	return values[pc.column]
}

// The values that escapers are watched with. Between them they hold every ASCII
// character, what looks like an entity, a URL or an escape already, white space
// in runs, and characters that some escaper treats specially.
var (
	hostileValues = []string{
		"abc",
		"x: " + allASCII() + "  \t y",
		"https://a.example/p?q=1&amp;r=%41%zz%e&b=" + allASCII() + "#f",
		"javascript:alert(1)//",
		"/rel:ative/</script><!-- \n\n  x",
		"홍길동 様 – “quoted” 👩‍👩‍👧 é\u00a0\u00ad\u2028\u2029\ufeff\ufffd\ufdd0\uffff\u0085",
		"mailto:a+b@c.example",
		"##KEY##",
		"a@b.example",
		"https://a.example/",
		"&lt;&#39;&notit;&#0;&#x1F600;&nbsp;&copy",
		"\x01\x0b\x1b\x7f\u0080x",
		"{{.name}} %s =?UTF-8?B?4pyT?= ..",
		".",
	}
	hostileAddresses = []string{
		"a@b.example",
		"o'neil!#$%&*+-/=?^_`{|}~x@e.example",
		"%41%zz&amp;&lt=1@xn--vv4b11d.xn--3e0b707e",
	}
)

func allASCII() string {
	var b strings.Builder
	for c := byte(' '); c < 0x7f; c++ {
		b.WriteByte(c)
	}
	return b.String()
}
