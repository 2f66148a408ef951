package templates

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/sluicemail/sluice/internal/mail"
)

// meta is a template's front matter: a comment that opens the file and whose
// first line is its description.
//
//	{{/*
//	description: Monthly letter to members
//	language: ko
//	stream: ad
//	default greeting: Hello
//	sample name: Kim Minjun
//	# lines like this one are notes
//	*/}}
type meta struct {
	description string
	language    string
	stream      mail.Stream
	defaults    map[string]string // values of variables that neither row nor operator gives
	samples     map[string]string // values for previews and test renders
}

var frontMatter = regexp.MustCompile(`(?s)\A\s*\{\{(?:- )?/\*\s*(description:.*?)\*/(?: -)?\}\}`)

func parseMeta(source string) (meta, error) {
	m := meta{defaults: map[string]string{}, samples: map[string]string{}}
	found := frontMatter.FindStringSubmatchIndex(source)
	if found == nil {
		return m, nil
	}
	first := 1 + strings.Count(source[:found[2]], "\n")
	for i, line := range strings.Split(source[found[2]:found[3]], "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			return m, fmt.Errorf("line %d: front matter wants key: value", first+i)
		}
		if err := m.set(strings.TrimSpace(key), strings.TrimSpace(value)); err != nil {
			return m, fmt.Errorf("line %d: %w", first+i, err)
		}
	}
	return m, nil
}

func (m *meta) set(key, value string) (err error) {
	word, name, _ := strings.Cut(key, " ")
	switch {
	case key == "description":
		m.description = value
	case key == "language":
		m.language = value
	case key == "stream":
		m.stream, err = mail.ParseStream(value)
	case word == "default" && name != "":
		m.defaults[name] = value
	case word == "sample" && name != "":
		m.samples[name] = value
	default:
		err = fmt.Errorf("front matter key %q: want description, language, stream, default NAME or sample NAME", key)
	}
	return err
}

// check refuses defaults and samples for variables that the template has not.
func (m *meta) check(u usage) error {
	for _, values := range []map[string]string{m.defaults, m.samples} {
		for name := range values {
			if u.vars[name] == nil {
				return fmt.Errorf("front matter names the variable %q, which the template does not use", name)
			}
		}
	}
	if _, ok := m.defaults[emailVariable]; ok {
		return fmt.Errorf("front matter: %s cannot have a default", emailVariable)
	}
	return nil
}

// sample returns a value to try the template out with.
func (m *meta) sample(name string) string {
	if v := m.samples[name]; v != "" {
		return v
	}
	return "Sample"
}
