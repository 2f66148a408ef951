package feedback

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// Bounds of what is read, in bytes.
const (
	maxLine = 1 << 20
	maxMail = 4 << 20 // of a message; what is behind is returned mail, which nobody needs
)

// Fault is a report that cannot be used.
type Fault struct {
	Name string // of the input
	Line int    // where the report begins, from 1
	Err  error  // holds no full address
}

func (f *Fault) Error() string { return fmt.Sprintf("%s:%d: %v", f.Name, f.Line, f.Err) }

func (f *Fault) Unwrap() error { return f.Err }

// FormatError means that an input is nothing that this package reads.
type FormatError struct{ Name, Reason string }

func (e *FormatError) Error() string { return e.Name + ": " + e.Reason }

// handler takes what is found: a report, or what is wrong with it, and its line. An
// error ends the reading.
type handler func(line int, r Report, fault error) error

// read tells by its name, or else its beginning, what an input is, and reads it.
func read(name string, src io.Reader, each handler) error {
	in := bufio.NewReaderSize(src, 64<<10)
	if head, _ := in.Peek(3); string(head) == "\xef\xbb\xbf" {
		_, _ = in.Discard(3) // it is there
	}
	switch strings.ToLower(filepath.Ext(name)) {
	case ".jsonl", ".ndjson", ".json":
		return readLines(in, each)
	case ".eml":
		return readMail(io.LimitReader(in, maxMail), 1, each)
	case ".mbox":
		return readBox(in, each)
	}
	head, err := in.Peek(1024)
	if len(head) == 0 {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return fmt.Errorf("read %s: %w", name, err)
	}
	start := bytes.TrimLeft(head, " \t\r\n")
	switch {
	case bytes.HasPrefix(head, []byte("From ")):
		return readBox(in, each)
	case len(start) == 0 || start[0] == '{' || start[0] == '[':
		return readLines(in, each)
	case headerLike(head):
		return readMail(io.LimitReader(in, maxMail), 1, each)
	}
	return &FormatError{name, "neither JSON Lines nor a mail message nor a mailbox file (mbox)"}
}

// headerLike reports whether text begins as a header does (RFC 5322 section 2.2).
func headerLike(text []byte) bool {
	colon := bytes.IndexByte(text, ':')
	if colon < 1 {
		return false
	}
	for _, c := range text[:colon] {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// readLines reads JSON Lines.
func readLines(in *bufio.Reader, each handler) error {
	for n := 1; ; n++ {
		line, long, err := nextLine(in)
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return fmt.Errorf("read line %d: %w", n, err)
		case long:
			if err := each(n, Report{}, fmt.Errorf("longer than %d bytes", maxLine)); err != nil {
				return err
			}
		case len(bytes.TrimSpace(line)) > 0:
			r, fault := parseLine(line)
			if err := each(n, r, fault); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

// nextLine returns a line, which is valid until the next call, or that it was too long.
func nextLine(in *bufio.Reader) (line []byte, long bool, err error) {
	line, err = in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, false, err
	}
	line = bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		var more []byte
		more, err = in.ReadSlice('\n')
		if long = long || len(line)+len(more) > maxLine; !long {
			line = append(line, more...)
		}
	}
	return line, long, err
}

// readMail reads one message.
func readMail(in io.Reader, line int, each handler) error {
	reports, fault := parseMail(in)
	for _, r := range reports {
		if err := each(line, r, nil); err != nil {
			return err
		}
	}
	if fault != nil {
		return each(line, Report{}, fault)
	}
	return nil
}

// readBox reads an mbox file (RFC 4155): a message begins behind a line that begins with
// "From " and follows an empty one.
func readBox(in *bufio.Reader, each handler) error {
	var text bytes.Buffer
	begun, empty := 0, true // line where the message begins, 0 = before the first
	for n := 1; ; n++ {
		line, _, err := nextLine(in)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read line %d: %w", n, err)
		}
		from := empty && bytes.HasPrefix(line, []byte("From "))
		if !from {
			keep(&text, line)
		}
		if begun > 0 && (from || err != nil) {
			if err := readMail(&text, begun, each); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
		if from {
			text.Reset()
			begun = n
		}
		empty = len(bytes.TrimRight(line, "\r\n")) == 0
	}
}

func keep(text *bytes.Buffer, line []byte) {
	if text.Len()+len(line) <= maxMail {
		text.Write(line)
	}
}
