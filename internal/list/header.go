package list

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/sluicemail/sluice/internal/mail"
)

// format settles Auto, at the first line that is not blank.
func (r *Reader) format() Format {
	if r.opt.Format != Auto {
		return r.opt.Format
	}
	switch strings.ToLower(filepath.Ext(r.opt.Name)) {
	case ".csv":
		return CSV
	case ".tsv", ".tab":
		return TSV
	case ".jsonl", ".ndjson", ".json":
		return JSONLines
	}
	line, _, _ := strings.Cut(r.in.text[r.in.pos:], "\n")
	switch {
	case strings.HasPrefix(strings.TrimSpace(line), "{"):
		return JSONLines
	case strings.Contains(line, "\t") && !strings.Contains(line, ","):
		return TSV
	}
	return CSV
}

// checkStart looks at the first line for what would make nonsense of every row.
func (r *Reader) checkStart() error {
	line, _, _ := strings.Cut(r.in.text[r.in.pos:], "\n")
	switch {
	case strings.Contains(line, "\x00"):
		return r.formatError(r.in.line, "NUL characters: if the file is UTF-16, name its encoding as utf-16le or utf-16be")
	case strings.Contains(strings.TrimSuffix(line, "\r"), "\r") && !strings.Contains(line, `"`):
		return r.formatError(r.in.line, "a line that ends in CR alone: save the file with LF or CR LF")
	}
	return nil
}

// openCSV reads the header row and finds the wanted columns in it.
func (r *Reader) openCSV() error {
	r.sep = ','
	if r.format() == TSV {
		r.sep = '\t'
	}
	r.next = r.csvRow
	rec, err := r.record()
	var (
		bad    *RowError
		broken *FormatError
	)
	switch {
	case errors.As(err, &bad):
		return r.formatError(bad.Line, "header row: %s", bad.Reason)
	case errors.As(err, &broken):
		return err
	case err != nil:
		return r.readError(err)
	}
	names := make([]string, len(r.fields))
	for i, f := range r.fields {
		names[i] = strings.Clone(strings.TrimSpace(f))
	}
	if reason := r.mapColumns(names); reason != "" {
		return r.formatError(rec.line, "%s", reason)
	}
	r.names = names
	return nil
}

// Header returns the names of all columns of a CSV or TSV file, email among them;
// nil for JSON Lines, where every row has its own.
func (r *Reader) Header() []string { return r.names }

// mapColumns sets r.email, r.columns and r.width, or says what is wrong with the header.
func (r *Reader) mapColumns(names []string) string {
	at := make(map[string]int, len(names))
	for i, n := range names {
		if n == "" { // what spreadsheets add on the right; nothing can ask for it
			continue
		}
		if _, twice := at[n]; twice {
			return fmt.Sprintf("two columns are called %q", n)
		}
		at[n] = i
		if !strings.EqualFold(n, "email") {
			continue
		}
		if r.email >= 0 {
			return fmt.Sprintf("two columns are called email: %q and %q", names[r.email], n)
		}
		r.email = i
	}
	if r.email < 0 {
		return noEmail(names)
	}
	r.width, r.columns = len(names), make([]int, len(r.opt.Columns))
	var missing []string
	for i, want := range r.opt.Columns {
		c, found := at[want]
		switch {
		case found:
		case strings.EqualFold(want, "email"):
			c = r.email
		case r.opt.Optional[want]:
			c = -1
		default:
			missing = append(missing, want)
		}
		r.columns[i] = c
	}
	if missing == nil {
		return ""
	}
	return noColumn(missing, names)
}

// noEmail explains the want of an email column: what there is, and which of it
// was probably meant.
func noEmail(names []string) string {
	for _, n := range names {
		if _, err := mail.ParseAddress(n); err == nil {
			return "the first line is a recipient: a header row is needed above it, such as email,name"
		}
	}
	found := "there is no column \"email\", but " + listed(names)
	if len(names) == 1 {
		for _, sep := range []string{"\t", ";", "|", ","} {
			if strings.Contains(names[0], sep) {
				return fmt.Sprintf("%s: are the columns separated by %q? Separate them by commas (CSV) or tabs (TSV)", found, sep)
			}
		}
	}
	for _, n := range names {
		if meansEmail(n) {
			return fmt.Sprintf("%s: rename %q to \"email\"", found, n)
		}
	}
	return found
}

// noColumn explains what the template misses.
func noColumn(missing, names []string) string {
	why := make([]string, len(missing))
	for i, m := range missing {
		why[i] = fmt.Sprintf("there is no column %q", m)
		for _, n := range names {
			if simplified(n) == simplified(m) {
				why[i] += fmt.Sprintf(" (rename %q?)", n)
				break
			}
		}
	}
	return strings.Join(why, ", ") + ", but " + listed(names)
}

// meansEmail reports whether a column by that name holds addresses.
func meansEmail(name string) bool {
	s := simplified(name)
	for _, word := range []string{"mail", "메일", "メール", "メルアド", "emial"} {
		if strings.Contains(s, word) {
			return true
		}
	}
	return false
}

// simplified is name without what people spell differently.
func simplified(name string) string {
	return strings.Map(func(c rune) rune {
		if strings.ContainsRune(" -_.‐－", c) {
			return -1
		}
		return c
	}, strings.ToLower(name))
}

// listed names the columns found, as many as one can read.
func listed(names []string) string {
	const most = 20
	var b strings.Builder
	for i, n := range names {
		switch {
		case i == most:
			return fmt.Sprintf("%s and %d more", b.String(), len(names)-most)
		case i > 0:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", clip(n))
	}
	return b.String()
}
