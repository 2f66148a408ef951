package smtp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// A relay that asks for a new handshake in mid-session is told no, in one alert and
// nothing after it. The connection is over: whose dot is out is unknown, whose envelope
// went with it is unsent, and no further message is taken for it.
//
// RFC 5246 sections 7.2.2 and 7.4.1.1 leave it to the relay whether the session goes on
// after the alert. crypto/tls makes an error of its own no, for Read once and for Write
// always, and our reader ends at the first error: the reply to the dot is not waited for.
func TestRenegotiationRefused(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert := ca.server(relayName, time.Now().Add(time.Hour))
	all, _ := messages(3)
	host, port := listen(t, func(p *peer) {
		tap, err := p.secureTapped(cert)
		if err != nil {
			p.t.Error(err)
			return
		}
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(envOK)
		p.expect(contentOf(1) + ".\r\n" + envelopeOf(2))
		if err := tap.helloRequest(); err != nil {
			p.t.Error(err)
		}
		typ, alert, err := tap.next()
		// The alert is looked into because a HelloRequest that was badly sealed would be
		// answered with one as well: {2, 20}, bad_record_mac.
		if want := []byte{alertWarning, noRenegotiation}; err != nil || typ != recordAlert || !bytes.Equal(alert, want) {
			p.t.Errorf("the answer to a HelloRequest is a record of type %d with %s, %v; want type %d with % x",
				typ, clip(fmt.Sprintf("% x", alert)), err, recordAlert, want)
			return
		}
		p.Conn = tap.Conn // records from here on, not what is in them
		p.quiet()
	})
	cfg := secureConfig(host, port, Implicit, ca)
	cfg.User, cfg.Auth = "", AuthNone
	q := newQueue(all...)
	err := dial(t, cfg).Serve(t.Context(), q, Limits{})
	var e *Error
	if !errors.As(err, &e) || !e.Temporary() || !strings.Contains(err.Error(), "no renegotiation") {
		t.Errorf("Serve: %v, want a temporary error about renegotiation", err)
	}
	all[0].want(t, Unknown, StageEOD, 0)
	all[1].want(t, Unsent, StageMail, 0)
	if all[2].begun > 0 || !q.Waiting() {
		t.Error("a message was taken for the connection after it")
	}
}

// The names of RFC 5246 sections 6.2.1 and 7.2 for what this file looks at.
const (
	recordChangeCipherSpec = 20
	recordAlert            = 21
	recordHandshake        = 22
	alertWarning           = 1
	noRenegotiation        = 100 // a warning always, says section 7.2.2
)

// recordHeader is a record's type, version and length.
const recordHeader = 1 + 2 + 2

// half is one direction of a TLS 1.2 connection, as it shows to who has no key.
type half struct {
	part     []byte // of a record that has not gone by whole
	random   []byte // from the hello
	ciphered bool   // ChangeCipherSpec has gone by
	seq      uint64 // of the next record
	keys     sealing
}

// see looks at what goes by.
func (h *half) see(b []byte) {
	h.part = append(h.part, b...)
	for len(h.part) >= recordHeader {
		end := recordHeader + int(binary.BigEndian.Uint16(h.part[3:]))
		if len(h.part) < end {
			return
		}
		h.record(h.part[:end])
		h.part = h.part[end:]
	}
}

// record notes one record. Sequence numbers begin anew behind ChangeCipherSpec (RFC 5246
// section 6.1), so those before it need no count.
func (h *half) record(r []byte) {
	const hello = recordHeader + 1 + 3 + 2 // handshake type, length, version (sections 7.4 and 7.4.1.2)
	switch {
	case h.ciphered:
		h.seq++
	case r[0] == recordChangeCipherSpec:
		h.ciphered = true
	case r[0] == recordHandshake && h.random == nil:
		h.random = bytes.Clone(r[hello : hello+32])
	}
}

// tapped lies under the relay's TLS and follows both directions, because crypto/tls can
// answer a HelloRequest and has no way to send one.
type tapped struct {
	net.Conn
	in, out half // from the client, to it
}

func (c *tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.in.see(b[:n])
	return n, err
}

func (c *tapped) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.out.see(b[:n])
	return n, err
}

// secureTapped is secure with TLS 1.2, in which renegotiation was possible last, and with
// the one cipher suite that this file can speak.
func (p *peer) secureTapped(cfg *tls.Config) (*tapped, error) {
	var log strings.Builder
	cfg = cfg.Clone()
	cfg.MaxVersion = tls.VersionTLS12
	cfg.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	cfg.KeyLogWriter = &log
	tap := &tapped{Conn: p.Conn}
	p.Conn = tap
	if err := p.secure(cfg); err != nil {
		return nil, err
	}
	var client, master []byte
	if _, err := fmt.Sscanf(log.String(), "CLIENT_RANDOM %x %x", &client, &master); err != nil {
		return nil, fmt.Errorf("key log: %w", err)
	}
	// RFC 5246 section 6.3: the server's random first, unlike in the master secret's seed;
	// then the client's half of each pair first. An AEAD has no MAC keys, and of the IVs
	// only the 4 octets that RFC 5288 section 3 calls the salt.
	block := keyBlock(master, slices.Concat(tap.out.random, client))
	var ierr, oerr error
	tap.in.keys, ierr = newSealing(block[:16], block[32:36])
	tap.out.keys, oerr = newSealing(block[16:32], block[36:40])
	return tap, errors.Join(ierr, oerr)
}

// helloRequest asks the client to renegotiate: a handshake message of type 0 and length
// 0 (RFC 5246 section 7.4.1.1). The relay's own TLS does not learn of it and would give
// its number to the next record, so nothing can be said through that any more.
func (c *tapped) helloRequest() error {
	_, err := c.Conn.Write(c.out.keys.seal(c.out.seq, recordHandshake, []byte{0, 0, 0, 0}))
	return err
}

// next reads one record that the client's TLS sends, past the relay's, and opens it.
func (c *tapped) next() (typ byte, content []byte, err error) {
	header := make([]byte, recordHeader)
	if _, err := io.ReadFull(c.Conn, header); err != nil {
		return 0, nil, err
	}
	sealed := make([]byte, binary.BigEndian.Uint16(header[3:]))
	if _, err := io.ReadFull(c.Conn, sealed); err != nil {
		return header[0], nil, err
	}
	content, err = c.in.keys.open(c.in.seq, header[0], sealed)
	return header[0], content, err
}

// sealing is the protection of records in one direction (RFC 5246 section 6.2.3.3, RFC
// 5288 section 3).
type sealing struct {
	cipher.AEAD
	salt []byte
}

func newSealing(key, salt []byte) (sealing, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return sealing{}, err
	}
	aead, err := cipher.NewGCM(b)
	return sealing{aead, salt}, err
}

const explicitNonce = 8 // octets that stand before the ciphertext

// seal makes a whole record. The explicit nonce is free as long as it is not used twice;
// the sequence number is not, and crypto/tls uses it for nonces too.
func (s sealing) seal(seq uint64, typ byte, content []byte) []byte {
	r := append([]byte{typ}, version12(explicitNonce+len(content)+s.Overhead())...)
	nonce := binary.BigEndian.AppendUint64(nil, seq)
	r = append(r, nonce...)
	return s.Seal(r, slices.Concat(s.salt, nonce), content, additional(seq, typ, len(content)))
}

// open is the reverse, for what follows a record's header.
func (s sealing) open(seq uint64, typ byte, sealed []byte) ([]byte, error) {
	length := len(sealed) - explicitNonce - s.Overhead()
	if length < 0 {
		return nil, errors.New("the record is too short to be sealed")
	}
	nonce := slices.Concat(s.salt, sealed[:explicitNonce])
	return s.Open(nil, nonce, sealed[explicitNonce:], additional(seq, typ, length))
}

// additional is the additional_data of RFC 5246 section 6.2.3.3: with it a record counts
// at one place and as one type only. The length is that of the content.
func additional(seq uint64, typ byte, length int) []byte {
	return append(append(binary.BigEndian.AppendUint64(nil, seq), typ), version12(length)...)
}

// version12 is TLS 1.2's number on the wire, and a length.
func version12(length int) []byte { return []byte{3, 3, byte(length >> 8), byte(length)} }

// keyBlock is RFC 5246 section 6.3's, made by the PRF of section 5 with SHA-256: as much
// as one cipher suite with 16 octets of key and 4 of salt for each direction needs.
func keyBlock(master, randoms []byte) (block []byte) {
	seed := append([]byte("key expansion"), randoms...)
	mac := func(b []byte) []byte {
		h := hmac.New(sha256.New, master)
		_, _ = h.Write(b) // never fails, says hash.Hash
		return h.Sum(nil)
	}
	for a := seed; len(block) < 2*(16+4); {
		a = mac(a)
		block = append(block, mac(slices.Concat(a, seed))...)
	}
	return block
}
