package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Block is a fixed slice of a campaign's recipients: the unit of storage, of a
// claim and of a fence. It is written once and never changed. Values are held by
// column, because a column compresses better than a row.
type Block struct {
	Lines  []int      // line of the input file, ascending
	Emails []string   // in envelope form
	Values [][]string // one slice a column, in the order of the campaign's columns
}

// Len is the number of recipients.
func (b *Block) Len() int { return len(b.Lines) }

// Row returns recipient i's values, appended to dst.
func (b *Block) Row(dst []string, i int) []string {
	for _, col := range b.Values {
		dst = append(dst, col[i])
	}
	return dst
}

// errCorrupt marks stored bytes that do not decode.
var errCorrupt = errors.New("stored bytes do not decode")

// codec compresses what is stored. Its methods are safe for concurrent use.
type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// maxBlob bounds what one stored value may decode to.
const maxBlob = 64 << 20

func newCodec() (*codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2), zstd.WithEncoderCRC(true))
	if err != nil {
		return nil, fmt.Errorf("zstd encoder: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(maxBlob))
	if err != nil {
		return nil, fmt.Errorf("zstd decoder: %w", err)
	}
	return &codec{enc, dec}, nil
}

func (c *codec) pack(raw []byte) []byte { return c.enc.EncodeAll(raw, make([]byte, 0, len(raw)/2)) }

func (c *codec) unpack(b []byte) ([]byte, error) {
	raw, err := c.dec.DecodeAll(b, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return raw, nil
}

// blockVersion is the first byte of an encoded block.
const blockVersion = 1

// encodeBlock writes version, count, columns, line deltas, then each column with a
// line feed after every value. No value may hold a line feed: the reader of the
// list refuses such rows, and encodeBlock does so again.
func (c *codec) encodeBlock(b *Block) ([]byte, error) {
	raw := make([]byte, 0, 64*b.Len())
	raw = append(raw, blockVersion)
	raw = binary.AppendUvarint(raw, uint64(b.Len()))
	raw = binary.AppendUvarint(raw, uint64(len(b.Values)))
	last := 0
	for _, l := range b.Lines {
		if l < last {
			return nil, fmt.Errorf("line %d after line %d: lines of a block must ascend", l, last)
		}
		raw = binary.AppendUvarint(raw, uint64(l-last))
		last = l
	}
	for _, col := range append([][]string{b.Emails}, b.Values...) {
		if len(col) != b.Len() {
			return nil, fmt.Errorf("a column has %d values for %d recipients", len(col), b.Len())
		}
		for i, v := range col {
			if strings.IndexByte(v, '\n') >= 0 {
				return nil, fmt.Errorf("line %d: a value holds a line feed", b.Lines[i])
			}
			raw = append(raw, v...)
			raw = append(raw, '\n')
		}
	}
	return c.pack(raw), nil
}

func (c *codec) decodeBlock(data []byte) (*Block, error) {
	raw, err := c.unpack(data)
	if err != nil {
		return nil, err
	}
	d := decoder{b: raw}
	switch v := d.byte(); {
	case v > blockVersion:
		return nil, fmt.Errorf("block version %d, this program knows %d: %w", v, blockVersion, errNewer)
	case v != blockVersion:
		return nil, errCorrupt
	}
	n, cols := int(d.uvarint()), int(d.uvarint())
	if d.bad || n > len(raw) || cols > len(raw) {
		return nil, errCorrupt
	}
	b := &Block{Lines: make([]int, n), Values: make([][]string, cols)}
	last := 0
	for i := range b.Lines {
		last += int(d.uvarint())
		b.Lines[i] = last
	}
	text := string(d.b) // one string for all values: they share its memory
	b.Emails, text = cutColumn(text, n)
	for i := range b.Values {
		b.Values[i], text = cutColumn(text, n)
	}
	if d.bad || text != "" || (n > 0 && b.Emails == nil) {
		return nil, errCorrupt
	}
	for _, col := range b.Values {
		if n > 0 && col == nil {
			return nil, errCorrupt
		}
	}
	return b, nil
}

// cutColumn takes n line-feed-terminated values off text; nil if they are not there.
func cutColumn(text string, n int) ([]string, string) {
	col := make([]string, n)
	for i := range col {
		v, rest, ok := strings.Cut(text, "\n")
		if !ok {
			return nil, text
		}
		col[i], text = v, rest
	}
	return col, text
}

// decoder reads the primitive fields of stored bytes; bad is set, and stays set,
// at the first field that is not there.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) string() string {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
