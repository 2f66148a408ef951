package faulttest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// echo answers every line with itself, and counts what it has seen.
func echo(t *testing.T, seen chan<- string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				lines := bufio.NewScanner(c)
				for lines.Scan() {
					seen <- lines.Text()
					fmt.Fprintf(c, "%s\n", lines.Text())
				}
			}()
		}
	}()
	return l.Addr().String()
}

// Each trouble of the proxy does what it says: a bench whose faults do not happen
// proves nothing.
func TestProxy(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 100)
	p := startProxy(t, echo(t, seen))
	dial := func() (net.Conn, *bufio.Reader) {
		c, err := net.Dial("tcp", p.addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c, bufio.NewReader(c)
	}
	say := func(c net.Conn, r *bufio.Reader, what string, patience time.Duration) (string, error) {
		_ = c.SetDeadline(time.Now().Add(patience))
		fmt.Fprintln(c, what)
		line, err := r.ReadString('\n')
		return strings.TrimSpace(line), err
	}
	c, r := dial()
	if got, err := say(c, r, "plain", 5*time.Second); got != "plain" {
		t.Fatal(got, err)
	}
	<-seen
	p.set(trouble{latency: 60 * time.Millisecond, slice: 1}, trouble{latency: 60 * time.Millisecond, rate: 1000})
	begun := time.Now()
	if got, err := say(c, r, strings.Repeat("x", 50), 5*time.Second); len(got) != 50 || time.Since(begun) < 160*time.Millisecond {
		t.Error(got, err, time.Since(begun))
	}
	<-seen
	p.set(trouble{}, trouble{swallow: true})
	if got, err := say(c, r, "unanswered", 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) || <-seen != "unanswered" {
		t.Error(got, err)
	}
	p.set(trouble{}, trouble{})
	p.loseAnswers("loseme", 1, 1)
	c, r = dial()
	if got, err := say(c, r, "loseme", 5*time.Second); err == nil || <-seen != "loseme" || p.losses() != 1 {
		t.Error("an answer to be lost came:", got)
	}
	c, r = dial()
	if got, err := say(c, r, "loseme", 5*time.Second); got != "loseme" {
		t.Error("lost more than it should:", got, err)
	}
	p.reset()
	if _, err := say(c, r, "gone", 5*time.Second); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	p.refusing(true)
	if c, err := net.Dial("tcp", p.addr()); err == nil {
		if _, err := say(c, bufio.NewReader(c), "refused", 5*time.Second); err == nil {
			t.Error("a refused connection works")
		}
		_ = c.Close()
	}
}
