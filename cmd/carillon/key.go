package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/tenants"
)

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
			return c.withDatabase(cmd.Context(), func(_ *store.Store, s *tenants.Registry) error {
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
		Use: "revoke key_...", Short: "Revoke an API key", Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := ids.Parse(ids.Key, args[0])
			if err != nil {
				return usageError{fmt.Errorf("%q is not the id of a key; it begins with key_", args[0])}
			}
			return c.withDatabase(cmd.Context(), func(st *store.Store, s *tenants.Registry) error {
				k, err := st.Key(cmd.Context(), id)
				if err != nil {
					return err
				}
				return s.RevokeKey(cmd.Context(), k.Tenant, id, actorCLI)
			})
		},
	}
}
