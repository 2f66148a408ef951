package feedback

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/verdict"
)

// deliveryReport is one as Postfix writes it, about the recipients in fields.
func deliveryReport(id, returned string, fields ...string) string {
	text := "From: MAILER-DAEMON@mx.example (Mail Delivery System)\nTo: news@example.com\nSubject: Undelivered Mail Returned to Sender\n" +
		"MIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status;\n\tboundary=\"b/1\"\n\nThis is a MIME-encapsulated message.\n\n" +
		"--b/1\nContent-Description: Notification\nContent-Type: text/plain; charset=no-such-charset\n\nI'm sorry to have to inform you …\n\n" +
		"--b/1\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example\nX-Postfix-Queue-ID: 4F1\nArrival-Date: Sun, 22 Nov 2026 10:00:00 +0900\n\n" +
		strings.Join(fields, "\n") +
		"\n--b/1\nContent-Type: " + returned + "\n\nReceived: by mx.example\nFrom: News <news@example.com>\nMessage-ID: " + id + "\nSubject: =?utf-8?q?x?=\n\nhello\n\n--b/1--\n"
	return strings.ReplaceAll(text, "\n", "\r\n")
}

const failedFields = "Final-Recipient: rfc822; kim@forwarded.example\nOriginal-Recipient: rfc822;R1@naver.com\nAction: failed\nStatus: 5.1.1\n" +
	"Remote-MTA: dns; mx1.naver.com\nDiagnostic-Code: smtp; 550 5.1.1 <R1@naver.com>: Recipient address\n    rejected: User unknown in virtual mailbox table\nLast-Attempt-Date: Sun, 22 Nov 2026 10:00:05 +0900\n"

const complaint = "From: <feedback@isp.example>\nDate: Sun, 22 Nov 2026 10:00:05 +0900\nMIME-Version: 1.0\nContent-Type: multipart/report; report-type=feedback-report; boundary=x\n\n" +
	"--x\nContent-Type: text/plain\n\nThis is an abuse report.\n\n--x\nContent-Type: message/feedback-report\n\nFeedback-Type: abuse\nUser-Agent: Loop/1.0\nVersion: 1\n" +
	"Original-Rcpt-To: <r2@naver.com>\n\n--x\nContent-Type: message/rfc822\n\nMessage-ID: %s\nSubject: x\n\nhello\n--x--\n"

func address(t testing.TB, s string) mail.Address {
	t.Helper()
	a, err := mail.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestParseMail(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 10, 0, 5, 0, time.FixedZone("", 9*3600))
	to := address(t, "R1@naver.com")
	said := verdict.Input{Stage: verdict.Any, Code: 550, Enhanced: "5.1.1", Text: "<R1@naver.com>: Recipient address rejected: User unknown in virtual mailbox table"}
	unsaid := verdict.Input{Stage: verdict.Any}
	for name, tc := range map[string]struct {
		text string
		want []Report
		err  string
	}{
		"failed": {deliveryReport("<a@b.kr>", "message/rfc822", failedFields), []Report{{Address: to, MessageID: "a@b.kr", Status: Bounced, Reply: said, Time: at}}, ""},
		"headers alone": {deliveryReport("<a@b.kr>", "text/rfc822-headers", failedFields),
			[]Report{{Address: to, MessageID: "a@b.kr", Status: Bounced, Reply: said, Time: at}}, ""},
		"two recipients": {deliveryReport("<a@b.kr>", "message/rfc822", failedFields, "Final-Recipient: rfc822;<b@b.kr>\nAction: Delivered\nStatus: 2.0.0 (ok)\n"),
			[]Report{{Address: to, MessageID: "a@b.kr", Status: Bounced, Reply: said, Time: at}, {Address: address(t, "b@b.kr"), MessageID: "a@b.kr", Status: Delivered, Reply: verdict.Input{Stage: verdict.Any, Enhanced: "2.0.0"}}}, ""},
		"delayed": {deliveryReport("<a@b.kr>", "message/rfc822", "Final-Recipient: rfc822;b@b.kr\nAction: delayed\n"),
			[]Report{{Address: address(t, "b@b.kr"), MessageID: "a@b.kr", Status: Delayed, Reply: unsaid}}, ""},
		"status without words": {deliveryReport("<a@b.kr>", "message/rfc822", "Final-Recipient: x400; /G=A/\nAction: failed\nStatus: 4.4.7\n"),
			[]Report{{MessageID: "a@b.kr", Status: Bounced, Reply: verdict.Input{Stage: verdict.Any, Enhanced: "4.4.7"}}}, ""},
		"utf-8": {strings.Replace(deliveryReport("<a@b.kr>", "message/global", "Final-Recipient: utf-8; b@b.kr\nAction: failed\n"), "message/delivery-status", "message/global-delivery-status", 1),
			[]Report{{Address: address(t, "b@b.kr"), MessageID: "a@b.kr", Status: Bounced, Reply: unsaid}}, ""},
		"nothing returned": {"In-Reply-To: <a@b.kr>\r\n" + deliveryReport("", "image/png", failedFields),
			[]Report{{Address: to, MessageID: "a@b.kr", Status: Bounced, Reply: said, Time: at}}, ""},
		"cut off": {deliveryReport("<a@b.kr>", "message/rfc822", failedFields+"\n")[:930],
			[]Report{{Address: to, Status: Bounced, Reply: said, Time: at}}, ""},
		"complaint":        {fmt.Sprintf(complaint, "<a@b.kr>"), []Report{{Address: address(t, "r2@naver.com"), MessageID: "a@b.kr", Status: Complained, Time: at}}, ""},
		"no complaint":     {strings.Replace(fmt.Sprintf(complaint, "<a@b.kr>"), "abuse\n", "not-spam\n", 1), nil, "complains about nothing"},
		"no action":        {deliveryReport("<a@b.kr>", "message/rfc822", "Final-Recipient: rfc822;b@b.kr\n"), nil, "field Action"},
		"nobody's":         {deliveryReport("", "message/rfc822", "Final-Recipient: x400; /G=A/\nAction: failed\n"), nil, "neither a recipient nor the mail"},
		"about no one":     {deliveryReport("<a@b.kr>", "message/rfc822", "Action: failed\n"), nil, "no delivery report"},
		"an ordinary mail": {"From: a@b.kr\nSubject: hello\n\nhello\n", nil, "no delivery report"},
		"no mail":          {"\x00\x01", nil, "not a mail message"},
		"empty":            {"", nil, "no delivery report"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := parseMail(strings.NewReader(tc.text))
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
			if d := cmp.Diff(tc.want, got, cmp.AllowUnexported(mail.Address{}), cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); d != "" {
				t.Error(d)
			}
		})
	}
}

// Mail counts where it names a mail of ours, and then for whom we sent it to.
func TestMailIsNotTrusted(t *testing.T) {
	t.Parallel()
	r := memory(t)
	c := r.campaign("spring", 10, 10, numbered)
	box := "From MAILER-DAEMON Sun Nov 22 10:00:00 2026\n" + deliveryReport(idOf(c, 1), "message/rfc822", failedFields) +
		"\nFrom MAILER-DAEMON Sun Nov 22 10:00:00 2026\n" + fmt.Sprintf(complaint, idOf(c, 3)) +
		"\nFrom x\nSubject: no report\n\n>From here on it is text.\n" +
		"\nFrom y\n" + deliveryReport("", "message/rfc822", "Final-Recipient: rfc822;r4@naver.com\nAction: failed\nStatus: 5.1.1\n") +
		"\nFrom z\n" + deliveryReport(idOf(&queue.Campaign{ID: "ffff"}, 5), "message/rfc822", strings.ReplaceAll(failedFields, "R1@naver.com", "r5@naver.com"))
	want := Summary{Reports: 5, Bad: 1, Bounced: 3, Complained: 1, New: 2, Unmatched: 2, Suppressed: 2}
	if d := cmp.Diff(want, r.take("bounces", box)); d != "" {
		t.Error(d)
	}
	if len(r.faults) != 1 || r.faults[0] != fmt.Sprintf("bounces:%d: %v", 1+strings.Count(box[:strings.Index(box, "From x")], "\n"), errNoReport) {
		t.Errorf("%q", r.faults)
	}
	for i, barred := range []bool{false, true, false, true, false, false} {
		if got := r.suppressed(numbered(i)); (got != "") != barred {
			t.Errorf("%s: %q", numbered(i), got)
		}
	}
	if got := r.suppressed("kim@forwarded.example"); got != "" {
		t.Error(got)
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	const line = `{"address":"a@b.kr","status":"delivered"}` + "\n"
	report := deliveryReport("<a@b.kr>", "message/rfc822", failedFields)
	for name, tc := range map[string]struct {
		file, text string
		good, bad  int
		err        string
	}{
		"lines":             {"x", line + line, 2, 0, ""},
		"no line end":       {"x", strings.TrimSpace(line), 1, 0, ""},
		"byte order mark":   {"x", "\xef\xbb\xbf" + line, 1, 0, ""},
		"blank lines":       {"x", "\n\r\n" + line + "\n", 1, 0, ""},
		"bad first line":    {"x.jsonl", "nonsense\n" + line, 1, 1, ""},
		"an array":          {"x", "[" + strings.TrimSpace(line) + "]", 0, 1, ""},
		"a long line":       {"x", `{"text":"` + strings.Repeat("x", maxLine) + "\"}\n" + line, 1, 1, ""},
		"not so long":       {"x", `{"text":"` + strings.Repeat("x", maxLine/2) + `","address":"a@b.kr","status":"delivered"}`, 1, 0, ""},
		"empty":             {"x", "", 0, 0, ""},
		"one message":       {"x", report, 1, 0, ""},
		"one by name":       {"x.eml", report, 1, 0, ""},
		"a mailbox":         {"x", "From a\n" + report + "\nFrom b\n" + report, 2, 0, ""},
		"a mailbox by name": {"x.MBOX", "rubbish\n\nFrom a\n" + report, 1, 0, ""},
		"a spreadsheet":     {"x", "email,status\na@b.kr,bounced\n", 0, 0, "x: neither JSON Lines nor a mail"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			im := New(Params{Rules: rules(t)})
			err := im.Read(t.Context(), tc.file, strings.NewReader(tc.text))
			if (err == nil) != (tc.err == "") || err != nil && !strings.HasPrefix(err.Error(), tc.err) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
			if s := im.Summary(); s.Reports != tc.good+tc.bad || s.Bad != tc.bad {
				t.Errorf("%+v, want %d good and %d bad", s, tc.good, tc.bad)
			}
		})
	}
}

func TestParseLine(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`{"status":"bounced"}`:                                       "neither an address nor a message_id",
		`{"address":"a@b.kr"}`:                                       "no status in it",
		`{"address":"a@b.kr","status":"gone"}`:                       `status "gone": want one of blocked, bounce`,
		`{"address":"secret@b.kr@","status":"bounced"}`:              "address s***@: ",
		`{"address":"a@b.kr","status":"bounced","time":"yesterday"}`: `time "yesterday": want`,
		`{"address":"a@b.kr","status":"bounced","code":"x"}`:         `code "x": want a reply code`,
		`{"address":"a@b.kr","status":"bounced","code":{}}`:          "not a JSON object",
		`{"address":"a@b.kr","status":"bounced","stage":"bed"}`:      `stage "bed": want connect`,
		`{"address":7,"status":"bounced"}`:                           "field address is of the wrong kind: number",
		`"x"`:                                                        "not a JSON object",
	} {
		if _, err := parseLine([]byte(line)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
	r, err := parseLine([]byte(`{"Email":" a@b.kr ","message_id":" <x@y> ","status":"FAILED","reply":"smtp; 550-5.1.1 no\n550 5.1.1 such user","code":"551","enhanced":"5.1.6","stage":"rcpt","time":1795309205,"campaign":"c","other":[1]}`))
	want := Report{Address: address(t, "a@b.kr"), MessageID: "x@y", Campaign: "c", Status: Bounced, Time: time.Unix(1795309205, 0), Trusted: true,
		Reply: verdict.Input{Stage: verdict.Rcpt, Code: 551, Enhanced: "5.1.6", Text: "no such user"}}
	if d := cmp.Diff(want, r, cmp.AllowUnexported(mail.Address{})); d != "" || err != nil {
		t.Error(d, err)
	}
	for _, s := range []string{"2026-11-22T10:00:05+09:00", "2026-11-22T01:00:05.0Z", "1795309205", "1795309205000", "1.795309205e9"} {
		if at, err := parseTime(s); err != nil || at.Unix() != 1795309205 {
			t.Errorf("%s: %v, %v", s, at, err)
		}
	}
}

// usable wants what every report has to be.
func usable(t *testing.T, r Report) {
	t.Helper()
	if err := r.check(); err != nil {
		t.Errorf("%+v: %v", r, err)
	}
	if strings.ContainsAny(r.Address.String(), "\r\n\x00 ") || r.Reply.Stage == "" && r.Status != Complained {
		t.Errorf("%+v", r)
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte(`{"address":"a@b.kr","status":"bounced","text":"550 5.1.1 no","code":550,"time":1,"stage":"rcpt"}`))
	f.Add([]byte(`{"message_id":"<a@b>","status":"delivered","time":"2026-11-22 10:00:00"}`))
	f.Add([]byte(`[{"status":null}]`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if r, err := parseLine(line); err == nil {
			usable(t, r)
			if !r.Trusted {
				t.Error("not trusted")
			}
		}
	})
}

func FuzzParseMail(f *testing.F) {
	f.Add(deliveryReport("<a@b.kr>", "message/rfc822", failedFields, failedFields))
	f.Add(fmt.Sprintf(complaint, "<a@b.kr>"))
	f.Add("From a\n\nFrom b\nSubject: x\n\nx")
	f.Fuzz(func(t *testing.T, text string) {
		for _, name := range []string{"x.eml", "x.mbox", "x"} {
			_ = read(name, strings.NewReader(text), func(_ int, r Report, err error) error {
				if err == nil {
					usable(t, r)
					if r.Trusted && r.Status == "" {
						t.Errorf("%+v", r)
					}
				}
				return nil
			})
		}
	})
}
