package interop

import (
	"strings"
	"testing"
)

func TestParseStored(t *testing.T) {
	t.Parallel()
	const sent = "Date: today\nReceived: not the server's\n\n.dots\nFrom here\n\n\n"
	for name, tc := range map[string]struct{ front, to string }{
		"postfix": {
			front: "Return-Path: <a@b.example>\nX-Original-To: 1@in.example\nDelivered-To: 1@in.example\n" +
				"Received: from localhost (localhost [127.0.0.1])\n\tby mx (Postfix) with ESMTP id 4D\n\tfor <1@in.example>; Sun, 22 Nov 2026\n",
			to: "1@in.example",
		},
		"exim": {
			front: "Received: from [127.0.0.1]\n\tby mx with esmtp (Exim 4.96)\n\t(envelope-from <a@b.example>)\n\tid 1o\n\tfor 2@in.example;\n\tSun, 22 Nov 2026\n",
			to:    "2@in.example",
		},
		"smtp-sink": {
			front: "X-Client-Addr: 127.0.0.1\nX-Client-Proto: ESMTP\nX-Helo-Args: localhost\nX-Mail-Args: <a@b.example> SIZE=1\n" +
				"X-Rcpt-Args: <3@in.example>\nReceived: from localhost ([127.0.0.1])\n\tby sink (smtp-sink) with ESMTP id 1;\n\tSun, 22 Nov 2026\n",
			to: "3@in.example",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := parseStored([]byte(tc.front + sent))
			if err != nil {
				t.Fatal(err)
			}
			if got.to != tc.to {
				t.Errorf("recipient %q, want %q", got.to, tc.to)
			}
			if d := difference(got.content, []byte(strings.ReplaceAll(sent, "\n", "\r\n"))); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseStoredRefuses(t *testing.T) {
	t.Parallel()
	for name, raw := range map[string]string{
		"empty":        "",
		"no trace":     "Date: today\n\nbody\n",
		"no recipient": "Received: from here\nDate: today\n\nfor x@y.example\n",
		"cut short":    "Received: from here",
	} {
		if _, err := parseStored([]byte(raw)); err == nil {
			t.Errorf("%s: taken for a stored mail", name)
		}
	}
}

func TestDifference(t *testing.T) {
	t.Parallel()
	if d := difference([]byte("same"), []byte("same")); d != "" {
		t.Errorf("equal ones differ: %s", d)
	}
	for _, got := range []string{"", "sam", "samE", "same again"} {
		if difference([]byte(got), []byte("same")) == "" {
			t.Errorf("%q passes for %q", got, "same")
		}
	}
}
