package verdict

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"syscall"
	"testing"
	"time"
)

type permanentError struct{}

func (permanentError) Error() string   { return "no STARTTLS offered" }
func (permanentError) Temporary() bool { return false }

type errorCase struct {
	name string
	err  error
	kind string
}

func errorCases() []errorCase {
	op := func(err error) error { return fmt.Errorf("dial relay: %w", &net.OpError{Op: "dial", Err: err}) }
	return []errorCase{
		{"unknown authority", fmt.Errorf("tls: %w", x509.UnknownAuthorityError{}), errCertificate},
		{"wrong host", x509.HostnameError{Certificate: &x509.Certificate{}, Host: "x"}, errCertificate},
		{"expired", x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired}, errCertificate},
		{"no such name", op(&net.DNSError{Err: "no such host", IsNotFound: true}), errNoName},
		{"name service down", op(&net.DNSError{Err: "server misbehaving", IsTemporary: true}), errDNS},
		{"deadline", op(os.ErrDeadlineExceeded), errTimeout},
		{"context", fmt.Errorf("dial: %w", context.DeadlineExceeded), errTimeout},
		{"refused", op(os.NewSyscallError("connect", syscall.ECONNREFUSED)), errRefused},
		{"no route", op(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), errUnreachable},
		{"reset", op(os.NewSyscallError("read", syscall.ECONNRESET)), errReset},
		{"closed", io.EOF, errReset},
		{"cut", io.ErrUnexpectedEOF, errReset},
		{"no TLS there", tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, errTLS},
		{"settings", fmt.Errorf("ehlo: %w", permanentError{}), errPermanent},
		{"anything", errors.New("anything"), errOther},
	}
}

func TestErrorKind(t *testing.T) {
	t.Parallel()
	for _, c := range errorCases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := errorKind(c.err); got != c.kind {
				t.Errorf("%v: %s, want %s", c.err, got, c.kind)
			}
		})
	}
}

// Errors as the network and crypto/tls really make them.
func TestRealErrors(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(nil)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	d := &net.Dialer{Timeout: 10 * time.Second}

	_, err := tls.DialWithDialer(d, "tcp", addr, &tls.Config{ServerName: "relay.example"})
	if got := errorKind(err); got != errCertificate {
		t.Errorf("%v: %s, want %s", err, got, errCertificate)
	}
	_, err = tls.DialWithDialer(d, "tcp", addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS10, MinVersion: tls.VersionTLS10})
	if got := errorKind(err); got != errTLS {
		t.Errorf("%v: %s, want %s", err, got, errTLS)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = d.Dial("tcp", free)
	if got := errorKind(err); got != errRefused {
		t.Errorf("%v: %s, want %s", err, got, errRefused)
	}
}

// A dial that fails is never the recipient's or the mail's fault.
func TestErrorsReachNoRecipient(t *testing.T) {
	t.Parallel()
	r := defaultRules(t)
	for _, c := range errorCases() {
		v := r.Judge(Input{Stage: Connect, Err: c.err})
		if v.Reach != Relay && v.Reach != Connection || v.Action != Retry && v.Action != PauseConfig || v.Known != (c.kind != errOther) {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
}
