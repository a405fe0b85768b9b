package main

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

func newUsageCommand(c *cli) *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use: "usage", Short: "Tell what a tenant uses of each limit; with an operator's key alone, the busiest tenants", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			x, err := f.client(c)
			if err != nil {
				return err
			}
			var a listAnswer[struct {
				Tenant string
				Limits []struct {
					Name                 string
					Used, Limit, Waiting int
					ClearsAt             time.Time `json:"clears_at"`
				}
			}]
			if err := x.call(cmd.Context(), "GET", "/v1/usage", nil, &a); err != nil {
				return err
			}
			var rows [][]string
			for _, t := range a.Data {
				for _, l := range t.Limits {
					clears := ""
					if !l.ClearsAt.IsZero() {
						clears = l.ClearsAt.Format(time.RFC3339)
					}
					rows = append(rows, []string{t.Tenant, l.Name, strconv.Itoa(l.Used), strconv.Itoa(l.Limit), strconv.Itoa(l.Waiting), clears})
				}
			}
			return c.printTable([]string{"TENANT", "LIMIT", "USED", "OF", "WAITING", "CLEARS ABOUT"}, rows)
		},
	}
	f.add(cmd)
	return cmd
}
