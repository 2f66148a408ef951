package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/mail"
)

// relayChecks follow one connection from its name to its QUIT; the logins of the
// other streams have connections of their own.
func (e *exam) relayChecks() []check {
	list := []check{
		{id: "relay.dns", run: e.relayDNS},
		{id: "relay.tcp", needs: []string{"relay.dns"}, run: e.relayTCP},
		{id: "relay.greeting", needs: []string{"relay.tcp"}, run: e.relayGreeting},
		{id: "relay.starttls", needs: []string{"relay.greeting"}, run: e.relayStartTLS},
		{id: "relay.tls", needs: []string{"relay.starttls"}, run: e.relayTLS},
		{id: "relay.certificate", needs: []string{"relay.tls"}, run: e.relayCertificate},
		{id: "relay.ehlo", needs: []string{"relay.tls"}, run: e.relayEHLO},
		{id: "relay.auth.auth", needs: []string{"relay.ehlo"}, run: e.firstLogin},
		{id: "relay.auth.normal", needs: []string{"relay.auth.auth"}, run: e.loginOf("normal")},
		{id: "relay.auth.ad", needs: []string{"relay.auth.normal"}, run: e.loginOf("ad")},
		{id: "relay.roundtrip", needs: []string{"relay.auth.auth"}, run: e.relayRoundTrip},
		{id: "relay.pipelining", needs: []string{"relay.roundtrip"}, run: e.relayPipelining},
		{id: "relay.blocklist", needs: []string{"relay.dns"}, run: e.relayBlockList},
	}
	if e.cfg.Relay.TLS == config.ImplicitTLS { // the relay greets inside TLS
		list[2].needs = []string{"relay.tls"}
		list[3].needs, list[4].needs = []string{"relay.tcp"}, []string{"relay.tcp"}
		list[6].needs = []string{"relay.greeting"}
	}
	return list
}

// maxAddrs is how many of the relay's addresses are tried and looked up.
const maxAddrs = 8

func (e *exam) relayDNS(ctx context.Context) Line {
	host := e.cfg.Relay.Host
	if ip, err := netip.ParseAddr(host); err == nil {
		e.addrs = []netip.Addr{ip.Unmap()}
		return passed("%s is an address", host)
	}
	addrs, err := e.cfg.Resolver.LookupNetIP(ctx, "ip", fqdn(host))
	switch {
	case notFound(err) || err == nil && len(addrs) == 0:
		return failed("%s has no address in DNS", host).to("correct relay.host: %s", e.hostHint())
	case err != nil:
		l := dnsTrouble(host, err)
		l.Status = Fail
		return l
	}
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	e.addrs = addrs[:min(len(addrs), maxAddrs)]
	return passed("%s is %s", host, join(e.addrs))
}

func (e *exam) hostHint() string {
	if e.cfg.Relay.Preset == config.NHN {
		return "NHN Cloud's relay is smtp-mail.nhncloudservice.com"
	}
	return "it must be the name the relay's operator gives for SMTP"
}

func join[T fmt.Stringer](list []T) string {
	var s []string
	for _, x := range list {
		s = append(s, x.String())
	}
	return strings.Join(s, ", ")
}

func (e *exam) relayTCP(ctx context.Context) Line {
	nc, dead, err := e.dial(ctx)
	if err != nil {
		return e.relayTrouble(err).to("port %d of %s cannot be reached: check relay.port (%s) and that no firewall here or at the provider blocks outgoing SMTP; many block 25, few 587 or 465",
			e.cfg.Relay.Port, e.cfg.Relay.Host, ports(e.cfg.Relay.TLS))
	}
	e.relay = e.newSession(nc)
	at := nc.RemoteAddr()
	if len(dead) > 0 {
		return warned("connected to %s, but not to %s", at, strings.Join(dead, ", ")).
			to("mail goes through the other addresses, slower: tell the relay's operator, or check this machine's routes")
	}
	return passed("connected to %s", at)
}

func ports(mode config.TLSMode) string {
	if mode == config.ImplicitTLS {
		return "usually 465"
	}
	return "usually 587"
}

// dial connects to the first address that answers; dead are those that did not, less
// the ones of an address family this machine does not have.
func (e *exam) dial(ctx context.Context) (nc net.Conn, dead []string, err error) {
	r := e.cfg.Relay
	if r.TLS == config.NoTLS && !r.Insecure && !r.Loopback() {
		return nil, nil, fmt.Errorf("relay.tls is none and %s is not this machine", r.Host)
	}
	for i, addr := range e.addrs {
		nc, err = e.dialOne(ctx, addr, len(e.addrs)-i)
		if err == nil {
			return nc, dead, nil
		}
		if !errors.Is(err, syscall.ENETUNREACH) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			dead = append(dead, addr.String())
		}
	}
	return nil, nil, err
}

// dialOne gives addr its share of the time there is for it and those after it.
func (e *exam) dialOne(ctx context.Context, addr netip.Addr, left int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok && left > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	return e.cfg.Dial(ctx, "tcp", net.JoinHostPort(addr.String(), strconv.Itoa(e.cfg.Relay.Port)))
}

// newSession wraps a connection to the relay. Without TLS a login may leave only
// where the configuration allows it; a name such as localhost can point anywhere.
func (e *exam) newSession(nc net.Conn) *session {
	r := e.cfg.Relay
	tcp, ok := nc.RemoteAddr().(*net.TCPAddr)
	clear := r.TLS == config.NoTLS && (r.Insecure || r.Loopback() && ok && tcp.IP.IsLoopback())
	var secrets []string // the longer ones first: they contain the shorter ones
	for _, stream := range mail.Streams() {
		user := r.LoginUser(stream)
		secrets = append(secrets, plainMessage(user, r.Password.Reveal()), user)
	}
	return newSession(nc, clear, append(secrets, r.User, r.Password.Reveal())...)
}

// relayTrouble is the line of a step that failed.
func (e *exam) relayTrouble(err error) Line {
	text := clean(e.relay.hide(err.Error()))
	if timeOut(err) {
		text = "no answer within " + short(e.cfg.Timeout)
	}
	return failed("%s: %s", e.cfg.Relay.Addr(), text)
}

func (e *exam) relayGreeting(ctx context.Context) Line {
	defer e.relay.bounded(ctx)()
	r, err := e.relay.greeting()
	if err == nil {
		return passed("%s", r)
	}
	e.relay.end()
	l := e.relayTrouble(err)
	var refused *replyError
	switch {
	case errors.As(err, &refused) && refused.reply.code == 421:
		return l.to("the relay takes no connection now; wait, and see that all workers together keep within limits.connections")
	case errors.As(err, &refused):
		return l.to("the relay refuses this machine: ask its operator, quoting the reply")
	case e.cfg.Relay.TLS == config.StartTLS && (timeOut(err) || errors.Is(err, errNoSMTP)):
		return l.to("if the port speaks TLS from the start (465, 2465), set relay.tls: implicit; else set relay.port to one that greets (587, 2587)")
	}
	return l.to("check relay.host and relay.port: what answers there does not speak SMTP")
}

func (e *exam) relayStartTLS(ctx context.Context) Line {
	switch e.cfg.Relay.TLS {
	case config.ImplicitTLS:
		return noted("not used: relay.tls is implicit")
	case config.NoTLS:
		return noted("not used: relay.tls is none")
	}
	defer e.relay.bounded(ctx)()
	x, err := e.relay.ehlo(e.cfg.Hello)
	if err != nil {
		e.relay.end()
		return e.refusedEHLO(err)
	}
	if !x.has("STARTTLS") {
		e.relay.close()
		return failed("%s offers no STARTTLS; nothing is sent there in the clear", e.cfg.Relay.Addr()).
			to("set relay.port to the relay's port for STARTTLS (587), or relay.tls: implicit with port 465; if it should offer it, somebody between here and the relay takes it out")
	}
	if err := e.relay.startTLS(); err != nil {
		e.relay.end()
		return e.relayTrouble(err).to("try again; if it stays, set relay.tls: implicit with port 465, or ask the relay's operator")
	}
	return passed("offered and accepted")
}

func (e *exam) refusedEHLO(err error) Line {
	return e.relayTrouble(err).to("set relay.hello to this machine's full host name; %q was sent", e.cfg.Hello)
}

func (e *exam) tlsConfig() (*tls.Config, error) {
	pool, err := e.cfg.Relay.CertPool()
	if err != nil {
		return nil, fmt.Errorf("relay.ca_file: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, ServerName: e.cfg.Relay.Host, RootCAs: pool}, nil
}

func (e *exam) relayTLS(ctx context.Context) Line {
	r := e.cfg.Relay
	if r.TLS == config.NoTLS && r.Loopback() {
		return noted("none: the relay is on this machine")
	}
	if r.TLS == config.NoTLS {
		return warned("none: relay.insecure lets login and mail cross the network unencrypted").to("set relay.tls to starttls or implicit and take relay.insecure out")
	}
	cfg, err := e.tlsConfig()
	if err != nil {
		return e.relayTrouble(err).to("relay.ca_file must name a readable PEM file")
	}
	defer e.relay.bounded(ctx)()
	if err := e.relay.encrypt(ctx, cfg); err != nil {
		e.relay.end()
		return e.tlsTrouble(err)
	}
	s := e.relay.state
	return passed("%s, %s, certificate for %s from %s", tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite),
		r.Host, clean(s.PeerCertificates[0].Issuer.String()))
}

// tlsTrouble explains a failed handshake.
func (e *exam) tlsTrouble(err error) Line {
	var (
		unverified *tls.CertificateVerificationError
		host       x509.HostnameError
		invalid    x509.CertificateInvalidError
		unknown    x509.UnknownAuthorityError
		record     tls.RecordHeaderError
	)
	leaf := &x509.Certificate{}
	if errors.As(err, &unverified) && len(unverified.UnverifiedCertificates) > 0 {
		leaf = unverified.UnverifiedCertificates[0]
	}
	l := e.relayTrouble(err)
	switch {
	case errors.As(err, &host):
		return failed("the certificate is not for %s, but for %s", e.cfg.Relay.Host, clean(strings.Join(names(leaf), ", "))).
			to("set relay.host to a name that the certificate bears")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return e.outOfTime(leaf, err)
	case errors.As(err, &unknown):
		return failed("the certificate is signed by %s, which this machine does not trust", clean(leaf.Issuer.String())).
			to("set relay.ca_file to the certificate of that authority (PEM), or install the system's (Debian: apt install ca-certificates)")
	case errors.As(err, &record), errors.Is(err, errNoSMTP):
		return l.to("the port does not speak TLS from the start: set relay.tls: starttls, or relay.port to 465")
	case strings.Contains(err.Error(), "protocol version"):
		return l.to("the relay speaks only TLS older than 1.2, which is not safe: ask its operator for TLS 1.2 or later")
	}
	return l.to("try again; if it stays, check relay.port and relay.tls, or who is between here and the relay")
}

func names(c *x509.Certificate) []string {
	list := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		list = append(list, ip.String())
	}
	if list == nil {
		list = []string{"no host at all"}
	}
	return list
}

// outOfTime is a certificate that is not valid yet, or no longer, or one above it.
func (e *exam) outOfTime(leaf *x509.Certificate, err error) Line {
	now := e.cfg.now()
	switch {
	case now.After(leaf.NotAfter):
		return failed("the certificate expired on %s", leaf.NotAfter.UTC().Format(time.DateOnly)).
			to("the relay's operator must renew it; if that date is in the future, this machine's clock (%s) is wrong", now.UTC().Format(time.DateTime))
	case now.Before(leaf.NotBefore):
		return failed("the certificate is valid from %s only", leaf.NotBefore.UTC().Format(time.DateOnly)).
			to("set this machine's clock, which says %s", now.UTC().Format(time.DateTime))
	}
	return e.relayTrouble(err).to("a certificate of the chain has expired: the relay's operator must renew it, or this machine's authorities are out of date (Debian: apt install ca-certificates)")
}

const fewDays = 14

func (e *exam) relayCertificate(context.Context) Line {
	chains := e.relay.state.VerifiedChains
	if len(chains) == 0 {
		return noted("none: there is no TLS")
	}
	// The chain that holds longest counts; it ends with the first of its certificates.
	var until time.Time
	for _, chain := range chains {
		end := chain[0].NotAfter
		for _, c := range chain {
			if c.NotAfter.Before(end) {
				end = c.NotAfter
			}
		}
		if end.After(until) {
			until = end
		}
	}
	days := int(until.Sub(e.cfg.now()).Hours() / 24)
	why := fmt.Sprintf("valid until %s, %d days from now", until.UTC().Format(time.DateOnly), days)
	if days < fewDays {
		return warned("%s", why).to("the relay's operator must renew it by then, or all mail stops: ask")
	}
	return passed("%s", why)
}

func (e *exam) relayEHLO(ctx context.Context) Line {
	defer e.relay.bounded(ctx)()
	x, err := e.relay.ehlo(e.cfg.Hello)
	if err != nil {
		e.relay.end()
		return e.refusedEHLO(err)
	}
	e.hello = x
	offer := clean(strings.Join(slices.Sorted(maps.Keys(x)), ", "))
	if offer == "" {
		offer = "nothing"
	}
	if !x.has("8BITMIME") {
		return warned("the relay offers %s, but not 8BITMIME: mail has to be encoded to 7 bits", offer).
			to("nothing to do here; ask the relay's operator whether another port offers it")
	}
	return passed("the relay offers %s", offer)
}
