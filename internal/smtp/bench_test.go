package smtp

import (
	"bytes"
	"context"
	"errors"
	"net"
	"runtime"
	"strconv"
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
	b.Cleanup(func() { _ = l.Close() })
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
	defer func() { _ = nc.Close() }()
	buf := make([]byte, 64<<10)
	_, _ = nc.Write([]byte(greeting))
	if _, err := nc.Read(buf); err != nil {
		return
	}
	_, _ = nc.Write([]byte(nhnEHLO))
	var tail, reply []byte
	for {
		n, err := nc.Read(buf)
		if err != nil {
			return
		}
		tail = append(append(tail[:0], tail[max(0, len(tail)-8):]...), buf[:n]...)
		reply = reply[:0]
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

func (s *same) Waiting() bool { return s.left.Load() > 0 }

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

// benchContent is 10 KB.
func benchContent() []byte {
	return bytes.Repeat([]byte("0123456789012345678901234567890123456789012345678901234567890123456789\r\n"), 142)
}

// benchCPU runs f and reports the process's CPU time for each message. It includes the
// bare relay, which is in the same process; BenchmarkBare shows what that leaves.
func benchCPU(b *testing.B, f func()) {
	b.SetBytes(int64(len(benchContent())))
	b.ReportAllocs()
	runtime.GC()
	b.ResetTimer()
	start := cpuTime()
	f()
	b.ReportMetric(float64((cpuTime()-start).Nanoseconds())/1e3/float64(b.N), "cpu-µs/msg")
}

// BenchmarkServe is one connection on loopback, 10 KB a message.
func BenchmarkServe(b *testing.B) {
	host, port := bareRelay(b)
	c, err := Dial(b.Context(), plainConfig(host, port))
	if err != nil {
		b.Fatal(err)
	}
	src := &same{m: Message{From: "news@shop.example", To: "hong@example.com", Content: benchContent()}}
	src.left.Store(int64(b.N))
	benchCPU(b, func() {
		if err := c.Serve(b.Context(), src, Limits{}); !errors.Is(err, errNoMore) {
			b.Fatal(err)
		}
	})
	if n := src.wrong.Load(); n > 0 {
		b.Fatalf("%d messages not accepted", n)
	}
}

// BenchmarkBare is the least a client can do: the same octets from a ready-made buffer,
// and a read that looks at nothing.
func BenchmarkBare(b *testing.B) {
	host, port := bareRelay(b)
	nc, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	envelope := "MAIL FROM:<news@shop.example>\r\nRCPT TO:<hong@example.com>\r\nDATA\r\n"
	group := append(benchContent(), ".\r\n"+envelope...)
	buf := make([]byte, 4096)
	for _, line := range []string{"", ehloLine, envelope} {
		_, _ = nc.Write([]byte(line))
		if _, err := nc.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
	benchCPU(b, func() {
		for range b.N {
			_, _ = nc.Write(group)
			if _, err := nc.Read(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkCheckContent(b *testing.B) {
	content := benchContent()
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		if _, _, err := checkContent(content); err != nil {
			b.Fatal(err)
		}
	}
}
