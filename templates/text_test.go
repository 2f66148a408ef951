package templates

import (
	"strings"
	"testing"
)

func TestTextOf(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ html, want string }{
		"paragraphs":     {"<p>one</p><p>two\n  three</p>", "one\n\ntwo three"},
		"break":          {"one<br>two<br><br><br>three", "one\ntwo\n\nthree"},
		"entities":       {"<p>&lt;a&gt; &amp; b&nbsp;c</p>", "<a> & b\u00a0c"},
		"link":           {`<a href="https://a.example/x">see</a> more`, "see (https://a.example/x) more"},
		"link shown":     {`<a href="https://a.example/">https://a.example/</a>`, "https://a.example/"},
		"mail link":      {`<a href="mailto:a@b.example">a@b.example</a>`, "a@b.example"},
		"empty link":     {`<a>x</a> <a href=" ">y</a>`, "x y"},
		"relay's key":    {`<a href="##KEY##">수신거부</a>`, "수신거부 (##KEY##)"},
		"list":           {"<ul><li>one<li>two</ul>three", "- one\n- two\n\nthree"},
		"numbered":       {"<ol><li>one</li><li>two</li></ol>", "1. one\n2. two"},
		"nested":         {"<ul><li>a<ol><li>b</ol><li>c</ul>", "- a\n\n1. b\n\n- c"},
		"stray item":     {"<li>a", "- a"},
		"table":          {"<table><tr><td>a<td>b<tr><td>c</table>", "a b\nc"},
		"rule":           {"a<hr>b", "a\n\n----------\n\nb"},
		"pre":            {"<pre>a\n  b</pre>", "a\n  b"},
		"picture":        {`a<img src=x alt="logo">b<img src=y>`, "a logo b"},
		"hidden":         {`<div style="max-height:0;display : none">x</div><p hidden>y</p>z`, "z"},
		"head and style": {"<head><title>t</title><style>p{}</style></head><body><script>1</script>x", "x"},
		"comment":        {"a<!-- b -->c", "ac"},
		"nothing":        {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := textOf([]byte(tc.html))
			if err != nil || strings.TrimSpace(string(got)) != tc.want {
				t.Errorf("%q: %q, %v; want %q", tc.html, got, err, tc.want)
			}
		})
	}
}

// Deep nesting ends in an error or in text, not in a crash.
func TestTextOfDeepNesting(t *testing.T) {
	t.Parallel()
	got, err := textOf([]byte(strings.Repeat("<div>", 100_000) + "x"))
	if err == nil && strings.TrimSpace(string(got)) != "x" {
		t.Errorf("%q, %v", got, err)
	}
}
