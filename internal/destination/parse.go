package destination

import (
	"bufio"
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strings"
)

//go:embed groups.txt
var groups string

// Shipped returns the groups of the shipped file, in its order.
func Shipped() ([]Group, error) { return Parse("groups.txt", strings.NewReader(groups)) }

// Parse reads groups in the form of the shipped file, whose head describes it. The
// error names the file and the line.
func Parse(name string, r io.Reader) ([]Group, error) {
	var out []Group
	lines := bufio.NewScanner(r)
	n := 0
	for lines.Scan() {
		n++
		text, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		if len(words) < 3 || words[1] != "domain" && words[1] != "mx" {
			return nil, fmt.Errorf("%s:%d: want GROUP domain PATTERN or GROUP mx SUFFIX, with more of them behind", name, n)
		}
		i := slices.IndexFunc(out, func(g Group) bool { return g.Name == words[0] })
		if i < 0 {
			if err := CheckName(words[0]); err != nil {
				return nil, fmt.Errorf("%s:%d: group %q: %w", name, n, words[0], err)
			}
			i, out = len(out), append(out, Group{Name: words[0]})
		}
		list, check := &out[i].Domains, CheckPattern
		if words[1] == "mx" {
			list, check = &out[i].MX, CheckHost
		}
		for _, w := range words[2:] {
			if err := check(w); err != nil {
				return nil, fmt.Errorf("%s:%d: %s %q: %w", name, n, words[1], w, err)
			}
			*list = append(*list, w)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", name, n+1, err)
	}
	return out, nil
}
