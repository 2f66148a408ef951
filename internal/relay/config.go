package relay

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Host is the name NHN Cloud's relay has, and the one this server greets with.
const Host = "smtp-mail.nhncloudservice.com"

// Config says how the relay behaves. The zero Config is NHN Cloud's behaviour on a
// free loopback port, with a certificate of its own making and any login taken.
type Config struct {
	// Addr is the TCP address to listen on. Default "127.0.0.1:0".
	Addr string
	// Profile is one of Profiles, with parameters as in "throttled?rate=100&open=5".
	// Default "nhn".
	Profile string
	// Rules come before the profile's own; the first that matches decides.
	Rules []Rule

	// Implicit speaks TLS from the first byte (ports 465 and 2465) instead of
	// offering STARTTLS.
	Implicit bool
	// NoTLS offers no STARTTLS at all.
	NoTLS bool
	// Certificate is what TLS shows. Default: a fresh leaf for loopback and Host,
	// signed by a fresh CA, see Server.CAPEM.
	Certificate *tls.Certificate
	// MaxTLSVersion caps the version, such as tls.VersionTLS11 for a relay too old to
	// talk to. Default: no cap, and TLS 1.2 as the least.
	MaxTLSVersion uint16

	// AllowPlainAuth offers AUTH without TLS where the profile would not. NHN's
	// own transcript offers it, so profile nhn does.
	AllowPlainAuth bool
	// AuthOptional takes MAIL without a login.
	AuthOptional bool
	// Users maps AppKey to SecretKey. Nil takes any pair that is not empty.
	Users map[string]string

	// RoundTrip is the simulated network: every byte arrives half of it late in
	// either direction. Bytes are delayed, not commands, so pipelining gains.
	RoundTrip time.Duration
	// Capabilities replaces the EHLO lines after the greeting. STARTTLS and AUTH lines
	// among them are still left out where they do not apply. Nil: NHN's own.
	Capabilities []string
	// MaxSize refuses larger contents with 552, in bytes. 0: no limit.
	MaxSize int
	// IdleTimeout closes a connection that says nothing for so long. Default 5 minutes
	// (RFC 5321 section 4.5.3.2.7).
	IdleTimeout time.Duration
	// Seed changes which recipients a share falls on.
	Seed uint64

	// TruthFile, if set, gets one JSON object a message, appended with one write
	// before the reply, so that it survives a SIGKILL of this process.
	TruthFile string
	// KeepContent stores every accepted content in Accepted.Content.
	KeepContent bool
	// NoDigest leaves Accepted.SHA256 zero. The digest is two thirds of what the relay
	// spends on a message of 10 KB, which a benchmark on the same machine may not want.
	NoDigest bool
	// OnAccept is called after a message is recorded and before its reply is sent, by
	// many connections at once.
	OnAccept func(Accepted)
	// FeedbackFile, if set, gets what becomes of accepted messages with profile bounces: one
	// JSON object a recipient, see Became. It is appended to.
	FeedbackFile string
	// OnFeedback is called with the same, some at a time, by one goroutine.
	OnFeedback func([]Became)
	// Log gets connection faults at debug level. Nil: nothing is logged.
	Log *slog.Logger
}

// withDefaults returns c with every default filled in, or an error naming the setting
// that makes no sense.
func (c Config) withDefaults() (Config, error) {
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	if c.Profile == "" {
		c.Profile = "nhn"
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 5 * time.Minute
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Capabilities == nil {
		c.Capabilities = nhnCapabilities()
	}
	switch {
	case c.Implicit && c.NoTLS:
		return c, fmt.Errorf("relay: Implicit and NoTLS exclude each other")
	case c.RoundTrip < 0:
		return c, fmt.Errorf("relay: RoundTrip %v: want 0 or more", c.RoundTrip)
	case c.IdleTimeout < 0:
		return c, fmt.Errorf("relay: IdleTimeout %v: want more than 0", c.IdleTimeout)
	case c.MaxSize < 0:
		return c, fmt.Errorf("relay: MaxSize %d: want 0 (no limit) or more", c.MaxSize)
	}
	for _, line := range c.Capabilities {
		if strings.ContainsAny(line, "\r\n") {
			return c, fmt.Errorf("relay: capability %q: want a single line", line)
		}
	}
	return c, nil
}

// nhnCapabilities are the EHLO lines of NHN Cloud's SMTP guide, in its order and with
// its old form AUTH=.
func nhnCapabilities() []string {
	return []string{"PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME", "STARTTLS", "AUTH LOGIN PLAIN", "AUTH=LOGIN PLAIN"}
}
