package config

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
)

// Relay is the SMTP server that mail is handed to, and the login there.
type Relay struct {
	Preset       Preset
	Host         string // a name or an IP address, without port
	Port         int
	TLS          TLSMode
	CAFile       string // PEM certificates trusted besides the system's
	User         string // without the stream; see LoginUser
	Password     Secret // from relay.password or the file
	PasswordFile string
	Auth         AuthMode
	Pipelining   Pipelining
	Hello        string // see HelloName
	Insecure     bool   // with NoTLS: allow it to a host that is not loopback
}

// TLSMode says how a connection is encrypted.
type TLSMode string

// The modes. None is for loopback, or with Relay.Insecure.
const (
	StartTLS    TLSMode = "starttls"
	ImplicitTLS TLSMode = "implicit"
	NoTLS       TLSMode = "none"
)

// Pipelining says how commands are sent (RFC 2920). The modes other than auto are for
// relays on which auto's own discovery goes wrong.
type Pipelining string

// The ways there are.
const (
	PipelineAuto  Pipelining = "auto"      // what the relay offers, less what it turns out not to bear
	PipelineFull  Pipelining = "pipelined" // a content leads the next envelope: one round trip a message
	PipelineGroup Pipelining = "group"     // one group of commands a message: two round trips
	PipelineOff   Pipelining = "lockstep"  // one command at a time: four round trips
)

// AuthMode says how to log in.
type AuthMode string

// The modes. Auto takes PLAIN before LOGIN of what the relay offers.
const (
	AuthAuto  AuthMode = "auto"
	AuthPlain AuthMode = "plain"
	AuthLogin AuthMode = "login"
	AuthNone  AuthMode = "none"
)

// Addr returns host:port.
func (r Relay) Addr() string { return net.JoinHostPort(r.Host, strconv.Itoa(r.Port)) }

// Loopback reports whether the relay is on this machine.
func (r Relay) Loopback() bool { return loopback(r.Host) }

// LoginUser returns the user name that stream logs in with, or "" where there is no
// login. At NHN Cloud the mail type is part of it.
func (r Relay) LoginUser(stream mail.Stream) string {
	if r.User == "" || r.Preset != NHN {
		return r.User
	}
	return r.User + "#" + string(stream)
}

// LoginComplete returns an error that says what is missing to log in, for whoever
// is about to. A producer needs no password, so this is no part of Validate. A
// relay on loopback may do without a login.
func (r Relay) LoginComplete() error {
	switch {
	case r.Auth == AuthNone:
		return nil
	case r.User == "" && r.Loopback():
		return nil
	case r.User == "":
		return fmt.Errorf("relay.user: empty: set it to %s, or relay.auth to none", r.Preset.facts().user)
	case r.Password.Empty():
		return fmt.Errorf("relay.password: empty: set relay.password_file or SLUICE_RELAY_PASSWORD to %s", r.Preset.facts().password)
	}
	return nil
}

// Account returns 12 hexadecimal digits that stand for the account at the relay in
// key names: the same for every process with the same host and user, whatever the
// password, port and stream.
func (r Relay) Account() string {
	sum := sha256.Sum256([]byte(strings.ToLower(r.Host) + "\x00" + r.User))
	return hex.EncodeToString(sum[:6])
}

// Fingerprint returns 16 hexadecimal digits that change when the credentials do. It
// is keyed with the password and tells nothing about it that trying passwords
// one by one would not.
func (r Relay) Fingerprint() string {
	mac := hmac.New(sha256.New, []byte(r.Password.Reveal()))
	for _, s := range []string{"sluice relay credentials", strings.ToLower(r.Host), r.User, string(r.Auth)} {
		mac.Write(append([]byte(s), 0))
	}
	return hex.EncodeToString(mac.Sum(nil)[:8])
}

// CertPool returns the certificates to trust: the system's and those of CAFile, or
// nil, which means the system's alone, where no CAFile is set.
func (r Relay) CertPool() (*x509.CertPool, error) {
	if r.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(r.CAFile)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in it: want PEM, with a line -----BEGIN CERTIFICATE-----")
	}
	return pool, nil
}

// helloWait bounds the look-up of this host's full name.
const helloWait = 2 * time.Second

// HelloName returns the name to say in EHLO: Hello where it is set, else hostname,
// completed by canonical (such as net.DefaultResolver.LookupCNAME) where it has no
// dot. A hostname that no relay would take becomes an address literal.
func (r Relay) HelloName(ctx context.Context, hostname string, canonical func(context.Context, string) (string, error)) string {
	if r.Hello != "" {
		return r.Hello
	}
	if hostname == "" || strings.Contains(hostname, ":") || checkHello(hostname) != nil {
		return "[127.0.0.1]" // RFC 5321 section 4.1.4: a literal where there is no name
	}
	if strings.Contains(hostname, ".") {
		return hostname
	}
	ctx, cancel := context.WithTimeout(ctx, helloWait)
	defer cancel()
	full, err := canonical(ctx, hostname)
	full = strings.TrimSuffix(full, ".")
	if err != nil || !strings.Contains(full, ".") || checkHello(full) != nil {
		return hostname
	}
	return full
}
