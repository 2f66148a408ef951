package feedback

import (
	"time"

	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/suppress"
	"github.com/sluicemail/sluice/internal/verdict"
)

// finding is a report and what follows from it.
type finding struct {
	Report
	fate     queue.Fate // 0 = nothing is decided
	suppress bool
	reason   string // for the suppression list
	where    *index // the campaign, nil = not found
	person   person
}

// judge says what follows from a report. A bounce without a word counts against the
// campaign and not against the address.
func (im *Importer) judge(r Report) finding {
	f := finding{Report: r}
	switch r.Status {
	case Delivered:
		f.fate = queue.Delivered
	case Complained:
		f.fate, f.suppress, f.reason = queue.Complained, true, "called the mail spam"
	case Bounced:
		f.fate = queue.Bounced
		if !r.said() {
			break
		}
		r.Reply.Preset = im.p.Preset
		v := im.p.Rules.Judge(r.Reply)
		if !v.Known {
			im.sum.NoRule++
		}
		switch v.Action {
		case verdict.Suppress:
			f.suppress, f.reason = true, v.Why
		case verdict.PauseBlocked, verdict.PauseConfig:
			f.fate = queue.Blocked
		default:
			f.fate = queue.Failed
		}
	}
	return f
}

// entry is the suppression of a finding's address. A bad address gets no mail of any
// stream; who complained gets no more of the stream they complained about, and where
// that is not known, no advertising.
func (f *finding) entry(now time.Time) suppress.Entry {
	e := suppress.Entry{Address: f.Address, Source: suppress.ByFeedback, Reason: f.reason, Detail: f.reply()}
	if f.Time.Unix() > 0 && f.Time.Before(now) {
		e.Time = f.Time
	}
	if f.Status == Complained {
		e.Scope = suppress.Ad
		if f.where != nil {
			if scope, err := suppress.ParseScope(string(f.where.campaign.Stream)); err == nil {
				e.Scope = scope
			}
		}
	}
	return e
}
