package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/sluicemail/sluice/producer"
)

// errInterrupted is why reading ends when the program is asked to end.
var errInterrupted = errors.New("interrupted")

// openInput opens what a command line names as its input: a file, or - for standard
// input. What is wrong with the name is the caller's mistake. What is no regular file may
// keep its reader waiting for ever: there, reading ends with ctx.
func (a *app) openInput(ctx context.Context, name string) (io.ReadCloser, error) {
	info, err := a.stat(name)
	switch {
	case err != nil:
		return nil, usageError(err)
	case info != nil && info.IsDir():
		return nil, usageError(fmt.Errorf("%s is a directory: want a file, or - for standard input", inputName(name)))
	case name == "-":
		return io.NopCloser(newInterruptible(ctx, a.in)), nil
	}
	// Even opening a pipe waits, for somebody who writes.
	f, err := await(ctx, func() (*os.File, error) { return os.Open(name) })
	switch {
	case errors.Is(err, errInterrupted):
		return nil, fmt.Errorf("open %s: %w", name, err)
	case err != nil:
		return nil, usageError(err)
	case info.Mode().IsRegular():
		return f, nil
	}
	return struct {
		io.Reader
		io.Closer
	}{newInterruptible(ctx, f), f}, nil
}

// stat says what an input is: nil for a standard input that is no file.
func (a *app) stat(name string) (fs.FileInfo, error) {
	if name != "-" {
		return os.Stat(name)
	}
	if f, ok := a.in.(*os.File); ok {
		return f.Stat()
	}
	return nil, nil
}

// inputName is what messages call an input.
func inputName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

// interruptible is a reader that ends with its context, also in the middle of a read that
// gets nothing.
type interruptible struct {
	ctx context.Context
	src io.Reader
	buf []byte // a read that was given up may still write here, so nobody else does
}

func newInterruptible(ctx context.Context, src io.Reader) *interruptible {
	return &interruptible{ctx, src, make([]byte, 64<<10)}
}

// Read implements io.Reader. After the end of the context it fails with errInterrupted.
func (r *interruptible) Read(p []byte) (int, error) {
	into := r.buf[:min(len(p), len(r.buf))]
	n, err := await(r.ctx, func() (int, error) { return r.src.Read(into) })
	return copy(p, into[:n]), err
}

// await returns what f returns, or errInterrupted once ctx has ended. Nothing can call f
// back from a read of a terminal or a pipe: its goroutine stays until the read returns or
// the program, which is about to, has ended.
func await[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	if ctx.Err() != nil {
		return none, errInterrupted
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	select {
	case <-ctx.Done():
		return none, errInterrupted
	case r := <-done:
		return r.value, r.err
	}
}

// list finds out what --to means. What is no regular file can be read only once, and a
// list is read twice, to know it and then to store it: it is spooled.
func (a *app) list(ctx context.Context, to string) (producer.List, func(), error) {
	if to == "-" {
		return a.spool(ctx, to, "stdin")
	}
	info, err := os.Stat(to)
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return a.spool(ctx, to, to)
	}
	if err == nil || !strings.Contains(to, "@") {
		return producer.List{Name: to, Open: func() (io.ReadCloser, error) { return os.Open(to) }}, func() {}, nil
	}
	data := []byte("email\n" + to + "\n")
	if strings.ContainsAny(to, "\r\n\",") {
		return producer.List{}, func() {}, usageError(fmt.Errorf("--to %q is neither a file nor an address", to))
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	return producer.List{Name: "--to", Open: open}, func() {}, nil
}

// spool copies an input into a file that can be read twice. The list is called as.
func (a *app) spool(ctx context.Context, name, as string) (producer.List, func(), error) {
	src, err := a.openInput(ctx, name)
	if err != nil {
		return producer.List{}, func() {}, err
	}
	defer src.Close()
	f, err := os.CreateTemp("", "sluice-list-*")
	if err != nil {
		return producer.List{}, func() {}, fmt.Errorf("spool %s: %w", inputName(name), err)
	}
	cleanup := func() { _ = os.Remove(f.Name()) }
	_, err = io.Copy(f, src)
	if err = errors.Join(err, f.Close()); err != nil {
		cleanup()
		return producer.List{}, func() {}, fmt.Errorf("spool %s: %w", inputName(name), err)
	}
	open := func() (io.ReadCloser, error) { return os.Open(f.Name()) }
	return producer.List{Name: as, Open: open}, cleanup, nil
}
