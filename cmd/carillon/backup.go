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
	cmd.AddCommand(&cobra.Command{Use: "verify FILE", Short: "Check that a backup is whole", Args: oneArg,
		RunE: func(_ *cobra.Command, args []string) error {
			sum, err := backup.VerifyBackup(args[0])
			if err != nil {
				return err
			}
			return c.printBackup(sum)
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

func (c *cli) printBackup(sum archive.Summary) error {
	h := sum.Header
	if _, err := fmt.Fprintf(c.out, "The backup is whole: %d rows as of %s, from %s with schema %d, written by Carillon %s.\nsha256 %s\n\n",
		sum.Rows(), h.SnapshotAt.Format(time.RFC3339), h.Database, h.Schema, h.Version, sum.Sum); err != nil {
		return err
	}
	rows := make([][]string, len(sum.Tables))
	for i, t := range sum.Tables {
		rows[i] = []string{t.Table, fmt.Sprint(t.Rows)}
	}
	return c.printTable([]string{"TABLE", "ROWS"}, rows)
}
