package doctor

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemail/sluice/internal/config"
)

// session is one SMTP conversation, a command at a time. It belongs to one check at
// a time.
type session struct {
	nc      net.Conn
	rd      *bufio.Reader
	state   tls.ConnectionState // zero before TLS
	clear   bool                // a login may leave without TLS
	secrets []string            // never to be in a line
	ended   bool
}

// reply is one reply; its text has no secret in it.
type reply struct {
	code  int
	lines []string
}

// String is the reply on one line, fit to be shown.
func (r reply) String() string {
	return clean(strings.TrimSpace(fmt.Sprintf("%d %s", r.code, strings.Join(r.lines, " "))))
}

// Bounds on a reply (RFC 5321 section 4.5.3.1.5 has 512 octets a line).
const (
	maxReplyLine  = 4096
	maxReplyLines = 100
)

// errNoSMTP is what cannot be read as a reply.
var errNoSMTP = errors.New("that is no SMTP reply")

// errClear is a login that would cross the network unencrypted.
var errClear = errors.New("no login without TLS")

func newSession(nc net.Conn, clear bool, secrets ...string) *session {
	return &session{nc: nc, rd: bufio.NewReaderSize(nc, maxReplyLine), clear: clear, secrets: secrets}
}

// bounded ends reads and writes when ctx does. The caller calls stop when it is done
// with ctx.
func (s *session) bounded(ctx context.Context) (stop func() bool) {
	nc := s.nc // TLS may be put around it meanwhile
	_ = nc.SetDeadline(time.Time{})
	return context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
}

func (s *session) write(lines ...string) error {
	_, err := s.nc.Write([]byte(strings.Join(lines, "\r\n") + "\r\n"))
	return err
}

// ask writes one command and returns its reply.
func (s *session) ask(line string) (reply, error) {
	if err := s.write(line); err != nil {
		return reply{}, err
	}
	return s.read()
}

// read returns the next reply.
func (s *session) read() (reply, error) {
	r, err := readReply(s.rd)
	for i := range r.lines {
		r.lines[i] = s.redact(r.lines[i])
	}
	return r, err
}

func readReply(rd *bufio.Reader) (reply, error) {
	var r reply
	for {
		line, err := rd.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return r, fmt.Errorf("%w: a line of more than %d octets", errNoSMTP, maxReplyLine)
		}
		if err != nil {
			return r, err
		}
		text := strings.TrimRight(string(line), "\r\n")
		code, last, ok := replyLine(text)
		if !ok || r.code != 0 && code != r.code {
			return r, fmt.Errorf("%w: %q", errNoSMTP, clean(text))
		}
		r.code = code
		r.lines = append(r.lines, text[min(len(text), 4):])
		if last {
			return r, nil
		}
		if len(r.lines) == maxReplyLines {
			return r, fmt.Errorf("%w: more than %d lines", errNoSMTP, maxReplyLines)
		}
	}
}

func replyLine(s string) (code int, last, ok bool) {
	if len(s) < 3 || len(s) > 3 && s[3] != ' ' && s[3] != '-' || strings.ContainsAny(s[:3], "+-") {
		return 0, false, false
	}
	code, err := strconv.Atoi(s[:3])
	return code, len(s) == 3 || s[3] == ' ', err == nil && code >= 200 && code < 600
}

// redact takes out of a reply what a relay may have echoed.
func (s *session) redact(text string) string {
	for _, secret := range s.secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, base64.StdEncoding.EncodeToString([]byte(secret)), "***")
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	return text
}

// replyError is a reply other than the one that was hoped for.
type replyError struct {
	command string
	reply   reply
}

func (e *replyError) Error() string { return fmt.Sprintf("%s: the relay said %q", e.command, e.reply) }

func (s *session) expect(command string, code int, r reply, err error) error {
	if err == nil && r.code != code {
		return &replyError{command, r}
	}
	return err
}

func (s *session) greeting() (reply, error) {
	r, err := s.read()
	return r, s.expect("greeting", 220, r, err)
}

func (s *session) ehlo(name string) (extensions, error) {
	r, err := s.ask("EHLO " + name)
	if err := s.expect("EHLO", 250, r, err); err != nil {
		return nil, err
	}
	return parseEHLO(r.lines), nil
}

// startTLS says STARTTLS. What came along with the reply was put there by somebody
// in between (CVE-2011-0411).
func (s *session) startTLS() error {
	r, err := s.ask("STARTTLS")
	if err := s.expect("STARTTLS", 220, r, err); err != nil {
		return err
	}
	if s.rd.Buffered() > 0 {
		return fmt.Errorf("%w: data between the reply to STARTTLS and TLS", errNoSMTP)
	}
	return nil
}

// encrypt puts verified TLS around the connection.
func (s *session) encrypt(ctx context.Context, cfg *tls.Config) error {
	tc := tls.Client(s.nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		return err
	}
	s.nc, s.rd, s.state = tc, bufio.NewReaderSize(tc, maxReplyLine), tc.ConnectionState()
	return nil
}

// login authenticates once and returns the mechanism. With auto it takes PLAIN before
// LOGIN, as the workers do.
func (s *session) login(x extensions, mode config.AuthMode, user, password string) (string, error) {
	if !s.state.HandshakeComplete && !s.clear {
		return "", errClear
	}
	offered := x["AUTH"]
	if mode == config.AuthPlain || mode == config.AuthAuto && slices.Contains(offered, "PLAIN") {
		return "PLAIN", s.plain(user, password)
	}
	if mode == config.AuthLogin || mode == config.AuthAuto && slices.Contains(offered, "LOGIN") {
		return "LOGIN", s.answer("AUTH LOGIN", user, password)
	}
	return "", fmt.Errorf("%w, but %q", errNoMechanism, offered)
}

var errNoMechanism = errors.New("the relay offers neither PLAIN nor LOGIN")

// maxCommand is the longest command line without CRLF (RFC 5321 section 4.5.3.1.4).
const maxCommand = 510

func plainMessage(user, password string) string { return "\x00" + user + "\x00" + password }

// plain sends the credentials along with the command where they fit (RFC 4616).
func (s *session) plain(user, password string) error {
	message := plainMessage(user, password)
	line := "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte(message))
	if len(line) > maxCommand {
		return s.answer("AUTH PLAIN", message)
	}
	r, err := s.ask(line)
	return s.expect("AUTH PLAIN", 235, r, err)
}

// answer gives one answer to each 334 (RFC 4954 section 4); only 235 is success.
func (s *session) answer(command string, answers ...string) error {
	r, err := s.ask(command)
	for _, a := range answers {
		if err != nil || r.code != 334 {
			break
		}
		r, err = s.ask(base64.StdEncoding.EncodeToString([]byte(a)))
	}
	return s.expect(command, 235, r, err)
}

// quit says QUIT and closes. Its reply is returned, but means little: some relays
// answer with an error, some not at all.
func (s *session) quit() (reply, error) {
	r, err := s.ask("QUIT")
	s.end()
	return r, err
}

// farewell is how long a relay is given to answer a QUIT that nothing depends on.
const farewell = time.Second

// close quits and closes, unless that has been done.
func (s *session) close() {
	if s.ended {
		return
	}
	_ = s.nc.SetDeadline(time.Now().Add(farewell))
	_, _ = s.quit()
}

// end closes without a word, for a connection that is in no state to be talked to.
func (s *session) end() {
	if !s.ended {
		s.ended = true
		_ = s.nc.Close()
	}
}

// extensions is what EHLO offers: keyword, parameters, all in upper case.
type extensions map[string][]string

// parseEHLO reads the lines of an EHLO reply; the first is a greeting.
func parseEHLO(lines []string) extensions {
	x := extensions{}
	for _, line := range lines[min(1, len(lines)):] {
		f := strings.Fields(strings.ToUpper(line))
		if len(f) == 0 {
			continue
		}
		// The form AUTH=LOGIN is from before RFC 2554; NHN still says it.
		if mech, old := strings.CutPrefix(f[0], "AUTH="); old {
			f = append([]string{"AUTH", mech}, f[1:]...)
		}
		for _, p := range f[1:] {
			if !slices.Contains(x[f[0]], p) {
				x[f[0]] = append(x[f[0]], p)
			}
		}
		if x[f[0]] == nil {
			x[f[0]] = []string{}
		}
	}
	return x
}

func (x extensions) has(keyword string) bool { return x[keyword] != nil }
