package registers

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
)

// installation keeps facts about the installation.
type installation struct{ db *db.DB }

// Facts about the installation, by the name of their row.
const (
	FactPaused   = "sending_paused" // nothing is sent
	FactRestored = "restored"       // and what a backup brought back has to be judged first
	FactBackup   = "backup"         // the newest one
	FactSizes    = "sizes"          // how much room the database took lately
)

// Fact is a row of the table installation.
type Fact struct {
	At     time.Time
	Actor  string
	Detail string
}

const SetFact = `INSERT INTO installation (name,at,actor,detail) VALUES (?,?,?,?)
 ON CONFLICT (name) DO UPDATE SET at=excluded.at, actor=excluded.actor, detail=excluded.detail`

// Facts reads them, by name.
func Facts(ctx context.Context, q db.Queryer) (map[string]Fact, error) {
	rows, err := q.QueryContext(ctx, "SELECT name,at,actor,detail FROM installation")
	if err != nil {
		return nil, err
	}
	out := map[string]Fact{}
	_, err = db.Collect(rows, func(r *sql.Rows) (none struct{}, err error) {
		var (
			name string
			at   int64
			f    Fact
		)
		err = r.Scan(&name, &at, &f.Actor, &f.Detail)
		f.At = db.FromMillis(at)
		out[name] = f
		return none, err
	})
	return out, err
}

// SendingPaused implements delivery.PauseStore.
func (s *installation) SendingPaused(ctx context.Context) (delivery.Pause, error) {
	all, err := Facts(ctx, s.db.Reads())
	if err != nil {
		return delivery.Pause{}, fmt.Errorf("read whether sending is paused: %w", err)
	}
	return PauseOf(all), nil
}

// PauseOf is the pause that facts tell of.
func PauseOf(all map[string]Fact) delivery.Pause {
	paused, restored := all[FactPaused], all[FactRestored]
	p := delivery.Pause{Since: paused.At, Reason: paused.Detail, Actor: paused.Actor, Restored: restored.At}
	if p.Since.IsZero() && !p.Restored.IsZero() { // the one stands for the other, whoever removed it
		p.Since, p.Reason, p.Actor = restored.At, restored.Detail, restored.Actor
	}
	return p
}

// PauseSending implements delivery.PauseStore.
func (s *installation) PauseSending(ctx context.Context, reason, actor string) error {
	return s.db.Change(ctx, func(t *db.Tx) error { return pause(t, reason, actor) })
}

func pause(t *db.Tx, reason, actor string) error {
	err := t.Exec(`INSERT INTO installation (name,at,actor,detail) VALUES (?,?,?,?)
 ON CONFLICT (name) DO UPDATE SET actor=excluded.actor, detail=excluded.detail`, FactPaused, db.Millis(t.Now()), actor, reason)
	if err != nil {
		return err
	}
	return t.Audit(0, actor, "sending.pause", reason)
}

// ResumeSending implements delivery.PauseStore.
func (s *installation) ResumeSending(ctx context.Context, actor string) error {
	return s.db.Change(ctx, func(t *db.Tx) error {
		restored, err := t.Count("SELECT count(*) FROM installation WHERE name=?", FactRestored)
		if err != nil {
			return err
		}
		if restored > 0 {
			return problem.New(problem.Conflict, "The database was restored from a backup: say first what becomes of what it holds, with `carillon after-restore`.")
		}
		return Resume(t, actor)
	})
}

// Resume ends the pause in a transaction that says why.
func Resume(t *db.Tx, actor string) error {
	n, err := t.Affect("DELETE FROM installation WHERE name=?", FactPaused)
	if err != nil || n == 0 {
		return err
	}
	return t.Audit(0, actor, "sending.resume", "")
}
