package list

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// Encodings lists what Options.Encoding may be. utf-16 wants a byte order mark;
// euc-kr and cp949 are the same: every EUC-KR text is a CP949 text.
func Encodings() []string {
	return []string{"utf-8", "utf-16", "utf-16le", "utf-16be", "euc-kr", "cp949", "shift_jis"}
}

// charset is how the bytes in the window become text. Every one of them has the
// separators, quotes and line ends of ASCII where ASCII has them, and nowhere
// else, so that rows are cut before they are decoded. UTF-16 has not, and is
// UTF-8 by the time it reaches the window.
type charset struct {
	name    string
	decoder transform.Transformer // nil for UTF-8
}

func namedCharset(name string) *charset {
	switch name {
	case "euc-kr", "cp949":
		return &charset{"CP949", korean.EUCKR.NewDecoder()}
	case "shift_jis":
		return &charset{"Shift_JIS", japanese.ShiftJIS.NewDecoder()}
	}
	return &charset{"UTF-8", nil}
}

// foreign are the first bytes of what is no text, and what to do about it.
var foreign = [...]struct{ magic, advice string }{
	{"\x1f\x8b", "this is gzip: unpack it first (gunzip)"},
	{"\x28\xb5\x2f\xfd", "this is zstd: unpack it first (unzstd)"},
	{"\xfd7zXZ", "this is xz: unpack it first (unxz)"},
	{"PK\x03\x04", "this is an Excel workbook or a ZIP archive: save the sheet as CSV UTF-8, or unpack it"},
	{"PK\x05\x06", "this is an empty ZIP archive"},
	{"\xd0\xcf\x11\xe0", "this is an old Excel workbook: save the sheet as CSV UTF-8"},
	{"%PDF", "this is a PDF: save the list as CSV UTF-8"},
	{"\xff\xfe\x00\x00", "this is UTF-32: save it as UTF-8"},
	{"\x00\x00\xfe\xff", "this is UTF-32: save it as UTF-8"},
}

// boms are the byte order marks of Unicode.
var boms = [...]struct{ mark, encoding string }{
	{"\xef\xbb\xbf", "utf-8"},
	{"\xff\xfe", "utf-16le"},
	{"\xfe\xff", "utf-16be"},
}

// openText sets up the window, and the charset as far as it is told by the
// options or a byte order mark.
func (r *Reader) openText(src io.Reader) error {
	encoding, err := knownEncoding(r.opt.Encoding)
	if err != nil {
		return fmt.Errorf("read %s: %w", r.opt.Name, err)
	}
	head := make([]byte, 8)
	n, err := io.ReadFull(src, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return fmt.Errorf("read %s: %w", r.opt.Name, err)
	}
	head = head[:n]
	for _, f := range foreign {
		if bytes.HasPrefix(head, []byte(f.magic)) {
			return r.formatError(0, "%s", f.advice)
		}
	}
	for _, b := range boms {
		if !bytes.HasPrefix(head, []byte(b.mark)) {
			continue
		}
		if encoding != "" && encoding != b.encoding && !(encoding == "utf-16" && b.encoding != "utf-8") {
			return r.formatError(0, "it starts with the byte order mark of %s, but encoding %s was asked for", b.encoding, encoding)
		}
		encoding, head = b.encoding, head[len(b.mark):]
		break
	}
	src = io.MultiReader(bytes.NewReader(head), src)
	switch encoding {
	case "":
	case "utf-16":
		return r.formatError(0, "there is no byte order mark: name the encoding as utf-16le or utf-16be")
	case "utf-16le":
		src = transform.NewReader(src, unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM).NewDecoder())
	case "utf-16be":
		src = transform.NewReader(src, unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM).NewDecoder())
	}
	if encoding != "" {
		r.charset = namedCharset(encoding)
	}
	r.in = newInput(src)
	return nil
}

func knownEncoding(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	for _, e := range Encodings() {
		if strings.EqualFold(name, e) {
			return e, nil
		}
	}
	return "", fmt.Errorf("encoding %q: want one of %s", name, strings.Join(Encodings(), ", "))
}

// decode returns s as UTF-8, or what is wrong with it. It never replaces a
// character: x/text does, by U+FFFD, which no text has a use for (the sign of
// a conversion that has gone wrong before us is refused as well).
func (r *Reader) decode(s string) (text, fault string) {
	if marksOf(s)&high == 0 {
		return s, ""
	}
	c := r.charset
	switch {
	case c.decoder == nil && !utf8.ValidString(s):
		return s, "bytes that are not " + c.name
	case c.decoder == nil && strings.ContainsRune(s, utf8.RuneError):
		return s, "the replacement character U+FFFD: the text was damaged when it was converted"
	case c.decoder == nil:
		return s, ""
	case wideUTF8(s):
		return s, "UTF-8 in a file that is " + c.name
	}
	if text = r.transcode(s); strings.ContainsRune(text, utf8.RuneError) {
		return text, "bytes that are not " + c.name
	}
	return text, ""
}

// transcode runs the charset's decoder, with U+FFFD for what it does not know.
func (r *Reader) transcode(s string) string {
	n := len(s)
	if cap(r.scratch) < 4*n {
		r.scratch = make([]byte, 4*n)
	}
	// No byte of these encodings becomes more than three of UTF-8.
	dst, src := r.scratch[:3*n], r.scratch[3*n:4*n]
	copy(src, s)
	r.charset.decoder.Reset()
	written, _, _ := r.charset.decoder.Transform(dst, src, true) // cannot fail: room for all, and nothing to follow
	return string(dst[:written])
}

// wideUTF8 reports whether s is UTF-8 with a character of three bytes or more in
// it. Text of the older encodings is that by accident only in contrived cases,
// but UTF-8 is often valid CP949, and would become other characters in silence.
func wideUTF8(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(c rune) bool { return c >= 0x800 }) >= 0
}

// decideCharset settles the encoding by the first 256 KB from the first row that
// is not ASCII.
func (r *Reader) decideCharset() error {
	r.in.fill()
	lines := r.foreignLines()
	utf := 0
	for _, line := range lines {
		if utf8.ValidString(line) {
			utf++
		}
	}
	if utf == len(lines) && !anyOddLatin(lines) {
		r.charset = namedCharset("utf-8")
		return nil
	}
	korean := &Reader{charset: namedCharset("cp949")}
	cp, share := 0, koreanShare{}
	for _, line := range lines {
		if _, fault := korean.decode(line); fault == "" {
			cp++
			share.add(line)
		}
	}
	switch {
	case (cp == len(lines) || cp > utf) && share.plausible():
		r.charset = korean.charset
	case utf > 0 && utf >= cp:
		r.charset = namedCharset("utf-8")
	default:
		return r.unknownCharset()
	}
	return nil
}

// anyOddLatin reports whether there is a letter in lines that no list of names has.
// A few Korean syllables are valid UTF-8 by themselves, and come out as those: a
// list with 홍 in it, and no other name, would read ȫ.
func anyOddLatin(lines []string) bool {
	for _, line := range lines {
		if strings.IndexFunc(line, func(c rune) bool { return c >= 0x1e0 && c < 0x240 }) >= 0 {
			return true
		}
	}
	return false
}

// foreignLines returns the whole lines of the window that are not ASCII.
func (r *Reader) foreignLines() (lines []string) {
	for text := r.in.text; text != ""; {
		line, rest, ended := strings.Cut(text, "\n")
		if !ended && r.in.err == nil && len(lines) > 0 {
			break // the window has cut it
		}
		if marksOf(line)&high != 0 {
			lines = append(lines, line)
		}
		text = rest
	}
	return lines
}

func (r *Reader) unknownCharset() error {
	line, _, _ := strings.Cut(r.in.text, "\n")
	ascii := strings.IndexFunc(line, func(c rune) bool { return c >= utf8.RuneSelf })
	return &FormatError{
		Name: r.opt.Name, Line: r.in.line, Column: max(ascii, 0) + 1,
		Reason: "the text is neither UTF-8 nor Korean (EUC-KR, CP949): save it as UTF-8, or name its encoding, for instance shift_jis",
	}
}

// koreanShare counts the double-byte characters of valid CP949 text. Korean is
// written in the 2,350 syllables of KS X 1001, with an odd rarer syllable or
// hanja; Shift_JIS read as CP949 is mostly those.
type koreanShare struct{ usual, other int }

func (k *koreanShare) add(line string) {
	for i := 0; i+1 < len(line); i++ {
		lead, trail := line[i], line[i+1]
		if lead < utf8.RuneSelf {
			continue
		}
		i++
		switch {
		case trail >= 0xa1 && lead >= 0xb0 && lead <= 0xc8:
			k.usual++
		case trail >= 0xa1 && lead >= 0xa1 && lead <= 0xaf && lead != 0xa4 && lead != 0xa5:
			// Signs and punctuation tell nothing. Rows A4 and A5 do: they are jamo and
			// Greek here, but the kana of Japanese EUC.
		default:
			k.other++
		}
	}
}

func (k *koreanShare) plausible() bool { return k.usual >= k.other }
