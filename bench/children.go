package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/smtp"
	"github.com/sluicemail/sluice/internal/suppress"
	"github.com/sluicemail/sluice/internal/verdict"
	"github.com/sluicemail/sluice/templates"
	"github.com/sluicemail/sluice/throttle"
	"github.com/sluicemail/sluice/worker"
)

const (
	user     = "bench-appkey#normal"
	password = "bench-secretkey"
)

// startProfile writes a CPU profile to path until stop is called.
func startProfile(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("profile: %w", err), f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}

// dialConfig is the login of the worker and of the bare sender.
func (c childConfig) dialConfig() (smtp.DialConfig, error) {
	d := smtp.DialConfig{Host: "127.0.0.1", Port: c.Port, TLS: smtp.None, Auth: smtp.AuthNone, Hello: "bench.example", Memory: smtp.NewMemory()}
	for _, m := range []smtp.Mode{smtp.ModePipelined, smtp.ModeGroup, smtp.ModeLockStep} {
		if c.Mode == m.String() {
			d.Mode = m
		}
	}
	if c.CA == "" {
		return d, nil
	}
	roots, err := c.roots()
	d.TLS, d.Auth, d.RootCAs, d.User, d.Password = smtp.StartTLS, smtp.AuthAuto, roots, user, password
	return d, err
}

func (c childConfig) roots() (*x509.CertPool, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(c.CA)) {
		return nil, errors.New("the relay's CA does not parse")
	}
	return roots, nil
}

// runWorker is `sluice worker` for one stream, with its connections open from the
// start and a budget that is asked but never short.
func runWorker(ctx context.Context, c childConfig, ready func()) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	conn := queue.Connection{Addrs: []string{c.Redis}}
	q, err := queue.Open(queue.Options{Connection: conn, Log: log})
	if err != nil {
		return err
	}
	defer q.Close()
	rdb := conn.Client()
	defer rdb.Close()
	dial, err := c.dialConfig()
	if err != nil {
		return err
	}
	limits := throttle.Limits{Open: c.Connections, New: []throttle.Window{{N: 10_000, Per: time.Minute}},
		Messages: []throttle.Window{{N: 1_000_000, Per: time.Second}}}
	rules, err := verdict.Default()
	if err != nil {
		return err
	}
	var budget *throttle.Budget
	ready()
	err = worker.Run(ctx, context.WithoutCancel(ctx), worker.Config{
		Queue: q, Log: log,
		Budget: func(owner string, login func(string) string) (b *throttle.Budget, err error) {
			budget, err = throttle.NewRedis(rdb, throttle.Params{Prefix: "sluice", Account: "bench", Owner: owner, Limits: limits, Login: login, Log: log})
			return budget, err
		},
		Suppress: suppress.New(rdb, "sluice"),
		Streams: map[mail.Stream]worker.Stream{mail.Normal: {
			Dial: dial, Max: c.Connections, Warm: c.Connections, Resend: true,
			Retry: worker.Retry{First: time.Second, Most: time.Minute}, Verdicts: rules, Login: "bench",
		}},
	})
	if err != nil || c.Budget == "" {
		return err
	}
	text, err := json.Marshal(budget.Stats())
	if err != nil {
		return fmt.Errorf("budget: %w", err)
	}
	return os.WriteFile(c.Budget, text, 0o600)
}

// constant is a Source that gives one and the same message for ever.
type constant struct{ m smtp.Message }

func (s *constant) Waiting() bool                                      { return true }
func (s *constant) TryNext() (smtp.Transaction, smtp.Supply)           { return s, smtp.Ready }
func (s *constant) Next(ctx context.Context) (smtp.Transaction, error) { return s, ctx.Err() }
func (s *constant) Message() smtp.Message                              { return s.m }
func (s *constant) Begin()                                             {}
func (s *constant) Confirm(context.Context) error                      { return nil }
func (s *constant) Done(smtp.Result)                                   {}

// runBare sends one constant mail over and over: the program's connections without
// queue, ledger, budget and rendering.
func runBare(ctx context.Context, c childConfig, ready func()) error {
	dial, err := c.dialConfig()
	if err != nil {
		return err
	}
	content, err := wireMail()
	if err != nil {
		return err
	}
	p, err := smtp.NewPool(smtp.PoolConfig{
		Dial:   func(ctx context.Context) (*smtp.Conn, error) { return smtp.Dial(ctx, dial) },
		Source: &constant{smtp.Message{From: sender, To: "minjun.kim@naver.example", Content: content}},
		Max:    c.Connections, Warm: c.Connections,
	})
	if err != nil {
		return err
	}
	ready()
	return p.Run(ctx, context.WithoutCancel(ctx))
}

// wireMail is one rendered mail.
func wireMail() ([]byte, error) {
	t, err := templates.Parse("letter", wireLetter().source())
	if err != nil {
		return nil, err
	}
	o, err := letterOptions(mail.Normal, settings())
	if err != nil {
		return nil, err
	}
	p, err := t.Compile(o)
	if err != nil {
		return nil, err
	}
	return p.Render(nil, templates.Recipient{Email: "minjun.kim@naver.example", Values: []string{"김민준"},
		MessageID: templates.MessageID("0123456789abcdef", 1, p.MessageIDDomain()), Date: time.Now()})
}

// runObvious is what one would write with the usual libraries: an asynq server whose
// tasks are one mail each, rendered by the standard library and sent by a go-smtp
// client out of a pool with one client a task at most, all of them kept open.
func runObvious(ctx context.Context, c childConfig, ready func()) error {
	l, err := wireLetter().obvious()
	if err != nil {
		return err
	}
	clients := make(chan *gosmtp.Client, c.Connections)
	for range c.Connections {
		client, err := c.goClient()
		if err != nil {
			return err
		}
		defer client.Quit()
		clients <- client
	}
	rdb := redis.NewClient(&redis.Options{Addr: c.Redis, PoolSize: 10 + c.Connections})
	defer rdb.Close()
	srv := asynq.NewServerFromRedisClient(rdb, asynq.Config{Concurrency: c.Connections, Queues: map[string]int{mailQueue: 1}, LogLevel: asynq.ErrorLevel})
	err = srv.Start(asynq.HandlerFunc(func(_ context.Context, t *asynq.Task) error {
		client := <-clients
		defer func() { clients <- client }()
		id, _ := asynq.GetTaskID(ctx)
		return deliver(client, l, id, t.Payload())
	}))
	if err != nil {
		return fmt.Errorf("asynq: %w", err)
	}
	ready()
	<-ctx.Done()
	srv.Shutdown()
	return nil
}

// deliver sends the mail of one task.
func deliver(client *gosmtp.Client, l *obviousLetter, id string, payload []byte) error {
	var t mailTask
	if err := json.Unmarshal(payload, &t); err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	data := settings()
	data["name"] = t.Name
	var content bytes.Buffer
	if err := l.render(&content, t.Email, id+strconv.FormatInt(time.Now().UnixNano(), 36), data); err != nil {
		return err
	}
	return client.SendMail(sender, []string{t.Email}, &content)
}

// goClient is a go-smtp client, logged in where there is TLS.
func (c childConfig) goClient() (*gosmtp.Client, error) {
	addr := "127.0.0.1:" + strconv.Itoa(c.Port)
	if c.CA == "" {
		return gosmtp.Dial(addr)
	}
	roots, err := c.roots()
	if err != nil {
		return nil, err
	}
	client, err := gosmtp.DialStartTLS(addr, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12})
	if err != nil {
		return nil, fmt.Errorf("baseline: %w", err)
	}
	return client, client.Auth(sasl.NewPlainClient("", user, password))
}
