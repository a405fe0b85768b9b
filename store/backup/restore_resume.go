package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/queue"
	"github.com/carillonhq/carillon/store/registers"
)

const timeForPeople = "2006-01-02 15:04:05 UTC"

// Cutoff says what is not to be sent any more after a restore.
type Cutoff struct {
	Before time.Time      // zero: nothing; otherwise what was meant to go out before
	State  delivery.State // Dead or Dropped
	// Progress is called now and then with how many were moved. It may be nil.
	Progress func(moved int)
}

// ResumeAfterRestore moves what is too old out of the way, in transactions of at
// most 1,000 rows, and then ends the pause. If it is interrupted nothing is sent,
// and it can be called again. It counts what it moved.
func (s *Backups) ResumeAfterRestore(ctx context.Context, c Cutoff, actor string) (moved int, err error) {
	if !c.Before.IsZero() {
		if moved, err = s.moveAll(ctx, c); err != nil {
			return moved, err
		}
	}
	detail := "all of it is sent"
	if !c.Before.IsZero() {
		detail = fmt.Sprintf("%d deliveries from before %s are %s", moved, c.Before.UTC().Format(timeForPeople), c.State)
	}
	return moved, s.db.Change(ctx, func(t *db.Tx) error {
		if err := t.Exec("DELETE FROM installation WHERE name=?", registers.FactRestored); err != nil {
			return err
		}
		if err := registers.Resume(t, actor); err != nil {
			return err
		}
		return t.Audit(0, actor, "installation.resume", detail)
	})
}

// stale is a delivery that is too old.
type stale struct {
	tenant, notification, target ids.ID
	state                        delivery.State
	claim, updated               int64
}

// moveAll moves what is too old. It reads while it writes: the reader sees what was
// there when it began, and each row is checked again when it is written.
func (s *Backups) moveAll(ctx context.Context, c Cutoff) (moved int, err error) {
	const walk = `SELECT d.tenant_id,d.notification_id,d.target_id,d.state,d.claim,d.updated_at` + unfinishedSince + ` AND d.expires_at>? AND ` + since + `<?`
	now, before := db.Millis(s.db.Now()), db.Millis(c.Before)
	var overdue int64
	if err := s.db.Lists().QueryRowContext(ctx, "SELECT count(*) FROM fanouts WHERE due_at<?", before).Scan(&overdue); err != nil {
		return 0, err
	}
	if overdue > 0 {
		return 0, fmt.Errorf("%d scheduled notifications from before then have no deliveries yet. Start a server, which resolves them within seconds and sends nothing while sending is paused; then do this again", overdue)
	}
	rows, err := s.db.Lists().QueryContext(ctx, walk, now, before)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }()
	batch := make([]stale, 0, db.MaxBatch)
	flush := func() error {
		n, err := s.moveStale(ctx, batch, c.State)
		moved, batch = moved+n, batch[:0]
		if c.Progress != nil && err == nil {
			c.Progress(moved)
		}
		return err
	}
	for rows.Next() {
		var x stale
		if err := rows.Scan(&x.tenant, &x.notification, &x.target, &x.state, &x.claim, &x.updated); err != nil {
			return moved, err
		}
		if batch = append(batch, x); len(batch) == db.MaxBatch {
			if err := flush(); err != nil {
				return moved, err
			}
		}
	}
	if err := errors.Join(rows.Err(), rows.Close(), flush()); err != nil {
		return moved, err
	}
	// What a server had in its hands, or has made meanwhile, must not slip through.
	var left int64
	if err := s.db.Lists().QueryRowContext(ctx, "SELECT count(*)"+unfinishedSince+" AND d.expires_at>? AND "+since+"<?", db.Millis(s.db.Now()), before).Scan(&left); err != nil {
		return moved, err
	}
	if left > 0 {
		return moved, fmt.Errorf("%d deliveries from before then are in the hands of a server or changed meanwhile; do this again in two minutes. Sending is still paused", left)
	}
	return moved, nil
}

// moveStale ends up to 1,000 rows. One that was in somebody's hands may have
// been sent: that is recorded, as at a takeover.
func (s *Backups) moveStale(ctx context.Context, batch []stale, to delivery.State) (moved int, err error) {
	if len(batch) == 0 {
		return 0, nil
	}
	err = s.db.Do(ctx, len(batch), func(t *db.Tx) error {
		now, rest := db.Millis(s.db.Now()), batch
		moved = 0
		if move := db.Pick(s.db, nil, moveWaiting); move != nil { // where every statement costs a trip
			var err error
			if moved, rest, err = move(t, batch, to, now); err != nil {
				return err
			}
		}
		end := delivery.Staleness(to)
		for _, x := range rest {
			key := []any{x.tenant, x.notification, x.target}
			set := "UPDATE deliveries SET state=?, reason=?, due_at=0, hold_id=0, claim=?, updated_at=?"
			args := append([]any{end.State, end.Reason, int64(t.NextID()), now}, key...)
			const of = " WHERE tenant_id=? AND notification_id=? AND target_id=? AND claim=?"
			if x.state == delivery.Sending {
				n, err := t.Affect(set+", takeovers=takeovers+1, flags=1"+of+" AND state=2 AND due_at<=?", append(args, x.claim, now)...)
				if err != nil {
					return err
				}
				if n == 0 {
					continue // in the hands of a server
				}
				if err := t.Exec(keepNewest, key...); err != nil {
					return err
				}
				if err := queue.RecordLostAttempt(t, x.updated, x.tenant, x.notification, x.target); err != nil {
					return err
				}
				moved++
				continue
			}
			n, err := t.Affect(set+of+" AND state IN (1,3)", append(args, x.claim)...)
			if err != nil {
				return err
			}
			moved += int(n)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("move what is too old: %w", err)
	}
	return moved, nil
}

const moveShared = `UPDATE deliveries d SET state=$5, reason=$6, due_at=0, hold_id=0, claim=$7, updated_at=$8
 FROM unnest($1::bigint[],$2::bigint[],$3::bigint[],$4::bigint[]) AS v(tenant,notification,target,claim)
 WHERE d.tenant_id=v.tenant AND d.notification_id=v.notification AND d.target_id=v.target AND d.claim=v.claim AND d.state IN (1,3)`

// moveWaiting ends those that nobody has in hand, together, and gives the rest.
func moveWaiting(t *db.Tx, batch []stale, to delivery.State, now int64) (moved int, rest []stale, err error) {
	var tenants, notifications, targets, claims []int64
	for _, x := range batch {
		if x.state == delivery.Sending {
			rest = append(rest, x)
			continue
		}
		tenants, notifications = append(tenants, int64(x.tenant)), append(notifications, int64(x.notification))
		targets, claims = append(targets, int64(x.target)), append(claims, x.claim)
	}
	if len(tenants) == 0 {
		return 0, rest, nil
	}
	end := delivery.Staleness(to)
	n, err := t.Affect(moveShared, tenants, notifications, targets, claims, end.State, end.Reason, int64(t.NextID()), now)
	return int(n), rest, err
}

// keepNewest moves the newest attempt out of a row that has ended.
const keepNewest = `INSERT INTO attempts
 (tenant_id,notification_id,target_id,number,at,ms,outcome,status,ambiguous,code,detail,provider_id)
 SELECT tenant_id,notification_id,target_id,attempts,att_at,att_ms,att_outcome,att_status,att_ambiguous,att_code,att_detail,att_provider_id
 FROM deliveries WHERE tenant_id=? AND notification_id=? AND target_id=? AND attempts>0
 ON CONFLICT DO NOTHING`
