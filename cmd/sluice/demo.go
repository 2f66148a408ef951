package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/relay"
	"github.com/sluicemail/sluice/internal/smtp"
	"github.com/sluicemail/sluice/internal/suppress"
	"github.com/sluicemail/sluice/internal/verdict"
	"github.com/sluicemail/sluice/producer"
	"github.com/sluicemail/sluice/templates"
	"github.com/sluicemail/sluice/throttle"
	"github.com/sluicemail/sluice/worker"
)

// demoFlags are the flags of `sluice demo`.
type demoFlags struct {
	recipients int
	hold, json bool
	log        bool // --log-level was given: show the log beside the progress line
}

func (a *app) demoCommand() *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Send a real campaign on embedded parts: nothing to install, nothing to configure",
		Long: `Start an in-process Redis, the rehearsal relay with STARTTLS and AUTH as NHN Cloud has
them, and workers for the three streams; send the shipped newsletter to a shipped list
of Korean and Japanese sample recipients through real TCP, TLS and SMTP; and account for
every one of them. The relay refuses a few, so that retries and rejections can be seen:
exit code 3 is what such a campaign earns.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.log = cmd.Flags().Changed("log-level")
			return a.demo(cmd.Context(), f)
		},
	}
	fl := cmd.Flags()
	fl.IntVar(&f.recipients, "recipients", 2000, "how many sample recipients: `N`")
	fl.BoolVar(&f.hold, "hold", false, "keep everything running afterwards, until interrupted")
	fl.BoolVar(&f.json, "json", false, "print the summary as one JSON object, the last line of stdout")
	return cmd
}

// The demo's login, taken by its own relay only.
const (
	demoUser     = "demo-appkey"
	demoPassword = "demo-secretkey"
)

func (a *app) demo(ctx context.Context, f demoFlags) error {
	if f.recipients < 1 {
		return usageError(fmt.Errorf("--recipients %d: want at least 1", f.recipients))
	}
	log, err := a.logger()
	if err != nil {
		return err
	}
	if !f.log {
		log = slog.New(slog.DiscardHandler) // the screen is for the progress line
	}
	srv, err := relay.Start(relay.Config{Profile: "demo", Users: map[string]string{demoUser: demoPassword}})
	if err != nil {
		return err
	}
	defer srv.Close()
	e, err := startEmbedded(config.Default(), log)
	if err != nil {
		return err
	}
	defer e.close()
	return a.demoOn(ctx, f, demoParts{srv, e, log})
}

// demoParts are what a demo runs on.
type demoParts struct {
	relay *relay.Server
	redis *embedded
	log   *slog.Logger
}

func (a *app) demoOn(ctx context.Context, f demoFlags, p demoParts) error {
	srv, e, log := p.relay, p.redis, p.log
	a.banner(srv, e)
	rdb := e.conn.Client()
	defer rdb.Close()
	wc, err := demoWorker(srv, e.q, log)
	if err != nil {
		return err
	}
	wc.Suppress = suppress.New(rdb, keyPrefix)
	wc.Budget = func(owner string, login func(string) string) (*throttle.Budget, error) {
		return throttle.NewRedis(rdb, throttle.Params{Prefix: keyPrefix, Account: "demo", Owner: owner, Limits: demoLimits(), Login: login, Log: log})
	}
	return withWorker(ctx, wc, func(ctx context.Context) error { return a.demoCampaign(ctx, f, srv, e.q) })
}

func (a *app) banner(srv *relay.Server, e *embedded) {
	fmt.Fprintf(a.err, `sluice demo
  redis    in-process at %s: NOT DURABLE, gone when this ends
  relay    the rehearsal relay at %s: STARTTLS and AUTH as NHN Cloud, refuses a few on purpose
  workers  auth, normal, ad
`, e.srv.Addr(), srv.Addr())
}

// demoLimits do not make a newcomer wait.
func demoLimits() throttle.Limits {
	return throttle.Limits{
		Open: 10, New: []throttle.Window{{N: 600, Per: time.Minute}}, Messages: []throttle.Window{{N: 20_000, Per: time.Second}},
		Streams: map[string]throttle.Share{
			string(mail.Auth): {Connections: 2, Reserve: []throttle.Window{{N: 200, Per: time.Second}}}, string(mail.Normal): {}, string(mail.Ad): {},
		},
	}
}

// demoRetry is short, because a receiver that asks for patience, as those of the demo do,
// gets thirty times as much of it.
func demoRetry() worker.Retry {
	return worker.Retry{First: 50 * time.Millisecond, Most: 2 * time.Second}
}

// demoWorker is a worker for the rehearsal relay that tries deferred mail again
// within seconds.
func demoWorker(srv *relay.Server, q *queue.Queue, log *slog.Logger) (worker.Config, error) {
	host, port, err := net.SplitHostPort(srv.Addr())
	if err != nil {
		return worker.Config{}, err
	}
	num, err := strconv.Atoi(port)
	if err != nil {
		return worker.Config{}, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(srv.CAPEM()) {
		return worker.Config{}, errors.New("the rehearsal relay's CA does not parse")
	}
	rules, err := verdict.Default()
	if err != nil {
		return worker.Config{}, err
	}
	c := worker.Config{Queue: q, Log: log, Streams: map[mail.Stream]worker.Stream{},
		PerConnection: smtp.Limits{Messages: 5000, Age: 5 * time.Minute, Idle: 30 * time.Second}}
	for _, s := range mail.Streams() {
		sc := worker.Stream{
			Dial: smtp.DialConfig{Host: host, Port: num, RootCAs: roots, Hello: "demo.sluice.invalid",
				User: demoUser + "#" + string(s), Password: demoPassword},
			Max: 10, TTL: time.Hour, Retry: demoRetry(), Resend: s != mail.Ad,
			Verdicts: rules, Login: "demo",
		}
		if s == mail.Auth {
			sc.Warm = 2
		}
		c.Streams[s] = sc
	}
	return c, nil
}

// demoCampaign sends the shipped newsletter and waits for its end.
func (a *app) demoCampaign(ctx context.Context, f demoFlags, srv *relay.Server, q *queue.Queue) error {
	t, err := templates.Load("newsletter")
	if err != nil {
		return err
	}
	from, err := mail.ParseAddress("news@sluice.example")
	if err != nil {
		return err
	}
	res, err := a.enqueue(ctx, q, producer.Request{
		Name: "demo", Stream: mail.Ad, Template: t,
		Options: templates.Options{From: templates.Mailbox{Name: "슬루스 소식", Address: from}, Sender: templates.SampleSender(), Stream: mail.Ad},
		List: producer.List{Name: "the sample list", Open: func() (io.ReadCloser, error) {
			return io.NopCloser(sampleList(f.recipients)), nil
		}},
	})
	if err != nil {
		return err
	}
	s, err := follow(ctx, q, res.Campaign, false, newFollower(a.err, func() string {
		st := srv.Stats()
		return fmt.Sprintf("relay %d accepted, %d open", st.Messages, st.Open)
	}))
	if err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		return err
	}
	a.demoEnd(srv, s)
	if f.hold {
		fmt.Fprintln(a.err, "everything is still running; Ctrl-C ends it")
		<-ctx.Done()
	}
	return a.finished(s, f.json)
}

// demoEnd compares both sides' counts and says where to look next.
func (a *app) demoEnd(srv *relay.Server, s *queue.Summary) {
	st := srv.Stats()
	verdict := "the same as the ledger"
	if int(st.Messages) != s.Count(mail.Accepted) {
		verdict = fmt.Sprintf("NOT the ledger's %d", s.Count(mail.Accepted))
	}
	fmt.Fprintf(a.err, `
the relay accepted %d messages, %s; %d connections, %.2f round trips a message
next:
  sluice template preview newsletter --html newsletter.html    look at the mail
  sluice relay                                                 try any client against the rehearsal relay
  sluice send --help                                           your own list and template, your own relay (README)

`, st.Messages, verdict, st.Connections, float64(st.RoundTrips)/float64(max(st.Messages, 1)))
}
