package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/sluicemail/sluice/internal/config"
)

// senderChecks are those of the From domain in DNS.
func (e *exam) senderChecks() []check {
	known, spf := []string{"sender.address"}, []string{"sender.spf"}
	list := []check{
		{id: "sender.address", run: e.senderAddress},
		{id: "sender.mx", needs: known, run: e.senderMX},
		{id: "sender.spf", needs: known, run: e.senderSPF},
		{id: "sender.spf_relay", needs: spf, run: e.senderSPFRelay},
		{id: "sender.spf_lookups", needs: spf, run: e.senderSPFLookups},
		{id: "sender.dkim", needs: known, run: e.senderDKIM},
		{id: "sender.dmarc", needs: known, run: e.senderDMARC},
		{id: "sender.alignment", needs: []string{"sender.dmarc"}, after: []string{"sender.spf_relay", "sender.spf_lookups", "sender.dkim"}, run: e.senderAlignment},
	}
	last := check{id: "sender.gmail_yahoo", needs: known, run: e.senderGmailYahoo,
		after: []string{"sender.spf_relay", "sender.spf_lookups", "sender.dkim", "sender.dmarc"}}
	if e.cfg.Relay.Preset == config.NHN {
		list = slices.Insert(list, 2, check{id: "sender.ownership", needs: known, run: e.senderOwnership})
		last.after = append(last.after, "sender.ownership")
	}
	return append(list, last)
}

func (e *exam) senderAddress(context.Context) Line {
	e.domain = e.cfg.From.Domain()
	if e.domain == "" {
		return warned("no sender is known: its domain was not examined").to("set sender.email, or run sluice doctor --from YOU@YOUR-DOMAIN").halted()
	}
	root, err := publicsuffix.EffectiveTLDPlusOne(e.domain)
	if err != nil {
		return failed("%s is a public suffix or no domain of the internet: nobody can register it to send from", e.domain).
			to("send from an address of a domain of your own")
	}
	if e.root = root; root == e.domain {
		return passed("mail is from %s", e.domain)
	}
	return passed("mail is from %s, whose registered domain is %s", e.domain, root)
}

func (e *exam) senderMX(ctx context.Context) Line {
	record := Record{e.domain, "MX", "10 mail." + e.root}
	const fix = "publish the host that takes mail for the domain, such as the record below; bounces and replies go there"
	list, err := e.cfg.Resolver.LookupMX(ctx, fqdn(e.domain))
	switch {
	case err != nil && !notFound(err):
		return dnsTrouble(e.domain, err)
	case len(list) == 1 && list[0].Host == ".": // RFC 7505
		return failed("%s says that it takes no mail (null MX): many receivers refuse mail from it, and bounces are lost", e.domain).to(fix).publish(record)
	case len(list) == 0:
		return e.senderHost(ctx, fix, record)
	}
	var hosts []string
	for _, mx := range list[:min(len(list), maxAddrs)] {
		hosts = append(hosts, clean(strings.TrimSuffix(mx.Host, ".")))
		if _, lerr := e.cfg.Resolver.LookupNetIP(ctx, "ip", fqdn(mx.Host)); lerr == nil {
			return passed("%s takes mail at %s", e.domain, hosts[len(hosts)-1])
		}
	}
	return failed("no MX of %s has an address: %s", e.domain, strings.Join(hosts, ", ")).
		to("publish an A record for %s, or an MX that has one", hosts[0])
}

// senderHost is a domain without MX: its own address counts (RFC 5321 section 5.1).
func (e *exam) senderHost(ctx context.Context, fix string, record Record) Line {
	addrs, err := e.cfg.Resolver.LookupNetIP(ctx, "ip", fqdn(e.domain))
	switch {
	case err == nil && len(addrs) > 0:
		return passed("%s has no MX; mail goes to its address %s", e.domain, addrs[0])
	case err != nil && !notFound(err):
		return dnsTrouble(e.domain, err)
	}
	return failed("%s has neither MX nor address: receivers refuse mail from a domain that cannot take any", e.domain).to("%s", fix).publish(record)
}

// ownership is what NHN Cloud looks for at the registered domain.
const ownership = "toast-domain-verification="

func (e *exam) senderOwnership(ctx context.Context) Line {
	list, err := e.cfg.Resolver.LookupTXT(ctx, fqdn(e.root))
	if err != nil && !notFound(err) {
		return dnsTrouble(e.root, err)
	}
	if slices.ContainsFunc(list, func(s string) bool { return strings.HasPrefix(s, ownership) && len(s) > len(ownership) }) {
		return passed("%s has a TXT record %s…", e.root, ownership)
	}
	return failed("%s has no TXT record %s…, by which NHN Cloud knows that it is yours", e.root, ownership).
		to("register %s in %s and publish the record with the token it shows", e.root, e.facts.console).
		publish(Record{e.root, "TXT", ownership + "TOKEN-FROM-THE-CONSOLE"})
}

func (e *exam) senderSPF(ctx context.Context) Line {
	texts, err := lookupSPF(ctx, e.cfg.Resolver, e.domain)
	if err != nil && !notFound(err) {
		return dnsTrouble(e.domain, err)
	}
	var records []spfRecord
	for _, text := range texts {
		r, err := parseSPF(text)
		if err != nil {
			return failed("SPF of %s: %v: the whole record counts as an error", e.domain, err).to("correct that term in the TXT record of %s: %s", e.domain, clean(text))
		}
		records = append(records, r)
	}
	record := Record{e.domain, "TXT", mended(e.facts.include, records...)}
	switch len(records) {
	case 0:
		return failed("%s has no SPF record: receivers cannot tell that the relay may send for it", e.domain).to("publish the record below").publish(record)
	case 1:
	default:
		return failed("%s has %d SPF records; two are as good as none (RFC 7208 section 4.5)", e.domain, len(records)).
			to("take them all out and publish the one below").publish(record)
	}
	e.spf = records[0]
	e.tree = walkSPF(ctx, e.cfg.Resolver, e.domain, e.spf)
	return e.judgeAll(record)
}

// judgeAll looks at the end of the record.
func (e *exam) judgeAll(record Record) Line {
	all, i := e.spf.all()
	_, redirect := e.spf.redirect()
	shown := clean(e.spf.text)
	const replace = "replace it with the record below"
	switch {
	case i < 0 && redirect < 0:
		return warned("SPF does not end in all, so that anybody else counts as neutral: %s", shown).to(replace).publish(record)
	case i >= 0 && i != len(e.spf.terms)-1:
		return failed("SPF has terms after all, which do nothing: %s", shown).to(replace).publish(record)
	case all.qualifier == '+' && i >= 0:
		return failed("SPF ends in %s: it lets the whole world send for %s", clean(all.text), e.domain).to(replace).publish(record)
	case all.qualifier == '?':
		return warned("SPF ends in ?all, which says nothing about others: %s", shown).to(replace).publish(record)
	case slices.ContainsFunc(e.spf.terms, func(t spfTerm) bool { return t.name == "ptr" }):
		return warned("SPF uses ptr, which receivers may ignore (RFC 7208 section 5.5): %s", shown).to(replace).publish(record)
	case all.qualifier == '-' && e.cfg.Relay.Preset == config.NHN:
		record.Value = strings.TrimSuffix(record.Value, "-all") + "~all"
		return warned("SPF ends in -all: a receiver may refuse forwarded mail before it looks at DKIM; NHN Cloud asks for ~all").to(replace).publish(record)
	}
	return passed("%s", shown)
}

func (e *exam) senderSPFRelay(context.Context) Line {
	include := e.facts.include
	switch {
	case include == "":
		return noted("what to include for %s is not known (relay.preset: custom)", e.cfg.Relay.Host).
			to("ask the relay's operator what SPF must include, and look for it in: %s", clean(e.spf.text))
	case e.tree.includes[include]:
		return passed("SPF includes %s", include)
	case e.tree.err != nil:
		return dnsTrouble("what SPF of "+e.domain+" includes", e.tree.err)
	}
	record := Record{e.domain, "TXT", mended(include, e.spf)}
	if e.facts.returnPath {
		return warned("SPF of %s does not include %s: that is right while the relay uses a return path of its own, and SPF then does not count for DMARC", e.domain, include).
			to("if your own domain is the return path (custom MAIL FROM), publish the record below there").publish(record)
	}
	return failed("SPF of %s does not include %s: mail through the relay fails SPF", e.domain, include).to("replace it with the record below").publish(record)
}

func (e *exam) senderSPFLookups(context.Context) Line {
	t := e.tree
	count := fmt.Sprintf("SPF of %s takes %d DNS look-ups of the %d allowed", e.domain, t.lookups, maxLookups)
	if len(t.costs) > 0 {
		count += ": " + strings.Join(t.costs, ", ")
	}
	switch {
	case len(t.broken) > 0:
		return failed("%s: the whole record counts as an error", strings.Join(t.broken, "; ")).to("take the term out of the record of %s, or correct its domain", e.domain)
	case t.lookups > maxLookups:
		return failed("%s; receivers give up and SPF fails", count).to("take out the includes of services you no longer use, or write ip4: and ip6: in their place")
	case t.voids > maxVoids:
		return failed("SPF of %s looks up %d names that do not exist (%d are allowed): SPF fails", e.domain, t.voids, maxVoids).to("take out the a, mx and include terms whose domains are gone")
	case t.err != nil:
		return dnsTrouble("what SPF of "+e.domain+" includes", t.err)
	case t.lookups >= maxLookups-1:
		return warned("%s; one more service and SPF fails", count).to("take out the includes of services you no longer use")
	}
	return passed("%s", count)
}
