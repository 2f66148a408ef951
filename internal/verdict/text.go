package verdict

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText bounds what is read of a reply.
const maxText = 2048

// plainText brings a reply's text into the form that phrases are compared with:
// words of lower case letters and digits, one space before, between and after
// them. Addresses, numbers with dots and host names are left out, because no
// verdict may hang on them; of a host name that names a block list, the name stays
// (hosts). Latin letters lose their accents, and Chinese, Japanese and Korean
// their spaces, which are put at will.
//
// The second result is the first enhanced code that was left out.
func plainText(s string, hosts map[string]bool) (text, enhanced string) {
	if len(s) > maxText {
		s = s[:maxText]
	}
	p := plainer{hosts: hosts, out: make([]byte, 1, len(s)+2)}
	p.out[0] = ' '
	for i := 0; i < len(s); {
		if strings.IndexByte(breaks, s[i]) >= 0 {
			i++
			continue
		}
		end := i
		for end < len(s) && strings.IndexByte(breaks, s[end]) < 0 {
			end++
		}
		if strings.HasPrefix(s[end:], "://") {
			start := end + len("://")
			for end = start; end < len(s) && strings.IndexByte(" \t\r\n<>\"", s[end]) < 0; end++ {
			}
			host, _, _ := strings.Cut(s[start:end], "/")
			p.host(host)
		} else {
			p.token(s[i:end])
		}
		i = end
	}
	return string(p.out), p.enhanced
}

// breaks end a token. The apostrophe does not: "doesn't" is one word.
const breaks = " \t\r\n<>()[]{}\"`,;:=|/#*!?$&+\\"

type plainer struct {
	hosts    map[string]bool
	out      []byte
	enhanced string
}

func (p *plainer) token(t string) {
	switch {
	case strings.IndexByte(t, '@') >= 0:
		return
	default:
		t = strings.Trim(t, ".'")
		if strings.IndexByte(t, '.') < 0 {
			p.words(t)
		} else {
			p.dotted(t)
		}
	}
}

// dotted takes what has dots inside: a number, a host name, or the end of one
// sentence and the beginning of the next.
func (p *plainer) dotted(t string) {
	if strings.Trim(t, "0123456789.") == "" {
		if p.enhanced == "" && isEnhanced(t) {
			p.enhanced = t
		}
		return
	}
	if isHost(t) {
		p.host(t)
		return
	}
	for word := range strings.SplitSeq(t, ".") {
		p.words(word)
	}
}

// isEnhanced reports whether t is a code of RFC 3463 section 2 that refuses
// something. Longer numbers than three digits do not exist there.
func isEnhanced(t string) bool {
	if len(t) < 5 || t[0] != '4' && t[0] != '5' || t[1] != '.' {
		return false
	}
	subject, detail, ok := strings.Cut(t[2:], ".")
	return ok && digits(subject) && digits(detail)
}

func digits(s string) bool {
	return len(s) >= 1 && len(s) <= 3 && strings.Trim(s, "0123456789") == ""
}

// endings are last labels of host names that are not two letters long. A host
// name of two labels with another ending is read as words: "denied.Please".
var endings = map[string]bool{
	"com": true, "net": true, "org": true, "edu": true, "gov": true, "mil": true, "int": true, "biz": true,
	"info": true, "name": true, "asia": true, "mobi": true, "app": true, "dev": true, "cloud": true, "shop": true,
	"store": true, "online": true, "site": true, "xyz": true, "top": true, "club": true, "email": true, "mail": true,
	"example": true, "test": true, "invalid": true, "local": true, "localhost": true, "localdomain": true,
	"microsoft": true, "google": true,
}

func isHost(t string) bool {
	labels := strings.Count(t, ".") + 1
	last := t[strings.LastIndexByte(t, '.')+1:]
	switch {
	case labels > 2:
		return true
	case len(last) == 2:
		return asciiLower(last)
	}
	return endings[strings.ToLower(last)]
}

func asciiLower(s string) bool { return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz") == "" }

// host keeps of a host name what names a block list.
func (p *plainer) host(name string) {
	for label := range strings.FieldsFuncSeq(strings.ToLower(name), func(r rune) bool { return r == '.' || r == '-' }) {
		if p.hosts[label] {
			p.words(label)
		}
	}
}

// words appends the words of t.
func (p *plainer) words(t string) {
	fresh := true // the next letter begins a word
	for i := 0; i < len(t); {
		r, size := rune(t[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(t[i:])
		}
		i += size
		switch {
		case r == '\'' || r == '’':
			continue
		case r < utf8.RuneSelf && (r >= 'a' && r <= 'z' || r >= '0' && r <= '9'):
		case r >= 'A' && r <= 'Z':
			r += 'a' - 'A'
		case r < utf8.RuneSelf || r == utf8.RuneError || !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != 'ー':
			fresh = true
			continue
		default:
			r = fold(unicode.ToLower(r))
		}
		p.letter(r, fresh)
		fresh = false
	}
	if p.out[len(p.out)-1] != ' ' {
		p.out = append(p.out, ' ')
	}
}

// letter appends one letter, and a space before it where a word begins in the
// middle of a token.
func (p *plainer) letter(r rune, fresh bool) {
	n := len(p.out)
	if fresh && p.out[n-1] != ' ' {
		p.out = append(p.out, ' ')
		n++
	}
	if fresh && n > 1 {
		switch last, _ := utf8.DecodeLastRune(p.out[:n-1]); {
		case spaceless(r) && spaceless(last):
			p.out = p.out[:n-1]
		case r == 'm' && last == 'e' && (n == 3 || p.out[n-3] == ' '):
			p.out = p.out[:n-1] // e-mail, e mail: email
		}
	}
	p.out = utf8.AppendRune(p.out, r)
}

// spaceless reports whether r belongs to a script in which spaces are left out or
// put at will: everything from Hangul Jamo on.
func spaceless(r rune) bool { return r >= 0x1100 }

// fold takes the accent off a lower case letter of Latin-1.
func fold(r rune) rune {
	const base = "aaaaaaaceeeeiiiidnooooo/ouuuuyty" // U+00E0 to U+00FF
	if r >= 0xe0 && r <= 0xff && r != 0xf7 {
		return rune(base[r-0xe0])
	}
	if r == 'ß' {
		return 's'
	}
	return r
}
