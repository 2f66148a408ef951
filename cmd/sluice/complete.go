package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/templates"
)

// What a shell asks on TAB must come at once or not at all, and a screen is no place
// for its errors.
const (
	completeWithin = time.Second
	completeMost   = 30 // campaigns, the newest
)

// completion completes one argument or flag.
type completion = func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective)

// completeCampaign completes the name of a campaign from what is in Redis. Without
// an answer in time, as with any fault, it offers nothing.
func (a *app) completeCampaign(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	if len(args) > 0 {
		return nil, none
	}
	cfg, err := a.readConfig()
	if err != nil {
		return nil, none
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
	defer cancel()
	q, err := openQueue(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, none
	}
	defer q.Close()
	all, err := q.List(ctx, completeMost)
	if err != nil {
		return nil, none
	}
	var out []cobra.Completion
	for _, c := range all {
		// A tab in a name would end it: what follows is the description.
		if strings.HasPrefix(c.Name, prefix) && !strings.Contains(c.Name, "\t") {
			about := fmt.Sprintf("%s, %d recipients, %s", c.Stream, c.Counts.Recipients, c.Created.Format("2006-01-02 15:04"))
			out = append(out, cobra.CompletionWithDesc(c.Name, about))
		}
	}
	return out, none | cobra.ShellCompDirectiveKeepOrder // newest first
}

// completeTemplate offers the shipped templates; where none fits, the shell offers files.
func completeTemplate(_ *cobra.Command, _ []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var out []cobra.Completion
	for _, t := range templates.Shipped() {
		if strings.HasPrefix(t.Name, prefix) {
			out = append(out, t.Name)
		}
	}
	return out, cobra.ShellCompDirectiveDefault
}

// completeFirst completes the first argument only.
func completeFirst(f completion) completion {
	return func(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f(cmd, args, prefix)
	}
}

// completeWord completes one of words.
func completeWord(words ...string) completion {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

func completeStream() completion {
	var words []string
	for _, s := range mail.Streams() {
		words = append(words, string(s))
	}
	return completeWord(words...)
}

// completeFlag makes f complete a flag of cmd.
func completeFlag(cmd *cobra.Command, flag string, f completion) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err) // there is no such flag
	}
}

// addCompletion adds the command that prints the scripts for shells, with the exit
// code of a usage error for a shell it does not know.
func addCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() != "completion" {
			continue
		}
		cmd.Short = "Print the completion script for bash, fish, powershell or zsh"
		cmd.Args = noCommand
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		for _, shell := range cmd.Commands() {
			shell.Args = noArguments
		}
	}
}
