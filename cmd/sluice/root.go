package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/config"
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

		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.checkGlobal(cmd) },
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

// checkGlobal refuses global flags that cannot be obeyed, for every command: one that
// logs nothing or has no use for the configuration would ignore them. Help and what a
// shell asks for need none of them.
func (a *app) checkGlobal(cmd *cobra.Command) error {
	_, name, _ := strings.Cut(cmd.CommandPath(), " ")
	first, _, _ := strings.Cut(name, " ")
	switch first {
	case "help", "completion", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd:
		return nil
	}
	if _, err := a.logger(); err != nil {
		return err
	}
	if a.configFile == "" || name == "doctor" || name == "config check" {
		return nil // those two examine the configuration and report on it
	}
	if err := readable(a.configFile); err != nil {
		return usageError(err)
	}
	return nil
}

// readable reports what keeps the configuration file from being read. It opens nothing
// but a plain file: what a pipe holds can be read once only, by who needs it.
func readable(path string) error {
	wrong := func(text string) error {
		return &config.InvalidError{Problems: []config.Problem{{Where: path, Text: text}}}
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return wrong("no such file; --config names a file that must exist")
	case err == nil && info.IsDir():
		return wrong("read it: it is a directory; --config names a file")
	case err == nil && info.Mode().IsRegular():
		var f *os.File
		if f, err = os.Open(path); err == nil {
			return f.Close()
		}
	}
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		return wrong("read it: " + pe.Err.Error())
	}
	return err
}
