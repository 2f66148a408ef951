package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sluicemail/sluice/internal/config"
)

// dmarcPolicy is a DMARC record (RFC 7489 section 6.3) as it applies to the From domain.
type dmarcPolicy struct {
	at         string // the domain whose record it is: the From domain's or the registered one
	policy     string // none, quarantine, reject
	strictSPF  bool   // aspf=s
	strictDKIM bool   // adkim=s
	reports    bool   // rua is set
}

// findDMARC looks at the domain and then at the registered one (RFC 7489 section 6.6.3).
func (e *exam) findDMARC(ctx context.Context) (at string, records []string, err error) {
	for _, at = range slices.Compact([]string{e.domain, e.root}) {
		all, lerr := e.cfg.Resolver.LookupTXT(ctx, fqdn("_dmarc."+at))
		if lerr != nil && !notFound(lerr) {
			return at, nil, lerr
		}
		records = slices.DeleteFunc(all, func(s string) bool { return !isDMARC(s) })
		if len(records) > 0 {
			return at, records, nil
		}
	}
	return at, nil, nil
}

func isDMARC(txt string) bool {
	name, value, ok := strings.Cut(txt, "=")
	value, _, _ = strings.Cut(value, ";")
	return ok && strings.TrimSpace(name) == "v" && strings.TrimSpace(value) == "DMARC1"
}

func (e *exam) senderDMARC(ctx context.Context) Line {
	at, records, err := e.findDMARC(ctx)
	if err != nil {
		return dnsTrouble("_dmarc."+at, err)
	}
	record := Record{"_dmarc." + e.root, "TXT", "v=DMARC1; p=none; rua=mailto:dmarc@" + e.root}
	switch len(records) {
	case 0:
		return failed("%s has no DMARC record: Gmail and Yahoo refuse bulk mail from it", e.domain).
			to("publish the record below, with an address of yours for the reports").publish(record)
	case 1:
	default:
		return failed("_dmarc.%s has %d DMARC records; two are as good as none (RFC 7489 section 6.6.3)", at, len(records)).
			to("leave one of them: %s", clean(strings.Join(records, " | ")))
	}
	if e.policy, err = parseDMARC(records[0], at != e.domain); err != nil {
		return failed("DMARC at _dmarc.%s: %v", at, err).to("correct the record, such as below").publish(Record{"_dmarc." + at, "TXT", record.Value})
	}
	e.policy.at = at
	if !e.policy.reports {
		return warned("DMARC at _dmarc.%s is p=%s, but without rua: nobody tells you who sends in your name, or that your own mail fails", at, e.policy.policy).
			to("add rua=mailto:ADDRESS to the record: %s", clean(records[0]))
	}
	return passed("DMARC at _dmarc.%s: p=%s", at, e.policy.policy)
}

// parseDMARC reads a record; inherited says that it is the registered domain's, of which
// sp applies to domains below.
func parseDMARC(txt string, inherited bool) (dmarcPolicy, error) {
	list, first, ok := tags(txt)
	if !ok || first != "v" {
		return dmarcPolicy{}, fmt.Errorf("it is no tag list that begins with v=DMARC1: %s", clean(txt))
	}
	p := dmarcPolicy{policy: strings.ToLower(list["p"]), reports: list["rua"] != "",
		strictSPF: strings.EqualFold(list["aspf"], "s"), strictDKIM: strings.EqualFold(list["adkim"], "s")}
	if sp, has := list["sp"]; has && inherited {
		p.policy = strings.ToLower(sp)
	}
	switch p.policy {
	case "none", "quarantine", "reject":
		return p, nil
	case "":
		return dmarcPolicy{}, errors.New("it has no p=, the policy")
	}
	return dmarcPolicy{}, fmt.Errorf("policy %q: want none, quarantine or reject", clean(p.policy))
}

// senderAlignment says which of SPF and DKIM can make DMARC pass. Sluice's envelope
// sender is the From address, so SPF is aligned where the relay keeps it.
func (e *exam) senderAlignment(context.Context) Line {
	spfLines := []string{"sender.spf", "sender.spf_relay", "sender.spf_lookups"}
	spf, dkim := e.sound(spfLines...) && !e.facts.returnPath, e.sound("sender.dkim")
	noSPF, noDKIM := e.facts.returnPath || e.failed(spfLines...) != nil, e.failed("sender.dkim") != nil
	how := fmt.Sprintf("the From domain is %s and the envelope's is the same", e.domain)
	if e.facts.returnPath {
		how = fmt.Sprintf("the From domain is %s, and the relay puts a return path of its own into the envelope", e.domain)
	}
	const mend = "mend the sender.spf lines or sender.dkim"
	switch {
	case spf && dkim:
		return passed("%s: SPF is aligned, and DKIM is if the relay signs with %s; DMARC passes with either", how, e.signer())
	case dkim:
		return passed("%s: DKIM alone is sure to make DMARC pass, if the relay signs with %s", how, e.signer())
	case spf && noDKIM:
		return warned("%s: DMARC rests on SPF alone, which forwarding breaks", how).to("mend sender.dkim")
	case spf:
		return noted("%s: SPF is aligned; DKIM is not known, and without it forwarded mail fails DMARC", how).to("see sender.dkim")
	case !noSPF || !noDKIM:
		return noted("%s: whether SPF or DKIM passes for it could not be told", how).to("see the sender.spf lines and sender.dkim")
	case e.policy.policy == "none":
		return warned("%s: neither SPF nor DKIM passes for it; p=none lets the mail through, to the spam folder as a rule", how).to(mend)
	}
	return failed("%s: neither SPF nor DKIM passes for it, and p=%s tells receivers not to deliver such mail", how, e.policy.policy).
		to(mend + "; until then, p=none")
}

// signer is what a DKIM signature has to name to be aligned (RFC 7489 section 3.1.1).
func (e *exam) signer() string {
	if e.policy.strictDKIM || e.root == e.domain {
		return "d=" + e.domain
	}
	return "d=" + e.domain + " or d=" + e.root
}

// senderGmailYahoo sums up what the two strictest receivers ask for
// (support.google.com/a/answer/81126, senders.yahooinc.com).
func (e *exam) senderGmailYahoo(context.Context) Line {
	need := []string{"sender.spf", "sender.spf_lookups", "sender.dkim", "sender.dmarc"}
	nhn := e.cfg.Relay.Preset == config.NHN
	if nhn {
		need = append([]string{"sender.ownership", "sender.spf_relay"}, need...)
	}
	const rest = "They also want one-click unsubscribe in bulk mail, opt-outs honoured within two days, and spam complaints below 0.3 %"
	missing := e.failed(need...)
	switch {
	case missing != nil && nhn:
		return failed("NHN Cloud will not send to gmail.com and yahoo.com (status SST7): not in order is %s", strings.Join(missing, ", ")).
			to("mend those lines, then have the domain verified for ownership, SPF, DKIM and DMARC, and DKIM switched on, in %s", e.facts.console)
	case missing != nil:
		return warned("gmail.com and yahoo.com refuse bulk mail without SPF, DKIM and DMARC: not in order is %s", strings.Join(missing, ", ")).
			to("mend those lines. %s", rest)
	case !e.sound(need...):
		return noted("what gmail.com and yahoo.com want could not be examined in full").to("see the lines above. %s", rest)
	case nhn:
		return passed("ownership, SPF, DKIM and DMARC are in DNS, without which NHN Cloud ends mail to gmail.com and yahoo.com as SST7; all four must also read verified, and DKIM switched on, in its console. %s", rest)
	}
	return passed("SPF, DKIM and DMARC are in DNS. %s", rest)
}
