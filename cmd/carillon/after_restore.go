package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/backup"
)

func newAfterRestoreCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use: "after-restore", Short: "Decide what a restored database sends", Args: noArgs,
		Long: "Shows what would be sent if sending were resumed: how much of each channel and type, and how old it is. Nothing is\n" +
			"sent until `carillon after-restore resume` says what becomes of it.\n\n" +
			"`carillon restore` pauses sending by itself. After any other way of restoring, such as a copy of the file, a disk or\n" +
			"a point in time of PostgreSQL, run `carillon after-restore begin` before the first server starts.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withStore(cmd.Context(), func(s *store.Store) error { return c.printWaiting(cmd.Context(), s) })
		},
	}
	cmd.AddCommand(
		&cobra.Command{Use: "begin", Short: "Pause sending before the first server starts", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return c.withStore(cmd.Context(), func(s *store.Store) error {
					if err := s.LockEngine(); err != nil {
						return err
					}
					leased, err := s.BeginAfterRestore(cmd.Context(), actorCLI)
					if err != nil {
						return err
					}
					if _, err := fmt.Fprintf(c.out, "Sending is paused. %d deliveries were being sent when the backup was taken; they may have arrived.\n\n", leased); err != nil {
						return err
					}
					return c.printWaiting(cmd.Context(), s)
				})
			}},
		newAfterRestoreResumeCommand(c),
	)
	return cmd
}

func newAfterRestoreResumeCommand(c *cli) *cobra.Command {
	var (
		all     bool
		younger string
		rest    string
	)
	cmd := &cobra.Command{
		Use: "resume", Short: "Say what becomes of what waits, and send again", Args: noArgs,
		Long: "Ends the pause after a restore. First whoever was erased since the backup is erased again, as the erasure log says\n" +
			"(erasure_log, --erasure-log). --all sends whatever is not past its deadline. --younger-than sends what is younger\n" +
			"than that, and makes the rest dead letters with the reason stale, which can be looked at and replayed, or with\n" +
			"--rest dropped ends it for good. What is past its deadline ends as expired, either way.\n\n" +
			"The age counts from when a notification was accepted, was to be sent, or was replayed. If it is interrupted nothing\n" +
			"is sent yet: run it again.",
		Example: "  carillon after-restore resume --all\n  carillon after-restore resume --younger-than 1h\n  carillon after-restore resume --younger-than 15m --rest dropped",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var age time.Duration
			switch {
			case all == (younger != ""):
				return usageError{errors.New("give --all, or --younger-than with a time such as 1h")}
			case all && cmd.Flags().Changed("rest"):
				return usageError{errors.New("--rest goes with --younger-than")}
			case rest != "dead" && rest != "dropped":
				return usageError{fmt.Errorf("--rest is %q; use dead or dropped", rest)}
			case !all:
				var err error
				if age, err = parseDuration(younger); err != nil || age <= 0 {
					return usageError{fmt.Errorf("--younger-than is %q; use a number with its unit, such as 30m, 12h or 7d", younger)}
				}
			}
			cfg, err := c.config()
			if err != nil {
				return err
			}
			return c.withStore(cmd.Context(), func(s *store.Store) error {
				if err := requireRestored(cmd.Context(), s); err != nil {
					return err
				}
				if err := c.reapplyErasures(cmd, s, cfg); err != nil {
					return err
				}
				return c.resumeAfterRestore(cmd.Context(), s, age, rest)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "send all of it")
	cmd.Flags().StringVar(&younger, "younger-than", "", "send only what is younger than this, such as 1h")
	cmd.Flags().StringVar(&rest, "rest", "dead", "what becomes of the rest: dead or dropped")
	return cmd
}

// maxGroups is how many lines the table has: tenants choose their types.
const maxGroups = 50

func (c *cli) printWaiting(ctx context.Context, s *store.Store) error {
	w, err := s.Waiting(ctx)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c.out, "%s\n\n", pauseText(w.Pause)); err != nil {
		return err
	}
	if len(w.Groups) == 0 {
		_, err = fmt.Fprintln(c.out, "Nothing waits to be sent.")
	} else {
		err = c.printTable([]string{"CHANNEL", "TYPE", "< 5 MIN", "< 1 H", "< 24 H", "OLDER", "LATER", "HELD", "PAST DEADLINE"}, waitingRows(w.Groups))
	}
	if err != nil {
		return err
	}
	if w.Scheduled+w.Overdue > 0 {
		if _, err := fmt.Fprintf(c.out, "\nScheduled notifications whose targets are not resolved: %d for later, %d whose time has come (a server resolves them, also while it is paused).\n", w.Scheduled, w.Overdue); err != nil {
			return err
		}
	}
	if w.Pause.Restored.IsZero() {
		return nil
	}
	_, err = fmt.Fprintf(c.out, "\nThe age counts from when it was accepted, was to be sent, or was replayed. HELD waits for something else too;\n"+
		"PAST DEADLINE is not sent, but ends as expired. To send again:\n\n"+
		"  carillon after-restore resume --all%[1]s\n  carillon after-restore resume --younger-than 1h%[1]s    # the rest becomes dead letters, which can be replayed\n", c.databaseFlags())
	return err
}

func waitingRows(groups []backup.WaitingGroup) [][]string {
	rows := [][]string{}
	others := backup.WaitingGroup{}
	add := func(channel, typ string, g backup.WaitingGroup) {
		row := []string{channel, typ}
		for _, n := range append(g.Ages[:], g.Held, g.PastDeadline) {
			row = append(row, fmt.Sprint(n))
		}
		rows = append(rows, row)
	}
	total := backup.WaitingGroup{}
	sum := func(into *backup.WaitingGroup, g backup.WaitingGroup) {
		for i, n := range g.Ages {
			into.Ages[i] += n
		}
		into.Held += g.Held
		into.PastDeadline += g.PastDeadline
	}
	for i, g := range groups {
		sum(&total, g)
		if i >= maxGroups {
			sum(&others, g)
			continue
		}
		typ := g.Type
		if typ == "" {
			typ = "-"
		}
		add(g.Channel.String(), typ, g)
	}
	if len(groups) > maxGroups {
		add("...", fmt.Sprintf("%d more", len(groups)-maxGroups), others)
	}
	add("all", "", total)
	return rows
}

// requireRestored refuses what is only for a database that was restored.
func requireRestored(ctx context.Context, s *store.Store) error {
	p, err := s.SendingPaused(ctx)
	if err == nil && p.Restored.IsZero() {
		return errors.New("the database is not marked as restored: nothing was changed. After a restore by other means than `carillon restore`, run `carillon after-restore begin` first; an ordinary pause is ended by `carillon sending resume`")
	}
	return err
}

// reapplyErasures erases whom the backup has brought back. It comes before
// anything is sent: nothing may go to somebody who was erased.
func (c *cli) reapplyErasures(cmd *cobra.Command, s *store.Store, cfg Config) error {
	path := cfg.ErasureLogPath()
	if path != "" {
		_, err := os.Stat(path)
		if err == nil {
			return c.applyErasures(cmd, s, path)
		}
		if cfg.ErasureLog != "" || !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the erasure log cannot be read: %w. Bring it back, or name another by --erasure-log; --erasure-log off goes on without one, and whoever was erased since the backup is there again", err)
		}
	}
	_, err := fmt.Fprintln(c.err, "carillon: there is no erasure log here. If users or tenants were erased after the backup, they are there again: `carillon erasures apply FILE` erases them.")
	return err
}

func (c *cli) resumeAfterRestore(ctx context.Context, s *store.Store, age time.Duration, rest string) error {
	cut := backup.Cutoff{State: delivery.Dead, Progress: func(n int) { _, _ = fmt.Fprintf(c.err, "%d deliveries are %s\n", n, rest) }}
	if age > 0 {
		cut.Before = s.Now().Add(-age)
	}
	if rest == "dropped" {
		cut.State = delivery.Dropped
	}
	moved, err := s.ResumeAfterRestore(ctx, cut, actorCLI)
	if err != nil {
		return err
	}
	if age > 0 {
		if _, err := fmt.Fprintf(c.out, "%d deliveries that were older than %s are %s (stale).\n", moved, formatDuration(age), rest); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(c.out, "Sending is resumed.")
	return err
}
