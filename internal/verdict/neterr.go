package verdict

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// Kinds of errors, as rule files name them.
const (
	errCertificate = "certificate" // the relay's certificate does not hold
	errTLS         = "tls"         // the TLS handshake or session failed otherwise
	errNoName      = "no_name"     // the relay's host name does not exist
	errDNS         = "dns"         // name service failed otherwise
	errTimeout     = "timeout"
	errRefused     = "refused"     // connection refused
	errUnreachable = "unreachable" // no route to the host or its network
	errReset       = "reset"       // the connection broke or was closed
	errPermanent   = "permanent"   // an error that says of itself that it is not Temporary
	errOther       = "other"
)

func errorKinds() []string {
	return []string{errCertificate, errTLS, errNoName, errDNS, errTimeout, errRefused, errUnreachable, errReset, errPermanent, errOther}
}

// errorKind sorts an error by its causes. The order matters: a handshake that
// timed out is a timeout, and net.OpError says of a refused connection that it is
// not temporary.
func errorKind(err error) string {
	var dns *net.DNSError
	var netErr net.Error
	var lasting interface{ Temporary() bool }
	switch {
	case isCertificate(err):
		return errCertificate
	case errors.As(err, &dns) && dns.IsNotFound:
		return errNoName
	case dns != nil:
		return errDNS
	case errors.As(err, &netErr) && netErr.Timeout(), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return errTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		return errRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return errUnreachable
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF),
		errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return errReset
	case isTLS(err):
		return errTLS
	case netErr == nil && errors.As(err, &lasting) && !lasting.Temporary():
		return errPermanent
	}
	return errOther
}

func isCertificate(err error) bool {
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var roots x509.SystemRootsError
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &host) ||
		errors.As(err, &invalid) || errors.As(err, &roots)
}

func isTLS(err error) bool {
	var record tls.RecordHeaderError
	var op *net.OpError // crypto/tls reports alerts of either side as one of these
	return errors.As(err, &record) || errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error")
}
