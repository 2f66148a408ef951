package list

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// csvRow reads the next row of CSV or TSV.
func (r *Reader) csvRow() (Row, error) {
	rec, err := r.record()
	if err != nil {
		return Row{}, err
	}
	email := ""
	if r.email < len(r.fields) {
		email = strings.TrimSpace(r.fields[r.email])
		r.fields[r.email] = email
	}
	if len(r.fields) != r.width {
		return Row{}, rec.bad(email, fmt.Sprintf("%s, but the header has %s",
			plural(len(r.fields), "column"), plural(r.width, "column")))
	}
	for i, c := range r.columns {
		r.values[i] = ""
		if c >= 0 {
			r.values[i] = r.fields[c]
		}
	}
	return r.row(rec, email)
}

// record reads the next record into r.fields and moves on behind it. Its error is
// a *RowError for a record that cannot be split or decoded.
func (r *Reader) record() (record, error) {
	in := &r.in
	for {
		end, err := in.lineEnd()
		if err == errLong {
			return record{}, r.longLine()
		}
		if err != nil {
			return record{}, err
		}
		raw := in.text[in.pos:end]
		if emptyLine(raw) {
			in.advance(end, 1)
			continue
		}
		raw = strings.TrimSuffix(raw, "\r")
		m := marksOf(raw)
		if m&high != 0 && r.charset == nil {
			if err := r.decideCharset(); err != nil {
				return record{}, err
			}
			continue
		}
		if m&quote == 0 {
			r.split(raw)
			rec := record{line: in.line, last: in.line, marks: m}
			in.advance(end, 1)
			return rec, r.decodeFields(rec)
		}
		rec, again, err := r.quotedRecord()
		if !again {
			return rec, err
		}
	}
}

// split cuts a line without quotes into r.fields.
func (r *Reader) split(s string) {
	r.fields = r.fields[:0]
	for {
		i := strings.IndexByte(s, r.sep)
		if i < 0 {
			r.fields = append(r.fields, s)
			return
		}
		r.fields = append(r.fields, s[:i])
		s = s[i+1:]
	}
}

// quotedRecord reads the record at pos, which has quotes. It wants to be called
// again when it has had to move the window.
func (r *Reader) quotedRecord() (rec record, again bool, err error) {
	in := &r.in
	end, fault := r.splitQuoted()
	switch {
	case fault != nil && fault.cut && in.more():
		in.fill()
		return rec, true, nil
	case fault != nil && fault.cut && in.err != nil && in.err != io.EOF:
		return rec, false, in.err
	case fault != nil:
		return rec, false, r.giveUp(fault)
	}
	raw := in.text[in.pos:end]
	rec = record{line: in.line, last: in.line + strings.Count(raw, "\n"), marks: marksOf(strings.TrimSuffix(raw, "\r"))}
	if rec.marks&high != 0 && r.charset == nil {
		err := r.decideCharset()
		return rec, err == nil, err
	}
	in.advance(end, rec.last-rec.line+1)
	return rec, false, r.decodeFields(rec)
}

// quoteFault is a record that RFC 4180 does not allow.
type quoteFault struct {
	at  int // where in the text: the quote to look at
	why string
	cut bool // the window ends before the record does
}

// splitQuoted cuts the record at pos into r.fields by RFC 4180 section 2 and
// returns the index of the LF that ends it, or of the end of the file.
func (r *Reader) splitQuoted() (int, *quoteFault) {
	t, i := r.in.text, r.in.pos
	r.fields = r.fields[:0]
	for {
		var (
			field string
			fault *quoteFault
			open  = i
		)
		if i < len(t) && t[i] == '"' {
			field, i, fault = quotedField(t, i)
		} else {
			field, i, fault = r.bareField(t, i)
		}
		switch {
		case fault != nil:
			return 0, fault
		case i-r.in.pos > maxRow:
			return 0, &quoteFault{at: open, why: tooLong}
		}
		r.fields = append(r.fields, field)
		rest := t[i:]
		switch {
		case r.in.err != io.EOF && (rest == "" || rest == "\r"):
			return 0, &quoteFault{at: open, why: tooLong, cut: true}
		case rest == "" || rest[0] == '\n':
			return i, nil
		case rest[0] == r.sep:
			i++
		case rest == "\r" || strings.HasPrefix(rest, "\r\n"):
			return i + 1, nil
		default:
			return 0, &quoteFault{at: open, why: "a quote that closes in front of other text: one is missing, or one inside the value is not doubled"}
		}
	}
}

// quotedField reads the quoted value that opens at t[open], and returns it with
// the index of what comes after the closing quote.
func quotedField(t string, open int) (string, int, *quoteFault) {
	window := t[open+1:]
	full := len(window) > maxField+1
	if full {
		window = window[:maxField+1]
	}
	doubled, i := false, 0
	for {
		j := strings.IndexByte(window[i:], '"')
		if j < 0 {
			break
		}
		i += j
		if i+1 < len(window) && window[i+1] == '"' {
			doubled = true
			i += 2
			continue
		}
		field := window[:i]
		if strings.Count(field, "\n") >= maxLines {
			break
		}
		if doubled {
			field = strings.ReplaceAll(field, `""`, `"`)
		}
		return field, open + 1 + i + 1, nil
	}
	return "", 0, &quoteFault{
		at:  open,
		why: fmt.Sprintf("a quote that does not close within %d lines and %d KB", maxLines, maxField>>10),
		cut: !full,
	}
}

// bareField reads a value without quotes round it.
func (r *Reader) bareField(t string, start int) (string, int, *quoteFault) {
	for i := start; i < len(t); i++ {
		switch t[i] {
		case r.sep:
			return t[start:i], i, nil
		case '\n':
			if i > start && t[i-1] == '\r' {
				i--
			}
			return t[start:i], i, nil
		case '"':
			return "", 0, &quoteFault{at: i, why: "a quote inside a value that has none round it"}
		}
	}
	end := len(t)
	if end > start && t[end-1] == '\r' {
		end--
	}
	return t[start:end], end, nil
}

// giveUp reports the record at pos as beyond reading and moves on to the line
// after the one that the fault's quote stands on.
func (r *Reader) giveUp(f *quoteFault) error {
	in := &r.in
	rec := record{line: in.line, last: in.line}
	in.line += strings.Count(in.text[in.pos:f.at], "\n")
	start := max(in.pos, strings.LastIndexByte(in.text[:f.at], '\n')+1)
	reason := fmt.Sprintf("%s (line %d, column %d)", f.why, in.line, r.column(in.text[start:f.at]))
	if in.line > rec.line {
		reason += fmt.Sprintf("; lines %d to %d are left out", rec.line, in.line)
	}
	email := r.foundEmail()
	in.pos = start
	in.skipLine()
	return rec.bad(email, reason)
}

// longLine reports the line at pos, of which the end is not in sight.
func (r *Reader) longLine() error {
	in := &r.in
	head := in.text[in.pos : in.pos+maxRow]
	if strings.IndexByte(head, '"') >= 0 {
		if _, fault := r.splitQuoted(); fault != nil {
			return r.giveUp(fault)
		}
	} else {
		r.split(head)
	}
	rec := record{line: in.line, last: in.line}
	email := r.foundEmail()
	in.skipLine()
	return rec.bad(email, tooLong)
}

// foundEmail is the address of a record of which only some fields are known.
func (r *Reader) foundEmail() string {
	if r.email < 0 || r.email >= len(r.fields) {
		return ""
	}
	return strings.TrimSpace(r.fields[r.email])
}

// decodeFields turns r.fields into valid UTF-8.
func (r *Reader) decodeFields(rec record) error {
	if rec.marks&high == 0 {
		return nil
	}
	for i, f := range r.fields {
		text, fault := r.decode(f)
		if fault != "" {
			return rec.bad(r.foundEmail(), fmt.Sprintf("%s (column %d of %d)", fault, i+1, len(r.fields)))
		}
		r.fields[i] = text
	}
	return nil
}

// column is the place in characters, from 1, of what follows prefix on its line.
func (r *Reader) column(prefix string) int {
	if r.charset != nil {
		prefix, _ = r.decode(prefix)
	}
	return utf8.RuneCountInString(prefix) + 1
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
