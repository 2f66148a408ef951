package relay

import (
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"strings"
)

// auth carries out AUTH PLAIN (RFC 4616) and AUTH LOGIN. The success text is NHN's, which
// has no enhanced code; its refusals are not published, so those here follow RFC 4954.
func (c *conn) auth(arg []byte) {
	k := &c.server.counters
	if !c.secure {
		k.authClear.Add(1)
	}
	switch {
	case !c.helo:
		c.fault(atAuth, "503 5.5.1 Say EHLO first")
		return
	case c.loggedIn:
		c.fault(atAuth, "503 5.5.1 Already authenticated")
		return
	case c.open:
		c.fault(atAuth, "503 5.5.1 AUTH is not permitted during a mail transaction")
		return
	case !c.offersAuth():
		c.fault(atAuth, "530 5.7.0 Must issue a STARTTLS command first")
		return
	}
	k.authAttempts.Add(1)
	if c.early() && c.strict() {
		c.refuse(atAuth, "554 5.5.0 Error: improper command pipelining")
		return
	}
	mech, initial, _ := strings.Cut(string(arg), " ")
	var user, password string
	var refusal string
	switch strings.ToUpper(mech) {
	case "PLAIN":
		user, password, refusal = c.plain(initial)
	case "LOGIN":
		user, password, refusal = c.login(initial)
	default:
		refusal = "504 5.5.4 Unrecognized authentication type"
	}
	if c.closing {
		return
	}
	c.decide(user, password, refusal)
}

// plain returns user and password, or the reply that refuses what was sent.
func (c *conn) plain(initial string) (user, password, refusal string) {
	msg, refusal := c.answerTo("334 ", initial)
	if refusal != "" {
		return "", "", refusal
	}
	// authorization identity NUL user NUL password
	parts := bytes.Split(msg, []byte{0})
	if len(parts) != 3 {
		return "", "", "501 5.5.2 Cannot decode the credentials"
	}
	return string(parts[1]), string(parts[2]), ""
}

// login asks for user and password with the prompts "Username:" and "Password:".
func (c *conn) login(initial string) (user, password, refusal string) {
	u, refusal := c.answerTo("334 VXNlcm5hbWU6", initial)
	if refusal != "" {
		return "", "", refusal
	}
	p, refusal := c.answerTo("334 UGFzc3dvcmQ6", "")
	return string(u), string(p), refusal
}

// answerTo returns the decoded initial response, or the client's answer to a challenge.
func (c *conn) answerTo(challenge, initial string) (answer []byte, refusal string) {
	if initial == "=" { // an empty initial response, RFC 4954 section 4
		return nil, ""
	}
	if initial == "" {
		c.reply(atAuth, challenge)
		line, ok := c.readLine()
		if !ok {
			c.closing = true
			return nil, ""
		}
		initial = string(bytes.TrimRight(line, "\r\n"))
	}
	if initial == "*" {
		return nil, "501 5.7.0 Authentication cancelled"
	}
	answer, err := base64.StdEncoding.DecodeString(initial)
	if err != nil {
		return nil, "501 5.5.2 Cannot decode the response"
	}
	return answer, ""
}

// decide accepts or refuses a login. refusal, if any, was found on the way there.
func (c *conn) decide(login, password, refusal string) {
	user, stream := login, "normal"
	if i := strings.LastIndexByte(login, '#'); i >= 0 {
		user, stream = login[:i], login[i+1:]
	}
	if refusal == "" && !c.server.knows(user, password, stream) {
		refusal = "535 5.7.8 Authentication credentials invalid"
	}
	if refusal != "" {
		c.server.counters.authFailures.Add(1)
		c.fault(atAuth, refusal)
		return
	}
	before := c.stream
	c.stream = stream // rules may ask for it
	v := c.judge(atAuth, "235 Authentication Successful")
	for strings.HasPrefix(v.text, "334") {
		// A rule that answers with challenges goes on for as long as the client does.
		if !c.challenge(v) {
			c.stream = before
			return
		}
		v = c.judge(atAuth, "235 Authentication Successful")
	}
	if v.effect {
		c.loggedIn, c.user = true, user
	} else {
		c.stream = before
		c.server.counters.authFailures.Add(1)
	}
	c.say(atAuth, v)
}

// challenge says a rule's 334 and reads the answer; false: the client has had enough.
func (c *conn) challenge(v verdict) bool {
	c.say(atAuth, v)
	if c.closing {
		return false
	}
	line, ok := c.readLine()
	if !ok {
		c.closing = true
		return false
	}
	if string(bytes.TrimRight(line, "\r\n")) != "*" {
		return true
	}
	c.server.counters.authFailures.Add(1)
	c.fault(atAuth, "501 5.7.0 Authentication cancelled")
	return false
}

// knows reports whether the relay takes this login. NHN's answer to an unknown mail type
// is not published; refusing it shows a sender's mistake early.
func (s *Server) knows(user, password, stream string) bool {
	if user == "" || password == "" || !knownStream(stream) {
		return false
	}
	users := *s.users.Load()
	if users == nil {
		return true
	}
	want, known := users[user]
	return subtle.ConstantTimeCompare([]byte(want), []byte(password)) == 1 && known
}
