package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/mail"
)

// firstLogin logs in on the connection that the checks so far have brought up.
func (e *exam) firstLogin(ctx context.Context) Line {
	if err := e.cfg.Relay.LoginComplete(); err != nil {
		return failed("%v", err).to("%s", e.facts.login)
	}
	if e.noLogin() {
		return noted("no login: relay.auth is none or relay.user is empty")
	}
	defer e.relay.bounded(ctx)()
	return e.loggedIn(e.relay, e.hello, mail.Auth)
}

func (e *exam) noLogin() bool { return e.cfg.Relay.Auth == config.AuthNone || e.cfg.Relay.User == "" }

// loginOf returns the check of another stream's login. Where all streams have the
// same, it was made already.
func (e *exam) loginOf(stream mail.Stream) func(context.Context) Line {
	return func(ctx context.Context) Line {
		r := e.cfg.Relay
		switch {
		case e.noLogin():
			return noted("no login: relay.auth is none or relay.user is empty")
		case r.LoginUser(stream) == r.LoginUser(mail.Auth):
			return passed("the same login as stream auth")
		}
		s, x, err := e.connect(ctx)
		if err != nil {
			return e.relayTrouble(err).to("the first connection worked: the relay may limit how many there are; see limits.connections")
		}
		defer s.close()
		defer s.bounded(ctx)()
		return e.loggedIn(s, x, stream)
	}
}

// connect makes another connection, up to where the login comes.
func (e *exam) connect(ctx context.Context) (*session, extensions, error) {
	nc, _, err := e.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	s := e.newSession(nc)
	defer s.bounded(ctx)()
	x, err := e.prepare(ctx, s)
	if err != nil {
		s.end()
		return nil, nil, err
	}
	return s, x, nil
}

// prepare greets and encrypts.
func (e *exam) prepare(ctx context.Context, s *session) (extensions, error) {
	cfg, err := e.tlsConfig()
	if err != nil {
		return nil, err
	}
	mode := e.cfg.Relay.TLS
	if mode == config.ImplicitTLS {
		if err := s.encrypt(ctx, cfg); err != nil {
			return nil, err
		}
	}
	if _, err := s.greeting(); err != nil {
		return nil, err
	}
	if mode == config.StartTLS {
		if err := e.upgrade(ctx, s, cfg); err != nil {
			return nil, err
		}
	}
	return s.ehlo(e.cfg.Hello)
}

func (e *exam) upgrade(ctx context.Context, s *session, cfg *tls.Config) error {
	if _, err := s.ehlo(e.cfg.Hello); err != nil {
		return err
	}
	if err := s.startTLS(); err != nil {
		return err
	}
	return s.encrypt(ctx, cfg)
}

// loggedIn tries the login of stream, once.
func (e *exam) loggedIn(s *session, x extensions, stream mail.Stream) Line {
	r := e.cfg.Relay
	mech, err := s.login(x, r.Auth, r.LoginUser(stream), r.Password.Reveal())
	if err == nil {
		return passed("stream %s logs in with %s", stream, mech)
	}
	l := failed("stream %s: %s", stream, clean(s.redact(err.Error())))
	var refused *replyError
	switch {
	case errors.Is(err, errClear):
		return l.to("set relay.tls to starttls or implicit")
	case errors.Is(err, errNoMechanism):
		return l.to("set relay.auth to plain or login to try one all the same, or to none if this port needs no login")
	case timeOut(err):
		return failed("stream %s: no answer to the login within %s", stream, short(e.cfg.Timeout)).to("try again later, with a longer --timeout")
	case !errors.As(err, &refused):
		return l.to("the relay ended the connection instead of answering: wait some minutes, then run sluice doctor again")
	case refused.reply.code < 500:
		return l.to("the relay cannot check logins now: wait some minutes, then run sluice doctor again")
	case stream != mail.Auth:
		return l.to("the login of stream auth was accepted, so the keys are right: ask the relay's operator whether the account may send mail of type %s", stream)
	}
	return l.to("%s. It was tried once only: repeated refusals may lock the account, so correct it before the next run", e.facts.login)
}

const trips = 5

func (e *exam) relayRoundTrip(ctx context.Context) Line {
	defer e.relay.bounded(ctx)()
	list := make([]time.Duration, trips)
	for i := range list {
		var r reply
		var err error
		list[i], err = e.cfg.timed(func() error {
			r, err = e.relay.ask("NOOP")
			return err
		})
		if err := e.relay.expect("NOOP", 250, r, err); err != nil {
			var refused *replyError
			if errors.As(err, &refused) {
				return warned("%v", err).to("the relay does not answer NOOP; mail is not affected").halted()
			}
			e.relay.end()
			return e.relayTrouble(err).to("the relay ends connections soon after the login: set limits.per_connection.idle below the time it allows")
		}
	}
	e.rtt = median(list)
	return passed("%s (median of %d NOOPs)", short(e.rtt), trips)
}

// relayPipelining sends three commands in one write and wants their three replies,
// and then the one to QUIT in its own place. No mail is begun.
func (e *exam) relayPipelining(ctx context.Context) Line {
	if !e.hello.has("PIPELINING") {
		e.relay.close()
		return warned("not offered: each message takes four round trips of %s instead of one", short(e.rtt)).
			to("nothing to do here; ask the relay's operator, or whether something between here and the relay takes it out")
	}
	wait, cancel := context.WithTimeout(ctx, e.groupWait())
	defer cancel()
	defer e.relay.bounded(wait)()
	const fix = "the workers notice by themselves and fall back to one command at a time, which is slow; ask the relay's operator, or look for a firewall or proxy that inspects SMTP between here and the relay"
	if err := e.group(); err != nil {
		e.relay.end()
		return warned("offered, but does not work: %s", clean(e.relay.redact(err.Error()))).to(fix)
	}
	// A 250 cannot be the answer to QUIT: it is one too many to the group.
	if r, err := e.relay.quit(); err == nil && r.code == 250 {
		return warned("offered, but does not work: more replies than commands").to(fix)
	}
	return passed("works: RSET, RSET and NOOP in one write had their three replies in order")
}

// groupWait is how long the replies to the group may take.
func (e *exam) groupWait() time.Duration { return min(max(10*e.rtt, 3*time.Second), e.cfg.Timeout/2) }

func (e *exam) group() error {
	commands := []string{"RSET", "RSET", "NOOP"} // NOOP may only be the last of a group, RFC 2920 section 3.1
	if err := e.relay.write(commands...); err != nil {
		return err
	}
	for i, command := range commands {
		r, err := e.relay.read()
		switch {
		case timeOut(err), errors.Is(err, io.EOF):
			return fmt.Errorf("only %d of %d replies came", i, len(commands))
		case err != nil:
			return err
		case r.code != 250:
			return fmt.Errorf("%s was answered with %q", command, r)
		}
	}
	return nil
}

// hide is redact for an exam that may have no session yet.
func (s *session) hide(text string) string {
	if s == nil {
		return text
	}
	return s.redact(text)
}
