package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/config"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check the configuration and show what is in effect",
		Args:  noCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var asJSON bool
	check := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration without connecting anywhere",
		Long: `Reads the configuration file and the environment variables SLUICE_*, checks every
key and prints the effective configuration: each key with its value and where the
value comes from. Secrets print as ***. Connects to nothing.

Exit code 0 when the configuration is sound, 2 when it is not.`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error { return a.checkConfig(asJSON) },
	}
	check.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.AddCommand(check)
	return cmd
}

// noArguments is cobra.NoArgs with the exit code of a usage error.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError(fmt.Errorf("%s takes no argument, but has %q", cmd.CommandPath(), args[0]))
	}
	return nil
}

// noCommand is for commands that only have commands below them: an argument is a
// misspelt one.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	return usageError(fmt.Errorf("%s has no command %q: want %s", cmd.CommandPath(), args[0], strings.Join(names, ", ")))
}

// configReport is what config check --json prints.
type configReport struct {
	OK       bool             `json:"ok"`
	File     string           `json:"file,omitempty"` // "" without a file
	Settings []config.Setting `json:"settings,omitempty"`
	Problems []config.Problem `json:"problems,omitempty"`
	Warnings []string         `json:"warnings,omitempty"`
}

func (a *app) checkConfig(asJSON bool) error {
	c, err := a.readConfig()
	if err != nil {
		var invalid *config.InvalidError
		if asJSON && errors.As(err, &invalid) {
			return errors.Join(err, a.printJSON(configReport{Problems: invalid.Problems}))
		}
		return err
	}
	report := configReport{OK: true, File: c.File(), Settings: c.Redacted(), Warnings: c.Warnings()}
	// Nothing is wrong with these, but they keep some commands from working.
	for _, err := range []error{c.Relay.LoginComplete(), c.SenderComplete()} {
		if err != nil {
			report.Warnings = append(report.Warnings, err.Error())
		}
	}
	if asJSON {
		return a.printJSON(report)
	}
	return a.printConfig(report)
}

func (a *app) printConfig(r configReport) error {
	if r.File == "" {
		fmt.Fprintf(a.out, "no %s here: built-in defaults and the environment\n\n", config.DefaultFile)
	} else {
		fmt.Fprintf(a.out, "%s\n\n", r.File)
	}
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	for _, s := range r.Settings {
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Key, settingText(s.Value), s.Origin)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	for _, s := range r.Warnings {
		fmt.Fprintf(a.err, "warning: %s\n", s)
	}
	_, err := fmt.Fprintln(a.out, "\nthe configuration is sound")
	return err
}

func settingText(v any) string {
	switch v := v.(type) {
	case []string:
		return "[" + strings.Join(v, ", ") + "]"
	case string:
		if v == "" {
			return `""`
		}
		return v
	}
	return fmt.Sprint(v)
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
