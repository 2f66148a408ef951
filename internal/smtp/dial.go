package smtp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemail/sluice/internal/fault"
)

// TLSMode is how a connection gets its encryption.
type TLSMode uint8

// The ways there are.
const (
	StartTLS TLSMode = iota // ports 25, 587, 2587: required, never opportunistic
	Implicit                // ports 465, 2465
	None                    // loopback hosts only, unless Insecure
)

// Timeouts bound each single request: from the moment its reply is due until the
// last octet of it is there, however the octets dribble in. Zero means the default.
type Timeouts struct {
	Connect   time.Duration // DNS and TCP, 30 s
	Handshake time.Duration // TLS, 30 s
	Greeting  time.Duration // 30 s
	Command   time.Duration // EHLO, STARTTLS, AUTH, MAIL, RCPT, RSET: 60 s each
	Data      time.Duration // the reply to DATA, 2 min
	Dot       time.Duration // the reply to the dot, 10 min: giving up early makes an unknown
	Confirm   time.Duration // Transaction.Confirm, 30 s
	// Prompt, 10 ms, is how long Confirm may take for the next message to be taken before
	// it is over: that one's budget has to be fresh when its MAIL leaves. With the time that
	// a pool may have held it (fresh), it is most of the 35 ms that package throttle leaves
	// between the taking of a token and the relay.
	Prompt  time.Duration
	Quit    time.Duration // how long to wait for the reply to QUIT, 2 s
	MinRate int           // octets a second the relay must take of a content, 500
}

func (t Timeouts) withDefaults() Timeouts {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = fault.Scaled(v)
		}
	}
	set(&t.Connect, 30*time.Second)
	set(&t.Handshake, 30*time.Second)
	set(&t.Greeting, 30*time.Second)
	set(&t.Command, time.Minute)
	set(&t.Data, 2*time.Minute)
	set(&t.Dot, 10*time.Minute)
	set(&t.Confirm, 30*time.Second)
	set(&t.Quit, 2*time.Second)
	if t.Prompt <= 0 {
		t.Prompt = 10 * time.Millisecond // not scaled, as the budget is not
	}
	if t.MinRate <= 0 {
		t.MinRate = int(500 * time.Second / fault.Scaled(time.Second))
	}
	return t
}

// DialConfig is one login at one relay.
type DialConfig struct {
	Host     string
	Port     int
	Address  string // of LookUp's, to connect to it and to no other; "": to what Host gives, one after the other
	TLS      TLSMode
	Insecure bool // TLS None to a host that is not loopback

	RootCAs    *x509.CertPool         // nil: the system's
	ServerName string                 // the name the certificate must bear; "": Host
	Sessions   tls.ClientSessionCache // shared by the connections of a relay; nil: no resumption

	Hello          string // EHLO name; "": localhost
	User, Password string
	Auth           AuthMethod

	Mode     Mode
	Memory   *Memory // what relays did with pipelining; asked in ModeAuto only
	Timeouts Timeouts
	// Dialer makes the TCP connection; nil: a net.Dialer.
	Dialer func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Addr returns host:port.
func (c *DialConfig) Addr() string { return net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) }

func (c *DialConfig) serverName() string {
	if c.ServerName != "" {
		return c.ServerName
	}
	return c.Host
}

// check refuses what cannot work or must not, before a single packet.
func (c *DialConfig) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrConfig, fmt.Sprintf(format, args...))
	}
	switch {
	case c.Host == "":
		return bad("no host")
	case c.Port < 1 || c.Port > 65535:
		return bad("port %d is not in 1 to 65535", c.Port)
	case c.TLS > None:
		return bad("TLS mode %d", c.TLS)
	case c.Mode > ModeLockStep:
		return bad("mode %d", c.Mode)
	case c.Auth > AuthNone:
		return bad("auth method %d", c.Auth)
	case c.Auth != AuthNone && c.Auth != AuthAuto && c.User == "":
		return bad("auth %v without a user", c.Auth)
	case strings.ContainsAny(c.User+c.Password, "\x00\r\n"):
		return bad("control characters in user or password")
	case c.Hello != "" && strings.ContainsFunc(c.Hello, func(r rune) bool {
		return r > 0x7f || !isLDH(byte(r)) && !strings.ContainsRune(".:[]", r)
	}):
		return bad("EHLO name %q is not a host name", c.Hello)
	case c.TLS == None && !c.Insecure && !loopbackHost(c.Host):
		return fmt.Errorf("%w: TLS is off and %s is not this machine; set relay.tls to starttls or implicit, or relay.insecure to true", ErrPlaintext, c.Host)
	}
	return nil
}

// loopbackHost reports whether host names this machine without asking DNS.
func loopbackHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Dial connects, greets, starts TLS and logs in. It ends early when ctx does. Any
// failure is an *Error; the connection is closed by then.
func Dial(ctx context.Context, cfg DialConfig) (*Conn, error) {
	if err := cfg.check(); err != nil {
		return nil, &Error{Stage: StageConnect, Err: err}
	}
	cfg.Timeouts = cfg.Timeouts.withDefaults()
	if cfg.Hello == "" {
		cfg.Hello = "localhost"
	}
	nc, err := cfg.connect(ctx)
	if err != nil {
		return nil, &Error{Stage: StageConnect, Err: err}
	}
	h := &handshake{cfg: &cfg, nc: nc, rd: newReplyReader(nc), ended: ctx.Err}
	// A deadline in the past wakes whatever read or write the handshake is in.
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(past) })
	herr := h.run(ctx)
	if !stop() && herr == nil {
		herr = &Error{Stage: StageConnect}
	}
	if herr != nil {
		_ = nc.Close()
		if ctx.Err() != nil {
			herr.Err = context.Cause(ctx)
		}
		return nil, herr
	}
	_ = nc.SetDeadline(time.Time{})
	return newConn(&cfg, nc, h), nil
}

// past is a deadline that ends any read or write at once.
var past = time.Unix(1, 0)

// LookUp returns the addresses of Host, the best first (RFC 6724), for one Dial each: a
// Dial to a name with several would be several attempts to connect where the first fail,
// and a limit of connections counts each. It returns none where there is nothing to look
// up, or Host is this machine, and gives up after the time for connecting.
func (c *DialConfig) LookUp(ctx context.Context) ([]string, error) {
	if net.ParseIP(c.Host) != nil || loopbackHost(c.Host) {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeouts.withDefaults().Connect)
	defer cancel()
	addrs, err := fault.Resolver().LookupHost(ctx, c.Host)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", c.Host, err)
	}
	return addrs, nil
}

// connect makes the TCP connection.
func (c *DialConfig) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeouts.Connect)
	defer cancel()
	dial := c.Dialer
	if dial == nil {
		dial = (&net.Dialer{Resolver: fault.Resolver()}).DialContext
	}
	addr := c.Addr()
	if c.Address != "" {
		addr = net.JoinHostPort(c.Address, strconv.Itoa(c.Port))
	}
	nc, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	// A name such as localhost can point anywhere.
	if tcp, ok := nc.RemoteAddr().(*net.TCPAddr); ok && c.TLS == None && !c.Insecure && !tcp.IP.IsLoopback() {
		_ = nc.Close()
		return nil, fmt.Errorf("%w: %s is %s, which is not this machine", ErrPlaintext, c.Host, tcp.IP)
	}
	return nc, nil
}

// handshake is a connection before it can carry mail: one command at a time, every
// reply awaited, all in one goroutine.
type handshake struct {
	cfg *DialConfig
	nc  net.Conn
	rd  *replyReader
	ext Extensions
	// ended is Dial's ctx.Err. It is asked after each new deadline, which may have
	// replaced the one that was to end the handshake.
	ended func() error
}

func (h *handshake) run(ctx context.Context) *Error {
	if h.cfg.TLS == Implicit {
		if err := h.encrypt(ctx); err != nil {
			return err
		}
	}
	if _, err := h.expect(StageConnect, h.cfg.Timeouts.Greeting, 220); err != nil {
		return err
	}
	if err := h.hello(); err != nil {
		return err
	}
	if h.cfg.TLS == StartTLS {
		if err := h.startTLS(ctx); err != nil {
			return err
		}
	}
	if err := h.login(); err != nil {
		return err
	}
	if h.rd.buffered() {
		return &Error{Stage: StageAuth, Err: malformed("more than one reply to a command")}
	}
	return nil
}

// command writes one line and awaits its reply, which must have the given code.
func (h *handshake) command(stage Stage, line string, code int) (Reply, *Error) {
	_ = h.nc.SetWriteDeadline(time.Now().Add(h.cfg.Timeouts.Command))
	if err := h.ended(); err != nil {
		return Reply{}, &Error{Stage: stage, Err: err}
	}
	if _, err := h.nc.Write([]byte(line + "\r\n")); err != nil {
		return Reply{}, &Error{Stage: stage, Err: ioError(err)}
	}
	return h.expect(stage, h.cfg.Timeouts.Command, code)
}

// expect reads one reply. One with another code is returned along with the error.
func (h *handshake) expect(stage Stage, timeout time.Duration, code int) (Reply, *Error) {
	_ = h.nc.SetReadDeadline(time.Now().Add(timeout))
	if err := h.ended(); err != nil {
		return Reply{}, &Error{Stage: stage, Err: err}
	}
	r, err := h.rd.read()
	switch {
	case err != nil:
		return r, &Error{Stage: stage, Err: ioError(err)}
	case r.Code == code:
		return r, nil
	case r.refusal():
		return r, &Error{Stage: stage, Reply: r}
	}
	return r, &Error{Stage: stage, Reply: r, Err: malformed("want %d", code)}
}

func (h *handshake) hello() *Error {
	if _, err := h.command(StageEHLO, "EHLO "+h.cfg.Hello, 250); err != nil {
		return err
	}
	h.ext = parseExtensions(h.rd.lastLines())
	return nil
}

// startTLS sends STARTTLS and nothing after it. What is readable once the 220 is
// in was put there by somebody who wants it taken for the relay's (CVE-2011-0411
// and its kin), and what EHLO said before is forgotten.
func (h *handshake) startTLS(ctx context.Context) *Error {
	if !h.ext.StartTLS {
		return &Error{Stage: StageStartTLS, Err: fmt.Errorf("%w by %s: refusing to go on without encryption; check relay.port and relay.tls, or who is between here and the relay", ErrNoStartTLS, h.cfg.Addr())}
	}
	if _, err := h.command(StageStartTLS, "STARTTLS", 220); err != nil {
		return err
	}
	if h.rd.buffered() {
		return &Error{Stage: StageStartTLS, Err: malformed("data between the reply to STARTTLS and TLS")}
	}
	if err := h.encrypt(ctx); err != nil {
		return err
	}
	return h.hello()
}

// encrypt puts TLS around the connection, verified against the relay's name.
func (h *handshake) encrypt(ctx context.Context) *Error {
	tc := tls.Client(h.nc, &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         h.cfg.serverName(),
		RootCAs:            h.cfg.RootCAs,
		ClientSessionCache: h.cfg.Sessions,
		// A message and the next one's envelope leave in one record and one write.
		DynamicRecordSizingDisabled: true,
	})
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Timeouts.Handshake)
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		return &Error{Stage: StageTLS, Err: explainTLS(ioError(err), h.cfg.serverName())}
	}
	h.nc, h.rd, h.ext = tc, newReplyReader(tc), Extensions{}
	return nil
}

// errCertificate is what makes a TLS error permanent.
var errCertificate = errors.New("certificate not trusted")

// explainTLS adds what to do about it.
func explainTLS(err error, name string) error {
	var (
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: %w; set relay.ca_file to the certificate of the authority that signed it", errCertificate, err)
	case errors.As(err, &host):
		return fmt.Errorf("%w: it is not made out to %s: %w; set relay.host to the name that it bears", errCertificate, name, err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("%w: %w; the relay must renew it, or this machine's clock is wrong", errCertificate, err)
	case errors.As(err, &invalid):
		return fmt.Errorf("%w: %w", errCertificate, err)
	case errors.As(err, &record):
		return fmt.Errorf("%w; the port does not speak TLS at once: set relay.tls to starttls, or the port to 465", err)
	case strings.Contains(err.Error(), "protocol version"): // crypto/tls has no exported type for it
		return fmt.Errorf("%w; the relay offers nothing newer than TLS 1.1, and TLS 1.2 is the least that is used", err)
	}
	return err
}

// ioError gives time-outs their name.
func ioError(err error) error {
	var ne net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout() {
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	return err
}
