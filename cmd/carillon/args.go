package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// usageError is an error of the caller's, whose mending needs no look at a log.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// group makes a command that has only commands below it: alone it prints its
// help, and what it does not know is an error.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		err := fmt.Errorf("%s has no command %q", cmd.CommandPath(), args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(near, " or "))
		} else {
			err = fmt.Errorf("%w; `%s --help` lists what there is", err, cmd.CommandPath())
		}
		return usageError{err}
	}
	return cmd
}

// noArgs refuses arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return usageError{err}
	}
	return nil
}

// oneArg wants one argument.
func oneArg(cmd *cobra.Command, args []string) error {
	return checkArgs(cobra.ExactArgs(1), cmd, args)
}

// maxOneArg allows one argument.
func maxOneArg(cmd *cobra.Command, args []string) error {
	return checkArgs(cobra.MaximumNArgs(1), cmd, args)
}

func checkArgs(check cobra.PositionalArgs, cmd *cobra.Command, args []string) error {
	if err := check(cmd, args); err != nil {
		return usageError{fmt.Errorf("%w; the form is: %s", err, cmd.UseLine())}
	}
	return nil
}
