package list

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// openJSON gets ready for JSON Lines: there is no header to read.
func (r *Reader) openJSON() error {
	if strings.HasPrefix(strings.TrimLeft(r.in.text[r.in.pos:], " \t"), "[") {
		return r.formatError(r.in.line, "this is a JSON array: write one object a line, without brackets and commas between them (jq -c '.[]')")
	}
	r.have = make([]bool, len(r.opt.Columns)+1)
	r.next = r.jsonRow
	return nil
}

// jsonRow reads the next row of JSON Lines.
func (r *Reader) jsonRow() (Row, error) {
	in := &r.in
	for {
		end, err := in.lineEnd()
		rec := record{line: in.line, last: in.line}
		if err == errLong {
			in.skipLine()
			return Row{}, rec.bad("", tooLong)
		}
		if err != nil {
			return Row{}, err
		}
		line := in.text[in.pos:end]
		rec.marks = marksOf(line)
		if rec.marks&high != 0 && r.charset == nil {
			if err := r.decideCharset(); err != nil {
				return Row{}, err
			}
			continue
		}
		in.advance(end, 1)
		if emptyLine(line) {
			continue
		}
		return r.object(rec, line)
	}
}

// object makes a Row of one line.
func (r *Reader) object(rec record, line string) (Row, error) {
	fault := ""
	if rec.marks&high != 0 {
		if line, fault = r.decode(line); fault != "" {
			return Row{}, rec.bad("", fault)
		}
	}
	o := object{reader: r}
	o.reset()
	if !o.scan(line) {
		o.reset()
		if err := o.parse(line); err != nil {
			return Row{}, rec.bad(o.email, err.Error())
		}
	}
	if o.escapes {
		rec.marks |= control // an escape may have stood for one
	}
	return r.row(rec, strings.TrimSpace(o.email))
}

// object collects what is wanted from one JSON object into the reader's values.
type object struct {
	reader  *Reader
	email   string
	escapes bool
}

func (o *object) reset() {
	clear(o.reader.values)
	clear(o.reader.have)
}

// wants reports whether anything is to be done with the value of key.
func (o *object) wants(key string) bool {
	for _, c := range o.reader.opt.Columns {
		if c == key {
			return true
		}
	}
	return strings.EqualFold(key, "email")
}

// set takes the value of key, or reports that it has one already.
func (o *object) set(key, value string) (fresh bool) {
	have, fresh := o.reader.have, true
	for i, c := range o.reader.opt.Columns {
		if c == key {
			fresh = fresh && !have[i]
			have[i], o.reader.values[i] = true, value
		}
	}
	if strings.EqualFold(key, "email") {
		last := len(have) - 1
		fresh = fresh && !have[last]
		have[last], o.email = true, value
	}
	return fresh
}

// scan reads the plain case fast: a flat object of strings, whole numbers, true,
// false and null. It reports false for anything else, right or wrong, which is
// then parse's to judge.
func (o *object) scan(s string) bool {
	s, ok := strings.CutPrefix(trimJSON(s), "{")
	if !ok {
		return false
	}
	if s = trimJSON(s); s == "}" {
		return true
	}
	for {
		key, rest, ok := o.plainString(trimJSON(s))
		if !ok {
			return false
		}
		if rest, ok = strings.CutPrefix(trimJSON(rest), ":"); !ok {
			return false
		}
		value, rest, ok := o.plainValue(trimJSON(rest))
		if !ok || !o.set(key, value) {
			return false
		}
		switch rest = trimJSON(rest); {
		case rest == "}":
			return true
		case rest == "" || rest[0] != ',':
			return false
		}
		s = rest[1:]
	}
}

// plainString cuts a string off the front of s. It allocates for one with escapes:
// many a library writes all of Korean as those.
func (o *object) plainString(s string) (value, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		return "", "", false
	}
	escapes := false
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' && escapes:
			value, err := unquote(s[:i+1])
			o.escapes = true
			return value, s[i+1:], err == nil
		case c == '"':
			return s[1:i], s[i+1:], true
		case c == '\\':
			escapes = true
			i++
		case c < ' ':
			return "", "", false
		}
	}
	return "", "", false
}

// plainValue cuts a plain value off the front of s. null is no value.
func (o *object) plainValue(s string) (value, rest string, ok bool) {
	if s != "" && s[0] == '"' {
		return o.plainString(s)
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if rest, ok := strings.CutPrefix(s, word); ok {
			if word == "null" {
				word = ""
			}
			return word, rest, true
		}
	}
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	if n == 0 || (n > 1 && s[0] == '0') {
		return "", "", false
	}
	return s[:n], s[n:], true // a fraction or exponent is not what may follow, and fails there
}

// trimJSON trims the white space of RFC 8259 section 2.
func trimJSON(s string) string {
	if s != "" && s[0] > ' ' && s[len(s)-1] > ' ' {
		return s
	}
	return strings.Trim(s, " \t\r\n")
}

// parse reads any object, and says what is wrong with it.
func (o *object) parse(s string) error {
	o.escapes = true
	dec := json.NewDecoder(strings.NewReader(s))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return errors.New("not a JSON object")
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return jsonFault(err)
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return jsonFault(err)
		}
		name, _ := key.(string) // the grammar has nothing else before a colon
		if !o.wants(name) {
			continue
		}
		value, err := scalar(raw)
		if err != nil {
			return fmt.Errorf("the value of %q %w", clip(name), err)
		}
		if !o.set(name, value) {
			return fmt.Errorf("%q is in it twice", clip(name))
		}
	}
	if _, err := dec.Token(); err != nil {
		return jsonFault(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("something follows the JSON object")
	}
	return nil
}

// scalar is the text of a string, number, true or false; "" for null.
func scalar(raw json.RawMessage) (string, error) {
	switch raw[0] {
	case '{', '[':
		return "", errors.New("is not a string, number, true or false")
	case 'n':
		return "", nil
	case '"':
		return unquote(string(raw))
	}
	return string(raw), nil
}

// unquote reads a JSON string with escapes. The standard library replaces half a
// surrogate pair in silence; here it is a fault.
func unquote(literal string) (s string, err error) {
	if err := json.Unmarshal([]byte(literal), &s); err != nil {
		return "", jsonFault(err)
	}
	if strings.ContainsRune(s, utf8.RuneError) {
		return "", errors.New("has half a surrogate pair or U+FFFD in it")
	}
	return s, nil
}

// jsonFault says that the line is broken, without the decoder's words for it where
// they would mean nothing.
func jsonFault(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("not JSON: the line ends in the middle of the object")
	}
	return fmt.Errorf("not JSON: %w", err)
}
