package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/tenants"
)

// actorCLI is who changes things in the audit when a command does.
const actorCLI = "cli"

// beside opens the database for a command that may run beside the server.
func (c *cli) beside(ctx context.Context, run func(*store.Store, *tenants.Registry) error) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	ring, err := keyRing(cfg)
	if err != nil {
		return err
	}
	s, err := store.Open(ctx, store.Options{URL: cfg.DatabaseURL, KeyRing: ring, Connections: cfg.Connections, Migrate: cfg.Migrate == migrateAuto,
		Unchecked: cfg.Migrate == migrateOff, ErasureLog: cfg.ErasureLogPath()})
	if err != nil {
		return err
	}
	if err := s.Join(ctx, store.Node{Name: cfg.Node(), Role: store.RoleCommand, Version: versionText()}); err != nil {
		return errors.Join(err, s.Close())
	}
	kinds, err := newChannels(cfg)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	service := tenants.NewRegistry(tenants.Options{Store: s, Channels: kinds, IDs: s.IDs(), Now: s.Now})
	err = run(s, service)
	service.Wait()
	return errors.Join(err, s.Close())
}

func newTenantCommand(c *cli) *cobra.Command {
	tenant := group(&cobra.Command{Use: "tenant", Short: "Make, list and delete tenants"})
	var title string
	create := &cobra.Command{
		Use: "create [name]", Short: "Make a tenant", Args: maxArgs(1),
		Long: "Makes a tenant. The name is its id in every call: 1 to 63 of a-z, 0-9, _ and -. Without one it gets an id of its own.",
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			return c.beside(cmd.Context(), func(_ *store.Store, s *tenants.Registry) error {
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
			return c.beside(cmd.Context(), func(_ *store.Store, s *tenants.Registry) error {
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
						return c.table([]string{"TENANT", "TITLE", "STATE", "CREATED"}, rows)
					}
				}
			})
		},
	}
	tenant.AddCommand(create, list, newTenantDeleteCommand(c))
	return tenant
}

func newKeyCommand(c *cli) *cobra.Command {
	key := group(&cobra.Command{Use: "key", Short: "Make and revoke API keys"})
	key.AddCommand(newKeyCreateCommand(c), newKeyRevokeCommand(c))
	return key
}

func newKeyCreateCommand(c *cli) *cobra.Command {
	var (
		tenant, name string
		scopes       []string
		operator     bool
		expires      time.Duration
	)
	cmd := &cobra.Command{
		Use: "create", Short: "Make an API key; its secret is printed once", Args: noArgs,
		Example: "  carillon key create --tenant acme --scopes send,read\n  carillon key create --operator",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if operator == (tenant != "") {
				return usageError{errors.New("give --tenant NAME for a tenant's key, or --operator for one that manages tenants")}
			}
			n := tenants.NewKey{Name: name}
			for _, s := range scopes {
				n.Scopes = append(n.Scopes, tenants.Scope(strings.TrimSpace(s)))
			}
			if expires != 0 {
				n.ExpiresAt = time.Now().Add(expires)
			}
			return c.beside(cmd.Context(), func(_ *store.Store, s *tenants.Registry) error {
				id := ids.ID(0)
				if tenant != "" {
					t, err := s.TenantByName(cmd.Context(), tenant)
					if err == nil && t.Deleting() {
						return fmt.Errorf("the tenant %q is being deleted", tenant)
					}
					if problem.CodeOf(err) == problem.NotFound {
						return fmt.Errorf("there is no tenant %q; `carillon tenant list` shows those of this database", tenant)
					}
					if err != nil {
						return err
					}
					id = t.ID
				}
				k, secret, err := s.CreateKey(cmd.Context(), id, n, actorCLI)
				if err != nil {
					return err
				}
				_, _ = fmt.Fprintf(c.err, "Key %s. The secret is shown this once:\n", k.ID.Format(ids.Key))
				_, err = fmt.Fprintln(c.out, secret)
				return err
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&tenant, "tenant", "", "the tenant whose key it is")
	f.BoolVar(&operator, "operator", false, "a key that manages tenants and acts for any of them")
	f.StringVar(&name, "name", "cli", "what it is for")
	f.StringSliceVar(&scopes, "scopes", nil, "what it may do: send, devices, read, webhooks, credentials, erase, admin")
	f.DurationVar(&expires, "expires", 0, "how long it works, such as 720h; without it, until it is revoked")
	return cmd
}

func newKeyRevokeCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "revoke key_...", Short: "Revoke an API key", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := ids.Parse(ids.Key, args[0])
			if err != nil {
				return usageError{fmt.Errorf("%q is not the id of a key; it begins with key_", args[0])}
			}
			return c.beside(cmd.Context(), func(st *store.Store, s *tenants.Registry) error {
				k, err := st.Key(cmd.Context(), id)
				if err != nil {
					return err
				}
				return s.RevokeKey(cmd.Context(), k.Tenant, id, actorCLI)
			})
		},
	}
}

func newKeyRingCommand(c *cli) *cobra.Command {
	ring := group(&cobra.Command{Use: "key-ring", Short: "Make the key ring that seals secrets"})
	var out string
	initialise := &cobra.Command{
		Use: "init", Short: "Make a new key ring", Args: noArgs,
		Long: "Makes the key ring of an installation. It is needed to start the server and to read any backup of its database,\n" +
			"so keep a copy apart from both. An existing file is never overwritten.",
		RunE: func(*cobra.Command, []string) error {
			_, text, err := store.NewKeyRing()
			if err != nil {
				return err
			}
			if out == "" {
				_, err = fmt.Fprintln(c.out, text)
				return err
			}
			f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%s exists and is never overwritten; use it, or give another file to --out", out)
			}
			if err != nil {
				return fmt.Errorf("write the key ring: %w", err)
			}
			_, err = fmt.Fprintln(f, text)
			if err := errors.Join(err, f.Close()); err != nil {
				return fmt.Errorf("write the key ring: %w", err)
			}
			_, _ = fmt.Fprintf(c.err, "The key ring is in %s. Keep a copy apart from the database.\n", out)
			return nil
		},
	}
	initialise.Flags().StringVar(&out, "out", "", "the file to write; without it the key ring is printed")
	ring.AddCommand(initialise)
	return ring
}

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
	list, err := store.Migrations(ctx, cfg.DatabaseURL, up)
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
	return c.table([]string{"VERSION", "MIGRATION", "STATE"}, rows)
}

func maxArgs(n int) cobra.PositionalArgs   { return usage(cobra.MaximumNArgs(n)) }
func exactArgs(n int) cobra.PositionalArgs { return usage(cobra.ExactArgs(n)) }

func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w; the form is: %s", err, cmd.UseLine())}
		}
		return nil
	}
}
