// Command carillon is the whole of Carillon in one program: the server, and what
// an operator does beside it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // devices name time zones, and small images have none

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(untilSignal(), os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr, environ: os.Environ()}))
}

// untilSignal is a context that ends with the first SIGINT or SIGTERM. The second ends
// the program at once.
func untilSignal() context.Context {
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		stop()
		code := exitFailed
		if s, ok := (<-signals).(syscall.Signal); ok {
			code = exitSignal + int(s)
		}
		os.Exit(code)
	}()
	return ctx
}

// streams are what a program gets from its surroundings.
type streams struct {
	in       io.Reader
	out, err io.Writer
	environ  []string
}

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // what was asked for did not work
	exitUsage  = 2 // the command line or the configuration is wrong
	// exitSignal and the number of the signal: it came a second time, and nothing was
	// waited for. 130 of SIGINT, 143 of SIGTERM.
	exitSignal = 128
)

// exitError ends the program with a code and no further word.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// exitCode is the code that an error asks for, and whether it does.
func exitCode(err error) (int, bool) {
	var e exitError
	ok := errors.As(err, &e)
	return e.code, ok
}

// run is the program. It returns when the command has ended, or has ended what
// it began after ctx was done.
func run(ctx context.Context, args []string, s streams) int {
	c := &cli{streams: s}
	root := newRootCommand(c)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if code, ok := exitCode(err); ok {
		return code
	}
	_, _ = fmt.Fprintf(s.err, "carillon: %s\n", err)
	var usage usageError
	var config configError
	if errors.As(err, &usage) || errors.As(err, &config) {
		return exitUsage
	}
	return exitFailed
}

// cli is what every command gets.
type cli struct {
	streams
	root *cobra.Command
}

// config reads the configuration, and warns of variables that look like settings.
func (c *cli) config() (Config, error) {
	cfg, unknown, err := load(source{environ: c.environ, flags: c.root.PersistentFlags()})
	for _, name := range unknown {
		_, _ = fmt.Fprintf(c.err, "carillon: the environment variable %s is not a setting; `carillon config reference` lists them\n", name)
	}
	return cfg, err
}

// newRootCommand puts the commands together. Each has a file of its own.
func newRootCommand(c *cli) *cobra.Command {
	root := &cobra.Command{
		Use:   "carillon",
		Short: "One notification API for FCM, APNs, web push and webhooks",
		Long: "Carillon takes notifications over one HTTP API and delivers them over FCM, APNs, web push and webhooks.\n\n" +
			"Everything that can be set is set in a file (--config), by CARILLON_ variables, or by flags;\n" +
			"`carillon config reference` lists it.",
		SilenceErrors: true, // run prints them
		SilenceUsage:  true,
	}
	c.root = root
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	addFlags(root.PersistentFlags())
	for _, command := range []*cobra.Command{
		newServeCommand(c),
		newDemoCommand(c),
		newTenantCommand(c),
		newKeyCommand(c),
		newKeyRingCommand(c),
		newMigrateCommand(c),
		newSendCommand(c),
		newDeadCommand(c),
		newDevicesCommand(c), newAppsCommand(c), newCredentialsCommand(c), newHoldsCommand(c), newUsageCommand(c),
		newSendingCommand(c),
		newBackupCommand(c),
		newRestoreCommand(c),
		newAfterRestoreCommand(c),
		newDoctorCommand(c),
		newJobsCommand(c),
		newErasuresCommand(c),
		newSimulateCommand(c),
		newBenchCommand(c),
		newConfigCommand(c),
		newHealthcheckCommand(c),
		newVersionCommand(c),
	} {
		root.AddCommand(command)
	}
	return group(root)
}
