package worker

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/relay"
	"github.com/sluicemail/sluice/internal/smtp"
	"github.com/sluicemail/sluice/internal/suppress"
	"github.com/sluicemail/sluice/internal/verdict"
	"github.com/sluicemail/sluice/producer"
	"github.com/sluicemail/sluice/templates"
	"github.com/sluicemail/sluice/throttle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a worker between an in-process Redis and the rehearsal relay.
type bench struct {
	t     *testing.T
	q     *queue.Queue
	rdb   *redis.Client
	relay *relay.Server
	conf  Config
	log   *logBuffer
	// relayID is the account that campaigns are enqueued for.
	relayID string
	stop    func() error // ends the worker and returns what it returned
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newBench prepares a worker; change may alter a stream's configuration.
func newBench(t *testing.T, rc relay.Config, change func(mail.Stream, *Stream)) *bench {
	t.Helper()
	srv, err := relay.Start(rc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	conn := queue.Connection{Addrs: []string{miniredis.RunT(t).Addr()}}
	b := &bench{t: t, relay: srv, log: &logBuffer{}}
	log := slog.New(slog.NewTextHandler(b.log, nil))
	if b.q, err = queue.Open(queue.Options{Connection: conn, Log: log}); err != nil {
		t.Fatal(err)
	}
	rdb := conn.Client()
	b.rdb = rdb
	t.Cleanup(func() { _, _ = rdb.Close(), b.q.Close() })
	host, port, _ := net.SplitHostPort(srv.Addr())
	num, _ := strconv.Atoi(port)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(srv.CAPEM())
	limits := throttle.Limits{Open: 4, New: []throttle.Window{{N: 1000, Per: time.Minute}}, Messages: []throttle.Window{{N: 10_000, Per: time.Second}}}
	b.conf = Config{
		Queue: b.q, Log: log, Streams: map[mail.Stream]Stream{}, PerConnection: smtp.Limits{Messages: 1000, Age: time.Minute, Idle: time.Minute},
		Budget: func(owner string, login func(string) string) (*throttle.Budget, error) {
			return throttle.NewRedis(rdb, throttle.Params{Prefix: "t", Account: "a", Owner: owner, Limits: limits, Login: login, Log: log})
		},
		Suppress: suppress.New(rdb, "t"),
	}
	rules, err := verdict.Default()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range mail.Streams() {
		sc := Stream{
			Verdicts: rules, Login: "key-1",
			Dial: smtp.DialConfig{Host: host, Port: num, RootCAs: roots, User: "app#" + string(s), Password: "sec"},
			Max:  2, TTL: time.Hour, Retry: Retry{First: 20 * time.Millisecond, Most: 50 * time.Millisecond}, Resend: s != mail.Ad,
		}
		if change != nil {
			change(s, &sc)
		}
		b.conf.Streams[s] = sc
	}
	return b
}

// start runs the worker until stop or the end of the test.
func (b *bench) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, context.WithoutCancel(ctx), b.conf) }()
	var once sync.Once
	var err error
	b.stop = func() error {
		once.Do(func() {
			cancel()
			err = <-done
		})
		return err
	}
	b.t.Cleanup(func() {
		if err := b.stop(); err != nil {
			b.t.Errorf("worker: %v", err)
		}
		if b.t.Failed() {
			b.t.Log(b.log.String())
		}
	})
}

// send enqueues a campaign to the given addresses.
func (b *bench) send(s mail.Stream, to ...string) *queue.Campaign {
	b.t.Helper()
	tmpl, err := templates.Parse("hello", `{{define "subject"}}(광고) Hello{{end}}{{define "html"}}<p>{{.email}}</p><p>Sluice, 02-000-0000, news@example.com, Seoul. 수신거부 unsubscribe</p>{{end}}`)
	if err != nil {
		b.t.Fatal(err)
	}
	from, err := mail.ParseAddress("news@example.com")
	if err != nil {
		b.t.Fatal(err)
	}
	res, err := producer.Send(b.t.Context(), b.q, producer.Request{
		Stream: s, Template: tmpl, Relay: b.relayID,
		Options: templates.Options{From: templates.Mailbox{Address: from}, Stream: s,
			Sender: templates.Sender{Name: "Sluice", Email: "news@example.com", Phone: "02-000-0000", Address: "Seoul"}},
		List: producer.List{Name: "list", Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("email\n" + strings.Join(to, "\n") + "\n")), nil
		}},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return res.Campaign
}

func people(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("r%d@example.com", i))
	}
	return out
}

// settled waits for the campaign's end and returns its account.
func (b *bench) settled(c *queue.Campaign) *queue.Summary {
	b.t.Helper()
	var s *queue.Summary
	b.eventually("the campaign is settled", func() bool {
		var err error
		if s, err = b.q.Summary(b.t.Context(), c, b.conf.Streams[c.Stream].Resend); err != nil {
			b.t.Fatal(err)
		}
		return s.Settled
	})
	return s
}

func (b *bench) eventually(what string, ok func() bool) {
	b.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("never happened: %s\n%s", what, b.log.String())
		}
	}
}

// row returns what the ledger says of one address.
func (b *bench) row(c *queue.Campaign, address string) (found queue.Row) {
	b.t.Helper()
	err := b.q.Rows(b.t.Context(), c, func(r queue.Row) error {
		if r.Address == address {
			found = r
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return found
}

// copies counts how often the relay accepted mail for an address.
func (b *bench) copies(address string) (n int) {
	for _, m := range b.relay.Truth() {
		if m.To == address {
			n++
		}
	}
	return n
}

func TestDeferredIsSentAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, relay.Config{Rules: []relay.Rule{{Stage: relay.Rcpt, To: "r3@*", Times: 2, Reply: "451 4.7.1 later"}, {Stage: relay.EOD, To: "r4@*", Times: 1, Reply: "452 4.3.1 full"}}}, nil)
	b.start()
	c := b.send(mail.Normal, people(10)...)
	if s := b.settled(c); s.Count(mail.Accepted) != 10 {
		t.Errorf("%v", s.Outcomes)
	}
	if r := b.row(c, "r3@example.com"); r.Attempts != 3 {
		t.Errorf("%+v", r)
	}
	if r := b.row(c, "r4@example.com"); r.Attempts != 2 {
		t.Errorf("%+v", r)
	}
	if st := b.relay.Stats(); st.Connections > 4 {
		t.Errorf("%d connections: a refused recipient must not cost one", st.Connections)
	}
}

func TestRejectedIsFinal(t *testing.T) {
	t.Parallel()
	b := newBench(t, relay.Config{Rules: []relay.Rule{{Stage: relay.Rcpt, To: "r3@*", Reply: "550 5.1.1 no such user"}}}, nil)
	b.start()
	c := b.send(mail.Ad, people(10)...)
	if s := b.settled(c); s.Count(mail.Accepted) != 9 || s.Count(mail.Rejected) != 1 {
		t.Errorf("%v", s.Outcomes)
	}
	if r := b.row(c, "r3@example.com"); r.Attempts != 1 || r.Reply != (mail.Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user"}) {
		t.Errorf("%+v", r)
	}
}

// A dot without a reply is unknown: sent again and listed where the stream says
// resend, left alone where it says hold.
func TestUnknownFollowsThePolicy(t *testing.T) {
	t.Parallel()
	drop := []relay.Rule{{Stage: relay.EOD, To: "r3@*", Times: 1, Action: relay.AcceptDrop}}
	b := newBench(t, relay.Config{Rules: drop}, nil)
	b.start()
	c := b.send(mail.Normal, people(10)...)
	if s := b.settled(c); s.Count(mail.Accepted) != 10 || s.Resent != 1 {
		t.Errorf("resend: %v, %d resent", s.Outcomes, s.Resent)
	}
	if r := b.row(c, "r3@example.com"); !r.Resent || r.Attempts != 2 || b.copies("r3@example.com") != 2 {
		t.Errorf("resend: %+v, %d copies", r, b.copies("r3@example.com"))
	}

	b = newBench(t, relay.Config{Rules: drop}, nil)
	b.start()
	c = b.send(mail.Ad, people(10)...)
	if s := b.settled(c); s.Count(mail.Accepted) != 9 || s.Count(mail.Unknown) != 1 || s.Resent != 0 {
		t.Errorf("hold: %v, %d resent", s.Outcomes, s.Resent)
	}
	if n := b.copies("r3@example.com"); n != 1 {
		t.Errorf("hold: %d copies", n)
	}
}

// A mail whose every attempt ends unknown is not sent for ever.
func TestUnknownEveryTime(t *testing.T) {
	t.Parallel()
	rules := []relay.Rule{{Stage: relay.EOD, To: "r1@*", Action: relay.AcceptDrop}}
	b := newBench(t, relay.Config{Rules: rules}, nil)
	b.start()
	c := b.send(mail.Normal, people(3)...)
	if s := b.settled(c); s.Count(mail.Accepted) != 2 || s.Count(mail.Unknown) != 1 {
		t.Errorf("%v", s.Outcomes)
	}
	if n := b.copies("r1@example.com"); n != 2 {
		t.Errorf("%d copies", n)
	}
}

// Attempts that were put off do not use the second chance of an unknown one up.
func TestUnknownAfterDeferrals(t *testing.T) {
	t.Parallel()
	rules := []relay.Rule{{Stage: relay.Rcpt, To: "r1@*", Times: 3, Reply: "451 4.7.1 later"}, {Stage: relay.EOD, To: "r1@*", Times: 1, Action: relay.AcceptDrop}}
	b := newBench(t, relay.Config{Rules: rules}, nil)
	b.start()
	c := b.send(mail.Normal, people(2)...)
	if s := b.settled(c); s.Count(mail.Accepted) != 2 || s.Resent != 1 {
		t.Errorf("%v, %d resent", s.Outcomes, s.Resent)
	}
}

// shortTTL is long enough for a worker on a busy machine to join and send a few mails.
const shortTTL = 6 * time.Second

// An unknown one that becomes too old, or whose campaign is cancelled, stays
// unknown and ends the campaign.
func TestUnknownAndTooOld(t *testing.T) {
	t.Parallel()
	rules := []relay.Rule{{Stage: relay.EOD, To: "r1@*", Delay: shortTTL + time.Second, Action: relay.AcceptDrop}}
	b := newBench(t, relay.Config{Rules: rules}, func(_ mail.Stream, s *Stream) { s.TTL = shortTTL })
	b.start()
	c := b.send(mail.Auth, people(2)...)
	if s := b.settled(c); s.Count(mail.Accepted) != 1 || s.Count(mail.Unknown) != 1 {
		t.Errorf("%v", s.Outcomes)
	}
	if n := b.copies("r1@example.com"); n != 1 {
		t.Errorf("%d copies: a late code was sent", n)
	}
}

func TestTooOldIsExpired(t *testing.T) {
	t.Parallel()
	b := newBench(t, relay.Config{Rules: []relay.Rule{{Stage: relay.Rcpt, To: "r3@*", Reply: "451 4.7.1 never"}}},
		func(_ mail.Stream, s *Stream) { s.TTL = shortTTL })
	b.start()
	c := b.send(mail.Auth, people(5)...)
	if s := b.settled(c); s.Count(mail.Accepted) != 4 || s.Count(mail.Expired) != 1 {
		t.Errorf("%v", s.Outcomes)
	}
	if r := b.row(c, "r3@example.com"); r.Reply.Code != 451 || r.Attempts < 2 {
		t.Errorf("%+v: the last reply is what one wants to know", r)
	}
}

// The relay forgets the login in mid-session: nobody's mail is used up, the stream
// is held.
func TestLoginLostInMidSession(t *testing.T) {
	t.Parallel()
	// Two connections hear it at once: it is one event, and holds the stream once.
	b := newBench(t, relay.Config{RoundTrip: 50 * time.Millisecond, Rules: []relay.Rule{{Stage: relay.Mail, Reply: "530 5.7.0 Authentication required"}}},
		func(s mail.Stream, sc *Stream) {
			if s == mail.Ad {
				sc.Warm = 2
			}
		})
	b.start()
	c := b.send(mail.Ad, people(3)...)
	b.eventually("the stream is held", func() bool {
		s, err := b.q.Summary(t.Context(), c, false)
		return err == nil && s.Held != nil && strings.Contains(s.Held.Why, "530")
	})
	if r := b.row(c, "r1@example.com"); r.Outcome != mail.Pending || r.Attempts != 0 {
		t.Errorf("%+v", r)
	}
	if err := b.relay.SetProfile("nhn"); err != nil {
		t.Fatal(err)
	}
	if err := b.q.LiftStream(t.Context(), mail.Ad); err != nil {
		t.Fatal(err)
	}
	if s := b.settled(c); s.Count(mail.Accepted) != 3 {
		t.Errorf("%v", s.Outcomes)
	}
}

// A mail that breaks every connection before its dot is put off, and does not keep
// the others from being sent.
func TestMailThatBreaksConnections(t *testing.T) {
	t.Parallel()
	b := newBench(t, relay.Config{Rules: []relay.Rule{{Stage: relay.Rcpt, To: "r3@*", Times: maxUnsent, Action: relay.Drop}}}, nil)
	b.start()
	c := b.send(mail.Normal, people(10)...)
	if s := b.settled(c); s.Count(mail.Accepted) != 10 {
		t.Errorf("%v", s.Outcomes)
	}
	if r := b.row(c, "r3@example.com"); r.Attempts != 2 {
		t.Errorf("%+v", r)
	}
	for _, to := range people(10) {
		if n := b.copies(to); n != 1 {
			t.Errorf("%s got %d", to, n)
		}
	}
}

// A campaign meant for one relay account is not sent through another.
func TestCampaignForAnotherRelay(t *testing.T) {
	t.Parallel()
	b := newBench(t, relay.Config{}, nil)
	b.relayID, b.conf.Relay = "real/1", "rehearsal/2"
	b.start()
	c := b.send(mail.Ad, people(3)...)
	b.eventually("the worker says so", func() bool { return strings.Contains(b.log.String(), "enqueued for another relay account") })
	if n := b.relay.Stats().Messages; n != 0 {
		t.Fatalf("%d messages were sent to the wrong relay", n)
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	b.conf.Relay = "real/1"
	b.start()
	if s := b.settled(c); s.Count(mail.Accepted) != 3 {
		t.Errorf("%v", s.Outcomes)
	}
}

// A stopped worker gives its blocks back; the next one goes on.
func TestStopAndGoOn(t *testing.T) {
	t.Parallel()
	b := newBench(t, relay.Config{RoundTrip: 2 * time.Millisecond}, nil)
	b.start()
	c := b.send(mail.Ad, people(2000)...)
	b.eventually("it is under way", func() bool { return b.relay.Stats().Messages > 200 })
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	s, err := b.q.Summary(t.Context(), c, false)
	if err != nil || s.Count(mail.Unknown) != 0 || s.Count(mail.Accepted) != int(b.relay.Stats().Messages) || s.Settled {
		t.Errorf("after the stop: %v, the relay has %d, %v", s.Outcomes, b.relay.Stats().Messages, err)
	}
	b.start()
	if s := b.settled(c); s.Count(mail.Accepted) != 2000 {
		t.Errorf("%v", s.Outcomes)
	}
	if n := b.relay.Stats().Messages; n != 2000 {
		t.Errorf("the relay accepted %d", n)
	}
}

func TestRetrySchedule(t *testing.T) {
	t.Parallel()
	r := Retry{First: time.Second, Most: 10 * time.Second}
	for attempt, most := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 5: 10 * time.Second, 99: 10 * time.Second} {
		for _, pace := range []struct {
			slow bool
			by   time.Duration
		}{{false, 1}, {true, slowly}} {
			var early, late bool
			for range 1000 {
				d := r.after(attempt, pace.slow)
				if least := time.Second * pace.by / 2; d < least || d > most*pace.by {
					t.Fatalf("after attempt %d, slow %t: %v, want between %v and %v", attempt, pace.slow, d, least, most*pace.by)
				}
				early, late = early || d < most*pace.by*3/4, late || d > most*pace.by*3/4
			}
			if !early || !late {
				t.Errorf("after attempt %d, slow %t: not spread", attempt, pace.slow)
			}
		}
	}
	if d := (Retry{}).after(1, false); d <= 0 {
		t.Errorf("the zero schedule waits %v", d)
	}
}
