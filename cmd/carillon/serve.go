package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

func newServeCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: "Runs the server on an SQLite file, which is created as needed, or on PostgreSQL, which any number of servers\n" +
			"may share; --role says what each does. It needs a key ring, the same for all, which seals provider credentials,\n" +
			"webhook secrets and the content of notifications: see `carillon key-ring init`.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			if err := failpoint.Arm(c.getenv(failpoint.Variable)); err != nil {
				return usageError{err}
			}
			ring, err := keyRing(cfg)
			if err != nil {
				return err
			}
			if c.getenv("GOGC") == "" {
				// The live heap is small and the garbage plenty: collecting at twice
				// its size, which is Go's default, would take a tenth of the CPU.
				debug.SetGCPercent(400)
			}
			log := newLogger(cfg.Log, c.err).With("node", cfg.Node())
			s, err := newServer(cmd.Context(), cfg, serverParts{log: log, keyRing: ring})
			if err != nil {
				return err
			}
			c.printFirstSteps(cmd.Context(), s)
			return s.run(cmd.Context())
		},
	}
}

// printFirstSteps tells how to go on where there is no tenant yet.
func (c *cli) printFirstSteps(ctx context.Context, s *server) {
	list, err := s.store.Tenants(ctx, tenants.Page{Limit: 1})
	if err != nil || len(list) > 0 {
		return
	}
	_, _ = fmt.Fprintf(c.err, `
The database is empty. In another terminal, with the same configuration:

  # a tenant, and its API key, which is shown once
  carillon tenant create acme%[2]s
  carillon key create --tenant acme --scopes admin,send,read,devices,webhooks,credentials%[2]s

  curl %[1]s/v1/notifications -H "Authorization: Bearer crl_..." \
    -H "Content-Type: application/json" -d '{"to":{"users":["alice"]},"title":"Hello"}'

`, s.url(), c.databaseFlags())
	if s.cfg.Docs {
		_, _ = fmt.Fprintf(c.err, "The API is described at %s/docs\n\n", s.url())
	}
}

// databaseFlags is what this command line has that others need to find the same
// database: what came from the environment they have as well.
func (c *cli) databaseFlags() string {
	var flags strings.Builder
	for _, name := range []string{"config", "database-url", "key-ring-file"} {
		if f := c.root.PersistentFlags().Lookup(name); f != nil && f.Changed {
			flags.WriteString(" --" + name + " " + db.RedactURL(f.Value.String()))
		}
	}
	return flags.String()
}
