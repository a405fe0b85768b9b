package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/tenants"
)

func (c *cli) besideStore(ctx context.Context, run func(*store.Store) error) error {
	return c.beside(ctx, func(s *store.Store, _ *tenants.Registry) error { return run(s) })
}

// mostGroups is how many lines the table has: tenants choose their types.
const mostGroups = 50

func (c *cli) showWaiting(ctx context.Context, s *store.Store) error {
	w, err := s.Waiting(ctx)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c.out, "%s\n\n", sayPause(w.Pause)); err != nil {
		return err
	}
	if len(w.Groups) == 0 {
		_, err = fmt.Fprintln(c.out, "Nothing waits to be sent.")
	} else {
		err = c.table([]string{"CHANNEL", "TYPE", "< 5 MIN", "< 1 H", "< 24 H", "OLDER", "LATER", "HELD", "PAST DEADLINE"}, waitingRows(w.Groups))
	}
	if err != nil {
		return err
	}
	if w.Scheduled+w.Overdue > 0 {
		if _, err := fmt.Fprintf(c.out, "\nScheduled notifications whose targets are not resolved: %d for later, %d whose time has come (a server resolves them, also while it is paused).\n", w.Scheduled, w.Overdue); err != nil {
			return err
		}
	}
	if w.Pause.Restored.IsZero() {
		return nil
	}
	_, err = fmt.Fprintf(c.out, "\nThe age counts from when it was accepted, was to be sent, or was replayed. HELD waits for something else too;\n"+
		"PAST DEADLINE is not sent, but ends as expired. To send again:\n\n"+
		"  carillon after-restore resume --all%[1]s\n  carillon after-restore resume --younger-than 1h%[1]s    # the rest becomes dead letters, which can be replayed\n", c.sameDatabase())
	return err
}

func waitingRows(groups []store.WaitingGroup) [][]string {
	rows := [][]string{}
	others := store.WaitingGroup{}
	add := func(channel, typ string, g store.WaitingGroup) {
		row := []string{channel, typ}
		for _, n := range append(g.Ages[:], g.Held, g.PastDeadline) {
			row = append(row, fmt.Sprint(n))
		}
		rows = append(rows, row)
	}
	total := store.WaitingGroup{}
	sum := func(into *store.WaitingGroup, g store.WaitingGroup) {
		for i, n := range g.Ages {
			into.Ages[i] += n
		}
		into.Held += g.Held
		into.PastDeadline += g.PastDeadline
	}
	for i, g := range groups {
		sum(&total, g)
		if i >= mostGroups {
			sum(&others, g)
			continue
		}
		typ := g.Type
		if typ == "" {
			typ = "-"
		}
		add(g.Channel.String(), typ, g)
	}
	if len(groups) > mostGroups {
		add("...", fmt.Sprintf("%d more", len(groups)-mostGroups), others)
	}
	add("all", "", total)
	return rows
}

// restoredOnly refuses what is only for a database that was restored.
func restoredOnly(ctx context.Context, s *store.Store) error {
	p, err := s.SendingPaused(ctx)
	if err == nil && p.Restored.IsZero() {
		return errors.New("the database is not marked as restored: nothing was changed. After a restore by other means than `carillon restore`, run `carillon after-restore begin` first; an ordinary pause is ended by `carillon sending resume`")
	}
	return err
}

// eraseAgain erases whom the backup has brought back. It comes before anything is
// sent: nothing may go to somebody who was erased.
func (c *cli) eraseAgain(cmd *cobra.Command, s *store.Store, cfg Config) error {
	path := cfg.ErasureLogPath()
	if path != "" {
		_, err := os.Stat(path)
		if err == nil {
			return c.applyErasures(cmd, s, path)
		}
		if cfg.ErasureLog != "" || !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the erasure log cannot be read: %w. Bring it back, or name another by --erasure-log; --erasure-log off goes on without one, and whoever was erased since the backup is there again", err)
		}
	}
	_, err := fmt.Fprintln(c.err, "carillon: there is no erasure log here. If users or tenants were erased after the backup, they are there again: `carillon erasures apply FILE` erases them.")
	return err
}

func (c *cli) resumeAfterRestore(ctx context.Context, s *store.Store, age time.Duration, rest string) error {
	cut := store.Cut{State: delivery.Dead, Progress: func(n int) { _, _ = fmt.Fprintf(c.err, "%d deliveries are %s\n", n, rest) }}
	if age > 0 {
		cut.Before = s.Now().Add(-age)
	}
	if rest == "dropped" {
		cut.State = delivery.Dropped
	}
	moved, err := s.ResumeAfterRestore(ctx, cut, actorCLI)
	if err != nil {
		return err
	}
	if age > 0 {
		if _, err := fmt.Fprintf(c.out, "%d deliveries that were older than %s are %s (stale).\n", moved, formatDuration(age), rest); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(c.out, "Sending is resumed.")
	return err
}
