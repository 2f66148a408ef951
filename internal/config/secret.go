package config

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const hidden = "***"

// Secret is a value that no log, error or dump shows: every way of printing it
// gives ***. The zero Secret is none.
type Secret struct{ s string }

// NewSecret hides s.
func NewSecret(s string) Secret { return Secret{s} }

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return s.s }

// Empty reports whether there is none.
func (s Secret) Empty() bool { return s.s == "" }

// String returns ***.
func (Secret) String() string { return hidden }

// GoString returns ***.
func (Secret) GoString() string { return hidden }

// LogValue returns ***.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalJSON returns "***".
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// MarshalText returns ***.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Format writes *** for every verb: a wrong one such as %d would print the field.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, hidden) }

// RedisURL is a Redis URL, which may hold a password: printed, the user, the
// password and the parameters are hidden.
type RedisURL string

// Reveal returns the URL as it was given.
func (u RedisURL) Reveal() string { return string(u) }

// String returns the URL without what may be secret. It assumes nothing about the
// URL being well-formed, since it is also what errors show.
func (u RedisURL) String() string {
	scheme, rest, found := strings.Cut(string(u), "://")
	if !found {
		// "host:6379" and "user:password@host" look alike up to the @.
		scheme, rest = "", string(u)
	}
	user := ""
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		if strings.ContainsAny(rest[:at], "/?") {
			// A password not escaped, or a parameter with an @: no telling where it ends.
			return scheme + "://" + hidden
		}
		user, rest = hidden+"@", rest[at+1:]
	}
	rest, params, has := strings.Cut(rest, "?")
	if has && params != "" {
		rest += "?" + redactParams(params)
	}
	if found {
		scheme += "://"
	}
	return scheme + user + rest
}

// redactParams keeps the sentinel's master, which is no secret and worth seeing.
func redactParams(params string) string {
	fields := strings.Split(params, "&")
	for i, f := range fields {
		name, _, ok := strings.Cut(f, "=")
		if name == "master" || !ok {
			continue
		}
		fields[i] = name + "=" + hidden
	}
	return strings.Join(fields, "&")
}

// GoString is String.
func (u RedisURL) GoString() string { return u.String() }

// LogValue is String.
func (u RedisURL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// MarshalText is String.
func (u RedisURL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// Format writes String for every verb.
func (u RedisURL) Format(f fmt.State, _ rune) { io.WriteString(f, u.String()) }
