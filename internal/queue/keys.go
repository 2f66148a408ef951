package queue

import (
	"strconv"
	"strings"

	"github.com/sluicemail/sluice/internal/mail"
)

// keys builds every key this package owns. Three families, each in one cluster
// slot: a campaign's data, a stream's scheduling state, the members.
type keys struct{ prefix string }

func (k keys) names() string     { return k.prefix + ":names" }     // hash: campaign name → id
func (k keys) relays() string    { return k.prefix + ":relays" }    // hash: relay account → SIZE it offers
func (k keys) campaigns() string { return k.prefix + ":campaigns" } // zset: id by time created (ms)

func (k keys) campaign(id, part string) string {
	return k.prefix + ":{c:" + id + "}:" + part
}
func (k keys) meta(id string) string              { return k.campaign(id, "meta") } // hash
func (k keys) program(id string) string           { return k.campaign(id, "prog") } // string: the pinned template
func (k keys) totals(id string) string            { return k.campaign(id, "tot") }  // hash: outcome → count, of settled blocks
func (k keys) sums(id string) string              { return k.campaign(id, "sum") }  // hash: block → its share of the totals
func (k keys) live(id string) string              { return k.campaign(id, "live") } // set: blocks with an outcome log
func (k keys) bad(id string) string               { return k.campaign(id, "bad") }  // hash: block that was set aside → why
func (k keys) recipients(id string, n int) string { return k.campaign(id, "r:"+strconv.Itoa(n)) }
func (k keys) refused(id string, n int) string    { return k.campaign(id, "x:"+strconv.Itoa(n)) } // refused at the door
func (k keys) state(id string, n int) string      { return k.campaign(id, "s:"+strconv.Itoa(n)) }
func (k keys) log(id string, n int) string        { return k.campaign(id, "o:"+strconv.Itoa(n)) }

func (k keys) stream(s mail.Stream, part string) string {
	return k.prefix + ":{s:" + string(s) + "}:" + part
}
func (k keys) ready(s mail.Stream) string   { return k.stream(s, "ready") }   // zset: block by due time (ms)
func (k keys) ring(s mail.Stream) string    { return k.stream(s, "ring") }    // list: campaigns with untouched blocks, in turn
func (k keys) next(s mail.Stream) string    { return k.stream(s, "next") }    // hash: campaign → first untouched block
func (k keys) total(s mail.Stream) string   { return k.stream(s, "total") }   // hash: campaign → number of blocks
func (k keys) later(s mail.Stream) string   { return k.stream(s, "later") }   // zset: campaign by start (ms)
func (k keys) opening(s mail.Stream) string { return k.stream(s, "opening") } // set: campaigns between storing and opening
func (k keys) queued(s mail.Stream) string  { return k.stream(s, "queued") }  // hash: block → "seq ms" of its job
func (k keys) seq(s mail.Stream) string     { return k.stream(s, "seq") }     // counter of jobs
func (k keys) claims(s mail.Stream) string  { return k.stream(s, "claims") }  // hash: block → "epoch nonce"
func (k keys) touched(s mail.Stream) string { return k.stream(s, "touched") } // set: claimed blocks that evidence came for from outside
func (k keys) deaths(s mail.Stream) string  { return k.stream(s, "deaths") }  // hash: block → "KIND N INDEX [turn]", see deaths
func (k keys) leader(s mail.Stream) string  { return k.stream(s, "leader") }  // string: till when (ms) somebody reconciles
func (k keys) epoch(s mail.Stream) string   { return k.stream(s, "epoch") }   // the highest epoch of a claim
func (k keys) held(s mail.Stream) string    { return k.stream(s, "held") }    // hash: campaign, "*", "*LOGIN" or "@GROUP" → hold as JSON; "#" → their version
func (k keys) parked(s mail.Stream) string  { return k.stream(s, "parked") }  // zset, scores 0: blocks, and "CAMPAIGN/", that were due while held back
func (k keys) canary(s mail.Stream) string  { return k.stream(s, "canary") }  // hash: campaign → "recipients blocks wait(ms) [passes at (ms)]"

// window holds the last results of what a hold's field names; it lapses by itself.
func (k keys) window(s mail.Stream, field string) string { return k.stream(s, "results:"+field) }

func (k keys) member(part string) string { return k.prefix + ":{w}:" + part }
func (k keys) beats() string             { return k.member("beat") }    // hash: nonce → heartbeat counter
func (k keys) gens() string              { return k.member("gen") }     // hash: nonce → generation of its record
func (k keys) run() string               { return k.member("run") }     // string: the run_id of the Redis that somebody joined last
func (k keys) stamp() string             { return k.member("stamp") }   // string: Redis's clock (ms) at the last heartbeat of anybody
func (k keys) gap() string               { return k.member("gap") }     // string: "from to" (ms), the last time without a heartbeat
func (k keys) rewound() string           { return k.member("rewound") } // string: "stamp seen" (ms), while older data is not accepted
func (k keys) seen() string              { return k.member("seen") }    // hash: nonce → the holds it obeys and its logins, see confirmHolds
func (k keys) record(nonce string, gen int64) string {
	return k.records(nonce) + strconv.FormatInt(gen, 10)
}
func (k keys) records(nonce string) string { return k.member("rec:" + nonce + ":") }

// presence is a channel: who listens on it has not been killed.
func (k keys) presence(nonce string) string { return k.prefix + ":alive:" + nonce }
func (k keys) dead(nonce string) string     { return k.member("dead:" + nonce) }

// asynqQueue is the asynq queue of a stream; asynq puts it into braces itself.
func (k keys) asynqQueue(s mail.Stream) string { return k.prefix + "-" + string(s) }

// blockID names a block within its stream.
func blockID(campaign string, n int) string { return campaign + "/" + strconv.Itoa(n) }

func parseBlockID(s string) (campaign string, n int, ok bool) {
	campaign, num, ok := strings.Cut(s, "/")
	if !ok {
		return "", 0, false
	}
	n, err := strconv.Atoi(num)
	return campaign, n, err == nil && n >= 0 && campaign != ""
}
