package templates

import (
	"embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed shipped/*.tmpl
var shippedFiles embed.FS

// shippedSource returns the source of a shipped template. Korean needs no suffix.
func shippedSource(name string) (string, bool) {
	name = canonicalName(name)
	if strings.ContainsAny(name, "/\\") {
		return "", false
	}
	file := name
	if !strings.Contains(name, ".") {
		file += ".ko"
	}
	b, err := shippedFiles.ReadFile("shipped/" + file + ".tmpl")
	return string(b), err == nil
}

func canonicalName(name string) string { return strings.TrimSuffix(name, ".ko") }

func shippedNames() []string {
	entries, err := shippedFiles.ReadDir("shipped")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, canonicalName(strings.TrimSuffix(e.Name(), ".tmpl")))
	}
	slices.Sort(names)
	return names
}

// Shipped describes the templates that come with the program, sorted by name.
func Shipped() []Info {
	var all []Info
	for _, name := range shippedNames() {
		t, err := Load(name)
		if err != nil {
			panic(fmt.Sprintf("shipped template: %v", err)) // a test loads each
		}
		all = append(all, t.Info())
	}
	return all
}
