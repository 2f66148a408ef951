package list

import (
	"errors"
	"io"
	"strings"
)

// windowSize is how much of the file is in memory. Any row that is not too long
// fits into it twice, so one fill is always enough to see the whole of a row.
const windowSize = 2 * maxRow

// errLong marks a line of more than maxRow bytes.
var errLong = errors.New("line too long")

// input is a window that moves over the file. The window is turned into a string
// once, and every value is cut from that: no allocation for a row, and no value
// that changes under the hands of whoever keeps it.
type input struct {
	src  io.Reader
	buf  []byte
	text string
	pos  int   // where in text the next row starts: always the start of a line
	line int   // the number of that line, from 1
	err  error // why there is no more to read than text: io.EOF, or the reader's error
}

func newInput(src io.Reader) input {
	in := input{src: src, buf: make([]byte, windowSize), line: 1}
	in.fill()
	return in
}

// fill moves the window so that it starts at pos, and reads until it is full:
// what is in it must not depend on the sizes in which a pipe delivers.
func (in *input) fill() {
	n, idle := copy(in.buf, in.text[in.pos:]), 0
	for n < len(in.buf) && in.err == nil {
		m, err := in.src.Read(in.buf[n:])
		n, in.err = n+m, err
		if idle++; m > 0 {
			idle = 0
		}
		if idle > 100 && err == nil {
			in.err = io.ErrNoProgress
		}
	}
	in.text, in.pos = string(in.buf[:n]), 0
}

// more reports whether a fill would bring more of the row at pos into the window,
// the row not being too long already.
func (in *input) more() bool { return in.err == nil && len(in.text)-in.pos <= maxRow }

// lineEnd returns the index of the LF that ends the line at pos, or of the end of
// the file. It returns errLong for a line of more than maxRow bytes. The last line
// of a file that broke off in a read error is not returned: it may be half a line.
func (in *input) lineEnd() (int, error) {
	for {
		i := strings.IndexByte(in.text[in.pos:], '\n')
		switch {
		case i > maxRow:
			return 0, errLong
		case i >= 0:
			return in.pos + i, nil
		case in.more():
			in.fill()
			continue
		case len(in.text)-in.pos > maxRow:
			return 0, errLong
		case in.pos < len(in.text) && in.err == io.EOF:
			return len(in.text), nil
		}
		return 0, in.err
	}
}

// advance moves on behind a row of so many lines that ends at end.
func (in *input) advance(end, lines int) {
	in.line += lines
	in.pos = min(end+1, len(in.text))
}

// skipLine moves on to the next line however far away it is.
func (in *input) skipLine() {
	for {
		if i := strings.IndexByte(in.text[in.pos:], '\n'); i >= 0 {
			in.advance(in.pos+i, 1)
			return
		}
		in.pos = len(in.text)
		if in.err != nil {
			in.line++
			return
		}
		in.fill()
	}
}

// skipBlank moves on to the first line with something on it.
func (in *input) skipBlank() error {
	for {
		end, err := in.lineEnd()
		if err == errLong {
			return nil
		}
		if err != nil {
			return err
		}
		if !emptyLine(in.text[in.pos:end]) {
			return nil
		}
		in.advance(end, 1)
	}
}

// emptyLine reports whether a line holds nothing. Tabs are values: in TSV they
// separate them.
func emptyLine(s string) bool {
	return s == "" || (s[0] <= ' ' && strings.Trim(s, " \r") == "")
}

// marks tell what kinds of bytes a row has, so that most rows skip most checks.
type marks uint8

const (
	quote   marks = 1 << iota // a quotation mark
	high                      // a byte beyond ASCII
	control                   // NUL, CR or LF
)

var markOf = func() (t [256]marks) {
	for i := 0x80; i < len(t); i++ {
		t[i] = high
	}
	t['"'], t[0], t['\r'], t['\n'] = quote, control, control, control
	return t
}()

func marksOf(s string) (m marks) {
	for i := 0; i < len(s); i++ {
		m |= markOf[s[i]]
	}
	return m
}
