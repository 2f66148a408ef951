package config

import (
	"slices"
	"time"
)

// Preset names a relay whose facts are known.
type Preset string

// The presets.
const (
	NHN      Preset = "nhn"
	SES      Preset = "ses"
	SendGrid Preset = "sendgrid"
	Mailgun  Preset = "mailgun"
	Gmail    Preset = "gmail"
	Custom   Preset = "custom"
)

// facts is what a relay publishes about itself. Zero is: not published.
type facts struct {
	name           string
	host           string // "" where the operator must name it
	hostHint       string
	starttls, tls  []int  // ports for STARTTLS and for TLS from the start, the usual one first
	user           string // what the user name is, in words
	fixedUser      string // the user name, where it is the same for everybody
	password       string // what the password is, in words
	messages       []Window
	most           ceilings
	messagesAtMost []Window // above these, per period, there is a warning
}

// ceilings are published limits that the configuration may stay below.
type ceilings struct {
	open          int
	perConnection int
}

// facts returns what is published about the relay, each with its source. A limit
// that is not listed here was looked for and not found: what the contract has as
// default stands, and the operator knows better.
func (p Preset) facts() facts {
	const day = 24 * time.Hour
	submission := facts{
		starttls: []int{587, 25, 2587}, tls: []int{465, 2465},
		user: "the relay's user name", password: "the relay's password",
		hostHint: "the relay's host name",
	}
	f := submission
	switch p {
	case NHN:
		// Host, ports, login: docs.nhncloud.com, Notification > Email > SMTP guide
		// (source TOAST-DOCS/E-mail ko/smtp-guide.md). Limits: none published.
		f.name, f.host = "NHN Cloud Email", "smtp-mail.nhncloudservice.com"
		f.user, f.password = "the AppKey of the Email product", "its SecretKey"
	case SES:
		// Ports: docs.aws.amazon.com/ses/latest/dg/smtp-connect.html; the host differs by
		// region. Limits: docs.aws.amazon.com/ses/latest/dg/manage-sending-quotas.html:
		// 200 messages a day and one a second in the sandbox; beyond it each account has
		// its own quota and no figure is published, so the sandbox is the default.
		f.name = "Amazon SES"
		f.hostHint = "the endpoint of your region, such as email-smtp.ap-northeast-2.amazonaws.com"
		f.user, f.password = "the SMTP user name made in the SES console", "the SMTP password made with it (an IAM secret key is none)"
		f.messages = []Window{{1, time.Second}, {200, day}}
	case SendGrid:
		// docs.sendgrid.com/for-developers/sending-email/integrating-with-the-smtp-api:
		// ports, the user name, 5,000 messages a connection, 10,000 connections a server.
		f.name, f.host = "SendGrid", "smtp.sendgrid.net"
		f.starttls, f.tls = []int{587, 25, 2525}, []int{465}
		f.user, f.fixedUser, f.password = "apikey", "apikey", "an API key with the permission Mail Send"
		f.most = ceilings{open: 10_000, perConnection: 5_000}
	case Mailgun:
		// documentation.mailgun.com/docs/mailgun/user-manual/sending-messages/send-smtp:
		// ports; the European host is smtp.eu.mailgun.org. Limits: by plan, none published
		// for SMTP.
		f.name, f.host = "Mailgun", "smtp.mailgun.org"
		f.starttls, f.tls = []int{587, 25, 2525}, []int{465}
		f.user, f.password = "the domain's SMTP login, such as postmaster@mg.example.com", "the password of that SMTP login (the API key is none)"
	case Gmail:
		// Host and ports: support.google.com/a/answer/176600. Limits:
		// support.google.com/mail/answer/22839, 500 a day, and for Workspace
		// support.google.com/a/answer/166852, 2,000 a day. None is published for shorter
		// periods; one a second is ours.
		f.name, f.host = "Gmail", "smtp.gmail.com"
		f.starttls, f.tls = []int{587}, []int{465}
		f.user, f.password = "the full address of the account", "an app password (myaccount.google.com/apppasswords)"
		f.messages = []Window{{1, time.Second}, {500, day}}
		f.messagesAtMost = []Window{{2_000, day}}
	default:
		f.name = "the relay"
	}
	return f
}

// followPreset fills in the keys whose default comes from another key: from the
// preset, the reserves and the least rate from the limits. Given values stay.
func (c *Config) followPreset() {
	f, r := c.Relay.Preset.facts(), &c.Relay
	from := "preset " + string(r.Preset)
	fill := func(path, from string, set func()) {
		if !c.given(path) {
			set()
			c.origins[path] = origin{text: from}
		}
	}
	fill("relay.host", from, func() { r.Host = f.host })
	fill("relay.tls", from, func() { r.TLS = StartTLS })
	fill("relay.port", from, func() {
		r.Port = f.starttls[0]
		if r.TLS == ImplicitTLS {
			r.Port = f.tls[0]
		}
	})
	if f.fixedUser != "" && r.Auth != AuthNone {
		fill("relay.user", from, func() { r.User = f.fixedUser })
	}
	if f.messages != nil {
		fill("limits.messages", from, func() { c.Limits.Messages = f.messages })
	}
	if c.Redis.URL == "embedded" {
		fill("redis.durability", "derived from redis.url", func() { c.Redis.Durability = InMemory })
	}
	for _, w := range c.Limits.Messages {
		if w.Per <= time.Minute && w.perSecond() < c.Adaptive.Floor.perSecond() {
			fill("adaptive.floor", "derived from limits.messages", func() { c.Adaptive.Floor = w })
		}
	}
	auth, open := &c.Streams.Auth, c.Limits.Connections.Open
	if c.given("limits.messages") || f.messages != nil {
		fill("streams.auth.reserve", "derived from limits.messages", func() { auth.Reserve = tenth(c.Limits.Messages) })
	}
	if auth.Connections >= open {
		fill("streams.auth.connections", "derived from limits.connections.open", func() { auth.Connections = max(open-1, 0) })
	}
}

// tenth returns the share of login codes in limits that are not the built-in ones:
// a tenth of each window that has ten.
func tenth(limits []Window) []Window {
	out := []Window{}
	for _, w := range limits {
		if w.N >= 10 {
			out = append(out, Window{w.N / 10, w.Per})
		}
	}
	return out
}

// wrongTLS reports whether port is known to speak the other kind of TLS at the
// preset's relay. Ports nobody publishes are the operator's business.
func (f facts) wrongTLS(port int, mode TLSMode) bool {
	return mode == StartTLS && slices.Contains(f.tls, port) || mode == ImplicitTLS && slices.Contains(f.starttls, port)
}
