package verdict

import (
	"strings"
)

// ParseReply reads a reply as people and logs write one: "550 5.1.1 No such user",
// several lines ("550-…"), a quoted one, the "smtp; 550 …" of a delivery report
// (RFC 3464 section 2.3.6), or Postfix's "host … said: 550 … (in reply to RCPT TO
// command)". What it cannot find stays empty: without a code, all of it is Text.
// Stage is set only where the text names the command.
func ParseReply(s string) Input {
	s = strings.TrimSpace(s)
	for _, quote := range []string{`"`, `'`, "`"} {
		if len(s) > 1 && strings.HasPrefix(s, quote) && strings.HasSuffix(s, quote) {
			s = strings.TrimSpace(s[1 : len(s)-1])
		}
	}
	in := Input{Stage: Any}
	s, in.Stage = inReplyTo(s)
	if _, said, ok := strings.Cut(s, " said: "); ok && codeOf(said) > 0 {
		s = said
	}
	if kind, text, ok := strings.Cut(s, ";"); ok && strings.EqualFold(strings.TrimSpace(kind), "smtp") {
		s = strings.TrimSpace(text)
	}
	if in.Code = codeOf(s); in.Code > 0 {
		s = joinLines(s)
	}
	first, rest, _ := strings.Cut(s, " ")
	if isEnhanced(first) {
		in.Enhanced, s = first, strings.TrimSpace(rest)
	}
	in.Text = strings.ReplaceAll(strings.ReplaceAll(s, "\r", ""), "\n", " ")
	return in
}

// codeOf returns the code that a reply begins with, or 0.
func codeOf(s string) int {
	if len(s) < 3 || s[0] < '2' || s[0] > '5' || !digits(s[:3]) || len(s) > 3 && strings.IndexByte(" -\t\r\n", s[3]) < 0 {
		return 0
	}
	return int(s[0]-'0')*100 + int(s[1]-'0')*10 + int(s[2]-'0')
}

// joinLines takes the code off every line, and the enhanced code off all lines
// but the first (RFC 2034 section 4 repeats it). Lines joined by a space already
// still have "550-" or "550 5.7.1" before what was a line.
func joinLines(s string) string {
	code := s[:3]
	s = strings.ReplaceAll(s, `\n`, "\n")
	s = strings.ReplaceAll(s, " "+code+"-", "\n"+code+"-")
	first, _, _ := strings.Cut(strings.TrimLeft(s[3:], "- \t"), " ")
	if isEnhanced(first) {
		s = strings.ReplaceAll(s, " "+code+" "+first+" ", "\n"+code+" "+first+" ")
	} else {
		first = ""
	}
	var out []string
	for line := range strings.Lines(s) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, code) && codeOf(line) > 0 {
			line = strings.TrimSpace(strings.TrimPrefix(line[3:], "-"))
		}
		if first != "" && len(out) > 0 {
			line = strings.TrimSpace(strings.TrimPrefix(line, first))
		}
		if line != "" {
			out = append(out, line)
		}
	}
	return strings.Join(out, " ")
}

// inReplyTo takes "(in reply to … command)" off the end.
func inReplyTo(s string) (string, Stage) {
	i := strings.LastIndex(s, "(in reply to ")
	if i < 0 {
		return s, Any
	}
	what := s[i+len("(in reply to "):]
	s = strings.TrimSpace(s[:i])
	switch {
	case strings.HasPrefix(what, "end of DATA"):
		return s, EOD
	case strings.HasPrefix(what, "RCPT"):
		return s, Rcpt
	case strings.HasPrefix(what, "MAIL"):
		return s, Mail
	case strings.HasPrefix(what, "DATA"):
		return s, Data
	case strings.HasPrefix(what, "EHLO"), strings.HasPrefix(what, "HELO"), strings.HasPrefix(what, "STARTTLS"):
		return s, EHLO
	case strings.HasPrefix(what, "AUTH"):
		return s, Auth
	}
	return s, Any
}
