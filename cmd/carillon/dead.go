package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

func newDeadCommand(c *cli) *cobra.Command {
	var f clientFlags
	dead := group(&cobra.Command{Use: "dead", Short: "List and replay dead letters"})
	f.add(dead)
	q := url.Values{}
	limit := 50
	var reason, channel, user string
	list := &cobra.Command{
		Use: "list", Short: "List dead letters, the latest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			x, err := f.client(c)
			if err != nil {
				return err
			}
			for name, v := range map[string]string{"reason": reason, "channel": channel, "user": user, "limit": strconv.Itoa(limit)} {
				if v != "" {
					q.Set(name, v)
				}
			}
			var a listAnswer[deliveryAnswer]
			if err := x.call(cmd.Context(), "GET", "/v1/dead-letters?"+q.Encode(), nil, &a); err != nil {
				return err
			}
			rows := make([][]string, len(a.Data))
			for i, d := range a.Data {
				rows[i] = []string{d.ID, d.Channel, d.User, d.Reason, "", d.UpdatedAt.Format(time.RFC3339), ""}
				if d.Last != nil {
					rows[i][4], rows[i][6] = d.Last.Code, d.Last.Detail
				}
			}
			return c.printTable([]string{"DELIVERY", "CHANNEL", "USER", "REASON", "CODE", "DIED", "DETAIL"}, rows)
		},
	}
	list.Flags().StringVar(&reason, "reason", "", "only with this reason: rejected, exhausted, expired, ambiguous, crashed, mapping, stale")
	list.Flags().StringVar(&channel, "channel", "", "only of this channel")
	list.Flags().StringVar(&user, "user", "", "only for this user")
	list.Flags().IntVar(&limit, "limit", limit, "at most this many, up to 200")
	dead.AddCommand(list, newReplayCommand(c, &f))
	return dead
}

// newReplayCommand sends dead letters again: one by its id, or by a job all that
// a filter selects.
func newReplayCommand(c *cli, f *clientFlags) *cobra.Command {
	var (
		texts     = map[string]*string{}
		perSecond int
		dry       bool
	)
	cmd := &cobra.Command{
		Use: "replay [dlv_...]", Short: "Send a dead letter again, or all that a filter selects",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{errors.New("give one delivery, or flags that select many")}
			}
			return nil
		},
		Example: "  carillon dead replay dlv_0d1kq3w8r000c0d1kq3w8r000d\n" +
			"  carillon dead replay --reason exhausted --channel webhook --since 2026-01-31T12:00:00Z --dry-run\n" +
			"  carillon dead replay --reason exhausted --channel webhook --per-second 50",
		RunE: func(cmd *cobra.Command, args []string) error {
			filter := map[string]string{}
			for name, v := range texts {
				if *v != "" {
					filter[name] = *v
				}
			}
			many := len(filter) > 0 || dry || cmd.Flags().Changed("per-second")
			switch {
			case len(args) == 0 && len(filter) == 0:
				return usageError{errors.New("give a delivery (dlv_...), or at least one flag that selects dead letters, such as --reason")}
			case len(args) == 1 && many:
				return usageError{errors.New("give a delivery or flags that select many, not both")}
			}
			x, err := f.client(c)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return c.replayOne(cmd.Context(), x, args[0])
			}
			in := map[string]any{"filter": filter}
			if cmd.Flags().Changed("per-second") {
				in["per_second"] = perSecond
			}
			return c.orderJob(cmd.Context(), x, jobOrder{path: "/v1/dead-letters/replay", body: in, dry: dry, items: "dead letters", done: "replayed", does: "replays"})
		},
	}
	flags := cmd.Flags()
	for _, t := range []struct{ name, help string }{
		{"state", "webhooks that were sent, or dropped, instead of dead letters; needs --endpoint and --since"}, {"reason", "only with this reason: rejected, exhausted, expired, ambiguous, crashed, mapping, stale"},
		{"channel", "only of this channel: fcm, apns, webpush, webhook"}, {"app", "only to devices of this app"}, {"user", "only for this user"},
		{"endpoint", "only to this endpoint (whe_...)"}, {"notification", "only of this notification (ntf_...)"},
		{"type", "only of notifications of this type, such as order.shipped"},
		{"since", "only what died then or later, such as 2026-01-31T12:00:00Z"}, {"until", "only what died before"},
	} {
		texts[t.name] = flags.String(t.name, "", t.help)
	}
	flags.IntVar(&perSecond, "per-second", 100, "letters in a second at most, up to 1000")
	flags.BoolVar(&dry, "dry-run", false, "only count what the flags select")
	return cmd
}

func (c *cli) replayOne(ctx context.Context, x *client, id string) error {
	if err := x.call(ctx, "POST", "/v1/deliveries/"+url.PathEscape(id)+"/replay", nil, nil); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.out, "%s is pending again\n", id)
	return err
}
