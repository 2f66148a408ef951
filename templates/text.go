package templates

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// textOf makes the text part of a mail that has only HTML: what a reader sees, in
// order, links followed by their target. What is hidden (preheaders) is left out.
//
// It fails where elements nest deeper than the parser allows.
func textOf(source []byte) ([]byte, error) {
	root, err := html.Parse(bytes.NewReader(source))
	if err != nil {
		return nil, fmt.Errorf("make text from html: %w", err)
	}
	var t textWriter
	t.node(root)
	return t.out.Bytes(), nil
}

type textWriter struct {
	out   bytes.Buffer
	lines int  // line ends owed before the next character
	space bool // a space owed before the next character
	pre   int  // depth of <pre>
	items []int
}

func (t *textWriter) node(n *html.Node) {
	switch n.Type {
	case html.TextNode:
		t.text(n.Data)
		return
	case html.ElementNode:
		if hidden(n) {
			return
		}
	case html.CommentNode, html.DoctypeNode:
		return
	}
	t.open(n)
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		t.node(c)
	}
	t.close(n)
}

func hidden(n *html.Node) bool {
	switch n.DataAtom {
	case atom.Head, atom.Style, atom.Script, atom.Template, atom.Title:
		return true
	}
	for _, a := range n.Attr {
		if a.Key == "hidden" {
			return true
		}
		if a.Key == "style" && strings.Contains(strings.ReplaceAll(strings.ToLower(a.Val), " ", ""), "display:none") {
			return true
		}
	}
	return false
}

func (t *textWriter) open(n *html.Node) {
	switch n.DataAtom {
	case atom.Br:
		t.lines++
		t.space = false
	case atom.Hr:
		t.end(2)
		t.text("----------")
		t.end(2)
	case atom.Img:
		t.text(" " + attr(n, "alt") + " ")
	case atom.Pre:
		t.end(2)
		t.pre++
	case atom.Ul:
		t.end(2)
		t.items = append(t.items, 0)
	case atom.Ol:
		t.end(2)
		t.items = append(t.items, 1)
	case atom.Li:
		t.end(1)
		t.text(t.bullet())
		t.space = true
	case atom.Td, atom.Th:
		t.space = t.out.Len() > 0
	default:
		t.end(around(n.DataAtom))
	}
}

// bullet is "-" in a list, and "1." and so on in a numbered one.
func (t *textWriter) bullet() string {
	last := len(t.items) - 1
	if last < 0 || t.items[last] == 0 {
		return "-"
	}
	t.items[last]++
	return strconv.Itoa(t.items[last]-1) + "."
}

func (t *textWriter) close(n *html.Node) {
	switch n.DataAtom {
	case atom.A:
		href := strings.TrimSpace(attr(n, "href"))
		shown := strings.TrimSpace(contentOf(n))
		if href != "" && shown != href && "mailto:"+shown != href {
			t.text(" (" + href + ")")
		}
	case atom.Pre:
		t.pre--
		t.end(2)
	case atom.Ul, atom.Ol:
		t.items = t.items[:len(t.items)-1]
		t.end(2)
	case atom.Li:
		t.end(1)
	default:
		t.end(around(n.DataAtom))
	}
}

// around is how many line ends stand before and after an element.
func around(a atom.Atom) int {
	switch a {
	case atom.P, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6, atom.Table, atom.Blockquote:
		return 2
	case atom.Div, atom.Tr, atom.Section, atom.Article, atom.Header, atom.Footer, atom.Main, atom.Center, atom.Dt, atom.Dd:
		return 1
	}
	return 0
}

func (t *textWriter) end(lines int) {
	if lines > 0 {
		t.lines = max(t.lines, lines)
		t.space = false
	}
}

func (t *textWriter) text(s string) {
	if t.pre > 0 {
		t.flush()
		t.out.WriteString(s)
		return
	}
	for i := 0; i < len(s); i++ {
		if isSpace(s[i]) {
			t.space = true
			continue
		}
		t.flush()
		t.out.WriteByte(s[i])
	}
}

// flush writes the white space that is owed; a document starts with none.
func (t *textWriter) flush() {
	if t.out.Len() > 0 {
		if t.lines > 0 {
			t.out.WriteString("\n\n"[:min(t.lines, 2)])
		} else if t.space {
			t.out.WriteByte(' ')
		}
	}
	t.lines, t.space = 0, false
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func contentOf(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return b.String()
}
