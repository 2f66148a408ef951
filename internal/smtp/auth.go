package smtp

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"
)

// AuthMethod is how to log in.
type AuthMethod uint8

// The methods. Auto takes PLAIN where it is offered, else LOGIN; without a user it
// means none. A method that is named is used whether or not EHLO offers it.
const (
	AuthAuto AuthMethod = iota
	AuthPlain
	AuthLogin
	AuthNone
)

// String returns the configuration's word for m.
func (m AuthMethod) String() string {
	if m > AuthNone {
		return fmt.Sprintf("auth(%d)", uint8(m))
	}
	return [...]string{"auto", "plain", "login", "none"}[m]
}

// maxAuthLine bounds an AUTH command with an initial response (RFC 4954 section 4
// refers to the 512 octets of a command line, CRLF included).
const maxAuthLine = 510

// loginClient answers the two prompts of LOGIN, whatever they say. (go-sasl's own
// insists on their spelling and sends the user along with the command, which not
// every relay takes.)
type loginClient struct{ answers [][]byte }

func (c *loginClient) Start() (string, []byte, error) { return sasl.Login, nil, nil }

func (c *loginClient) Next([]byte) ([]byte, error) {
	if len(c.answers) == 0 {
		return nil, sasl.ErrUnexpectedServerChallenge
	}
	answer := c.answers[0]
	c.answers = c.answers[1:]
	return answer, nil
}

// mechanism picks one, or nil for none.
func (h *handshake) mechanism() (sasl.Client, *Error) {
	cfg, method := h.cfg, h.cfg.Auth
	if method == AuthAuto {
		switch {
		case cfg.User == "":
			method = AuthNone
		case slices.Contains(h.ext.Auth, sasl.Plain):
			method = AuthPlain
		case slices.Contains(h.ext.Auth, sasl.Login):
			method = AuthLogin
		default:
			return nil, &Error{Stage: StageAuth, Err: fmt.Errorf("%w: the relay offers %q, neither PLAIN nor LOGIN; set relay.auth to force one, or to none", ErrConfig, h.ext.Auth)}
		}
	}
	switch method {
	case AuthPlain:
		return sasl.NewPlainClient("", cfg.User, cfg.Password), nil
	case AuthLogin:
		return &loginClient{[][]byte{[]byte(cfg.User), []byte(cfg.Password)}}, nil
	}
	return nil, nil
}

// login authenticates. It is reached only over verified TLS, or where
// DialConfig.check allowed plaintext. Only 235 is success (RFC 4954 section 6);
// whoever goes on asking is hung up on.
func (h *handshake) login() *Error {
	client, herr := h.mechanism()
	if client == nil {
		return herr
	}
	mech, initial, err := client.Start()
	if err != nil {
		return &Error{Stage: StageAuth, Err: err}
	}
	line := "AUTH " + mech
	if encoded := base64.StdEncoding.EncodeToString(initial); encoded != "" && len(line)+1+len(encoded) <= maxAuthLine {
		line, initial = line+" "+encoded, nil
	}
	h.rd.private = true
	defer func() { h.rd.private = false }()
	for {
		r, herr := h.command(StageAuth, line, 235)
		if herr == nil {
			return nil
		}
		herr.Reply = h.redact(herr.Reply, line)
		if r.Code != 334 {
			return herr
		}
		answer := initial
		if initial = nil; answer == nil {
			challenge, _ := base64.StdEncoding.DecodeString(r.Text) // a prompt, whatever it says
			if answer, err = client.Next(challenge); err != nil {
				return &Error{Stage: StageAuth, Err: fmt.Errorf("%w: the relay keeps asking", ErrBotched)}
			}
		}
		line = base64.StdEncoding.EncodeToString(answer)
	}
}

// redact takes out of a reply what a relay may have echoed: the line that it answers, user
// and password.
func (h *handshake) redact(r Reply, sent string) Reply {
	secrets := []string{h.cfg.User, h.cfg.Password}
	for _, secret := range secrets[:2] {
		secrets = append(secrets, base64.StdEncoding.EncodeToString([]byte(secret)))
	}
	if i := strings.LastIndexByte(sent, ' '); i < 0 || strings.HasPrefix(sent, "AUTH PLAIN ") {
		secrets = append(secrets, sent[i+1:])
	}
	for _, secret := range secrets {
		r.Text = hide(r.Text, secret)
	}
	return r
}

// hide replaces every place in text where secret stands, or begins with so much of it that
// it is no chance: a relay may echo a line cut short.
func hide(text, secret string) string {
	const enough = 12 // octets
	start := secret[:min(len(secret), enough)]
	if start == "" {
		return text
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, start)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("***")
		for rest := secret[len(start):]; rest != "" && after != "" && rest[0] == after[0]; rest = rest[1:] {
			after = after[1:]
		}
		text = after
	}
}
