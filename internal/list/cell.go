package list

import "strings"

// SafeCell returns s as a spreadsheet may be given it: what a spreadsheet could
// take for a formula gets an apostrophe in front, which makes it text. Quoting
// for CSV is still to be done, and does not replace this.
func SafeCell(s string) string {
	t := strings.TrimLeft(s, " \u00a0\u3000")
	if t == "" {
		return s
	}
	for _, sign := range []string{"=", "+", "-", "@", "|", "%", "\t", "\r", "\n", "\x00", "＝", "＋", "－", "＠"} {
		if strings.HasPrefix(t, sign) {
			return "'" + s
		}
	}
	return s
}
