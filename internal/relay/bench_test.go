//go:build unix

package relay

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
)

// BenchmarkPipelined is the steady state of a pipelined sender: one write of content, dot,
// MAIL, RCPT, DATA and one read of four replies, 10 KB a message. CPU is of the whole
// process, this bare client included.
func BenchmarkPipelined(b *testing.B) {
	body := "Message-ID: <1@bench>\r\nSubject: x\r\n\r\n" + strings.Repeat(strings.Repeat("z", 76)+"\r\n", 130)
	for _, conns := range []int{1, 10} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			s := start(b, Config{})
			var senders []*client
			for range conns {
				c := session(b, s)
				c.send(envelope("first@example.com"))
				c.want("250 ", "250 ", "354 ")
				senders = append(senders, c)
			}
			group := []byte(body + ".\r\n" + envelope("somebody@example.com"))
			b.SetBytes(int64(len(group)))
			b.ReportAllocs()
			before := cpu(b)
			b.ResetTimer()
			done := make(chan error)
			for i, c := range senders {
				n := b.N / conns
				if i < b.N%conns {
					n++
				}
				go func() { done <- drive(c.Conn, group, n) }()
			}
			for range senders {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			b.ReportMetric((cpu(b)-before)/float64(b.N), "cpu-µs/op")
			if got := s.Stats().Messages; got != int64(b.N) {
				b.Fatalf("%d messages recorded, want %d", got, b.N)
			}
		})
	}
}

// drive sends group n times and reads four reply lines each time.
func drive(c net.Conn, group []byte, n int) error {
	r := bufio.NewReaderSize(c, 4096)
	for range n {
		if _, err := c.Write(group); err != nil {
			return err
		}
		for range 4 {
			line, err := r.ReadSlice('\n')
			if err != nil {
				return err
			}
			if line[0] != '2' && line[0] != '3' {
				return fmt.Errorf("reply %q", line)
			}
		}
	}
	return nil
}

// cpu returns the processor time of this process in microseconds.
func cpu(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e3
}

// BenchmarkSession is the relay alone, without sockets: what it costs to take a message.
func BenchmarkSession(b *testing.B) {
	body := "Message-ID: <1@bench>\r\nSubject: x\r\n\r\n" + strings.Repeat(strings.Repeat("z", 76)+"\r\n", 130)
	group := []byte(envelope("somebody@example.com") + body + ".\r\n")
	s := start(b, Config{})
	src := &loop{group: group, n: b.N}
	c := newConn(s, &wire{Conn: &tape{}, counters: &s.counters}, 1)
	c.in = input{src: src, buf: make([]byte, bufferSize)}
	c.helo, c.loggedIn = true, true
	b.SetBytes(int64(len(group)))
	b.ReportAllocs()
	for !c.closing {
		line, ok := c.readLine()
		if !ok {
			break
		}
		c.count()
		c.command(line)
	}
	if got := s.Stats().Messages; got != int64(b.N) {
		b.Fatalf("%d messages recorded, want %d", got, b.N)
	}
}

// loop is a reader that says group n times.
type loop struct {
	group []byte
	n     int
	bytes.Reader
}

func (l *loop) Read(p []byte) (int, error) {
	if l.Len() == 0 {
		if l.n == 0 {
			return 0, net.ErrClosed
		}
		l.n--
		l.Reset(l.group)
	}
	return l.Reader.Read(p)
}
