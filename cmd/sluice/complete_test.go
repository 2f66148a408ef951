package main

import (
	"context"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/relay"
)

// complete is what the shell is offered for the last argument, without descriptions,
// and the directive's number. It says nothing on standard error but cobra's own line.
func complete(t *testing.T, yaml string, args ...string) (words []string, directive string) {
	t.Helper()
	code, out, errs := sluice(t, yaml, append([]string{"__complete"}, completed(args)...)...)
	if code != 0 || strings.Contains(errs, "sluice:") || strings.Contains(errs, "level=") {
		t.Errorf("%q: exit code %d, %s", args, code, errs)
	}
	for line := range strings.Lines(out) {
		word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if d, ok := strings.CutPrefix(word, ":"); ok {
			return words, d
		}
		words = append(words, word)
	}
	t.Fatalf("%q: no directive in %q", args, out)
	return nil, ""
}
