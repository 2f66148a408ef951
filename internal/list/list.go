// Package list reads recipient files: CSV, TSV and JSON Lines, in UTF-8, UTF-16,
// EUC-KR/CP949 or Shift_JIS, at any size in constant memory.
//
// It hands out one row after the other with the address parsed and the template
// variables in the order they were asked for. A row that cannot be sent to is a
// *RowError with its line, and reading goes on: nothing is skipped in silence
// but blank lines. A file that cannot be read at all is a *FormatError. Anything
// else that comes out of Open and Next is the underlying reader's own error.
//
// What it believes and what it does not:
//   - Quotes follow RFC 4180. A quoted value may run over several lines, and what
//     stands between well-formed quotes is never taken for a row. A quote that
//     does not close within 64 KB and 100 lines, or closes in front of other
//     text, costs the row it stands in; reading resumes on the next line.
//   - A byte order mark decides the encoding. Without one, the first text that is
//     not ASCII does: valid UTF-8 first, then strict CP949 where it is plausibly
//     Korean. No character is ever replaced: a row with bytes that its encoding
//     does not have, or with U+FFFD, is a RowError. Other double-byte encodings
//     can look Korean (EUC-JP, GBK): those need to be named or converted.
//   - Compressed files and spreadsheets are refused by their first bytes.
//
// It opens no files, keeps no state between files and sends nothing anywhere.
package list

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/sluicemail/sluice/internal/mail"
)

// Bounds of what is read. They keep memory constant and the damage of one stray
// quote small.
const (
	maxField = 64 << 10  // bytes of one value
	maxRow   = 128 << 10 // bytes of one row
	maxLines = 100       // lines that one quoted value may span
	maxShown = 320       // bytes of a bad address kept for the report

	tooLong = "a row longer than 128 KB"
)

// Format says how the rows of a file are written.
type Format uint8

// The formats. Auto goes by the name's extension (.csv, .tsv, .tab, .jsonl,
// .ndjson, .json) and, where there is none of these, by how the text starts.
const (
	Auto Format = iota
	CSV
	TSV // CSV with tabs, as spreadsheets write it: quotes mean what they mean in CSV
	JSONLines
)

// Options say what to read out of a file.
type Options struct {
	Name     string          // the file's name, or "stdin": for messages and Auto
	Columns  []string        // the variables wanted; Row.Values come in this order
	Optional map[string]bool // those of Columns that may be missing or empty
	Format   Format
	Encoding string // one of Encodings(); "" to detect it
}

// Row is one recipient. Values is the reader's own and changes with the next
// call to Next; the strings stay as they are, but each keeps the 256 KB of file
// around it in memory, as the Address does: clone what is to be kept for long.
type Row struct {
	Line    int // the line of the file on which the row starts, from 1
	Address mail.Address
	Values  []string // in the order of Options.Columns; "" for an optional one that is missing
}

// RowError is a row that cannot be used. Reading goes on after it.
type RowError struct {
	Line    int    // the line on which the row starts, from 1
	Address string // as written, cut to 320 bytes, "" where it was not found: for the report, not for logs
	Reason  string // without the address
}

// Error gives line and reason. It leaves the address out, so that it can be logged.
func (e *RowError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Reason) }

// FormatError is a file that cannot be read, or not be read on.
type FormatError struct {
	Name   string
	Line   int // from 1; 0 where the fault is the file's as a whole
	Column int // in characters from 1; 0 where the fault is the line's as a whole
	Reason string
}

// Error gives file, line and column as far as they are known, and the reason.
func (e *FormatError) Error() string {
	switch {
	case e.Line == 0:
		return fmt.Sprintf("%s: %s", e.Name, e.Reason)
	case e.Column == 0:
		return fmt.Sprintf("%s: line %d: %s", e.Name, e.Line, e.Reason)
	}
	return fmt.Sprintf("%s: line %d, column %d: %s", e.Name, e.Line, e.Column, e.Reason)
}

// Reader reads the rows of one file. It is not for use by several goroutines.
type Reader struct {
	opt      Options
	in       input
	charset  *charset // nil until the first text that is not ASCII
	next     func() (Row, error)
	sep      byte
	fields   []string // of the current record, in the file's order
	email    int      // index of the email column
	columns  []int    // for each of opt.Columns its index in fields, -1 where missing
	width    int      // columns of the header
	names    []string // of the header, trimmed
	values   []string // what Row.Values points to
	have     []bool   // JSON Lines: which of values the row has
	scratch  []byte   // for decoding
	finished error    // what Next returns from now on
}

// Open reads the start of src, for CSV and TSV the header row. The caller keeps
// src and closes it. Columns that are missing, named twice or not to be found
// are a *FormatError that says what was there instead.
func Open(src io.Reader, opt Options) (*Reader, error) {
	r := &Reader{opt: opt, email: -1, values: make([]string, len(opt.Columns))}
	if err := r.openText(src); err != nil {
		return nil, err
	}
	switch err := r.in.skipBlank(); {
	case err == io.EOF:
		return nil, r.formatError(0, "the file is empty")
	case err != nil:
		return nil, r.readError(err)
	}
	if err := r.checkStart(); err != nil {
		return nil, err
	}
	open := r.openCSV
	if r.format() == JSONLines {
		open = r.openJSON
	}
	if err := open(); err != nil {
		return nil, err
	}
	return r, nil
}

// Next returns the next row, a *RowError for one that is of no use, or io.EOF
// after the last. Any other error ends the reading and is returned from then on.
func (r *Reader) Next() (Row, error) {
	if r.finished != nil {
		return Row{}, r.finished
	}
	row, err := r.next()
	if err == nil {
		return row, nil
	}
	var (
		bad    *RowError
		broken *FormatError
	)
	switch {
	case errors.As(err, &bad):
		return Row{}, err
	case err != io.EOF && !errors.As(err, &broken):
		err = r.readError(err)
	}
	r.finished = err
	return Row{}, err
}

// row makes a Row of an address and r.values, or says why it cannot.
func (r *Reader) row(rec record, email string) (Row, error) {
	if email == "" {
		return Row{}, rec.bad(email, "no address")
	}
	address, err := mail.ParseAddress(email)
	if err != nil {
		return Row{}, rec.bad(email, err.Error())
	}
	for i, v := range r.values {
		if fault := r.checkValue(i, v, rec.marks); fault != "" {
			return Row{}, rec.bad(email, fault)
		}
	}
	return Row{Line: rec.line, Address: address, Values: r.values}, nil
}

// checkValue says what is wrong with v as the value of the i-th of the columns wanted.
func (r *Reader) checkValue(i int, v string, m marks) (fault string) {
	name := r.opt.Columns[i]
	switch {
	case blank(v) && !r.opt.Optional[name]:
		return fmt.Sprintf("no value for %q", name)
	case len(v) > maxField:
		return fmt.Sprintf("the value of %q is longer than %d KB", name, maxField>>10)
	case m&control == 0:
		return ""
	case strings.IndexByte(v, 0) >= 0:
		return fmt.Sprintf("a NUL character in the value of %q", name)
	case strings.ContainsAny(v, "\r\n"):
		// It could reach a header, and end it there (RFC 5322 section 2.2).
		return fmt.Sprintf("a line break in the value of %q", name)
	}
	return ""
}

// record is what is known of a row before its values are.
type record struct {
	line, last int // the lines it starts and ends on
	marks      marks
}

// bad makes the RowError. That a row runs over several lines is worth telling:
// it is how a missing quote shows.
func (rec record) bad(email, reason string) *RowError {
	reason = clip(reason)
	if rec.last > rec.line {
		reason += fmt.Sprintf(" (the row runs to line %d: is a quote missing?)", rec.last)
	}
	return &RowError{Line: rec.line, Address: clip(email), Reason: reason}
}

// clip copies s, so that an error pins no chunk of the file, and cuts it to what a
// report can show.
func clip(s string) string {
	if len(s) > maxShown {
		cut := maxShown
		for cut > maxShown-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return strings.Clone(strings.ToValidUTF8(s, "\uFFFD"))
}

// blank reports whether there is nothing but white space in s.
func blank(s string) bool {
	if s != "" && s[0] > ' ' && s[0] < utf8.RuneSelf {
		return false
	}
	return strings.TrimSpace(s) == ""
}

func (r *Reader) formatError(line int, format string, args ...any) *FormatError {
	return &FormatError{Name: r.opt.Name, Line: line, Reason: fmt.Sprintf(format, args...)}
}

func (r *Reader) readError(err error) error {
	return fmt.Errorf("read %s after line %d: %w", r.opt.Name, r.in.line-1, err)
}
