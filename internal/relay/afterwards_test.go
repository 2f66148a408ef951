package relay

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestBounces: everything is accepted, and what became of it is told once, in the file and
// to the callback alike; Close tells what was not due yet.
func TestBounces(t *testing.T) {
	t.Parallel()
	const n = 1000
	for _, profile := range []string{"bounces?share=20%&after=0s", "bounces?share=10%&block=10%&after=1h"} {
		t.Run(profile, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "feedback.jsonl")
			var mu sync.Mutex
			var told []Became
			s := start(t, Config{Profile: profile, FeedbackFile: file, OnFeedback: func(b []Became) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, b...)
			}})
			c := session(t, s)
			for i := range n {
				if got := c.deliver(fmt.Sprintf("user%d@example.com", i)); got[0] != '2' {
					t.Fatal(got)
				}
			}
			if strings.Contains(profile, "0s") {
				until(t, "all is told", func() bool {
					mu.Lock()
					defer mu.Unlock()
					return len(told) == n
				})
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var lines []Became
			for scan := bufio.NewScanner(bytes.NewReader(text)); scan.Scan(); {
				var b Became
				if err := json.Unmarshal(scan.Bytes(), &b); err != nil {
					t.Fatal(err)
				}
				lines = append(lines, b)
			}
			seen, bounced, blocked := map[string]bool{}, 0, 0
			for i, b := range lines {
				if b.Address != told[i].Address || b.Status != told[i].Status || b.Text != told[i].Text {
					t.Fatalf("line %d: %+v, told %+v", i, b, told[i])
				}
				seen[b.Address] = true
				switch {
				case b.Status == "bounced" && b.Text != "":
					bounced++
					if strings.Contains(b.Text, "{to}") {
						t.Errorf("%+v", b)
					}
					if strings.Contains(b.Text, "192.0.2.1") || strings.Contains(b.Text, "unsolicited") {
						blocked++
					}
				case b.Status != "delivered" || b.Text != "":
					t.Errorf("%+v", b)
				}
			}
			if len(seen) != n || len(lines) != n || bounced < n*15/100 || bounced > n*25/100 || (blocked > 0) != strings.Contains(profile, "block") {
				t.Errorf("%d told of %d, %d bounced, %d blocked", len(lines), len(seen), bounced, blocked)
			}
		})
	}
}

// TestBouncesMessageID: what is told names the message, and it is due when the profile says.
func TestBouncesMessageID(t *testing.T) {
	t.Parallel()
	told := make(chan []Became, 1)
	s := start(t, Config{Profile: "bounces?share=100%&after=50ms", OnFeedback: func(b []Became) { told <- b }})
	c := session(t, s)
	c.send(envelope("a@example.com") + "Message-ID: <x@y>\r\n\r\nhello\r\n.\r\n")
	c.want("250 ", "250 ", "354 ", "250 ")
	got := <-told
	if m := s.Truth()[0]; len(got) != 1 || got[0].MessageID != "<x@y>" || got[0].Time.Sub(m.Time) != 50*time.Millisecond || time.Now().Before(got[0].Time) {
		t.Errorf("%+v of %+v", got, m)
	}
}

func TestBouncesWantAListener(t *testing.T) {
	t.Parallel()
	if _, err := Start(Config{Profile: "bounces"}); err == nil || !strings.Contains(err.Error(), "--feedback FILE") {
		t.Errorf("%v", err)
	}
	if _, err := Start(Config{Profile: "bounces", FeedbackFile: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "feedback file") {
		t.Errorf("%v", err)
	}
	s := start(t, Config{})
	if err := s.SetProfile("bounces"); err == nil {
		t.Error("a running relay takes the profile with nobody to tell")
	}
}
