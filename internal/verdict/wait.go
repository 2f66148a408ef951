package verdict

import (
	"strconv"
	"strings"
	"time"
)

// maxWait bounds the pause that a reply can ask for.
const maxWait = 24 * time.Hour

// pauseIn finds the pause that a text (as plainText gives it) asks for: "try again
// in 5 minutes", "greylisted for 60 seconds", "retry after 3600", "come back in
// 00:05:00", "5분 후", "30秒後". A number of something else ("200 per hour") is no
// pause. Of several, the longest counts. 0 is: none found.
func pauseIn(text string) time.Duration {
	words := strings.Fields(text)
	var longest time.Duration
	for i, w := range words {
		n, unit := split(w)
		if n < 0 {
			continue
		}
		longest = max(longest, cjkPause(n, unit), pauseAt(words, i, n, unit))
	}
	return min(longest, maxWait)
}

// split takes a word apart into number and unit: "5min", "300", "an". n is -1
// where it is no number. Six digits of seconds are more than maxWait.
func split(w string) (n int, unit string) {
	if w == "an" || w == "a" || w == "one" {
		return 1, ""
	}
	unit = strings.TrimLeft(w, "0123456789")
	digits := w[:len(w)-len(unit)]
	if digits == "" {
		return -1, ""
	}
	n, err := strconv.Atoi(digits[:min(len(digits), 6)])
	if err != nil {
		return -1, ""
	}
	return n, unit
}

// pauseAt reads a pause whose number is words[i]. Words before it must say that it
// is one.
func pauseAt(words []string, i, n int, unit string) time.Duration {
	if !asksToWait(words[:i]) {
		return 0
	}
	rest := words[i+1:]
	if unit != "" {
		return pause(n, unit)
	}
	if len(rest) >= 2 && len(words[i]) == 2 && clock(rest[0]) && clock(rest[1]) { // hh:mm:ss
		m, _ := strconv.Atoi(rest[0])
		s, _ := strconv.Atoi(rest[1])
		return time.Duration(n)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second
	}
	if len(rest) > 0 && unitOf(rest[0]) > 0 {
		return pause(n, rest[0])
	}
	if i > 1 && words[i-1] == "after" && words[i-2] == "retry" && words[i] != "a" && words[i] != "an" && words[i] != "one" {
		return pause(n, "s") // as in HTTP's Retry-After
	}
	return 0
}

func clock(s string) bool { return len(s) == 2 && digits(s) }

func pause(n int, unit string) time.Duration { return time.Duration(n) * unitOf(unit) }

func unitOf(word string) time.Duration {
	switch word {
	case "s", "sec", "secs", "second", "seconds":
		return time.Second
	case "m", "min", "mins", "minute", "minutes":
		return time.Minute
	case "h", "hr", "hrs", "hour", "hours":
		return time.Hour
	case "d", "day", "days":
		return 24 * time.Hour
	}
	return 0
}

// asksToWait looks at the words before a number: the nearest must lead to a time,
// and one of those further back must be about trying again.
func asksToWait(before []string) bool {
	near := before[max(0, len(before)-3):]
	leads := false
	for _, w := range near {
		switch w {
		case "in", "after", "for", "wait", "within", "least", "another", "about":
			leads = true
		case "per", "every", "last", "past", "each", "than":
			return false
		}
	}
	if !leads {
		return false
	}
	for _, w := range before[max(0, len(before)-12):] {
		switch w {
		case "again", "retry", "retrying", "wait", "later", "back", "resend", "reconnect", "allowed":
			return true
		}
		for _, stem := range []string{"grey", "gray", "defer", "delay", "block", "throttl", "suspend"} {
			if strings.HasPrefix(w, stem) {
				return true
			}
		}
	}
	return false
}

// cjkPause reads "5분후" and "30秒後": the unit comes with its "after".
func cjkPause(n int, unit string) time.Duration {
	units := []struct {
		name string
		is   time.Duration
	}{
		{"초", time.Second}, {"분", time.Minute}, {"시간", time.Hour}, {"일", 24 * time.Hour},
		{"秒", time.Second}, {"分間", time.Minute}, {"分", time.Minute}, {"時間", time.Hour}, {"日", 24 * time.Hour},
	}
	for _, u := range units {
		after, ok := strings.CutPrefix(unit, u.name)
		if !ok {
			continue
		}
		for _, word := range []string{"후", "뒤", "이후", "後", "以降", "以上", "待", "お待ち"} {
			if strings.HasPrefix(after, word) {
				return time.Duration(n) * u.is
			}
		}
	}
	return 0
}
