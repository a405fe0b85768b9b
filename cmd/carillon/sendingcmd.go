package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/tenants"
)

func newSendingCommand(c *cli) *cobra.Command {
	sending := group(&cobra.Command{Use: "sending", Short: "Pause and resume all sending",
		Long: "While sending is paused no server sends a push or a webhook. Notifications are accepted, and wait as long as their\n" +
			"time to live allows. It works beside running servers, which obey within a second, and without one."})
	with := func(use, short string, run func(ctx context.Context, s *store.Store) error) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			return c.beside(cmd.Context(), func(s *store.Store, _ *tenants.Registry) error {
				if err := run(cmd.Context(), s); err != nil {
					return err
				}
				p, err := s.SendingPaused(cmd.Context())
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(c.out, sayPause(p))
				return err
			})
		}}
	}
	var reason string
	pause := with("pause", "Stop all sending", func(ctx context.Context, s *store.Store) error { return s.PauseSending(ctx, reason, actorCLI) })
	pause.Flags().StringVar(&reason, "reason", "", "for whoever finds it paused")
	sending.AddCommand(
		pause,
		with("resume", "Send again", func(ctx context.Context, s *store.Store) error { return s.ResumeSending(ctx, actorCLI) }),
		with("status", "Tell whether sending is paused", func(context.Context, *store.Store) error { return nil }),
	)
	return sending
}

// sayPause is a pause in a sentence.
func sayPause(p delivery.Pause) string {
	if !p.On() {
		return "Sending is not paused."
	}
	text := fmt.Sprintf("Sending is paused since %s by %s", p.Since.Format(time.RFC3339), p.Actor)
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	text += "."
	if !p.Restored.IsZero() {
		text += "\nThe database was restored from a backup: `carillon after-restore` shows what would be sent, and ends the pause."
	}
	return text
}
