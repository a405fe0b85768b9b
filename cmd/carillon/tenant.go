package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/tenants"
)

func newTenantCommand(c *cli) *cobra.Command {
	tenant := group(&cobra.Command{Use: "tenant", Short: "Make, list and delete tenants"})
	var title string
	create := &cobra.Command{
		Use: "create [name]", Short: "Make a tenant", Args: maxOneArg,
		Long: "Makes a tenant. The name is its id in every call: 1 to 63 of a-z, 0-9, _ and -. Without one it gets an id of its own.",
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			return c.withDatabase(cmd.Context(), func(_ *store.Store, s *tenants.Registry) error {
				t, err := s.CreateTenant(cmd.Context(), name, title, tenants.Settings{}, actorCLI)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(c.out, t.Name)
				return err
			})
		},
	}
	create.Flags().StringVar(&title, "title", "", "a name for people")
	list := &cobra.Command{
		Use: "list", Short: "List tenants, oldest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withDatabase(cmd.Context(), func(_ *store.Store, s *tenants.Registry) error {
				rows := [][]string{}
				for page := (tenants.Page{Limit: 500}); ; {
					list, err := s.Tenants(cmd.Context(), page)
					if err != nil {
						return err
					}
					for _, t := range list {
						state := "active"
						if t.Deleting() {
							state = "deleting"
						}
						rows = append(rows, []string{t.Name, t.Title, state, t.CreatedAt.Format(time.RFC3339)})
						page.After = t.ID
					}
					if len(list) < page.Limit {
						return c.printTable([]string{"TENANT", "TITLE", "STATE", "CREATED"}, rows)
					}
				}
			})
		},
	}
	tenant.AddCommand(create, list, newTenantDeleteCommand(c))
	return tenant
}

func newTenantDeleteCommand(c *cli) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete name", Short: "Delete a tenant with all that it has", Args: oneArg,
		Long: "Deletes a tenant. Its API keys are refused and its sealing keys destroyed before the command ends: what was sealed for it, such\n" +
			"as credentials and content, can never be read again. A running server notices within five seconds, sends nothing more, and removes\n" +
			"the rows in the background; without one, the next server does. The name is free when that is done.",
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			return c.withDatabase(cmd.Context(), func(d *store.Store, s *tenants.Registry) error {
				if !yes {
					return looksAtDeletion(cmd.Context(), d, s, args[0])
				}
				t, err := s.DeleteTenant(cmd.Context(), args[0], actorCLI)
				if err != nil {
					return noSuchTenant(err, args[0])
				}
				if cfg.ErasureLogPath() == "" && cfg.ErasureLog != erasureLogOff {
					_, _ = fmt.Fprintln(c.err, "carillon: there is no erasure log here, so the deletion is in none: the tenant comes back when an older backup is restored; see the setting erasure_log")
				}
				_, err = fmt.Fprintf(c.out, "%s is being deleted; its rows are removed by the server\n", t.Name)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "really do it")
	return cmd
}

// looksAtDeletion says what the deletion of a tenant would take away, and how to go on.
func looksAtDeletion(ctx context.Context, d *store.Store, s *tenants.Registry, name string) error {
	t, err := s.TenantByName(ctx, name)
	if err != nil {
		return noSuchTenant(err, name)
	}
	a, err := d.Affected(ctx, t.ID, delivery.AffectedBy{})
	if err != nil {
		return err
	}
	least := ""
	if a.LowerBound {
		least = "at least "
	}
	return usageError{fmt.Errorf("this deletes the tenant %q for good, with its keys and notifications, %s%d active devices, %d endpoints and %d deliveries that are not finished; add --yes to do it",
		name, least, a.Devices, a.Endpoints, a.Waiting)}
}

func noSuchTenant(err error, name string) error {
	if problem.CodeOf(err) == problem.NotFound {
		return fmt.Errorf("there is no tenant %q; `carillon tenant list` shows those of this database", name)
	}
	return err
}
