package smtp

import (
	"bytes"
	"context"
	"errors"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// bareRelay answers without parsing: CPU spent there is not the client's.
func bareRelay(b *testing.B) (string, int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go answer(nc)
		}
	}()
	a := l.Addr().(*net.TCPAddr)
	return a.IP.String(), a.Port
}

func answer(nc net.Conn) {
	defer nc.Close()
	buf := make([]byte, 64<<10)
	_, _ = nc.Write([]byte(greeting))
	if _, err := nc.Read(buf); err != nil {
		return
	}
	_, _ = nc.Write([]byte(nhnEHLO))
	var tail []byte
	for {
		n, err := nc.Read(buf)
		if err != nil {
			return
		}
		tail = append(tail[max(0, len(tail)-8):], buf[:n]...)
		var reply []byte
		if bytes.Contains(tail, []byte("\r\n.\r\n")) {
			reply = append(reply, "250 2.0.0 Ok: queued as 4CZTNs0W6Yz9sZ1\r\n"...)
		}
		if bytes.HasSuffix(tail, []byte("DATA\r\n")) {
			reply = append(reply, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n"...)
		}
		if len(reply) > 0 {
			tail = tail[:0]
			if _, err := nc.Write(reply); err != nil {
				return
			}
		}
	}
}

// same is a Source that gives one message n times.
type same struct {
	m     Message
	left  atomic.Int64
	wrong atomic.Int64
}

func (s *same) TryNext() (Transaction, Supply) {
	if s.left.Add(-1) < 0 {
		return nil, Empty
	}
	return s, Ready
}

func (s *same) Next(context.Context) (Transaction, error) {
	if t, ok := s.TryNext(); ok == Ready {
		return t, nil
	}
	return nil, errNoMore
}

func (s *same) Message() Message              { return s.m }
func (s *same) Begin()                        {}
func (s *same) Confirm(context.Context) error { return nil }
func (s *same) Done(r Result) {
	if r.Kind != Accepted {
		s.wrong.Add(1)
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkServe is one connection on loopback, 10 KB a message. cpu-µs/msg includes
// the bare relay in the same process, about half of it.
func BenchmarkServe(b *testing.B) {
	host, port := bareRelay(b)
	content := bytes.Repeat([]byte("0123456789012345678901234567890123456789012345678901234567890123456789\r\n"), 142)
	c, err := Dial(b.Context(), plainConfig(host, port))
	if err != nil {
		b.Fatal(err)
	}
	src := &same{m: Message{From: "news@shop.example", To: "hong@example.com", Content: content}}
	src.left.Store(int64(b.N))
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	runtime.GC()
	b.ResetTimer()
	start := cpuTime()
	if err := c.Serve(b.Context(), src, Limits{}); !errors.Is(err, errNoMore) {
		b.Fatal(err)
	}
	b.ReportMetric(float64((cpuTime()-start).Microseconds())/float64(b.N), "cpu-µs/msg")
	if n := src.wrong.Load(); n > 0 {
		b.Fatalf("%d messages not accepted", n)
	}
}

func BenchmarkCheckContent(b *testing.B) {
	content := bytes.Repeat([]byte("0123456789012345678901234567890123456789012345678901234567890123456789\r\n"), 142)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		if _, _, err := checkContent(content); err != nil {
			b.Fatal(err)
		}
	}
}
