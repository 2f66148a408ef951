package main

import (
	_ "embed"
	"io"
	"strconv"
	"strings"
)

// sampleCSV lists 2,000 people who do not exist, at domains that nobody can have
// (RFC 2606): Korean and Japanese names, the mix of providers one meets there.
//
//go:embed sample.csv
var sampleCSV string

// sampleList returns a list of n recipients in CSV with the columns email and
// name: the shipped ones, then more made from them, each address once. The same n
// gives the same list, and it is never in memory as a whole.
func sampleList(n int) io.Reader {
	header, rows, _ := strings.Cut(sampleCSV, "\n")
	return &sampleReader{
		buf:  append([]byte(header), '\n'),
		rows: strings.Split(strings.TrimSuffix(rows, "\n"), "\n"),
		n:    n,
	}
}

type sampleReader struct {
	buf  []byte   // made but not read yet
	rows []string // of the shipped list
	next int      // rows made so far
	n    int
}

func (r *sampleReader) Read(p []byte) (int, error) {
	for len(r.buf) < len(p) && r.next < r.n {
		r.buf = r.appendRow(r.buf)
	}
	if len(r.buf) == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	n := copy(p, r.buf)
	r.buf = append(r.buf[:0], r.buf[n:]...)
	return n, nil
}

// appendRow appends the next row. Beyond the shipped ones it tags an address with
// the number of the round, which no shipped address has.
func (r *sampleReader) appendRow(dst []byte) []byte {
	row, round := r.rows[r.next%len(r.rows)], r.next/len(r.rows)
	r.next++
	if round > 0 {
		local, rest, _ := strings.Cut(row, "@")
		dst = append(dst, local...)
		dst = append(dst, '+')
		dst = strconv.AppendInt(dst, int64(round), 10)
		dst = append(dst, '@')
		row = rest
	}
	dst = append(dst, row...)
	return append(dst, '\n')
}
