package config

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluicemail/sluice/internal/mail"
)

// testCA is a certificate authority whose key was thrown away.
const testCA = `-----BEGIN CERTIFICATE-----
MIIBijCCAS+gAwIBAgIUMe388et/R0cxNMAUtJrSxCnPvEIwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOU2x1aWNlIHRlc3QgQ0EwIBcNMjYxMTIyMDYwNDQ1WhgPMjEy
NjEwMjkwNjA0NDVaMBkxFzAVBgNVBAMMDlNsdWljZSB0ZXN0IENBMFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAE7lejWL5JwCEyIKRdoT2/Nv5OmRoCNcj/rjXmWrqh
c9mbp7cXlJLx2XqPaDVXh+rcvQ4Zcrud4fwVE20hQ1L6TaNTMFEwHQYDVR0OBBYE
FFcotizMxyiAjkaS6xRH/QUC/iJcMB8GA1UdIwQYMBaAFFcotizMxyiAjkaS6xRH
/QUC/iJcMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhAIA0qLk1
8PDuV0iRUEswthzmGIQZw/IJqoofrhXVrqxuAiEA5L073eJEFN5JnAbg5E7gxadW
lN8z4CvdGNhMiTm9x/s=
-----END CERTIFICATE-----
`

func TestPresets(t *testing.T) {
	t.Parallel()
	for preset, want := range map[Preset]Relay{
		NHN:      {Host: "smtp-mail.nhncloudservice.com", Port: 587},
		SES:      {Host: "email-smtp.ap-northeast-2.amazonaws.com", Port: 587},
		SendGrid: {Host: "smtp.sendgrid.net", Port: 587},
		Mailgun:  {Host: "smtp.mailgun.org", Port: 587},
		Gmail:    {Host: "smtp.gmail.com", Port: 587},
		Custom:   {Host: "relay.example.com", Port: 587},
	} {
		text := "relay: {preset: " + string(preset) + "}"
		if preset == SES || preset == Custom {
			text = "relay: {preset: " + string(preset) + ", host: " + want.Host + "}"
		}
		r := load(t, text).Relay
		if r.Host != want.Host || r.Port != want.Port || r.TLS != StartTLS {
			t.Errorf("%s: %s, %s", preset, r.Addr(), r.TLS)
		}
		if r := load(t, strings.Replace(text, "}", ", tls: implicit}", 1)).Relay; r.Port != 465 {
			t.Errorf("%s with implicit TLS: port %d", preset, r.Port)
		}
		if c := load(t, text); len(c.Warnings()) != 0 {
			t.Errorf("%s warns: %q", preset, c.Warnings())
		}
	}
	if r := load(t, "relay: {preset: sendgrid, password: k}").Relay; r.User != "apikey" {
		t.Errorf("sendgrid logs in as %q", r.User)
	}
	if r := load(t, "relay: {preset: sendgrid, host: localhost, auth: none}").Relay; r.User != "" {
		t.Errorf("sendgrid without login has the user %q", r.User)
	}
}

func TestLoginUser(t *testing.T) {
	t.Parallel()
	for _, s := range mail.Streams() {
		if got, want := (Relay{Preset: NHN, User: "key"}).LoginUser(s), "key#"+string(s); got != want {
			t.Errorf("nhn: %q, want %q", got, want)
		}
		if got := (Relay{Preset: Custom, User: "key"}).LoginUser(s); got != "key" {
			t.Errorf("custom: %q", got)
		}
		if got := (Relay{Preset: NHN}).LoginUser(s); got != "" {
			t.Errorf("nhn without a user: %q", got)
		}
	}
}

func TestLoginComplete(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		r    Relay
		want string
	}{
		"nothing":              {Relay{Preset: NHN, Host: "a.example", Auth: AuthAuto}, "relay.user: empty: set it to the AppKey"},
		"no password":          {Relay{Preset: Gmail, Host: "a.example", Auth: AuthAuto, User: "u"}, "app password"},
		"complete":             {Relay{Host: "a.example", Auth: AuthPlain, User: "u", Password: NewSecret("p")}, ""},
		"none":                 {Relay{Host: "a.example", Auth: AuthNone}, ""},
		"loopback":             {Relay{Host: "127.0.0.1", Auth: AuthAuto}, ""},
		"loopback, half of it": {Relay{Host: "127.0.0.1", Auth: AuthAuto, User: "u"}, "relay.password: empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := tc.r.LoginComplete()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

func TestAccountAndFingerprint(t *testing.T) {
	t.Parallel()
	a := Relay{Host: "Relay.example.com", User: "u", Password: NewSecret("p"), Port: 587}
	same := Relay{Host: "relay.example.com", User: "u", Password: NewSecret("q"), Port: 465}
	if len(a.Account()) != 12 || a.Account() != same.Account() {
		t.Errorf("account: %q, %q", a.Account(), same.Account())
	}
	if a.Fingerprint() == same.Fingerprint() || len(a.Fingerprint()) != 16 {
		t.Errorf("fingerprint: %q for both passwords", a.Fingerprint())
	}
	for _, other := range []Relay{{Host: "relay.example.com", User: "v"}, {Host: "other.example.com", User: "u"}, {Host: "relay.example.comu"}} {
		if other.Account() == a.Account() {
			t.Errorf("%+v has the account of %+v", other, a)
		}
	}
}

func TestLoopback(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.8.9.1": true, "::1": true, "::ffff:127.0.0.1": true, "localhost": true, "LOCALHOST.": true, "a.localhost": true,
		"": false, "10.0.0.1": false, "localhost.example.com": false, "127.0.0.1.example.com": false, "0.0.0.0": false, "notlocalhost": false,
	} {
		if got := (Relay{Host: host}).Loopback(); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

func TestCertPool(t *testing.T) {
	t.Parallel()
	if pool, err := (Relay{}).CertPool(); pool != nil || err != nil {
		t.Errorf("no file: %v, %v", pool, err)
	}
	pool, err := Relay{CAFile: write(t, testCA)}.CertPool()
	if err != nil || pool == nil {
		t.Fatalf("a certificate: %v", err)
	}
	if _, err := (Relay{CAFile: write(t, "hello")}).CertPool(); err == nil || !strings.Contains(err.Error(), "PEM") {
		t.Errorf("no certificate: %v", err)
	}
	if _, err := Load(write(t, "relay: {ca_file: "+write(t, "hello")+"}"), true, nil); err == nil || !strings.Contains(err.Error(), "relay.ca_file") {
		t.Errorf("Load with no certificate: %v", err)
	}
}

func TestHelloName(t *testing.T) {
	t.Parallel()
	lookup := func(answer string, err error) func(context.Context, string) (string, error) {
		return func(context.Context, string) (string, error) { return answer, err }
	}
	for name, tc := range map[string]struct {
		hello, host, answer string
		err                 error
		want                string
	}{
		"set":         {hello: "mx.example.com", host: "h", want: "mx.example.com"},
		"full":        {host: "h.example.com", want: "h.example.com"},
		"completed":   {host: "h", answer: "h.example.com.", want: "h.example.com"},
		"no answer":   {host: "h", err: errors.New("no such host"), want: "h"},
		"odd answer":  {host: "h", answer: "a b.", want: "h"},
		"no hostname": {want: "[127.0.0.1]"},
		"odd name":    {host: "my_pc 1", want: "[127.0.0.1]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := (Relay{Hello: tc.hello}).HelloName(t.Context(), tc.host, lookup(tc.answer, tc.err)); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

func TestRedisTarget(t *testing.T) {
	t.Parallel()
	secret := NewSecret
	for in, want := range map[string]RedisTarget{
		"embedded":                          {Embedded: true},
		"redis://127.0.0.1:6379/0":          {Addrs: []string{"127.0.0.1:6379"}},
		"redis://h":                         {Addrs: []string{"h:6379"}},
		"redis://[::1]:1/15":                {Addrs: []string{"[::1]:1"}, DB: 15},
		"redis://[::1]":                     {Addrs: []string{"[::1]:6379"}},
		"redis://:p%40%2F%3A@h/":            {Addrs: []string{"h:6379"}, Password: secret("p@/:")},
		"redis://u:a:b@h":                   {Addrs: []string{"h:6379"}, Username: "u", Password: secret("a:b")},
		"rediss://u:p@r.example.com:6380/2": {Addrs: []string{"r.example.com:6380"}, Username: "u", Password: secret("p"), DB: 2, TLS: true, ServerName: "r.example.com"},
		"redis-sentinel://:p@a,b:1,[::1]:2/3?master=m&sentinel_password=s%26": {Addrs: []string{"a:26379", "b:1", "[::1]:2"},
			Master: "m", Password: secret("p"), DB: 3, SentinelPassword: secret("s&")},
	} {
		got, err := Redis{URL: RedisURL(in)}.Target()
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b Secret) bool { return a == b })); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", RedisURL(in), err, diff)
		}
	}
}

func TestRedisTargetRefused(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                               "want redis://",
		"127.0.0.1:6379":                 "want redis://",
		"http://h":                       `scheme "http"`,
		"redis-cluster://h":              "not supported yet",
		"redis://":                       "host",
		"redis://:s3cret@":               "host",
		"redis://h:0":                    "port",
		"redis://h:s":                    "port",
		"redis://a,b":                    "host",
		"redis://h/x":                    "database",
		"redis://h/-1":                   "database",
		"redis://h?db=1":                 `parameter "db": none`,
		"redis://:s3/cret@h":             "%2F",
		"redis://:s3?cret@h":             "%2F",
		"redis://:s3%cret@h":             "%25",
		"redis-sentinel://a":             "?master=NAME",
		"redis-sentinel://a?masters=m":   `parameter "masters"`,
		"redis-sentinel://a,,b?master=m": "host",
	} {
		_, err := Redis{URL: RedisURL(in)}.Target()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "cret") {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
		if strings.Contains(RedisURL(in).String(), "cret") {
			t.Errorf("%q shows as %q", in, RedisURL(in))
		}
	}
}

func TestRedisURLShowsNoSecret(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"redis://u:p@h:1/2": "redis://***@h:1/2",
		"redis-sentinel://:p@a,b?master=m&sentinel_password=x": "redis-sentinel://***@a,b?master=m&sentinel_password=***",
		"u:p@h":           "***@h",
		"redis://h?x=p@q": "redis://***",
		"embedded":        "embedded",
	} {
		if got := RedisURL(in).String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzRedisTarget(f *testing.F) {
	for _, s := range []string{"redis://u:p@h:1/2", "redis-sentinel://a,[::1]:2?master=m", "rediss://%41@h", "embedded"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		const marker = "s3cretmarker"
		scheme, rest, ok := strings.Cut(s, "://")
		if !ok || strings.Contains(s, "@") {
			return
		}
		u := RedisURL(scheme + "://:" + marker + "@" + rest)
		target, err := Redis{URL: u}.Target()
		if err != nil {
			if strings.Contains(err.Error(), marker) {
				t.Fatalf("a password in %v", err)
			}
			return
		}
		if strings.Contains(u.String(), marker) || target.Password.Reveal() != marker || len(target.Addrs) == 0 {
			t.Fatalf("%s: %+v", u, target)
		}
	})
}
