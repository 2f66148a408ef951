package main

import (
	"bytes"
	"fmt"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/templates"
)

// render compares what a mail costs to make: by the program, from the same source
// by the standard library, and the shipped newsletter.
func (b *bench) render() error {
	full := fullLetter()
	t, err := templates.Parse("letter", full.source())
	if err != nil {
		return err
	}
	ours, err := renderer(t, mail.Normal, templates.Recipient{
		Email: "minjun.kim@naver.example", Values: []string{"SPRING-2026", "골드", "김민준", "12,340", "물길상점 성수점"},
	})
	if err != nil {
		return err
	}
	if t, err = templates.Load("newsletter"); err != nil {
		return err
	}
	newsletter, err := renderer(t, mail.Ad, templates.Recipient{Email: "minjun.kim@naver.example", Values: []string{"김민준"}})
	if err != nil {
		return err
	}
	baseline, err := obviousRenderer(full)
	if err != nil {
		return err
	}
	kinds := []struct {
		name string
		f    func() (int, error)
		us   series
		size int
	}{{name: "10 KB HTML and text, five variables", f: ours}, {name: "shipped newsletter, one variable", f: newsletter},
		{name: "baseline: html/template, text/template, mime/multipart (same source as the first)", f: baseline}}
	for run := range b.runs {
		for i := range kinds {
			k := &kinds[i]
			us, size, err := b.time(k.f)
			if err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			k.us, k.size = append(k.us, us), size
		}
		b.progress("run %d of %d", run+1, b.runs)
	}
	var rows [][]string
	base := kinds[len(kinds)-1].us
	for _, k := range kinds {
		rows = append(rows, []string{k.name, k.us.show(2), number(float64(k.size), 0), base.over(k.us).show(1)})
	}
	b.table([]string{"", "µs a mail", "bytes on the wire", "times faster than the baseline"}, rows)
	b.printf("\nMedian (least–most) of %d runs of at least %v each, in turn, one goroutine.\n", b.runs, b.window)
	return nil
}

// time calls f for a window and returns µs a call and what the last one returned.
func (b *bench) time(f func() (int, error)) (us float64, size int, err error) {
	start, n := time.Now(), 0
	for time.Since(start) < b.window {
		for range 100 {
			if size, err = f(); err != nil {
				return 0, 0, err
			}
		}
		n += 100
	}
	if err := b.ctx.Err(); err != nil {
		return 0, 0, err
	}
	return float64(time.Since(start).Nanoseconds()) / 1e3 / float64(n), size, nil
}

// renderer renders as a worker does: a Message-ID and a Date of its own for each mail.
func renderer(t *templates.Template, s mail.Stream, r templates.Recipient) (func() (int, error), error) {
	o, err := letterOptions(s, nil)
	if err != nil {
		return nil, err
	}
	if s == mail.Ad {
		o.Columns = []string{"name"}
	}
	p, err := t.Compile(o)
	if err != nil {
		return nil, err
	}
	var buf []byte
	line := 0
	return func() (int, error) {
		line++
		r.MessageID, r.Date = templates.MessageID("0123456789abcdef", line, p.MessageIDDomain()), time.Now()
		buf, err = p.Render(buf[:0], r)
		return len(buf), err
	}, nil
}

func obviousRenderer(l letter) (func() (int, error), error) {
	o, err := l.obvious()
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	line := 0
	return func() (int, error) {
		line++
		data := settings()
		data["name"] = "김민준"
		buf.Reset()
		err := o.render(&buf, "minjun.kim@naver.example", fmt.Sprintf("%d", line), data)
		return buf.Len(), err
	}, nil
}
