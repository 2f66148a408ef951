package relay

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/smtp"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"
)

// TestNHNTranscript holds the relay to the transcript of NHN Cloud's SMTP guide, byte for
// byte, but for the client's address.
func TestNHNTranscript(t *testing.T) {
	t.Parallel()
	const ehlo = "250-smtp-mail.nhncloudservice.com Hello a [127.0.0.1])\r\n" +
		"250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-STARTTLS\r\n" +
		"250-AUTH LOGIN PLAIN\r\n250 AUTH=LOGIN PLAIN\r\n"
	steps := map[string][][2]string{
		"plain": {{"ehlo a\r\n", ehlo}, {"auth plain AEFwcEtleQBTZWNyZXRLZXk=\r\n", "235 Authentication Successful\r\n"}},
		"login": {{"ehlo a\r\n", ehlo}, {"auth login\r\n", "334 VXNlcm5hbWU6\r\n"},
			{"QXBwS2V5\r\n", "334 UGFzc3dvcmQ6\r\n"}, {"U2VjcmV0S2V5\r\n", "235 Authentication Successful\r\n"}},
	}
	s := start(t, Config{Users: map[string]string{"AppKey": "SecretKey"}})
	for name, lines := range steps {
		t.Run(name, func(t *testing.T) {
			c := dial(t, s)
			if got, want := c.reply(), "220 smtp-mail.nhncloudservice.com SMTP Server (NHN Cloud Email SMTP) ready\r\n"; got != want {
				t.Errorf("banner %q, want %q", got, want)
			}
			for _, l := range lines {
				c.send(l[0])
				if diff := cmp.Diff(l[1], c.reply()); diff != "" {
					t.Errorf("after %q (-want +got):\n%s", l[0], diff)
				}
			}
		})
	}
}

func TestStandardLibraryClient(t *testing.T) {
	t.Parallel()
	s := start(t, Config{KeepContent: true})
	nc, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	c, err := smtp.NewClient(nc, Host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Hello("client"))
	must(c.StartTLS(trusting(s)))
	if ok, _ := c.Extension("STARTTLS"); ok {
		t.Error("STARTTLS is offered inside TLS")
	}
	must(c.Auth(smtp.PlainAuth("", "AppKey#ad", "secret", Host)))
	must(c.Mail("from@example.com"))
	must(c.Rcpt("a@example.com"))
	must(c.Rcpt("b@example.com"))
	w, err := c.Data()
	must(err)
	const content = "Message-ID: <1@test>\r\n\r\n.dot\r\n..\r\nend\r\n"
	_, err = w.Write([]byte(content))
	must(err)
	must(w.Close())
	must(c.Quit())

	truth := s.Truth()
	if len(truth) != 1 {
		t.Fatalf("%d messages accepted, want 1", len(truth))
	}
	got := truth[0]
	if got.QueueID == "" || got.Time.IsZero() {
		t.Errorf("no queue id or time: %+v", got)
	}
	got.QueueID, got.Time = "", truth[0].Time.Truncate(0)
	want := Accepted{
		From: "from@example.com", To: "a@example.com b@example.com", MessageID: "<1@test>",
		SHA256: sha256.Sum256([]byte(content)), Stream: "ad", User: "AppKey", Conn: 1,
		Time: got.Time, Size: len(content), Content: []byte(content),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("truth (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a@example.com", "b@example.com"}, got.Recipients()); diff != "" {
		t.Error(diff)
	}
	st := s.Stats()
	if st.TLSConnections != 1 || st.AuthInClear != 0 || st.AuthAttempts != 1 || st.Messages != 1 || st.BytesBeforeTLS != 0 {
		t.Errorf("stats: %+v", st)
	}
}

func TestGoSMTPClientOverImplicitTLS(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Implicit: true})
	for _, auth := range []sasl.Client{sasl.NewPlainClient("", "K#auth", "s"), sasl.NewLoginClient("K#auth", "s")} {
		c, err := gosmtp.DialTLS(s.Addr(), trusting(s))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Auth(auth); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := c.SendMail("from@example.com", []string{"to@example.com"}, strings.NewReader("Subject: x\r\n\r\nhello\r\n")); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Quit(); err != nil {
			t.Fatal(err)
		}
	}
	truth := s.Truth()
	if len(truth) != 4 {
		t.Fatalf("%d messages, want 4", len(truth))
	}
	for i, a := range truth {
		if a.Stream != "auth" || a.Conn != i/2+1 {
			t.Errorf("message %d: stream %s, connection %d", i, a.Stream, a.Conn)
		}
	}
}

// TestPipelined sends two messages as one round trip each, and counts them.
func TestPipelined(t *testing.T) {
	t.Parallel()
	s := start(t, Config{})
	c := session(t, s)
	before := s.Stats()
	c.send(envelope("a@example.com"))
	c.want("250 2.1.0", "250 2.1.5", "354 ")
	c.send("one\r\n.\r\n" + envelope("b@example.com"))
	c.want("250 2.0.0 OK queued as ", "250 2.1.0", "250 2.1.5", "354 ")
	c.send("two\r\n.\r\nQUIT\r\n")
	c.want("250 ", "221 ")
	c.wantEnd("")
	st := s.Stats()
	if got := st.RoundTrips - before.RoundTrips; got != 3 {
		t.Errorf("%d round trips, want 3", got)
	}
	if st.MaxCommandsInGroup != 4 {
		t.Errorf("most commands in a group %d, want 4", st.MaxCommandsInGroup)
	}
	if got := st.Groups - before.Groups; got != 3 {
		t.Errorf("%d groups, want 3", got)
	}
	if len(s.MailTimes()) != 2 || st.EarlyTalkers-before.EarlyTalkers != 0 {
		t.Errorf("%d MAIL times, %d early", len(s.MailTimes()), st.EarlyTalkers)
	}
	want := map[string]int64{"2xx": 2}
	if diff := cmp.Diff(want, st.Replies[EOD]); diff != "" {
		t.Error(diff)
	}
	until(t, "no connection open", func() bool { return s.Stats().Open == 0 })
}

// exchange is what is sent and the replies it gets, by prefix.
type exchange struct {
	send string
	want []string
}

func TestOrderOfCommands(t *testing.T) {
	t.Parallel()
	const hello = "EHLO x\r\n"
	auth := "AUTH PLAIN " + b64("\x00K\x00s") + "\r\n"
	const mail = "MAIL FROM:<a@example.com>\r\n"
	const rcpt = "RCPT TO:<b@example.com>\r\n"
	in := exchange{hello + auth, []string{"250", "235"}}
	for name, steps := range map[string][]exchange{
		"mail before EHLO":         {{mail, []string{"503"}}},
		"mail before AUTH":         {{hello + mail, []string{"250", "530 5.7.0"}}},
		"auth before EHLO":         {{auth, []string{"503"}}},
		"auth twice":               {in, {auth, []string{"503"}}},
		"auth in a transaction":    {{hello + auth + mail + auth, []string{"250", "235", "250", "503"}}},
		"auth unknown mechanism":   {{hello + "AUTH XOAUTH2 abc\r\n", []string{"250", "504"}}},
		"auth cancelled":           {{hello + "AUTH PLAIN\r\n", []string{"250", "334 \r\n"}}, {"*\r\n", []string{"501"}}},
		"auth without user":        {{hello + "AUTH PLAIN " + b64("\x00\x00s") + "\r\n", []string{"250", "535"}}},
		"auth no base64":           {{hello + "AUTH PLAIN ???\r\n", []string{"250", "501"}}},
		"auth unknown stream":      {{hello + "AUTH PLAIN " + b64("\x00K#bulk\x00s") + "\r\n", []string{"250", "535"}}},
		"nested mail":              {in, {mail + mail, []string{"250", "503 5.5.1"}}},
		"rcpt before mail":         {in, {rcpt, []string{"503"}}},
		"data before mail":         {in, {"DATA\r\n", []string{"503"}}},
		"data before rcpt":         {in, {mail + "DATA\r\n", []string{"250", "503"}}},
		"rset ends a transaction":  {in, {mail + rcpt + "RSET\r\n" + mail + "DATA\r\n", []string{"250", "250", "250", "250", "503"}}},
		"ehlo ends a transaction":  {in, {mail + rcpt + hello, []string{"250", "250", "250"}}, {rcpt, []string{"503"}}},
		"helo is enough":           {{"HELO x\r\n" + auth + mail, []string{"250 smtp-mail", "235", "250"}}},
		"ehlo without name":        {{"EHLO\r\n", []string{"501"}}},
		"vrfy, help, expn, noop":   {in, {"VRFY x\r\nHELP\r\nEXPN x\r\nNOOP\r\n", []string{"252", "214", "502", "250"}}},
		"unknown command":          {{"FROB\r\n", []string{"500"}}},
		"a very long verb":         {{"ABCDEFGHIJKLMNOP x\r\n", []string{"500"}}},
		"too long a line":          {{strings.Repeat("x", 5000) + "\r\nNOOP\r\n", []string{"500 5.5.2 Line too long", "250"}}},
		"a very long line":         {{strings.Repeat("x", 200000) + "\r\nNOOP\r\n", []string{"500 5.5.2 Line too long", "250"}}},
		"empty recipient":          {in, {mail + "RCPT TO:<>\r\n", []string{"250", "553"}}},
		"null sender":              {in, {"MAIL FROM:<>\r\n", []string{"250"}}},
		"no brackets":              {in, {"MAIL FROM:a@example.com\r\n", []string{"501"}}},
		"text after the path":      {in, {"MAIL FROM:<a@example.com>x\r\n", []string{"501"}}},
		"no domain":                {in, {"MAIL FROM:<a>\r\n", []string{"553"}}},
		"space in the address":     {in, {"MAIL FROM:<a b@example.com>\r\n", []string{"553"}}},
		"quoted bracket":           {in, {"MAIL FROM:<\"a>b\"@example.com>\r\n", []string{"250"}}},
		"non-ASCII address":        {in, {"MAIL FROM:<한@example.com>\r\n", []string{"553"}}},
		"address too long":         {in, {"MAIL FROM:<" + strings.Repeat("a", 300) + "@example.com>\r\n", []string{"553"}}},
		"BODY":                     {in, {"MAIL FROM:<a@example.com> BODY=8BITMIME\r\n", []string{"250"}}},
		"BODY unknown":             {in, {"MAIL FROM:<a@example.com> BODY=BINARYMIME\r\n", []string{"501"}}},
		"SIZE not offered":         {in, {"MAIL FROM:<a@example.com> SIZE=10\r\n", []string{"555"}}},
		"SMTPUTF8 not offered":     {in, {"MAIL FROM:<a@example.com> SMTPUTF8\r\n", []string{"555"}}},
		"DSN not offered":          {in, {mail + "RCPT TO:<b@example.com> NOTIFY=NEVER\r\n", []string{"250", "555"}}},
		"BDAT not offered":         {in, {mail + rcpt + "BDAT 0 LAST\r\n", []string{"250", "250", "502"}}},
		"STARTTLS with a word":     {{hello + "STARTTLS now\r\n", []string{"250", "501"}}},
		"control byte in a line":   {{"NO\x00OP\r\n", []string{"500"}}},
		"bare LF after a command":  {{"NOOP\n", []string{"250"}}},
		"two dots are not the end": {in, {mail + rcpt + "DATA\r\n", []string{"250", "250", "354"}}, {"x\r\n..\r\n.\r\n", []string{"250"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, start(t, Config{}))
			c.want("220 ")
			for _, step := range steps {
				c.send(step.send)
				c.want(step.want...)
			}
		})
	}
}

func TestTooManyFaultsClose(t *testing.T) {
	t.Parallel()
	c := dial(t, start(t, Config{}))
	c.want("220 ")
	c.send(strings.Repeat("FROB\r\n", 20))
	for range 20 {
		c.want("500 ")
	}
	c.want("421 4.7.0")
	c.wantEnd("")
}

// TestAcceptanceForgivesFaults: a long-lived connection is not closed for faults long past.
func TestAcceptanceForgivesFaults(t *testing.T) {
	t.Parallel()
	c := session(t, start(t, Config{}))
	for range 3 {
		c.send(strings.Repeat("FROB\r\n", 19))
		for range 19 {
			c.want("500 ")
		}
		if got := c.deliver("a@example.com"); !strings.HasPrefix(got, "250 ") {
			t.Fatal(got)
		}
	}
}

// TestRefusedRecipientCostsNoConnection: DATA after a refused RCPT is no fault of a
// pipelining client.
func TestRefusedRecipientCostsNoConnection(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Profile: "strict", AllowPlainAuth: true, Rules: []Rule{{Stage: Rcpt, Reply: "550 5.1.1 no"}}})
	c := dial(t, s)
	c.want("220 ")
	c.send("EHLO x\r\n")
	c.want("250-")
	c.send("AUTH PLAIN " + b64("\x00K\x00s") + "\r\n")
	c.want("235 ")
	for range 50 {
		c.send("RSET\r\n" + envelope("a@example.com"))
		c.want("250 ", "250 ", "550 5.1.1", "503 5.5.1")
	}
	if st := s.Stats(); st.Connections != 1 || st.Messages != 0 {
		t.Errorf("%d connections, %d messages; want 1 and 0", st.Connections, st.Messages)
	}
}

func TestLogins(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Users: map[string]string{"K": "s"}})
	try := func(user, password, want string) {
		t.Helper()
		c := dial(t, s)
		c.want("220 ")
		c.send("EHLO x\r\nAUTH PLAIN " + b64("\x00"+user+"\x00"+password) + "\r\n")
		c.want("250-", want)
	}
	try("K", "s", "235 ")
	try("K#ad", "s", "235 ")
	try("K", "wrong", "535 5.7.8")
	try("other", "s", "535 5.7.8")
	try("other", "", "535 5.7.8")
	s.SetUsers(map[string]string{"K": "new"})
	try("K", "s", "535 5.7.8")
	try("K", "new", "235 ")
	if st := s.Stats(); st.AuthAttempts != 7 || st.AuthFailures != 4 || st.AuthInClear != 7 {
		t.Errorf("%d attempts, %d failures, %d in the clear; want 7, 4, 7", st.AuthAttempts, st.AuthFailures, st.AuthInClear)
	}
}

// TestPlaintextBeforeTLSIsForgotten: what came with STARTTLS must not be obeyed inside TLS.
func TestPlaintextBeforeTLSIsForgotten(t *testing.T) {
	t.Parallel()
	for profile, replies := range map[string][]string{"nhn": {"220 "}, "strict": {"554 "}} {
		t.Run(profile, func(t *testing.T) {
			t.Parallel()
			s := start(t, Config{Profile: profile})
			c := dial(t, s)
			c.want("220 ")
			c.send("EHLO x\r\n")
			c.want("250-")
			c.send("STARTTLS\r\nNOOP injected\r\n")
			c.want(replies...)
			if profile == "nhn" {
				c.overTLS(s)
				c.send("VRFY x\r\n")
				c.want("252 ") // and no 250 to the NOOP
				c.send("MAIL FROM:<a@example.com>\r\n")
				c.want("503 ") // EHLO is forgotten too
			} else {
				c.wantEnd("")
			}
			st := s.Stats()
			if st.BytesBeforeTLS != int64(len("NOOP injected\r\n")) || st.EarlyTalkers != 1 {
				t.Errorf("%d bytes before TLS, %d early talkers", st.BytesBeforeTLS, st.EarlyTalkers)
			}
		})
	}
}

func TestOldTLSOnly(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Implicit: true, MaxTLSVersion: tls.VersionTLS11})
	cfg := trusting(s)
	if c, err := tls.Dial("tcp", s.Addr(), cfg); err == nil {
		c.Close()
		t.Fatal("a client that wants TLS 1.2 got through")
	}
	until(t, "the failure is counted", func() bool { return s.Stats().TLSFailures == 1 })
}

func TestTruthFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "truth.jsonl")
	s := start(t, Config{TruthFile: name})
	c := dial(t, s)
	c.want("220 ")
	c.login("SecretAppKey#auth")
	c.send(envelope("to@example.com"))
	c.want("250 ", "250 ", "354 ")
	c.send("Message-Id:\r\n <folded@test>\r\n\r\nx\r\n.\r\n")
	c.want("250 ")
	// Read while the relay runs: it is written before the reply.
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "SecretAppKey") {
		t.Errorf("the AppKey is in the file: %s", text)
	}
	var got Accepted
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	want := s.Truth()[0]
	if got.SHA256 != want.SHA256 || got.MessageID != "<folded@test>" || got.To != "to@example.com" || got.QueueID != want.QueueID {
		t.Errorf("file has %+v, memory %+v", got, want)
	}
}

// TestUnrecordableIsRefused: without a record there is no acceptance.
func TestUnrecordableIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, Config{TruthFile: filepath.Join(t.TempDir(), "truth")})
	s.truth.mu.Lock()
	s.truth.file.Close()
	s.truth.mu.Unlock()
	c := session(t, s)
	c.send(envelope("to@example.com"))
	c.want("250 ", "250 ", "354 ")
	c.send("x\r\n.\r\n")
	c.want("451 4.3.0")
	if n := len(s.Truth()); n != 0 {
		t.Errorf("%d messages recorded, want none", n)
	}
	s.truth.mu.Lock()
	s.truth.file = nil // closed already; Close would complain
	s.truth.mu.Unlock()
}

func TestChunking(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Capabilities: []string{"PIPELINING", "CHUNKING", "SIZE 1000", "AUTH PLAIN"}, MaxSize: 1000, KeepContent: true})
	c := session(t, s)
	const begin = "MAIL FROM:<a@example.com> SIZE=20\r\nRCPT TO:<b@example.com>\r\n"
	c.send(begin + "BDAT 5\r\nab\r\n.BDAT 6 LAST\r\n\r\ncd\r\n")
	c.want("250 ", "250 ", "250 2.0.0 5 octets", "250 2.0.0 OK queued")
	if got := string(s.Truth()[0].Content); got != "ab\r\n.\r\ncd\r\n" {
		t.Errorf("content %q", got)
	}
	c.send(begin + "BDAT 2\r\nx\rBDAT 4 LAST\r\n\ny\r\n") // torn between CR and LF
	c.want("250 ", "250 ", "250 ", "250 2.0.0 OK queued")
	c.send("BDAT 3 LAST\r\nabcNOOP\r\n") // the chunk is swallowed
	c.want("503 ", "250 2.0.0 Ok")
	c.send("MAIL FROM:<a@example.com> SIZE=2000\r\n")
	c.want("552 5.3.4")
	c.send(begin + "BDAT 2000 LAST\r\n" + strings.Repeat("y", 2000))
	c.want("250 ", "250 ", "552 5.3.4")
	c.send(begin + "BDAT 1\r\nx" + "DATA\r\n")
	c.want("250 ", "250 ", "250 ", "503 ")
	c.send("BDAT x\r\n")
	c.want("501 ")
	c.wantEnd("")
	if n, bad := len(s.Truth()), s.Stats().BadBytes(); n != 2 || bad != 0 {
		t.Errorf("%d messages, %d bad bytes; want 2 and 0", n, bad)
	}
}

func TestSizeLimit(t *testing.T) {
	t.Parallel()
	s := start(t, Config{MaxSize: 10})
	c := session(t, s)
	for content, want := range map[string]string{"12345678\r\n": "250 ", "123456789\r\n": "552 5.3.4"} {
		c.send(envelope("a@example.com"))
		c.want("250 ", "250 ", "354 ")
		c.send(content + ".\r\n")
		c.want(want)
	}
}

func TestCloseTwiceEndsConnections(t *testing.T) {
	t.Parallel()
	s, err := Start(Config{})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, s)
	c.want("220 ")
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	c.wantEnd("")
	if st := s.Stats(); st.Connections != 1 || st.Open != 0 || len(st.ConnectTimes) != 1 {
		t.Errorf("stats after Close: %+v", st)
	}
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		cfg  Config
		want string
	}{
		"profile":         {Config{Profile: "fast"}, `profile "fast": there is nhn, demo, strict`},
		"parameter":       {Config{Profile: "throttled?speed=1"}, `profile throttled has no parameter "speed", but rate, connects`},
		"no parameter":    {Config{Profile: "nhn?x=1"}, "takes none"},
		"parameter form":  {Config{Profile: "slow?dot"}, "want name=value"},
		"twice":           {Config{Profile: "slow?dot=1s&dot=2s"}, "2 times"},
		"rate":            {Config{Profile: "throttled?rate=x"}, `rate "x": want 1 to`},
		"rate window":     {Config{Profile: "throttled?rate=1/x"}, `"x" is no duration`},
		"share":           {Config{Profile: "flaky?before=150%"}, `share "150%"`},
		"code":            {Config{Profile: "throttled?code=250"}, "421"},
		"count":           {Config{Profile: "greylist?times=-1"}, `"-1"`},
		"duration":        {Config{Profile: "slow?dot=1"}, "duration"},
		"rule":            {Config{Rules: []Rule{{Stage: "rcpt", Reply: "250 x"}, {Stage: "x"}}}, `rule 2: stage "x": want one of`},
		"TLS both ways":   {Config{Implicit: true, NoTLS: true}, "exclude each other"},
		"round trip":      {Config{RoundTrip: -1}, "RoundTrip"},
		"idle":            {Config{IdleTimeout: -1}, "IdleTimeout"},
		"size":            {Config{MaxSize: -1}, "MaxSize"},
		"capability":      {Config{Capabilities: []string{"A\r\nB"}}, "single line"},
		"address":         {Config{Addr: "256.0.0.1:0"}, "listen"},
		"truth directory": {Config{TruthFile: "/no/such/place/truth"}, "truth file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := Start(tc.cfg)
			if err == nil {
				s.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not say %q", err, tc.want)
			}
		})
	}
}
