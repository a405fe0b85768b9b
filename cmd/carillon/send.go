package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newSendCommand(c *cli) *cobra.Command {
	var (
		f              clientFlags
		users          []string
		devs, hooks    []string
		kinds          []string
		n              = map[string]any{}
		texts          = map[string]*string{}
		data           string
		ttl            int64
		urgent, silent bool
		dry            bool
		wait           time.Duration
	)
	cmd := &cobra.Command{
		Use: "send", Short: "Send a notification", Args: noArgs,
		Example: "  carillon send --user alice --title Hello --body 'It works.' --wait 10s\n" +
			"  carillon send --type order.shipped --data '{\"order\":7}'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			x, err := f.client(c)
			if err != nil {
				return err
			}
			to := map[string]any{}
			for name, list := range map[string][]string{"users": users, "devices": devs, "endpoints": hooks} {
				if len(list) > 0 {
					to[name] = list
				}
			}
			if len(to) > 0 {
				n["to"] = to
			}
			if len(kinds) > 0 {
				n["channels"] = kinds
			}
			for name, v := range texts {
				if *v != "" {
					n[name] = *v
				}
			}
			if data != "" {
				if !json.Valid([]byte(data)) {
					return usageError{errors.New("--data must be a JSON object")}
				}
				n["data"] = json.RawMessage(data)
			}
			if cmd.Flags().Changed("ttl") {
				n["ttl"] = ttl
			}
			for name, on := range map[string]bool{"urgent": urgent, "silent": silent, "dry_run": dry} {
				if on {
					n[name] = true
				}
			}
			return c.send(cmd.Context(), x, n, dry, wait)
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringSliceVar(&users, "user", nil, "a user; may be repeated")
	flags.StringSliceVar(&devs, "device", nil, "a device (dev_...); may be repeated")
	flags.StringSliceVar(&hooks, "endpoint", nil, "a webhook endpoint (whe_...); may be repeated")
	flags.StringSliceVar(&kinds, "channel", nil, "only these channels: fcm, apns, webpush, webhook")
	for _, t := range []struct{ member, flag, help string }{
		{"type", "type", "what happened, such as order.shipped"}, {"title", "title", "title"}, {"body", "body", "text"},
		{"image", "image", "https URL of an image"}, {"url", "link", "URL that a tap opens"}, // --url is the server
		{"collapse_key", "collapse-key", "replaces an older one with the same key"},
	} {
		texts[t.member] = flags.String(t.flag, "", t.help)
	}
	flags.StringVar(&data, "data", "", "a JSON object for the app")
	flags.Int64Var(&ttl, "ttl", 0, "seconds until it is worthless")
	flags.BoolVar(&urgent, "urgent", false, "before everything else")
	flags.BoolVar(&silent, "silent", false, "wakes the app, shows nothing")
	flags.BoolVar(&dry, "dry-run", false, "show what would be sent, and send nothing")
	flags.DurationVar(&wait, "wait", 0, "wait until every delivery has come to its end, at most this long; exit 1 unless all are sent")
	return cmd
}

func (c *cli) send(ctx context.Context, x *client, n map[string]any, dry bool, wait time.Duration) error {
	if dry {
		var preview json.RawMessage
		if err := x.call(ctx, "POST", "/v1/notifications", n, &preview); err != nil {
			return err
		}
		return c.printJSON(preview)
	}
	var a acceptedAnswer
	if err := x.call(ctx, "POST", "/v1/notifications", n, &a); err != nil {
		return err
	}
	if a.FansOut {
		_, _ = fmt.Fprintf(c.out, "%s accepted: it leads to more than 1,000 deliveries, which are stored in parts; GET /v1/notifications/%s counts them\n", a.ID, a.ID)
		if wait == 0 {
			return nil
		}
		return c.waitForFanOut(ctx, x, a.ID, wait)
	}
	_, _ = fmt.Fprintf(c.out, "%s accepted: %d deliveries, %d skipped\n", a.ID, len(a.Deliveries), len(a.Skips))
	for _, s := range a.Skips {
		_, _ = fmt.Fprintf(c.out, "  skipped %s: %s\n", strings.Join(slices.DeleteFunc([]string{s.User, s.Target, s.Channel}, func(x string) bool { return x == "" }), " "), s.Reason)
	}
	if wait == 0 || len(a.Deliveries) == 0 {
		return nil
	}
	list, err := x.waitForDeliveries(ctx, a.ID, wait)
	if err != nil {
		return err
	}
	if err := c.printTable(deliveryColumns(), deliveryRows(list)); err != nil {
		return err
	}
	c.printUnfinished(a.ID, list)
	sent := 0
	for _, d := range list {
		if d.State == "sent" {
			sent++
		}
	}
	if sent < len(list) {
		return fmt.Errorf("%d of %d deliveries are not sent", len(list)-sent, len(list))
	}
	return nil
}

// waitForFanOut waits until all deliveries are stored and have come to their ends, at most
// so long, and counts them by state.
func (c *cli) waitForFanOut(ctx context.Context, x *client, notification string, most time.Duration) error {
	ctx, stop := context.WithTimeout(ctx, most)
	defer stop()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	var n struct {
		FansOut bool           `json:"fans_out"`
		Counts  map[string]int `json:"counts"`
	}
	all, open := 0, 0
	for over := false; !over; {
		if err := x.call(ctx, "GET", "/v1/notifications/"+notification, nil, &n); err != nil {
			return err
		}
		all, open = 0, 0
		for state, of := range n.Counts {
			if all += of; !(deliveryAnswer{State: state}).final() {
				open += of
			}
		}
		if !n.FansOut && open == 0 {
			break
		}
		select {
		case <-ctx.Done():
			over = true
		case <-tick.C:
		}
	}
	for _, state := range slices.Sorted(maps.Keys(n.Counts)) {
		if n.Counts[state] > 0 {
			_, _ = fmt.Fprintf(c.out, "%-8s %d\n", state, n.Counts[state])
		}
	}
	if n.FansOut {
		return errors.New("it is still being stored, and goes on without you")
	}
	if sent := n.Counts["sent"]; sent < all {
		return fmt.Errorf("%d of %d deliveries are not sent", all-sent, all)
	}
	return nil
}

// printUnfinished tells how to go on where waiting was not enough.
func (c *cli) printUnfinished(notification string, list []deliveryAnswer) {
	open, held := 0, 0
	for _, d := range list {
		if !d.final() {
			open++
		}
		if d.State == "held" {
			held++
		}
	}
	if open > 0 {
		_, _ = fmt.Fprintf(c.err, "%d of %d go on without you: GET /v1/notifications/%s/deliveries tells how they end\n", open, len(list), notification)
	}
	if held > 0 {
		_, _ = fmt.Fprintf(c.err, "%d held: `carillon holds` tells by what, and the call that releases them\n", held)
	}
}

// waitForDeliveries waits until the deliveries of a notification have come to
// their ends, at most so long, and gives them as far as they came.
func (x *client) waitForDeliveries(ctx context.Context, notification string, most time.Duration) ([]deliveryAnswer, error) {
	deadline := time.NewTimer(most)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		list, err := listAll[deliveryAnswer](ctx, x, "/v1/notifications/"+notification+"/deliveries")
		if err != nil || !slices.ContainsFunc(list, func(d deliveryAnswer) bool { return !d.final() }) {
			return list, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-deadline.C:
			return list, nil
		case <-tick.C:
		}
	}
}

func deliveryColumns() []string {
	return []string{"DELIVERY", "CHANNEL", "USER", "STATE", "ATTEMPTS", "CODE", "PROVIDER ID"}
}

func deliveryRows(list []deliveryAnswer) [][]string {
	rows := make([][]string, len(list))
	for i, d := range list {
		state := d.State
		if d.Reason != "" {
			state += " (" + d.Reason + ")"
		}
		r := []string{d.ID, d.Channel, d.User, state, "0", "", ""}
		if d.Last != nil {
			r[4], r[5], r[6] = strconv.Itoa(d.Last.Number), d.Last.Code, d.Last.ProviderID
		}
		rows[i] = r
	}
	return rows
}
