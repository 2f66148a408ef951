package doctor

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// blockList is the zone that most receivers ask (docs.spamhaus.com, datasets, zones).
const blockList = "zen.spamhaus.org"

// relayBlockList looks the relay's addresses up. It is information only: they are
// the operator's business, and the ones mail leaves from may be others.
func (e *exam) relayBlockList(ctx context.Context) Line {
	var said []string
	listed, refused := false, false
	for _, addr := range e.addrs {
		if !public(addr) {
			said = append(said, addr.String()+" is not public")
			continue
		}
		answer, err := e.cfg.Resolver.LookupNetIP(ctx, "ip4", fqdn(blockName(addr)))
		switch {
		case notFound(err):
			said = append(said, addr.String()+" is not listed")
		case err != nil:
			said = append(said, addr.String()+" could not be looked up")
		default:
			what, is, no := meanings(answer)
			listed, refused = listed || is, refused || no
			said = append(said, addr.String()+" "+what)
		}
	}
	l := noted("%s: %s (mail may leave from other addresses of the relay)", blockList, strings.Join(said, "; "))
	switch {
	case listed:
		return l.to("tell the relay's operator, with https://check.spamhaus.org/ for the address: only they can have it taken off")
	case refused:
		return l.to("ask through a DNS server of your own with --resolver, or look at https://check.spamhaus.org/")
	}
	return l
}

func public(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate()
}

// blockName is the name under which addr is listed (RFC 5782 sections 2.1 and 2.4).
func blockName(addr netip.Addr) string {
	if addr.Is4() {
		b := addr.As4()
		return fmt.Sprintf("%d.%d.%d.%d.%s", b[3], b[2], b[1], b[0], blockList)
	}
	b := addr.As16()
	digits := []byte(hex.EncodeToString(b[:]))
	slices.Reverse(digits)
	return strings.Join(strings.Split(string(digits), ""), ".") + "." + blockList
}

// meanings explains the return codes.
func meanings(codes []netip.Addr) (text string, listed, refused bool) {
	var words []string
	for _, code := range codes {
		word := ""
		switch c := code.Unmap().String(); c {
		case "127.0.0.2":
			word = "SBL: a source of spam"
		case "127.0.0.3":
			word = "CSS: low-reputation or snowshoe mail"
		case "127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7":
			word = "XBL: an exploited machine"
		case "127.0.0.9":
			word = "DROP: a hijacked network"
		case "127.0.0.10", "127.0.0.11":
			word = "PBL: not meant to send mail directly"
		case "127.255.255.252":
			word, refused = "query refused: wrong name of the list", true
		case "127.255.255.254":
			word, refused = "query refused: asked through a public resolver", true
		case "127.255.255.255":
			word, refused = "query refused: too many queries", true
		default:
			word = "return code " + c
			if strings.HasPrefix(c, "127.255.255.") {
				word, refused = "query refused: "+c, true
			}
		}
		listed = listed || !strings.HasPrefix(word, "query refused")
		words = append(words, word)
	}
	slices.Sort(words)
	text = strings.Join(slices.Compact(words), ", ")
	if listed {
		return "is listed (" + text + ")", true, refused
	}
	return "not known, and not listed by this answer (" + text + ")", false, refused
}
