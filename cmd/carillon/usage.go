package main

import (
	"fmt"
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
					Name          string
					Used, Waiting int
					Limit         float64
					AtOnce        int       `json:"at_once"`
					ClearsAt      time.Time `json:"clears_at"`
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
					of := strconv.FormatFloat(l.Limit, 'f', -1, 64)
					if l.AtOnce > 0 {
						of = fmt.Sprintf("%d at once, %s in a second", l.AtOnce, of)
					}
					rows = append(rows, []string{t.Tenant, l.Name, strconv.Itoa(l.Used), of, strconv.Itoa(l.Waiting), clears})
				}
			}
			return c.printTable([]string{"TENANT", "LIMIT", "USED", "OF", "WAITING", "CLEARS ABOUT"}, rows)
		},
	}
	f.add(cmd)
	return cmd
}
