package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// stdio are the streams of one invocation: results go to out, logs and progress
// to err.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// Exit codes of the outside contract.
const (
	exitDone    = 0 // every row accepted, suppressed or duplicate
	exitFailed  = 1
	exitUsage   = 2 // usage or configuration; nothing was enqueued
	exitPartial = 3 // done, but some rows were not accepted
	exitHeld    = 4 // held by a breaker, by configuration or by an operator
)

// exitError is an error that decides the exit code. Err may be nil where the
// command has already said all there is to say.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageError marks err as the caller's mistake: exit code 2.
func usageError(err error) error { return &exitError{exitUsage, err} }

// app is what every command shares.
type app struct {
	stdio
	configFile string
	logFormat  string
	logLevel   string
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, io stdio) int {
	a := &app{stdio: io}
	root := a.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		exit = &exitError{exitFailed, err}
	}
	if exit.err != nil {
		fmt.Fprintf(a.err, "sluice: %v\n", exit.err)
	}
	return exit.code
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "sluice",
		Short:         "Queue-backed bulk mail through an SMTP relay, every recipient accounted for",
		Args:          noCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	f := root.PersistentFlags()
	f.StringVar(&a.configFile, "config", "", "configuration `FILE` (default sluice.yaml in the working directory, else built-in defaults)")
	f.StringVar(&a.logFormat, "log-format", "text", "log `FORMAT`: text or json")
	f.StringVar(&a.logLevel, "log-level", "info", "least `LEVEL` to log: debug, info, warn or error")
	root.AddCommand(a.demoCommand(), a.sendCommand(), a.workerCommand(), a.campaignCommand())
	root.AddCommand(a.suppressCommand(), a.feedbackCommand(), a.planCommand(), a.limitsCommand(), a.verdictCommand())
	root.AddCommand(a.templateCommand(), a.relayCommand(), a.configCommand(), a.doctorCommand(), a.versionCommand())
	addCompletion(root)
	completeFlag(root, "log-format", completeWord("text", "json"))
	completeFlag(root, "log-level", completeWord("debug", "info", "warn", "error"))
	return root
}
