package doctor

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// zone is what the test's name server knows: by name, records without their name, such
// as "TXT v=spf1 -all". The record SERVFAIL makes the server fail for the name.
type zone map[string][]string

func (z zone) add(name string, records ...string) { z[name] = append(z[name], records...) }

// set replaces what begins with the same type.
func (z zone) set(name, kind string, values ...string) {
	z[name] = slices.DeleteFunc(slices.Clone(z[name]), func(r string) bool { return strings.HasPrefix(r, kind+" ") })
	for _, v := range values {
		z.add(name, kind+" "+v)
	}
}

// ServeDNS answers one query.
func (z zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	name := strings.ToLower(q.Question[0].Name)
	records, known := z[strings.TrimSuffix(name, ".")]
	if !known {
		m.Rcode = dns.RcodeNameError
	}
	for _, r := range records {
		kind, value, _ := strings.Cut(r, " ")
		switch {
		case kind == "SERVFAIL":
			m.Rcode = dns.RcodeServerFailure
		case dns.StringToType[kind] == q.Question[0].Qtype:
			rr, err := dns.NewRR(name + " 60 IN " + kind + " " + quoted(kind, value))
			if err != nil {
				panic(err) // the test's own record
			}
			m.Answer = append(m.Answer, rr)
		}
	}
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		m.Truncate(dns.MinMsgSize)
	}
	_ = w.WriteMsg(m)
}

func quoted(kind, value string) string {
	if kind != "TXT" {
		return value
	}
	_, text, _ := strings.Cut(Record{"x", "TXT", value}.String(), "TXT ")
	return text
}

// serveDNS starts a server for h on UDP and TCP and returns a resolver that asks it.
func serveDNS(t *testing.T, h dns.Handler) *net.Resolver {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{Listener: l, Handler: h}, {PacketConn: pc, Handler: h}} {
		up, down := make(chan struct{}), make(chan error, 1)
		s.NotifyStartedFunc = func() { close(up) }
		go func() { down <- s.ActivateAndServe() }()
		<-up
		t.Cleanup(func() {
			_ = s.Shutdown()
			if err := <-down; err != nil {
				t.Errorf("name server: %v", err)
			}
		})
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its certificate in PEM
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{key: newKey(t), file: filepath.Join(t.TempDir(), "ca.pem")}
	a.cert = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(1, 0, 0), KeyUsage: x509.KeyUsageCertSign}
	der := a.sign(t, a.cert, &a.key.PublicKey)
	if err := os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(t *testing.T, c *x509.Certificate, pub *ecdsa.PublicKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, pub, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// leaf returns a certificate for name, valid between so many days from now.
func (a *authority) leaf(t *testing.T, name string, from, until int) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	der := a.sign(t, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().AddDate(0, 0, from), NotAfter: time.Now().AddDate(0, 0, until).Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, &key.PublicKey)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// The names and addresses of the world in which all is well.
const (
	relayHost = "smtp.relay.example"
	relayAddr = "203.0.113.10"
	appKey    = "AppKey-1234"
	secretKey = "SecretKey-5678"
	nhnSPF    = "v=spf1 include:_spfblocka.toast.com ~all"
)

// lab is what tests share: an authority and a Redis.
type lab struct {
	ca    *authority
	redis *redistest.Server
	key   string // a DKIM key of 2048 bits
}

func newLab(t *testing.T) *lab {
	return &lab{ca: newAuthority(t), redis: redistest.Start(t), key: dkimRSA(t, 2048)}
}

// world is a set-up about to be examined. A test breaks something in it and starts it.
type world struct {
	t     *testing.T
	lab   *lab
	zone  zone
	relay relay.Config
	redis *redistest.Server
	wrap  func(Redis) Redis
	cfg   Config
	dials []string // addresses that cannot be connected to
	why   error    // what dialing them says; nil: EPERM
	peer  string   // where the relay is, if it is not the rehearsal relay
}

// healthy is a world without a fault.
func (l *lab) healthy(t *testing.T) *world {
	w := &world{t: t, lab: l, redis: l.redis, zone: zone{}, wrap: func(r Redis) Redis { return r }}
	w.zone.add(relayHost, "A "+relayAddr)
	w.zone.add("mail.example.com", "A 203.0.113.20")
	w.zone.add("_spfblocka.toast.com", "TXT v=spf1 ip4:203.0.113.0/24 ~all")
	w.zone.add("example.com", "TXT toast-domain-verification=abc123", "TXT "+nhnSPF, "MX 10 mail.example.com.")
	w.zone.add("toast._domainkey.example.com", "TXT v=DKIM1; k=rsa; p="+l.key)
	w.zone.add("_dmarc.example.com", "TXT v=DMARC1; p=none; rua=mailto:dmarc@example.com")
	w.relay = relay.Config{Certificate: l.ca.leaf(t, relayHost, -1, 90), Users: map[string]string{appKey: secretKey}}
	from, err := mail.ParseAddress("news@example.com")
	if err != nil {
		t.Fatal(err)
	}
	w.cfg = Config{
		Relay: config.Relay{Preset: config.NHN, Host: relayHost, Port: 587, TLS: config.StartTLS, CAFile: l.ca.file,
			User: appKey, Password: config.NewSecret(secretKey), Auth: config.AuthAuto},
		Hello: "here.example.com", From: from, Timeout: 20 * time.Second,
		timed: func(f func() error) (time.Duration, error) { return time.Millisecond, f() },
	}
	return w
}

// start brings the world up and returns what is to be examined, and the relay.
func (w *world) start() (Config, *relay.Server) {
	w.t.Helper()
	srv, err := relay.Start(w.relay)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			w.t.Errorf("relay: %v", err)
		}
	})
	if w.peer == "" {
		w.peer = srv.Addr()
	}
	c := w.cfg
	c.Resolver = serveDNS(w.t, w.zone)
	c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, _ := net.SplitHostPort(addr)
		if slices.Contains(w.dials, host) {
			return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", cmp.Or(w.why, os.ErrPermission))}
		}
		return new(net.Dialer).DialContext(ctx, network, w.peer)
	}
	c.RedisName = w.redis.URL()
	c.Redis = w.wrap(w.client())
	return c, srv
}

func (w *world) client() Redis {
	rdb := redis.NewClient(&redis.Options{Addr: w.redis.Addr(), ContextTimeoutEnabled: true, MaxRetries: -1})
	w.t.Cleanup(func() { _ = rdb.Close() })
	return client{rdb}
}

type client struct{ rdb *redis.Client }

func (c client) Ping(ctx context.Context) error              { return c.rdb.Ping(ctx).Err() }
func (c client) Info(ctx context.Context) (string, error)    { return c.rdb.Info(ctx).Result() }
func (c client) Time(ctx context.Context) (time.Time, error) { return c.rdb.Time(ctx).Result() }

// retold is a Redis whose INFO says something else, for what cannot be brought about.
type retold struct {
	Redis
	fields map[string]string
}

func (r retold) Info(ctx context.Context) (string, error) {
	text, err := r.Redis.Info(ctx)
	var b strings.Builder
	for line := range strings.Lines(text) {
		name, _, _ := strings.Cut(line, ":")
		if v, ok := r.fields[name]; ok {
			line = name + ":" + v + "\r\n"
		}
		b.WriteString(line)
	}
	return b.String(), err
}

// saying makes INFO say so.
func saying(pairs ...string) func(Redis) Redis {
	fields := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		fields[pairs[i]] = pairs[i+1]
	}
	return func(r Redis) Redis { return retold{r, fields} }
}

// loading is a Redis that is still reading its data.
type loading struct{ Redis }

func (loading) Ping(context.Context) error {
	return errors.New("LOADING Redis is loading the dataset in memory")
}

// ahead is a Redis with a wrong clock.
type ahead struct {
	Redis
	by time.Duration
}

func (a ahead) Time(ctx context.Context) (time.Time, error) {
	t, err := a.Redis.Time(ctx)
	return t.Add(a.by), err
}

// dkimRSA returns the p= of an RSA key of so many bits. Nobody has its other half: the
// modulus is just a number.
func dkimRSA(t *testing.T, bits int) string {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits-1)))
	if err != nil {
		t.Fatal(err)
	}
	n.SetBit(n.SetBit(n, bits-1, 1), 0, 1)
	der, err := x509.MarshalPKIXPublicKey(publicKey(n))
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

// find returns the line with the given id.
func find(t *testing.T, r Report, id string) Line {
	t.Helper()
	i := slices.IndexFunc(r.Checks, func(l Line) bool { return l.ID == id })
	if i < 0 {
		t.Fatalf("no line %s in %+v", id, r.Checks)
	}
	return r.Checks[i]
}
