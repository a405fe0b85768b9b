package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/store"
)

func newRestoreCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "restore FILE", Short: "Restore a backup into an empty database", Args: oneArg,
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
				r.Rows(), r.Header.SnapshotAt.Format(time.RFC3339), r.Leased, c.databaseFlags())
			return err
		},
	}
}
