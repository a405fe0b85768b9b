package main

import (
	"cmp"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

func newHoldsCommand(c *cli) *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use: "holds", Short: "List what holds deliveries, or lets them wait, and the call that releases each", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			x, err := f.client(c)
			if err != nil {
				return err
			}
			var a listAnswer[holdAnswer]
			if err := x.call(cmd.Context(), "GET", "/v1/holds", nil, &a); err != nil {
				return err
			}
			rows := make([][]string, len(a.Data))
			for i, h := range a.Data {
				held := strconv.Itoa(h.Held)
				if h.More {
					held += "+"
				}
				until := ""
				if !h.Until.IsZero() {
					until = h.Until.Format(time.RFC3339)
				}
				rows[i] = []string{h.ID, h.Scope, h.Subject, h.At, h.Reason, held, h.Since.Format(time.RFC3339), until, cmp.Or(h.Release, h.Ending), h.Detail}
			}
			return c.printTable([]string{"HOLD", "SCOPE", "SUBJECT", "AT", "REASON", "HELD", "SINCE", "UNTIL", "RELEASED BY", "DETAIL"}, rows)
		},
	}
	f.add(cmd)
	return cmd
}
