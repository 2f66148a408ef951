// Command sluice sends bulk mail through an SMTP relay: producers enqueue in
// Redis, workers drain the queue over few, long-lived connections, and every
// recipient ends in exactly one known outcome. This package holds commands, flags
// and wiring, and nothing else.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for a clean end; giving the default handling back
	// lets the second one leave at once.
	context.AfterFunc(ctx, stop)
	// go-redis writes every failed dial to stderr by itself; the errors it returns are
	// reported where they matter, once.
	redis.SetLogger(&logging.VoidLogger{})
	os.Exit(run(ctx, os.Args[1:], stdio{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}
