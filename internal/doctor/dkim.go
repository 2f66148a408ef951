package doctor

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

func (e *exam) senderDKIM(ctx context.Context) Line {
	selector := e.cfg.Selector
	if selector == "" {
		selector = e.facts.selector
	}
	if selector == "" {
		return skipped("the DKIM selector is not known").to("run sluice doctor --dkim-selector NAME (%s)", e.facts.where)
	}
	name := selector + "._domainkey." + e.domain
	list, err := e.cfg.Resolver.LookupTXT(ctx, fqdn(name))
	switch {
	case err != nil && !notFound(err):
		return dnsTrouble(name, err)
	case len(list) == 0:
		return failed("there is no DKIM key at %s: the relay's signatures cannot be verified", name).
			to("publish the record that %s shows and switch DKIM on there (if its selector is another, give --dkim-selector)", e.facts.console).
			publish(Record{name, "TXT", "v=DKIM1; k=rsa; p=KEY-FROM-THE-CONSOLE"})
	case len(list) > 1:
		return failed("there are %d TXT records at %s; receivers may take any", len(list), name).to("leave only the one that %s shows", e.facts.console)
	}
	key, err := parseDKIM(list[0])
	if err != nil {
		return failed("the DKIM key at %s: %v", name, err).to("publish the record again exactly as %s shows it, in one piece", e.facts.console)
	}
	return key.judge(name, e.facts.console)
}

// dkimKey is a DKIM key record (RFC 6376 section 3.6.1).
type dkimKey struct {
	kind    string // "rsa" or "ed25519"
	bits    int
	testing bool
}

// parseDKIM reads a key record.
func parseDKIM(txt string) (dkimKey, error) {
	list, first, ok := tags(txt)
	if !ok {
		return dkimKey{}, fmt.Errorf("it is no tag list: %s", clean(txt))
	}
	if v, has := list["v"]; has && (v != "DKIM1" || first != "v") {
		return dkimKey{}, fmt.Errorf("v=%s where v=DKIM1 has to stand first", clean(v))
	}
	k := dkimKey{kind: "rsa", testing: hasFlag(list["t"], "y")}
	if kind, has := list["k"]; has {
		k.kind = kind
	}
	if h, has := list["h"]; has && !hasFlag(h, "sha256") {
		return dkimKey{}, fmt.Errorf("h=%s leaves out sha256, which all signatures use", clean(h))
	}
	if s, has := list["s"]; has && !hasFlag(s, "*") && !hasFlag(s, "email") {
		return dkimKey{}, fmt.Errorf("s=%s: the key is not for mail", clean(s))
	}
	p, has := list["p"]
	switch {
	case !has:
		return dkimKey{}, errors.New("it has no p=, the key itself")
	case p == "":
		return dkimKey{}, errors.New("p= is empty: the key has been revoked")
	}
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(p), ""))
	if err != nil {
		return dkimKey{}, errors.New("p= is not Base64: something was lost or added when it was copied")
	}
	k.bits, err = k.size(data)
	return k, err
}

// hasFlag looks for one of the values that stand between colons.
func hasFlag(list, want string) bool {
	for f := range strings.SplitSeq(list, ":") {
		if strings.TrimSpace(f) == want {
			return true
		}
	}
	return false
}

func (k dkimKey) size(data []byte) (int, error) {
	switch k.kind {
	case "ed25519": // RFC 8463 section 4.2
		if len(data) != 32 {
			return 0, fmt.Errorf("an Ed25519 key has 32 octets, this one %d", len(data))
		}
		return 256, nil
	case "rsa":
	default:
		return 0, fmt.Errorf("k=%s: want rsa or ed25519", clean(k.kind))
	}
	if key, err := x509.ParsePKIXPublicKey(data); err == nil {
		if r, ok := key.(*rsa.PublicKey); ok {
			return r.N.BitLen(), nil
		}
		return 0, errors.New("k=rsa, but the key is of another kind")
	}
	// RFC 6376 has RSAPublicKey in its text and SubjectPublicKeyInfo in its examples.
	if key, err := x509.ParsePKCS1PublicKey(data); err == nil {
		return key.N.BitLen(), nil
	}
	return 0, errors.New("p= holds no RSA key: something was lost or added when it was copied")
}

func (k dkimKey) judge(name, console string) Line {
	switch {
	case k.kind == "ed25519" && !k.testing:
		return passed("%s has an Ed25519 key", name)
	case k.kind == "rsa" && k.bits < 1024:
		return failed("the DKIM key at %s has %d bits; receivers ignore less than 1024 (RFC 8301)", name, k.bits).
			to("have a key of 2048 bits made in %s and publish it", console)
	case k.testing:
		return warned("the DKIM key at %s is marked as a test (t=y): receivers may ignore its signatures", name).to("take t=y out of the record")
	case k.bits < 2048:
		return warned("the DKIM key at %s has %d bits; 2048 are advised (RFC 8301)", name, k.bits).
			to("have a key of 2048 bits made in %s, if it offers that", console)
	}
	return passed("%s has an RSA key of %d bits", name, k.bits)
}
