package main

import (
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

func newAppsCommand(c *cli) *cobra.Command {
	var f clientFlags
	cmd := group(&cobra.Command{Use: "apps", Short: "List apps, and delete one with its credentials and devices"})
	f.add(cmd)
	cmd.AddCommand(newAppsListCommand(c, &f), newAppsDeleteCommand(c, &f))
	return cmd
}

func newAppsListCommand(c *cli, f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List apps", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			x, err := f.client(c)
			if err != nil {
				return err
			}
			var a listAnswer[struct {
				Name      string
				CreatedAt time.Time `json:"created_at"`
			}]
			if err := x.call(cmd.Context(), "GET", "/v1/apps", nil, &a); err != nil {
				return err
			}
			rows := make([][]string, len(a.Data))
			for i, app := range a.Data {
				created := "-" // only devices name it
				if !app.CreatedAt.IsZero() {
					created = app.CreatedAt.Format(time.RFC3339)
				}
				rows[i] = []string{app.Name, created}
			}
			return c.printTable([]string{"APP", "CREATED"}, rows)
		},
	}
}

func newAppsDeleteCommand(c *cli, f *clientFlags) *cobra.Command {
	var dry, force bool
	cmd := &cobra.Command{
		Use: "delete name", Short: "Delete an app with its credentials and devices", Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := f.client(c)
			if err != nil {
				return err
			}
			var a struct {
				ID               string
				Devices, Waiting int
				LowerBound       bool `json:"lower_bound"`
				NeedsForce       bool `json:"needs_force"`
			}
			query := "?dry_run=" + strconv.FormatBool(dry) + "&force=" + strconv.FormatBool(force)
			if err := x.call(cmd.Context(), "DELETE", "/v1/apps/"+url.PathEscape(args[0])+query, nil, &a); err != nil {
				return err
			}
			if !dry {
				_, err = fmt.Fprintf(c.out, "%s and its credentials are deleted; %s removes its devices\n", args[0], a.ID)
				return err
			}
			least, needs := "", ""
			if a.LowerBound {
				least = "at least "
			}
			if a.NeedsForce {
				needs = "; it needs --force"
			}
			_, err = fmt.Fprintf(c.out, "would delete %s%d devices and drop %s%d waiting deliveries%s\n", least, a.Devices, least, a.Waiting, needs)
			return err
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would be deleted")
	cmd.Flags().BoolVar(&force, "force", false, "do it though many devices or deliveries are affected")
	return cmd
}
