package relay

import (
	"bytes"
	"errors"
	"io"
)

const (
	// bufferSize holds a usual mail and the commands after it in one read.
	bufferSize = 64 << 10
	// maxLine bounds a command line. RFC 5321 section 4.5.3.1.4 asks for 512 and
	// extensions for more; a client that needs 4096 is broken.
	maxLine = 4096
)

var errLongLine = errors.New("line too long")

// input is the connection's read side: what has arrived and is not used yet.
type input struct {
	src  io.Reader
	buf  []byte
	r, w int
}

// buffered returns what has arrived. It is valid until the next fill.
func (in *input) buffered() []byte { return in.buf[in.r:in.w] }

// fill reads once, after moving what is left to the front of the buffer.
func (in *input) fill() error {
	if in.r > 0 {
		copy(in.buf, in.buf[in.r:in.w])
		in.w -= in.r
		in.r = 0
	}
	n, err := in.src.Read(in.buf[in.w:])
	in.w += n
	if n > 0 {
		return nil // an error with data comes again
	}
	return err
}

// take returns the next line with its LF, if one has arrived.
func (in *input) take() (line []byte, ok bool, err error) {
	b := in.buffered()
	i := bytes.IndexByte(b, '\n')
	switch {
	case i < 0 && len(b) < maxLine:
		return nil, false, nil
	case i < 0 || i >= maxLine:
		return nil, false, errLongLine
	}
	in.r += i + 1
	return b[:i+1], true, nil
}

// skipLine throws away what has arrived of an over-long line and reports whether its end
// was among it.
func (in *input) skipLine() bool {
	b := in.buffered()
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		in.r += i + 1
		return true
	}
	in.r = in.w
	return false
}
