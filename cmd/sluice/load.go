package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/sluicemail/sluice/internal/config"
)

// readConfig reads and checks the configuration of this invocation.
func (a *app) readConfig() (*config.Config, error) {
	c, err := config.Load(a.configFile, a.configFile != "", os.Environ())
	if err != nil {
		return nil, usageError(err)
	}
	// The budget has rules of its own between limits and shares.
	if err := budgetLimits(c).Validate(); err != nil {
		return nil, usageError(fmt.Errorf("configuration: %w", err))
	}
	return c, nil
}

// loadConfig is readConfig for commands that go on to work with it: its warnings
// are logged.
func (a *app) loadConfig() (*config.Config, error) {
	log, err := a.logger()
	if err != nil {
		return nil, err
	}
	c, err := a.readConfig()
	if err != nil {
		return nil, err
	}
	for _, w := range c.Warnings() {
		log.Warn("configuration", "warning", w)
	}
	return c, nil
}

// logger returns the log that --log-format and --log-level ask for. It goes to
// standard error, since results have standard output.
func (a *app) logger() (*slog.Logger, error) {
	var level slog.Level
	switch a.logLevel {
	case "debug":
		level = slog.LevelDebug
	case "info":
		level = slog.LevelInfo
	case "warn":
		level = slog.LevelWarn
	case "error":
		level = slog.LevelError
	default:
		return nil, usageError(fmt.Errorf("--log-level %q: want debug, info, warn or error", a.logLevel))
	}
	opts := &slog.HandlerOptions{Level: level}
	switch a.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(a.err, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(a.err, opts)), nil
	}
	return nil, usageError(fmt.Errorf("--log-format %q: want text or json", a.logFormat))
}
