package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/smtp"
	"github.com/sluicemail/sluice/internal/verdict"
	"github.com/sluicemail/sluice/throttle"
)

// judge asks the rules what a refusal means.
func (s *Stream) judge(r smtp.Result) verdict.Verdict {
	return s.Verdicts.Judge(verdict.Input{
		Stage: verdict.Stage(r.Stage), Code: r.Reply.Code, Enhanced: r.Reply.Enhanced, Text: r.Reply.Text, Err: r.Err, Preset: s.Preset,
	})
}

// judgeDial asks the rules what a dial that came to nothing means.
func (s *Stream) judgeDial(err error) verdict.Verdict {
	in := verdict.Input{Stage: verdict.Connect, Err: err, Preset: s.Preset}
	var e *smtp.Error
	if errors.As(err, &e) {
		in.Code, in.Enhanced, in.Text = e.Reply.Code, e.Reply.Enhanced, e.Reply.Text
		switch e.Stage {
		case smtp.StageEHLO, smtp.StageStartTLS, smtp.StageTLS:
			in.Stage = verdict.EHLO
		case smtp.StageAuth:
			in.Stage = verdict.Auth
		}
	}
	return s.Verdicts.Judge(in)
}

// hear passes on what became of a message: to the budget, which learns the relay's
// limits from it, to the counters that hold a campaign which goes wrong, to the
// suppression list. It is called from the connections and must not block.
func (l *lane) hear(h heard) {
	switch h.result.Kind {
	case smtp.Accepted:
		l.budget.Note(throttle.Event{Class: h.class, Kind: throttle.Accepted, Took: h.result.Took})
	case smtp.Refused:
		l.budget.Note(throttle.Event{Class: h.class, Kind: pace(h), Took: h.result.Took})
		l.refused(h)
	case smtp.Unsent:
		if kind := pace(h); kind != throttle.Accepted {
			l.budget.Note(throttle.Event{Class: h.class, Kind: kind})
		}
		if pauses(h.verdict) {
			l.refused(h)
		}
	case smtp.Unknown:
		if errors.Is(h.result.Err, smtp.ErrClosed) { // we hung up on it: told to leave at once
			l.log.Warn("left without a reply to this mail: it is unknown whether it arrived", "campaign", h.campaign.Name, "line", h.line)
		}
	}
	if kind, counts := tallied(h); counts {
		group := h.class.Group
		if kind == queue.ResultBlocked && h.verdict.Reach != verdict.Destination {
			group = "" // said of the mail or its sender: the campaign is what to stop
		}
		said := ""
		if kind != queue.ResultAccepted { // nobody asks what was said then, and most are
			said = replyOf(h.result).String()
		}
		l.member.Result(h.campaign, group, kind, said)
	}
}

// pace is what a refusal says about how fast we are. Before RCPT the relay knows of no
// destination, so what it says there is said to the account.
func pace(h heard) throttle.Kind {
	v, far := h.verdict, h.verdict.Reach == verdict.Destination
	switch {
	case v.Action != verdict.ThrottleConnection && !(v.Action == verdict.RetrySlow && far):
		return throttle.Accepted
	case far && h.result.Stage != smtp.StageMail:
		return throttle.ThrottledGroup
	}
	return throttle.Throttled
}

// tallied is how a result counts for the breakers, if it does.
func tallied(h heard) (queue.Result, bool) {
	switch h.result.Kind {
	case smtp.Accepted:
		return queue.ResultAccepted, true
	case smtp.Unknown:
		return queue.ResultUnknown, true
	case smtp.Unsent:
		return queue.ResultBlocked, pauses(h.verdict) && !notAboutThisMail(h.result.Stage, h.verdict)
	case smtp.Refused:
		switch {
		case notAboutThisMail(h.result.Stage, h.verdict):
			return 0, false
		case h.verdict.Action == verdict.Suppress:
			return queue.ResultBounced, true
		case pauses(h.verdict):
			return queue.ResultBlocked, true
		}
		return queue.ResultOther, true
	}
	return 0, false
}

// refused does what a refusal asks for beyond its recipient.
func (l *lane) refused(h heard) {
	v, reply := h.verdict, replyOf(h.result)
	switch {
	case v.Action == verdict.Suppress:
		l.suppress(h)
	case !pauses(v) || !notAboutThisMail(h.result.Stage, v):
		// About this recipient alone; whether it happens too often, the breakers count.
	case v.Reach == verdict.Login || v.Reach == verdict.Relay || v.Reach == verdict.Connection:
		l.halt((&smtp.Error{Stage: h.result.Stage, Reply: h.result.Reply}).Error(), v) // masked
	default:
		l.feed.stopCampaign(h.campaign.ID)
		why := fmt.Sprintf("the relay refuses its mail at %s: %s", h.result.Stage, v.Why)
		c := h.campaign
		l.errands.ask("hold "+c.ID, func(ctx context.Context) error {
			if err := l.conf.Queue.HoldCampaign(ctx, c, why, reply.String()); err != nil {
				return err
			}
			l.log.Error("campaign held", "campaign", c.Name, "why", why) // once, however many connections heard it
			return nil
		})
	}
}

// pauses reports whether a verdict says that going on makes it worse.
func pauses(v verdict.Verdict) bool {
	return v.Action == verdict.PauseConfig || v.Action == verdict.PauseBlocked
}
