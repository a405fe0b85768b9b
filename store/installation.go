package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/problem"
)

var _ delivery.PauseStore = (*Store)(nil)

// Facts about the installation, by the name of their row.
const (
	factPaused   = "sending_paused" // nothing is sent
	factRestored = "restored"       // and what a backup brought back has to be judged first
	factBackup   = "backup"         // the newest one
)

// fact is a row of the table installation.
type fact struct {
	At     time.Time
	Actor  string
	Detail string
}

const setFact = `INSERT INTO installation (name,at,actor,detail) VALUES (?,?,?,?)
 ON CONFLICT (name) DO UPDATE SET at=excluded.at, actor=excluded.actor, detail=excluded.detail`

func facts(ctx context.Context, db queryer) (map[string]fact, error) {
	rows, err := db.QueryContext(ctx, "SELECT name,at,actor,detail FROM installation")
	if err != nil {
		return nil, err
	}
	out := map[string]fact{}
	_, err = collect(rows, func(r *sql.Rows) (none struct{}, err error) {
		var (
			name string
			at   int64
			f    fact
		)
		err = r.Scan(&name, &at, &f.Actor, &f.Detail)
		f.At = fromMillis(at)
		out[name] = f
		return none, err
	})
	return out, err
}

// SendingPaused implements delivery.PauseStore.
func (s *Store) SendingPaused(ctx context.Context) (delivery.Pause, error) {
	all, err := facts(ctx, s.readDB)
	if err != nil {
		return delivery.Pause{}, fmt.Errorf("read whether sending is paused: %w", err)
	}
	return pauseOf(all), nil
}

func pauseOf(all map[string]fact) delivery.Pause {
	paused, restored := all[factPaused], all[factRestored]
	p := delivery.Pause{Since: paused.At, Reason: paused.Detail, Actor: paused.Actor, Restored: restored.At}
	if p.Since.IsZero() && !p.Restored.IsZero() { // the one stands for the other, whoever removed it
		p.Since, p.Reason, p.Actor = restored.At, restored.Detail, restored.Actor
	}
	return p
}

// PauseSending implements delivery.PauseStore.
func (s *Store) PauseSending(ctx context.Context, reason, actor string) error {
	return s.change(ctx, func(t *tx) error { return t.pause(reason, actor) })
}

func (t *tx) pause(reason, actor string) error {
	err := t.exec(`INSERT INTO installation (name,at,actor,detail) VALUES (?,?,?,?)
 ON CONFLICT (name) DO UPDATE SET actor=excluded.actor, detail=excluded.detail`, factPaused, millis(t.s.now()), actor, reason)
	if err != nil {
		return err
	}
	return t.audit(0, actor, "sending.pause", reason)
}

// ResumeSending implements delivery.PauseStore.
func (s *Store) ResumeSending(ctx context.Context, actor string) error {
	return s.change(ctx, func(t *tx) error {
		restored, err := t.count("SELECT count(*) FROM installation WHERE name=?", factRestored)
		if err != nil {
			return err
		}
		if restored > 0 {
			return problem.New(problem.Conflict, "The database was restored from a backup: say first what becomes of what it holds, with `carillon after-restore`.")
		}
		return t.resume(actor)
	})
}

func (t *tx) resume(actor string) error {
	n, err := t.affect("DELETE FROM installation WHERE name=?", factPaused)
	if err != nil || n == 0 {
		return err
	}
	return t.audit(0, actor, "sending.resume", "")
}
