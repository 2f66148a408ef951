package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/relay"
)

// relayFlags are the flags of `sluice relay`.
type relayFlags struct {
	listen, profile, script, caOut, truth, feedback string
	roundTrip                                       time.Duration
	implicit, noTLS, noAuth                         bool
	json, messages, verbose, quiet                  bool
}

func (a *app) relayCommand() *cobra.Command {
	var f relayFlags
	cmd := &cobra.Command{
		Use:   "relay",
		Short: "Run the rehearsal relay: an SMTP server that speaks as NHN Cloud's does, and misbehaves on request",
		Long:  relayHelp(),
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.runRelay(cmd, f)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", "127.0.0.1:2525", "`ADDR` to listen on; port 0 takes a free one")
	fl.StringVar(&f.profile, "profile", "nhn", "how to behave: `NAME` or NAME?parameter=value")
	fl.StringVar(&f.script, "script", "", "rules from a YAML `FILE`")
	fl.BoolVar(&f.json, "json", false, "print what was seen as one JSON object, the last line of stdout")
	fl.BoolVar(&f.messages, "messages", false, "with --json: every accepted message too")
	fl.BoolVar(&f.implicit, "implicit-tls", false, "TLS from the first byte, as on ports 465 and 2465")
	fl.BoolVar(&f.noTLS, "no-tls", false, "offer no STARTTLS")
	fl.BoolVar(&f.noAuth, "no-auth", false, "take mail without a login")
	fl.StringVar(&f.caOut, "ca-out", "", "write the CA of the relay's certificate to `FILE` (PEM), for relay.ca_file")
	fl.StringVar(&f.truth, "truth", "", "append every accepted message to `FILE` (JSON Lines) before it is answered")
	fl.StringVar(&f.feedback, "feedback", "", "with profile bounces: append what becomes of accepted mail to `FILE` (JSON Lines), for sluice feedback import")
	fl.DurationVar(&f.roundTrip, "rtt", 0, "simulate a network with this round trip `TIME`")
	fl.BoolVar(&f.verbose, "verbose", false, "show recipients in full")
	fl.BoolVar(&f.quiet, "quiet", false, "no line for each message")
	completeFlag(cmd, "profile", completeWord(relay.Profiles()...))
	return cmd
}

func relayHelp() string {
	return `Run the rehearsal relay: a real SMTP server for trying out any client. It speaks as
NHN Cloud's relay does (banner, EHLO, STARTTLS, AUTH PLAIN and LOGIN with #normal, #auth or
#ad after the AppKey), takes any login, delivers nothing, and remembers what it accepted.
It runs until interrupted and then prints what it saw.

Profiles (--profile NAME, or NAME?parameter=value&...; shown with their defaults):

` + relay.ProfileHelp() + `
A script (--script FILE) is a YAML list of rules that come before the profile's. The first
rule whose conditions all hold decides:

  - stage: rcpt                # connect ehlo starttls tls auth mail rcpt data body eod rset noop quit idle any
    domain: "*.example.com"    # or to: a pattern, from: a pattern, stream: auth|normal|ad
    share: 10%                 # of the recipients, always the same ones; fresh: true draws for each message
    times: 1                   # the first attempt only; per: recipient|connection|server
    reply: 451 4.7.1 Greylisted
  - stage: eod
    every: 100                 # each 100th message of a connection; after: 100 from the 100th on
    action: acceptdrop         # reply close drop reset acceptdrop garbage stall flood lines long slice ignore discard
  - stage: mail
    delay: 250ms

Other fields: name, grouped (came together with an earlier command), bytes (of content, at
stage body), count (for flood, lines, long), accept (takes effect all the same), keep (stay
open after a 421).`
}

func (a *app) runRelay(cmd *cobra.Command, f relayFlags) error {
	cfg, err := a.relayConfig(f)
	if err != nil {
		return usageError(err)
	}
	lines := &relayLines{out: a.err, full: f.verbose}
	if !f.quiet {
		cfg.OnAccept = lines.accepted
	}
	srv, err := relay.Start(cfg)
	if err != nil {
		return usageError(err)
	}
	if f.caOut != "" {
		if err := os.WriteFile(f.caOut, srv.CAPEM(), 0o644); err != nil {
			return usageError(closeAfter(srv, fmt.Errorf("write CA: %w", err)))
		}
	}
	lines.print(relayHowTo(srv.Addr(), f))
	<-cmd.Context().Done()
	if err := srv.Close(); err != nil {
		return err
	}
	if f.json {
		return writeRelayJSON(a.out, srv, f)
	}
	_, err = io.WriteString(a.out, relaySummary(srv.Stats()))
	return err
}

// closeAfter closes srv because of err, which is what the user needs to hear.
func closeAfter(srv *relay.Server, err error) error {
	_ = srv.Close()
	return err
}

func (a *app) relayConfig(f relayFlags) (relay.Config, error) {
	cfg := relay.Config{
		Addr: f.listen, Profile: f.profile, Implicit: f.implicit, NoTLS: f.noTLS,
		// Without TLS there would be no way to log in.
		AllowPlainAuth: f.noTLS, AuthOptional: f.noAuth,
		RoundTrip: f.roundTrip, TruthFile: f.truth, FeedbackFile: f.feedback,
	}
	var err error
	if cfg.Log, err = a.logger(); err != nil {
		return cfg, err
	}
	switch {
	case f.messages && !f.json:
		return cfg, fmt.Errorf("--messages goes with --json")
	case f.feedback != "" && f.profile != "bounces" && !strings.HasPrefix(f.profile, "bounces?"):
		return cfg, fmt.Errorf("--feedback goes with --profile bounces: %s tells nothing afterwards", f.profile)
	case f.implicit && f.noTLS:
		return cfg, fmt.Errorf("--implicit-tls and --no-tls exclude each other")
	}
	if f.script == "" {
		return cfg, nil
	}
	text, err := os.ReadFile(f.script)
	if err != nil {
		return cfg, fmt.Errorf("--script: %w", err)
	}
	if cfg.Rules, err = relay.ParseScript(f.script, text); err != nil {
		return cfg, fmt.Errorf("--script: %w", err)
	}
	return cfg, nil
}

// relayHowTo says where the relay is and how to use it.
func relayHowTo(addr string, f relayFlags) string {
	var b strings.Builder
	mode, openssl := "starttls", "-starttls smtp "
	switch {
	case f.implicit:
		mode, openssl = "implicit", ""
	case f.noTLS:
		mode = "none"
	}
	fmt.Fprintf(&b, "rehearsal relay listening on %s (profile %s, tls %s, any login); Ctrl-C ends it\n", addr, f.profile, mode)
	if mode == "none" {
		host, port, _ := net.SplitHostPort(addr)
		fmt.Fprintf(&b, "  by hand:     telnet %s %s\n", host, port)
	} else {
		fmt.Fprintf(&b, "  by hand:     openssl s_client -crlf -quiet %s-connect %s\n", openssl, addr)
	}
	host, port, _ := net.SplitHostPort(addr)
	fmt.Fprintf(&b, "  sluice.yaml: relay: {preset: nhn, host: %q, port: %s, tls: %s, user: any, password: any", host, port, mode)
	switch {
	case f.caOut != "":
		fmt.Fprintf(&b, ", ca_file: %q}\n", f.caOut)
	case mode != "none":
		b.WriteString(", ca_file: FILE}, FILE being what --ca-out FILE writes\n")
	default:
		b.WriteString("}\n")
	}
	return b.String()
}

// relayLines prints whole lines for many connections at once.
type relayLines struct {
	mu   sync.Mutex
	out  io.Writer
	full bool
	n    int
}

func (l *relayLines) print(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// A terminal that went away is no reason to stop taking mail.
	_, _ = io.WriteString(l.out, s)
}

func (l *relayLines) accepted(m relay.Accepted) {
	show := mail.Mask
	if l.full {
		show = func(s string) string { return s }
	}
	to := show(m.Recipients()[0])
	if n := len(m.Recipients()); n > 1 {
		to += fmt.Sprintf(" and %d more", n-1)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
	_, _ = fmt.Fprintf(l.out, "%s accepted %d: connection %d, %s, to %s, %d bytes, queued as %s\n",
		m.Time.Format(time.TimeOnly), l.n, m.Conn, m.Stream, to, m.Size, m.QueueID)
}

// relaySummary is what was seen, for people.
func relaySummary(st relay.Stats) string {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-18s", name)
		fmt.Fprintf(&b, format+"\n", args...)
	}
	row("accepted", "%d messages, %d bytes", st.Messages, st.Bytes)
	row("connections", "%d, at most %d at once, %d with TLS, %d ended by the relay", st.Connections, st.OpenMax, st.TLSConnections, st.CutByRule)
	row("round trips", "%d for %d commands, at most %d commands together", st.RoundTrips, st.Commands, st.MaxCommandsInGroup)
	row("logins", "%d tried, %d refused, %d in the clear", st.AuthAttempts, st.AuthFailures, st.AuthInClear)
	for _, stage := range slices.Sorted(maps.Keys(st.Replies)) {
		var parts []string
		for _, class := range slices.Sorted(maps.Keys(st.Replies[stage])) {
			parts = append(parts, fmt.Sprintf("%d × %s", st.Replies[stage][class], class))
		}
		row("replies "+string(stage), "%s", strings.Join(parts, ", "))
	}
	for _, name := range slices.Sorted(maps.Keys(st.RuleHits)) {
		row("rule", "%s: %d times", name, st.RuleHits[name])
	}
	if n := st.BadBytes() + st.PartialContents + st.EarlyTalkers + st.BytesBeforeTLS; n > 0 {
		row("faults", "%d bare LF, %d bare CR, %d NUL, %d long lines, %d contents broken off, %d spoke too early, %d bytes before TLS",
			st.BareLF, st.BareCR, st.NUL, st.LongLines, st.PartialContents, st.EarlyTalkers, st.BytesBeforeTLS)
	}
	return b.String()
}

// writeRelayJSON writes one line. Messages are written one by one: there may be a million.
func writeRelayJSON(w io.Writer, srv *relay.Server, f relayFlags) error {
	stats, err := json.Marshal(struct {
		Addr    string `json:"addr"`
		Profile string `json:"profile"`
		relay.Stats
	}{srv.Addr(), f.profile, srv.Stats()})
	if err != nil {
		return fmt.Errorf("encode statistics: %w", err)
	}
	if !f.messages {
		_, err := fmt.Fprintf(w, "%s\n", stats)
		return err
	}
	buf := bytes.NewBuffer(bytes.TrimSuffix(stats, []byte("}")))
	buf.WriteString(`,"accepted":[`)
	first := true
	for m := range srv.Messages() {
		line, err := json.Marshal(m)
		if err != nil {
			return fmt.Errorf("encode message: %w", err)
		}
		if !first {
			buf.WriteByte(',')
		}
		first = false
		buf.Write(line)
		if buf.Len() > 1<<20 {
			if _, err := buf.WriteTo(w); err != nil {
				return err
			}
		}
	}
	buf.WriteString("]}\n")
	_, err = buf.WriteTo(w)
	return err
}
