package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// spfRecord is one v=spf1 record (RFC 7208 section 4.5).
type spfRecord struct {
	text  string
	terms []spfTerm
}

// spfTerm is a mechanism or a modifier.
type spfTerm struct {
	text      string
	qualifier byte   // '+' where none is written; 0 for a modifier
	name      string // in lower case: "include", "all", "redirect"
	arg       string // what follows : or =, without a prefix length
}

// isSPF reports whether a TXT record is meant as SPF.
func isSPF(txt string) bool {
	version, _, _ := strings.Cut(txt, " ")
	return strings.EqualFold(version, "v=spf1")
}

// parseSPF reads a record; the error names the term that is none.
func parseSPF(txt string) (spfRecord, error) {
	r := spfRecord{text: txt}
	for _, word := range strings.Fields(txt)[1:] {
		t, err := parseTerm(word)
		if err != nil {
			return spfRecord{}, fmt.Errorf("%q: %w", clean(word), err)
		}
		r.terms = append(r.terms, t)
	}
	return r, nil
}

func parseTerm(word string) (spfTerm, error) {
	t := spfTerm{text: word, qualifier: '+'}
	if strings.ContainsFunc(word, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return t, errors.New("a character that SPF does not have")
	}
	if at := strings.IndexAny(word, "=:/"); at > 0 && word[at] == '=' {
		t.qualifier, t.name, t.arg = 0, strings.ToLower(word[:at]), word[at+1:]
		if t.name == "redirect" && t.arg == "" {
			return t, errors.New("redirect names no domain")
		}
		return t, nil
	}
	rest := word
	if strings.ContainsRune("+-~?", rune(word[0])) {
		t.qualifier, rest = word[0], word[1:]
	}
	name, arg, _ := strings.Cut(rest, ":")
	name, prefix, _ := strings.Cut(name, "/")
	t.name, t.arg = strings.ToLower(name), arg
	return t, t.check(prefix)
}

func (t *spfTerm) check(prefix string) error {
	switch t.name {
	case "all":
		if t.arg != "" || prefix != "" {
			return errors.New("all takes no argument")
		}
	case "include", "exists":
		if t.arg == "" {
			return fmt.Errorf("%s names no domain", t.name)
		}
	case "a", "mx", "ptr":
		t.arg, _, _ = strings.Cut(t.arg, "/")
	case "ip4", "ip6":
		if !network(t.arg, t.name == "ip4") {
			return fmt.Errorf("%s wants an address or a network", t.name)
		}
	default:
		return errors.New("no such mechanism")
	}
	return nil
}

func network(s string, four bool) bool {
	a, err := netip.ParseAddr(s)
	if err != nil {
		p, perr := netip.ParsePrefix(s)
		a, err = p.Addr(), perr
	}
	return err == nil && a.Is4() == four
}

// all returns the all of the record and its place, or -1.
func (r spfRecord) all() (spfTerm, int) {
	i := slices.IndexFunc(r.terms, func(t spfTerm) bool { return t.name == "all" })
	if i < 0 {
		return spfTerm{}, -1
	}
	return r.terms[i], i
}

// mended returns the record as it should stand: without terms twice or without effect, with
// the include, all at the end.
func mended(include string, records ...spfRecord) string {
	words := []string{"v=spf1"}
	if include != "" {
		words = append(words, "include:"+include)
	}
	last := "~all"
	for _, r := range records {
		for _, t := range r.terms {
			switch {
			case t.name == "all":
				if t.qualifier == '-' {
					last = "-all"
				}
			case t.name == "ptr", t.name == "redirect":
			case !slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, t.text) }):
				words = append(words, t.text)
			}
		}
		if t, i := r.redirect(); i >= 0 && !slices.Contains(words, "include:"+t.arg) {
			words = append(words, "include:"+t.arg)
		}
	}
	return strings.Join(append(words, last), " ")
}

// redirect returns the redirect that counts, or -1: one beside all does nothing.
func (r spfRecord) redirect() (spfTerm, int) {
	if _, all := r.all(); all >= 0 {
		return spfTerm{}, -1
	}
	i := slices.IndexFunc(r.terms, func(t spfTerm) bool { return t.name == "redirect" })
	if i < 0 {
		return spfTerm{}, -1
	}
	return r.terms[i], i
}

// The limits of RFC 7208 section 4.6.4.
const (
	maxLookups = 10
	maxVoids   = 2
)

// spfTree is what following a record to its leaves brought.
type spfTree struct {
	lookups  int
	voids    int
	costs    []string        // of each term of the first record: "include:a.example (3)"
	includes map[string]bool // every domain included or redirected to, in lower case
	broken   []string        // what makes the record an error: "include:a.example has no SPF record"
	err      error           // DNS gave no answer: the numbers are too low
}

// spfWalk follows a record. It counts as a receiver does for whom nothing matches
// before the end, which is the most there can be.
type spfWalk struct {
	dns  Resolver
	tree spfTree
}

// walkSPF follows r, the record of domain.
func walkSPF(ctx context.Context, dns Resolver, domain string, r spfRecord) spfTree {
	w := spfWalk{dns: dns, tree: spfTree{includes: map[string]bool{}}}
	w.record(ctx, domain, r, true)
	return w.tree
}

// enough reports whether there is no point in going on: a record that includes itself
// would never end.
func (w *spfWalk) enough() bool { return w.tree.err != nil || w.tree.lookups > 2*maxLookups }

func (w *spfWalk) record(ctx context.Context, domain string, r spfRecord, first bool) {
	terms := r.terms
	if _, i := r.all(); i >= 0 {
		terms = terms[:i]
	} else if t, i := r.redirect(); i >= 0 { // comes last wherever it stands
		terms = append(slices.Delete(slices.Clone(terms), i, i+1), t)
	}
	for _, t := range terms {
		if w.enough() {
			return
		}
		before := w.tree.lookups
		w.term(ctx, domain, t)
		if n := w.tree.lookups - before; first && n > 0 {
			w.tree.costs = append(w.tree.costs, fmt.Sprintf("%s (%d)", clean(t.text), n))
		}
	}
}

func (w *spfWalk) term(ctx context.Context, domain string, t spfTerm) {
	target := t.arg
	if target == "" {
		target = domain
	}
	macro := strings.Contains(target, "%") // known only with a message at hand
	switch t.name {
	case "include", "redirect":
		w.tree.lookups++
		if !macro {
			w.follow(ctx, t, target)
		}
	case "a":
		w.tree.lookups++
		if !macro {
			_, err := w.dns.LookupNetIP(ctx, "ip", fqdn(target))
			w.answered(err)
		}
	case "mx":
		w.tree.lookups++
		if !macro {
			_, err := w.dns.LookupMX(ctx, fqdn(target))
			w.answered(err)
		}
	case "exists", "ptr":
		w.tree.lookups++
	}
}

// answered books a look-up that found nothing.
func (w *spfWalk) answered(err error) {
	switch {
	case err == nil:
	case notFound(err):
		w.tree.voids++
	default:
		w.tree.err = err
	}
}

func (w *spfWalk) follow(ctx context.Context, t spfTerm, target string) {
	w.tree.includes[strings.ToLower(strings.TrimSuffix(target, "."))] = true
	records, err := lookupSPF(ctx, w.dns, target)
	w.answered(err)
	switch {
	case w.tree.err != nil:
	case len(records) == 0:
		w.tree.broken = append(w.tree.broken, clean(t.text)+" has no SPF record")
	case len(records) > 1:
		w.tree.broken = append(w.tree.broken, clean(t.text)+" has several SPF records")
	default:
		r, err := parseSPF(records[0])
		if err != nil {
			w.tree.broken = append(w.tree.broken, fmt.Sprintf("%s has a bad one: %v", clean(t.text), err))
			return
		}
		w.record(ctx, target, r, false)
	}
}

// lookupSPF returns the TXT records of domain that are SPF.
func lookupSPF(ctx context.Context, dns Resolver, domain string) ([]string, error) {
	all, err := dns.LookupTXT(ctx, fqdn(domain))
	return slices.DeleteFunc(all, func(s string) bool { return !isSPF(s) }), err
}
