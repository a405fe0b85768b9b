package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/backup"
	"github.com/carillonhq/carillon/store/backup/archive"
)

const keyRingReminder = "The key ring is NOT in it, and without the key ring it is worth nothing: keep a copy of the key ring apart from the backups."

func newBackupCommand(c *cli) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use: "backup --to FILE", Short: "Back up the database, beside a running server", Args: noArgs,
		Long: "Writes all that the database holds to one file, as of one moment, while servers go on. The file belongs to no kind\n" +
			"of database: `carillon restore` reads it into SQLite or PostgreSQL, so it is also the way to move from one to the\n" +
			"other. It replaces FILE only when it is complete. FILE may be - for the standard output.\n\n" +
			keyRingReminder + "\nDevice tokens and the ids of users are not sealed in it: protect it.\n\n" +
			"It blocks no writer. On PostgreSQL its snapshot keeps VACUUM from removing rows that are deleted meanwhile, on\n" +
			"SQLite the -wal file grows meanwhile: take it when there is little to do.",
		Example: "  carillon backup --to /backup/carillon-$(date +%F)\n  carillon backup --to - | ssh vault 'cat > carillon-backup'\n  carillon backup verify /backup/carillon-2026-01-31",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if to == "" {
				return usageError{errors.New("give --to FILE, or --to - for the standard output")}
			}
			cfg, err := c.config()
			if err != nil {
				return err
			}
			return c.backup(cmd.Context(), cfg, to)
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "the file to write; - is the standard output")
	cmd.AddCommand(&cobra.Command{Use: "verify FILE", Short: "Check that a backup is whole", Args: usage(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			sum, err := backup.VerifyBackup(args[0])
			if err != nil {
				return err
			}
			return c.showBackup(sum)
		}})
	return cmd
}

func (c *cli) backup(ctx context.Context, cfg Config, to string) (err error) {
	s, err := store.Peek(ctx, store.Options{URL: cfg.DatabaseURL, Connections: cfg.Connections})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var sum archive.Summary
	if to == "-" {
		sum, err = s.Backup(ctx, versionText(), c.out)
	} else {
		err = replaceFile(to, func(w io.Writer) (err error) {
			sum, err = s.Backup(ctx, versionText(), w)
			return err
		})
	}
	if err != nil {
		return err
	}
	if err := s.RecordBackup(ctx, sum, actorCLI); err != nil {
		_, _ = fmt.Fprintf(c.err, "carillon: the backup is complete, but the database could not note it for `carillon doctor`: %s\n", err)
	}
	_, err = fmt.Fprintf(c.err, "Backed up %d rows as of %s, sha256 %s.\n%s\n", sum.Rows(), sum.Header.SnapshotAt.Format(time.RFC3339), sum.Sum, keyRingReminder)
	return err
}

// replaceFile writes a file that is there as a whole or not at all, readable by
// its owner alone.
func replaceFile(name string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".carillon-backup-*") // 0600
	if err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write the backup: %w", err), os.Remove(f.Name()))
	}
	// The name has to survive a power cut as well. Not every file system can be
	// asked for that.
	if dir, err := os.Open(filepath.Dir(name)); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
	return nil
}

func (c *cli) showBackup(sum archive.Summary) error {
	h := sum.Header
	if _, err := fmt.Fprintf(c.out, "The backup is whole: %d rows as of %s, from %s with schema %d, written by Carillon %s.\nsha256 %s\n\n",
		sum.Rows(), h.SnapshotAt.Format(time.RFC3339), h.Database, h.Schema, h.Version, sum.Sum); err != nil {
		return err
	}
	rows := make([][]string, len(sum.Tables))
	for i, t := range sum.Tables {
		rows[i] = []string{t.Table, fmt.Sprint(t.Rows)}
	}
	return c.table([]string{"TABLE", "ROWS"}, rows)
}

func newRestoreCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "restore FILE", Short: "Restore a backup into an empty database", Args: usage(cobra.ExactArgs(1)),
		Long: "Fills the database that is configured from a backup, of SQLite or PostgreSQL alike. It must be new or empty, and no\n" +
			"server may run on it. The file is checked as a whole before anything is written, and what is interrupted leaves an\n" +
			"empty database. The key ring that the backup was made with has to be configured.\n\n" +
			"Afterwards sending is paused: a server accepts and shows everything, and sends nothing until `carillon after-restore`\n" +
			"has been told what becomes of what the backup holds.",
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			ring, err := keyRing(cfg)
			if err != nil {
				return err
			}
			r, err := store.Restore(cmd.Context(), store.Options{URL: cfg.DatabaseURL, KeyRing: ring, Connections: cfg.Connections}, args[0], actorCLI)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.out, "Restored %d rows as of %s.\n%d deliveries were being sent then; they may have arrived, and are marked so when they are sent again.\n\n"+
				"Sending is paused. What was accepted after the backup is not in it: have it posted again with the same Idempotency-Key.\n"+
				"Start the server if you like, look at what would be sent, and resume:\n\n  carillon after-restore%[4]s\n",
				r.Rows(), r.Header.SnapshotAt.Format(time.RFC3339), r.Leased, c.sameDatabase())
			return err
		},
	}
}

func newAfterRestoreCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use: "after-restore", Short: "Decide what a restored database sends", Args: noArgs,
		Long: "Shows what would be sent if sending were resumed: how much of each channel and type, and how old it is. Nothing is\n" +
			"sent until `carillon after-restore resume` says what becomes of it.\n\n" +
			"`carillon restore` pauses sending by itself. After any other way of restoring, such as a copy of the file, a disk or\n" +
			"a point in time of PostgreSQL, run `carillon after-restore begin` before the first server starts.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.besideStore(cmd.Context(), func(s *store.Store) error { return c.showWaiting(cmd.Context(), s) })
		},
	}
	cmd.AddCommand(
		&cobra.Command{Use: "begin", Short: "Pause sending before the first server starts", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return c.besideStore(cmd.Context(), func(s *store.Store) error {
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
					return c.showWaiting(cmd.Context(), s)
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
			return c.besideStore(cmd.Context(), func(s *store.Store) error {
				if err := restoredOnly(cmd.Context(), s); err != nil {
					return err
				}
				if err := c.eraseAgain(cmd, s, cfg); err != nil {
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
