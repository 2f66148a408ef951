package producer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"go.uber.org/goleak"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/templates"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newQueue(t *testing.T) (*queue.Queue, *miniredis.Miniredis) {
	t.Helper()
	srv := miniredis.RunT(t)
	q, err := queue.Open(queue.Options{Connection: queue.Connection{Addrs: []string{srv.Addr()}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q, srv
}

const source = `{{define "subject"}}Hello {{.name}}{{end}}{{define "html"}}<p>{{.name}}</p>{{end}}`

func request(t testing.TB, lists ...string) Request {
	t.Helper()
	tmpl, err := templates.Parse("hello", source)
	if err != nil {
		t.Fatal(err)
	}
	from, err := mail.ParseAddress("news@example.com")
	if err != nil {
		t.Fatal(err)
	}
	opened := 0
	return Request{
		Stream: mail.Normal, Template: tmpl,
		Options: templates.Options{From: templates.Mailbox{Address: from}, Stream: mail.Normal},
		List: List{Name: "list.csv", Open: func() (io.ReadCloser, error) {
			s := lists[min(opened, len(lists)-1)]
			opened++
			return io.NopCloser(strings.NewReader(s)), nil
		}},
	}
}

func rows(t *testing.T, q *queue.Queue, c *queue.Campaign) (out []string) {
	t.Helper()
	err := q.Rows(t.Context(), c, func(r queue.Row) error {
		out = append(out, fmt.Sprintf("%d %s %s", r.Line, r.Address, r.Outcome))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSend(t *testing.T) {
	t.Parallel()
	q, _ := newQueue(t)
	var b strings.Builder
	b.WriteString("email,name\n")
	for i := range 2*BlockSize + 1 {
		fmt.Fprintf(&b, "r%d@example.com,n%d\n", i, i)
	}
	b.WriteString("nobody,x\nr1@example.com,again\nlast@example.com,\n")
	r := request(t, b.String())
	res, err := Send(t.Context(), q, r)
	if err != nil {
		t.Fatal(err)
	}
	want := queue.Door{Recipients: 2*BlockSize + 4, Invalid: 2, Duplicate: 1}
	if res.Door != want || res.Campaign.Blocks != 3 || res.Campaign.Doors != 1 || len(res.Faults) != 3 {
		t.Errorf("%+v, %d blocks, %d slices of refused rows, faults %v", res.Door, res.Campaign.Blocks, res.Campaign.Doors, res.Faults)
	}
	got := rows(t, q, res.Campaign)
	for i, want := range map[int]string{
		0: "2 r0@example.com pending", 2 * BlockSize: "1002 r1000@example.com pending", 2*BlockSize + 1: "1003 nobody invalid",
		2*BlockSize + 2: "1004 r1@example.com duplicate", 2*BlockSize + 3: "1005 last@example.com invalid",
	} {
		if got[i] != want {
			t.Errorf("row %d is %q, want %q", i, got[i], want)
		}
	}
	again, err := Send(t.Context(), q, request(t, b.String()))
	if err != nil || !again.Existing || again.Campaign.ID != res.Campaign.ID || again.Door != want {
		t.Errorf("the same send again: %+v, %v", again, err)
	}
	if other, err := Send(t.Context(), q, request(t, b.String()+"new@example.com,n\n")); err != nil || other.Existing {
		t.Errorf("another list: %+v, %v", other, err)
	}
}

// The identity of a send: name, template version and list; or the key alone.
func TestIdentity(t *testing.T) {
	t.Parallel()
	q, _ := newQueue(t)
	send := func(change func(*Request)) (*Result, error) {
		r := request(t, "email,name\na@example.com,n\n")
		change(&r)
		return Send(t.Context(), q, r)
	}
	first, err := send(func(r *Request) { r.Name, r.Key = "spring", "k1" })
	if err != nil {
		t.Fatal(err)
	}
	if same, err := send(func(r *Request) { r.Name, r.Key = "spring", "k1" }); err != nil || !same.Existing || same.Campaign.ID != first.Campaign.ID {
		t.Errorf("the same key: %v, %v", same, err)
	}
	var in *InputError
	if _, err := send(func(r *Request) { r.Name, r.Key = "spring", "k2" }); !errors.As(err, &in) {
		t.Errorf("the name under another key: %v", err)
	}
	if _, err := send(func(r *Request) { r.Name, r.Key, r.Options.From.Name = "spring", "k1", "Somebody" }); !errors.As(err, &in) {
		t.Errorf("the key with another sender: %v", err)
	}
	other := request(t, "email,name\na@example.com,n\nb@example.com,n\n")
	other.Name, other.Key = "spring", "k1"
	if _, err := Send(t.Context(), q, other); !errors.As(err, &in) {
		t.Errorf("the key with another list: %v", err)
	}
	if auto, err := send(func(*Request) {}); err != nil || auto.Existing || !strings.HasPrefix(auto.Campaign.Name, "hello-") {
		t.Errorf("a name of its own: %+v, %v", auto, err)
	}
}

// What fails half-way leaves nothing behind.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	good := "email,name\na@example.com,n\n"
	for name, tc := range map[string]struct {
		lists []string
		want  func(error) bool
	}{
		"the list changed in between": {[]string{good, good, good + "b@example.com,n\n"}, func(err error) bool { return errors.Is(err, ErrListChanged) }},
		"nobody in it":                {[]string{"email,name\n"}, func(err error) bool { var in *InputError; return errors.As(err, &in) }},
		"no email column":             {[]string{"mail,name\nx,y\n"}, func(err error) bool { var in *InputError; return errors.As(err, &in) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, srv := newQueue(t)
			if _, err := Send(t.Context(), q, request(t, tc.lists...)); !tc.want(err) {
				t.Errorf("%v", err)
			}
			if keys := srv.Keys(); len(keys) != 0 {
				t.Errorf("left in redis: %v", keys)
			}
		})
	}
}

// A mail that no relay would take is refused before anything is stored: one of 31 MB, and
// one a little over the limit that is set.
func TestOverSize(t *testing.T) {
	t.Parallel()
	file := func(name string, size int) templates.Attachment {
		return templates.Attachment{Name: name, Data: bytes.Repeat([]byte("x"), size)}
	}
	for name, change := range map[string]func(*templates.Options){
		"31 MB": func(o *templates.Options) {
			o.Attachments = []templates.Attachment{file("a.bin", 12_000_000), file("b.bin", 11_000_000)} // a third more in base64
		},
		"over a limit": func(o *templates.Options) {
			o.MaxSize, o.Attachments = 5000, []templates.Attachment{file("a.bin", 4000)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, srv := newQueue(t)
			r := request(t, "email,name\na@example.com,n\n")
			change(&r.Options)
			var in *InputError
			if _, err := Send(t.Context(), q, r); !errors.As(err, &in) || !strings.Contains(err.Error(), "octets: more than") {
				t.Errorf("%v, want an InputError about the size", err)
			}
			if keys := srv.Keys(); len(keys) != 0 {
				t.Errorf("left in redis: %v", keys)
			}
		})
	}
}

// A dry run, which asks no queue, refuses the names that the queue refuses, and no other.
func TestName(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		name string
		ok   bool
	}{
		"plain":       {"spring", true},
		"Korean":      {"봄 세일", true},
		"as long":     {strings.Repeat("a", 200), true},
		"longer":      {strings.Repeat("a", 201), false},
		"line feed":   {"a\nb", false},
		"return":      {"a\rb", false},
		"NUL":         {"a\x00b", false},
		"brace":       {"a{b", false},
		"other brace": {"a}b", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, srv := newQueue(t)
			send, check := request(t, "email,name\na@example.com,n\n"), request(t, "email,name\na@example.com,n\n")
			send.Name, check.Name = tc.name, tc.name
			var in *InputError
			if _, err := Check(t.Context(), check); (err == nil) != tc.ok || err != nil && (!errors.As(err, &in) || !strings.Contains(err.Error(), "--name")) {
				t.Errorf("dry run: %v", err)
			}
			if _, err := Send(t.Context(), q, send); (err == nil) != tc.ok || err != nil && !errors.As(err, &in) {
				t.Errorf("send: %v", err)
			}
			if keys := srv.Keys(); !tc.ok && len(keys) != 0 {
				t.Errorf("left in redis: %v", keys)
			}
			c := queue.Campaign{Name: tc.name, Key: "k", Stream: mail.Normal, Digest: "d", Size: BlockSize}
			other, _ := newQueue(t)
			if _, err := other.Stage(t.Context(), c, []byte("pin")); (err == nil) != tc.ok {
				t.Errorf("the queue itself: %v", err)
			}
		})
	}
}

// A directory opens as a file does, and is no list.
func TestDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := request(t, "")
	r.List = List{Name: dir, Open: func() (io.ReadCloser, error) { return os.Open(dir) }}
	var in *InputError
	if _, err := Check(t.Context(), r); !errors.As(err, &in) || !strings.Contains(err.Error(), dir+" is a directory") {
		t.Errorf("%v", err)
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	q, srv := newQueue(t)
	ctx, cancel := context.WithCancel(t.Context())
	r := request(t, "email,name\n"+strings.Repeat("a@example.com,n\n", 3*progressEvery))
	r.Progress = func(int) { cancel() }
	if _, err := Send(ctx, q, r); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if keys := srv.Keys(); len(keys) != 0 {
		t.Errorf("left in redis: %v", keys)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	res, err := Check(t.Context(), request(t, "email,name\na@example.com,n\nb@example.com,\nnobody,n\n"))
	if err != nil || res.Door != (queue.Door{Recipients: 3, Invalid: 2}) {
		t.Errorf("%+v, %v", res, err)
	}
	for _, f := range res.Faults {
		if f.Line != 3 && f.Line != 4 || f.Reason == "" {
			t.Errorf("%+v", f)
		}
	}
}
