package templates

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/sluicemail/sluice/internal/mail"
)

const adHTML = `<p>{{.name}}</p><p>{{.sender.name}} {{.sender.email}} {{.sender.phone}} {{.sender.address}} 수신거부 unsubscribe</p>`

// compileFault is a change to sound options and what Compile says to it.
type compileFault struct {
	source string
	change func(*Options)
	fault  string
}

const plainHTML = `<p>{{.name}}</p>`

func compileRefuses(t *testing.T, faults map[string]compileFault) {
	t.Helper()
	for name, tc := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t, mail.Normal)
			if tc.change != nil {
				tc.change(&o)
			}
			_, err := mustParse(t, tc.source).Compile(o)
			if err == nil || !strings.Contains(err.Error(), tc.fault) {
				t.Errorf("got %v; want an error with %q", err, tc.fault)
			}
		})
	}
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	plain := source("Hi {{.name}}", plainHTML)
	png := []byte("\x89PNG\r\n\x1a\n0000")
	compileRefuses(t, map[string]compileFault{
		"stream":                {plain, func(o *Options) { o.Stream = "bulk" }, `stream "bulk"`},
		"no from":               {plain, func(o *Options) { o.From.Address = mail.Address{} }, "From: no address"},
		"line break in from":    {plain, func(o *Options) { o.From.Name = "a\r\nBcc: x@y.example" }, "From: the display name contains a line break"},
		"nul in from":           {plain, func(o *Options) { o.From.Name = "a\x00" }, "From: the display name"},
		"c1 in from":            {plain, func(o *Options) { o.From.Name = "a\u0085b" }, "From: the display name"},
		"latin-1 in from":       {plain, func(o *Options) { o.From.Name = "a\xe9" }, "UTF-8"},
		"long from":             {plain, func(o *Options) { o.From.Name = strings.Repeat("a", 256) }, "longer than 255"},
		"no reply-to":           {plain, func(o *Options) { o.ReplyTo = &Mailbox{} }, "Reply-To: no address"},
		"line break in reply":   {plain, func(o *Options) { o.ReplyTo = &Mailbox{"\n", o.From.Address} }, "Reply-To: the display name"},
		"message-id domain":     {plain, func(o *Options) { o.MessageIDDomain = "a b" }, "Message-ID domain"},
		"negative size":         {plain, func(o *Options) { o.MaxSize = -1 }, "maximum size"},
		"small size":            {plain, func(o *Options) { o.MaxSize = 100 }, "more than 100"},
		"set unknown":           {plain, func(o *Options) { o.Set = map[string]string{"nmae": "x"} }, "set nmae: the template has no such variable (it has name)"},
		"set email":             {plain, func(o *Options) { o.Set = map[string]string{"email": "x"} }, "set email"},
		"set empty":             {plain, func(o *Options) { o.Set = map[string]string{"name": " "} }, "set to nothing"},
		"set line break":        {plain, func(o *Options) { o.Set = map[string]string{"name": "a\nb"} }, "line break"},
		"set nul":               {plain, func(o *Options) { o.Set = map[string]string{"name": "a\x00"} }, "NUL"},
		"sender missing":        {source("s", "{{.sender.phone}}"), func(o *Options) { o.Sender.Phone = "" }, `variable "sender.phone"`},
		"sender invalid":        {source("s", "{{.sender.phone}}"), func(o *Options) { o.Sender.Phone = "\xff" }, `variable "sender.phone"`},
		"empty subject":         {source(" ", "x"), nil, "subject is empty"},
		"long subject":          {source(strings.Repeat("가", 333), "x"), nil, "subject is longer"},
		"ad without label":      {source("Sale", adHTML), func(o *Options) { o.Stream = mail.Ad }, "has to start with (광고)"},
		"ad with altered label": {source("(광.고) Sale", adHTML), func(o *Options) { o.Stream = mail.Ad }, "has to start with (광고)"},
		"ad label from the row": {source("{{.name}}", adHTML), func(o *Options) { o.Stream = mail.Ad }, "has to start with (광고)"},
		"ad without sender":     {source("(AD) Sale", adHTML), func(o *Options) { o.Stream, o.Sender.Address = mail.Ad, "" }, "set sender.address"},
		"ad not showing sender": {source("(AD) Sale", "{{.name}} {{.sender.name}} {{.sender.email}} {{.sender.phone}}"), func(o *Options) { o.Stream = mail.Ad }, "{{.sender.address}} is missing from"},
		"ad hiding sender": {source("(AD) Sale", `<div style="display: none">`+adHTML+"</div>"),
			func(o *Options) { o.Stream = mail.Ad }, "is missing from"},
		"picture not there": {source("s", `<img src="cid:a.png">`), nil, "attach that picture inline"},
		"picture not shown": {plain, func(o *Options) { o.Attachments = []Attachment{{"a.png", true, png}} }, "does not show cid:a.png"},
		"huge output":       {source("s", strings.Repeat("<p>"+strings.Repeat("{{.name}}", 100), 40)), func(o *Options) { o.Set = map[string]string{"name": strings.Repeat("x", 2_000)} }, "of output"},
	})
}

func TestCompileRefusesHeaders(t *testing.T) {
	t.Parallel()
	plain := source("Hi {{.name}}", plainHTML)
	compileRefuses(t, map[string]compileFault{
		"own header":         {plain, func(o *Options) { o.Headers = []Header{{"content-type", "x"}} }, "written by the program"},
		"bcc":                {plain, func(o *Options) { o.Headers = []Header{{"BCC", "x"}} }, "written by the program"},
		"resent":             {plain, func(o *Options) { o.Headers = []Header{{"Resent-To", "x"}} }, "written by the program"},
		"header name":        {plain, func(o *Options) { o.Headers = []Header{{"X-A: b\r\nX", "x"}} }, "letters, digits and hyphens"},
		"no header name":     {plain, func(o *Options) { o.Headers = []Header{{"", "x"}} }, "1 to 50"},
		"header twice":       {plain, func(o *Options) { o.Headers = []Header{{"X-A", "x"}, {"x-a", "y"}} }, "given twice"},
		"10,000 headers":     {plain, func(o *Options) { o.Headers = make([]Header, 10_000) }, "at most 100"},
		"header line break":  {plain, func(o *Options) { o.Headers = []Header{{"X-A", "x\r\nBcc: y"}} }, "line break"},
		"header empty":       {plain, func(o *Options) { o.Headers = []Header{{"X-A", " "}} }, "no value"},
		"header define":      {plain, func(o *Options) { o.Headers = []Header{{"X-A", `x{{end}}{{define "b"}}y`}} }, "does not belong here"},
		"header template":    {plain, func(o *Options) { o.Headers = []Header{{"X-A", `{{template "value" .}}`}} }, "does not belong here"},
		"header range":       {plain, func(o *Options) { o.Headers = []Header{{"X-A", `{{range 9}}x{{end}}`}} }, "not allowed"},
		"header too long":    {plain, func(o *Options) { o.Headers = []Header{{"X-A", strings.Repeat("x", 999)}} }, "without a space to fold at"},
		"korean list header": {plain, func(o *Options) { o.Headers = []Header{{"List-Unsubscribe", "<https://예시.example>"}} }, "URLs, which are ASCII"},
	})
}

func TestColumns(t *testing.T) {
	t.Parallel()
	s := "{{/*\ndescription: x\ndefault link: https://shop.example/\n*/}}" +
		source("{{.name}}", `<a href="{{.link}}">for {{.name}}</a>{{if .note}}{{.note}}{{end}} {{.greeting}}`)
	for name, tc := range map[string]struct {
		columns []string
		set     map[string]string
		want    string
		fast    bool
	}{
		"list unknown":          {nil, nil, "greeting name note", false},
		"list without optional": {[]string{"name", "greeting"}, nil, "greeting name", true},
		"list without needed":   {[]string{"note"}, nil, "greeting name note", false},
		"default overridden":    {[]string{"name", "greeting", "link"}, nil, "greeting link name", true},
		"set wins":              {[]string{"name", "greeting"}, map[string]string{"greeting": "Hi"}, "name", true},
		"set for a condition":   {nil, map[string]string{"note": "N"}, "greeting name", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t, mail.Normal)
			o.Columns, o.Set = tc.columns, tc.set
			p := compile(t, s, o)
			if got := strings.Join(p.Columns(), " "); got != tc.want {
				t.Errorf("Columns = %q, want %q", got, tc.want)
			}
			if (p.fast != nil) != tc.fast {
				t.Errorf("fast = %v, want %v", p.fast != nil, tc.fast)
			}
		})
	}
}

func TestNeeded(t *testing.T) {
	t.Parallel()
	p := compile(t, source("s", "{{.a}}{{if .b}}{{.b}}{{end}}"), options(t, mail.Normal))
	if !p.Needed(0) || p.Needed(1) {
		t.Errorf("Needed = %v, %v; want a needed and b not", p.Needed(0), p.Needed(1))
	}
	if got := string(render(t, p, recipient("x", ""))); !strings.Contains(read(t, []byte(got)).html, "x") {
		t.Error("a row without the optional value does not render")
	}
	var v *VariableError
	if err := p.Check([]string{" ", "y"}); !errors.As(err, &v) || v.Variable != "a" {
		t.Errorf("Check = %v; want a VariableError for a", err)
	}
	if err := p.Check([]string{"x"}); err == nil {
		t.Error("Check takes a row that is too short")
	}
	if err := p.Check([]string{"x", ""}); err != nil {
		t.Error(err)
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	p := compile(t, source("s", "<p>"+strings.Repeat("가나다라 ", 9_000)), options(t, mail.Normal))
	if w := p.Warnings(); len(w) != 1 || !strings.Contains(w[0], "Gmail clips") {
		t.Errorf("warnings %q; want one about the size", w)
	}
	p = compile(t, source("(AD) s", strings.ReplaceAll(adHTML, "수신거부", "")), options(t, mail.Ad))
	if w := p.Warnings(); len(w) != 1 || !strings.Contains(w[0], "수신거부") {
		t.Errorf("warnings %q; want one about the Korean opt-out text", w)
	}
}

func TestPin(t *testing.T) {
	t.Parallel()
	png := []byte("\x89PNG\r\n\x1a\n0000")
	o := options(t, mail.Ad)
	o.ReplyTo = &Mailbox{"고객센터", address(t, "help@mulgil.example")}
	o.Set = map[string]string{"z": "1", "a": "2", "m": "3"}
	o.Columns = []string{"name"}
	o.Headers = []Header{{"List-Unsubscribe", "<https://u.example/{{.token}}>"}, {"X-Campaign", "봄"}}
	o.Attachments = []Attachment{{"a.png", true, png}, {"안내.txt", false, []byte("hello")}}
	o.MessageIDDomain = "id.mulgil.example"
	o.AllowEightBit = true
	o.MaxSize = 1 << 20
	p := compile(t, source("(광고) {{.name}} {{.z}}", `<img src="cid:a.png">{{.a}}{{.m}}`+adHTML), o)
	pinned, err := p.Pin()
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if again, _ := p.Pin(); !bytes.Equal(again, pinned) {
			t.Fatal("the same program has two pins")
		}
	}
	q, err := Unpin(pinned)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := q.Pin(); !bytes.Equal(again, pinned) {
		t.Error("a pin does not survive being unpinned")
	}
	r := recipient("김", "tok")
	if !bytes.Equal(render(t, p, r), render(t, q, r)) {
		t.Error("the unpinned program renders other octets")
	}

	for name, tc := range map[string]struct{ old, new, fault string }{
		"newer format":    {`"format":1`, `"format":2`, "format 2: this program reads format 1"},
		"unknown field":   {`"format":1`, `"format":1,"dkim":true`, "dkim"},
		"not JSON":        {`{"format"`, `{"format`, "unpin template"},
		"other columns":   {`"columns":["name"`, `"columns":["nom"`, "its columns"},
		"broken From":     {"hello@", "hello", "no @"},
		"broken Reply-To": {"help@", "help", "no @"},
		"broken template": {"{{define", "{{defin", "at line:1"},
		"broken options":  {`"stream":"ad"`, `"stream":"spam"`, `stream "spam"`},
	} {
		_, err := Unpin(bytes.ReplaceAll(pinned, []byte(tc.old), []byte(tc.new)))
		if err == nil || !strings.Contains(err.Error(), tc.fault) {
			t.Errorf("%s: %v; want an error with %q", name, err, tc.fault)
		}
	}
}
