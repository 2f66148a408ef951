package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluicemail/sluice/internal/list"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/suppress"
)

// importJSON is the summary of `suppress import`: rows = good + bad, and what was done
// with the good ones, of which a dry run does nothing.
type importJSON struct {
	Rows    int     `json:"rows"`
	Good    int     `json:"good"`
	Bad     int     `json:"bad"`
	Added   int     `json:"added"`
	Earlier int     `json:"earlier"` // took the place of a later entry
	Known   int     `json:"known"`
	DryRun  bool    `json:"dry_run"`
	Seconds float64 `json:"seconds"`
}

func (j importJSON) text() string {
	if j.DryRun {
		return fmt.Sprintf("dry run: %d rows, %d good, %d bad; nothing was added\n", j.Rows, j.Good, j.Bad)
	}
	return fmt.Sprintf("%d rows in %.1f s: %d added, %d known already, %d earlier than what was known, %d bad\n",
		j.Rows, j.Seconds, j.Added, j.Known, j.Earlier, j.Bad)
}

// maxBadShown bounds how many bad rows are named one by one.
const maxBadShown = 1000

func (a *app) suppressImport(ctx context.Context, file string, f suppressFlags) error {
	in, err := a.importInput(file, f)
	if err != nil {
		return err
	}
	src, err := a.openInput(ctx, file)
	if err != nil {
		return err
	}
	defer src.Close()
	start, j := time.Now(), importJSON{DryRun: f.dryRun}
	var sum suppress.Imported
	if f.dryRun {
		sum, err = suppress.Read(ctx, src, in)
	} else {
		err = a.onSuppression(ctx, func(l *suppress.List) (err error) {
			sum, err = l.Import(ctx, src, in)
			j.Added, j.Earlier, j.Known = sum.Added, sum.Earlier, sum.Known
			return err
		})
	}
	if in.Progress != nil {
		fmt.Fprint(a.err, "\r")
	}
	if sum.Bad > maxBadShown {
		fmt.Fprintf(a.err, "… and %d more bad rows\n", sum.Bad-maxBadShown)
	}
	if err != nil && ctx.Err() != nil {
		err = errInterrupted // half a list may look like a wrong one
	}
	if err != nil {
		return importError(err, sum)
	}
	j.Rows, j.Good, j.Bad, j.Seconds = sum.Rows, sum.Rows-sum.Bad, sum.Bad, time.Since(start).Seconds()
	if f.json {
		err = writeJSON(a.out, j)
	} else {
		_, err = io.WriteString(a.out, j.text())
	}
	if err == nil && j.Bad > 0 {
		err = &exitError{code: exitPartial}
	}
	return err
}

// importInput turns the flags of `suppress import` into what it reads.
func (a *app) importInput(file string, f suppressFlags) (suppress.Input, error) {
	in := suppress.Input{Name: file, Encoding: f.encoding, Reason: f.reason}
	if file == "-" {
		in.Name = "stdin"
	}
	var err error
	if in.Scope, err = suppress.ParseScope(f.stream); err != nil {
		return in, usageError(fmt.Errorf("--%w", err))
	}
	if err := suppress.CheckReason(f.reason); err != nil {
		return in, usageError(fmt.Errorf("--reason: %w", err))
	}
	if f.encoding != "" && !slices.Contains(list.Encodings(), f.encoding) {
		return in, usageError(fmt.Errorf("--encoding %q: want one of %s", f.encoding, strings.Join(list.Encodings(), ", ")))
	}
	bad := 0
	in.Bad = func(e *list.RowError) {
		if bad++; bad <= maxBadShown {
			fmt.Fprintf(a.err, "line %d: %s: %s\n", e.Line, mail.Mask(e.Address), e.Reason)
		}
	}
	if isTerminal(a.err) {
		in.Progress = func(rows int) { fmt.Fprintf(a.err, "\rread %d rows", rows) }
	}
	return in, nil
}

// importError says how far an import got. What is wrong with the file is the caller's.
func importError(err error, sum suppress.Imported) error {
	var format *list.FormatError
	if sum.Added+sum.Earlier > 0 {
		err = fmt.Errorf("%w (%d entries were added before; importing the file again is harmless)", err, sum.Added+sum.Earlier)
	}
	if errors.As(err, &format) {
		return usageError(err)
	}
	return err
}

func (a *app) suppressExport(ctx context.Context, f suppressFlags) error {
	return a.onSuppression(ctx, func(l *suppress.List) error {
		if f.out == "" {
			_, err := l.Export(ctx, a.out, suppress.Output{JSON: f.json})
			return err
		}
		return a.exportFile(ctx, l, f)
	})
}

// exportFile writes to a file that is there in whole or, after an error, not at all.
func (a *app) exportFile(ctx context.Context, l *suppress.List, f suppressFlags) error {
	tmp, err := os.CreateTemp(filepath.Dir(f.out), filepath.Base(f.out)+".*")
	if err != nil {
		return usageError(fmt.Errorf("--out: %w", err))
	}
	defer os.Remove(tmp.Name()) // after the rename there is nothing left to remove
	o := suppress.Output{JSON: f.json}
	if isTerminal(a.err) {
		o.Progress = func(entries int) { fmt.Fprintf(a.err, "\r%d entries", entries) }
	}
	n, err := l.Export(ctx, tmp, o)
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), f.out); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	if o.Progress != nil {
		fmt.Fprint(a.err, "\r")
	}
	_, err = fmt.Fprintf(a.err, "%s: %d entries\n", f.out, n)
	return err
}
