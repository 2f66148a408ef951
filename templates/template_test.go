package templates

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "mine.tmpl")
	if err := os.WriteFile(path, []byte("\ufeff"+source("Hi {{.name}}", "<p>\r\n{{.name}}")), 0o600); err != nil {
		t.Fatal(err)
	}
	mine, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if mine.Name() != path || len(mine.Version()) != 16 || !slices.Equal(mine.Variables(), []string{"name"}) {
		t.Errorf("got %q, version %q, variables %q", mine.Name(), mine.Version(), mine.Variables())
	}
	korean, err := Load("newsletter.ko")
	if err != nil || korean.Name() != "newsletter" || korean.Info().Language != "ko" {
		t.Errorf("newsletter.ko: %v, %v", korean, err)
	}
	if other, err := Load("newsletter.ja"); err != nil || other.Version() == korean.Version() {
		t.Errorf("newsletter.ja: %v, want another version", err)
	}

	_, err = Load("newsleter")
	if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "newsletter.en") {
		t.Errorf("unknown name: %v; want ErrUnknown with the shipped names", err)
	}
	if _, err = Load(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: %v", err)
	}
	// Opening a FIFO that nobody writes to would block for ever.
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Skip(err)
	}
	if _, err = Load(fifo); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a FIFO: %v", err)
	}
}

// The errors name the line and what to do.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	body := func(s string) string { return source("s", s) }
	doubling := `{{define "a0"}}x{{end}}`
	for _, step := range []string{"0 1", "1 2", "2 3", "3 4", "4 5", "5 6", "6 7", "7 8", "8 9"} {
		from, to, _ := strings.Cut(step, " ")
		call := `{{template "a` + from + `" .}}`
		doubling += `{{define "a` + to + `"}}` + strings.Repeat(call, 8) + `{{end}}`
	}
	for name, tc := range map[string]struct{ source, fault string }{
		"empty":                   {"", `want {{define "subject"}}`},
		"no subject":              {`{{define "html"}}x{{end}}`, `want {{define "subject"}}`},
		"no body":                 {`{{define "subject"}}x{{end}}`, "at least one of"},
		"not utf-8":               {body("\xff"), "UTF-8"},
		"nul":                     {body("\x00"), "NUL"},
		"too large":               {body(strings.Repeat("x", maxSource)), "larger than 1024 KB"},
		"syntax, with its line":   {body("\n\n{{.name"), "at line:3"},
		"text outside":            {"hello" + body("x"), "outside of {{define}}"},
		"unused define":           {body("x") + `{{define "sujbect"}}x{{end}}`, `{{define "sujbect"}} is never used`},
		"range over a number":     {body("{{range $i := 1000000000000}}x{{end}}"), "{{range}} is not allowed"},
		"range over a variable":   {body("{{range .x}}x{{end}}"), "{{range}} is not allowed"},
		"recursion":               {body(`{{template "html" .}}`), "calls itself"},
		"recursion by two":        {body(`{{template "a" .}}`) + `{{define "a"}}{{template "html" .}}{{end}}`, "calls itself"},
		"doubling":                {body(`{{template "a9" .}}`) + doubling, "expands to more than"},
		"missing define":          {body(`{{template "footer" .}}`), "no such define"},
		"printf":                  {body(`{{printf "%1000000000d" 1}}`), `function "printf"`},
		"call":                    {body(`{{call .x}}`), `function "call"`},
		"html":                    {body(`{{.x | html}}`), `function "html"`},
		"the whole row":           {body(`{{.}}`), "name a variable"},
		"the whole row again":     {body(`{{$}}`), "one name"},
		"two names":               {body(`{{.a.b}}`), "one name"},
		"sender by itself":        {body(`{{.sender}}`), ".sender.name"},
		"unknown sender field":    {body(`{{.sender.fax}}`), ".sender.name"},
		"method of a value":       {body(`{{(.a).String}}`), "not allowed"},
		"field inside with":       {body(`{{with .a}}{{.b}}{{end}}`), "$.name"},
		"field of a local":        {body(`{{$x := .a}}{{$x.b}}`), "$.name"},
		"template without a dot":  {body(`{{template "a"}}`) + `{{define "a"}}x{{end}}`, "without the dot"},
		"template with a value":   {body(`{{template "a" .x}}`) + `{{define "a"}}x{{end}}`, "takes the row itself"},
		"dot of a with":           {body(`{{with .a}}{{template "a" .}}{{end}}`) + `{{define "a"}}x{{end}}`, "takes the row itself"},
		"variable in a bad place": {body(`<a href={{if .a}}"x{{end}}>`), "execute html"},
		"numbers are not texts":   {body(`{{if eq .name 1}}x{{end}}`), "incompatible types"},
		"too many actions":        {body(strings.Repeat("{{.a}}", maxActions)), "actions"},
		"huge action":             {body("{{" + strings.Repeat("(", maxAction+1) + "}}"), "an action of more than"},
		"front matter key":        {"{{/*\ndescription: x\nsubjekt: y\n*/}}" + body("x"), `line 3: front matter key "subjekt"`},
		"front matter stream":     {"{{/*\ndescription: x\nstream: spam\n*/}}" + body("x"), `stream "spam"`},
		"front matter line":       {"{{/*\ndescription: x\nhello\n*/}}" + body("x"), "key: value"},
		"default for nothing":     {"{{/*\ndescription: x\ndefault y: 1\n*/}}" + body("x"), `the variable "y"`},
		"default address":         {"{{/*\ndescription: x\ndefault email: 1\n*/}}" + body("{{.email}}"), "cannot have a default"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse("t", tc.source)
			if err == nil || !strings.Contains(err.Error(), tc.fault) {
				t.Errorf("got %v; want an error with %q", err, tc.fault)
			}
		})
	}
}

func TestVariables(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		html, all, optional string
	}{
		"plain":                   {`{{.b}} {{$.a}} {{.email}} {{.sender.name}}`, "a b", ""},
		"korean":                  {`{{.이름}}`, "이름", ""},
		"asked for first":         {`{{if .a}}{{.a}}{{end}}{{with .b}}{{.}}{{end}}`, "a b", "a b"},
		"asked for by and":        {`{{if and .a .b}}{{.a}}{{.b}}{{end}}`, "a b", "a b"},
		"or does not ask":         {`{{if or .a .b}}{{.a}}{{end}}`, "a b", "b"},
		"else does not ask":       {`{{if .a}}x{{else}}{{.a}}{{end}}`, "a", ""},
		"shown elsewhere as well": {`{{if .a}}{{.a}}{{end}}{{.a}}`, "a", ""},
		"default":                 {`{{default "x" .a}}`, "a", "a"},
		"piped default":           {`{{.a | default "x"}}`, "a", ""},
		"function":                {`{{upper .a}}`, "a", ""},
		"compared":                {`{{if eq .a "x"}}y{{end}}`, "a", "a"},
		"through a define":        {`{{template "f" .}}`, "c", ""},
		"else if":                 {`{{if .a}}x{{else if .b}}{{.b}}{{end}}`, "a b", "a b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := source("s", tc.html)
			if strings.Contains(s, `"f"`) {
				s += `{{define "f"}}{{.c}}{{end}}`
			}
			tmpl := mustParse(t, s)
			if got := strings.Join(tmpl.Variables(), " "); got != tc.all {
				t.Errorf("Variables = %q, want %q", got, tc.all)
			}
			if got := strings.Join(tmpl.Optional(), " "); got != tc.optional {
				t.Errorf("Optional = %q, want %q", got, tc.optional)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		source("{{.a}}", `<a href="{{.b}}">{{if .c}}{{.c | upper}}{{end}}</a>`),
		source("s", `{{with .a}}{{.}}{{template "x" $}}{{end}}`) + `{{define "x"}}{{.email}}{{end}}`,
		"{{/*\ndescription: x\ndefault a: 1\n*/}}" + source("{{.a}}", "<script>{{.a}}</script>"),
		`{{define "subject"}}{{$x := .a}}{{$x}}{{end}}{{define "text"}}{{block "b" .}}{{end}}{{end}}`,
		source("s", `{{range 1000000000000}}{{end}}`),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tmpl, err := Parse("fuzz", s)
		if err != nil {
			return
		}
		p, err := tmpl.Compile(options(t, "normal"))
		if err != nil {
			return
		}
		out, err := p.Render(nil, p.Sample())
		if err != nil {
			t.Fatalf("compiled, but does not render its own sample: %v", err)
		}
		checkLines(t, out)
		read(t, out)
	})
}
