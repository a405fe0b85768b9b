package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/store/db"
)

func newMigrateCommand(c *cli) *cobra.Command {
	migrate := group(&cobra.Command{Use: "migrate", Short: "Bring the database schema up to date"})
	migrate.AddCommand(
		&cobra.Command{Use: "up", Short: "Apply the migrations that are missing", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return c.migrations(cmd.Context(), true) }},
		&cobra.Command{Use: "status", Short: "Show which migrations are applied", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return c.migrations(cmd.Context(), false) }},
	)
	return migrate
}

func (c *cli) migrations(ctx context.Context, up bool) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	list, err := db.Migrations(ctx, cfg.DatabaseURL, up)
	if err != nil {
		return err
	}
	rows := make([][]string, len(list))
	for i, m := range list {
		state := "pending"
		if m.Applied {
			state = "applied"
		}
		rows[i] = []string{fmt.Sprint(m.Version), m.Name, state}
	}
	return c.printTable([]string{"VERSION", "MIGRATION", "STATE"}, rows)
}
