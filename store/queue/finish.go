package queue

import (
	"context"
	"fmt"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
)

const fence = ` WHERE tenant_id=? AND notification_id=? AND target_id=? AND claim=? AND state=2`

const finishAttempt = `UPDATE deliveries SET state=?, reason=?, due_at=?, expires_at=?, hold_id=?, spent=?, renewed=?, updated_at=?,
 attempts=?, credential_id=?, att_at=?, att_ms=?, att_outcome=?, att_status=?, att_ambiguous=?, att_code=?, att_detail=?, att_provider_id=?` + fence

const finishOnly = `UPDATE deliveries SET state=?, reason=?, due_at=?, expires_at=?, hold_id=?, spent=?, renewed=?, updated_at=?` + fence

// finishWaiting writes as well what a delivery waits for that was put off.
const finishWaiting = `UPDATE deliveries SET state=?, reason=?, due_at=?, expires_at=?, hold_id=?, spent=?, renewed=?, updated_at=?, waited=?` + fence

// finishes writes what became of leased deliveries.
type finishes struct {
	db   *db.DB
	bulk db.Bulk // writes the outcomes of a batch together; nil where that is no faster
}

// finishing is an outcome on its way into the database.
type finishing struct {
	f   delivery.Finish
	res delivery.FinishResult
}

// Finish implements delivery.FinishStore.
func (s *finishes) Finish(f delivery.Finish, done func(delivery.FinishResult)) {
	x := &finishing{f: f}
	o := db.Op{
		Weight: 1, Patient: true, Bulk: s.bulk, Member: x,
		Run:     func(t *db.Tx) (err error) { x.res, err = finish(t, &x.f); return err },
		Done:    func(err error) { x.res.Err = err; done(x.res) },
		Written: func() { failpoint.Hit("finish.written") },
	}
	if err := s.db.Offer(context.Background(), o); err != nil {
		done(delivery.FinishResult{Err: err})
	}
}

func finish(t *db.Tx, f *delivery.Finish) (res delivery.FinishResult, err error) {
	r := &f.Row
	key := [4]any{r.Tenant, r.Notification, r.Target, r.Claim}
	var hold ids.ID
	if f.Transition.Hold != 0 {
		// The hold may have ended since the row was looked at: then there is
		// nothing to wait for.
		if hold, res.Opened, err = join(t, f); err != nil {
			return res, err
		}
	}
	changes, err := found(t, f, hold != 0)
	if err != nil {
		return res, err
	}
	n := delivery.Amend(f.Transition, changes)
	res.Written = n
	if n.State != delivery.Held {
		hold = 0
	}
	args := []any{n.State, n.Reason, db.Millis(n.DueAt), db.Millis(f.ExpiresAt), hold, n.Spent, n.Renew, db.Millis(f.Now)}
	var changed int64
	if a := f.Attempt; a != nil {
		if r.Attempts > 0 {
			// An erasure must come before the copy, or find it.
			if err := t.LockRows("SELECT 1 FROM deliveries"+fence, "UPDATE", key[:]...); err != nil {
				return res, err
			}
			if err := t.Exec(keepAttempt, key[:]...); err != nil {
				return res, err
			}
		}
		args = append(args, a.Number, f.Credential, db.Millis(a.At), a.Duration.Milliseconds(), a.Outcome, a.Status,
			a.Ambiguous, a.Code, a.Detail, a.ProviderID)
		changed, err = t.Affect(finishAttempt, append(args, key[:]...)...)
	} else if f.Waited != (delivery.Waited{}) {
		changed, err = t.Affect(finishWaiting, append(append(args, formatWaited(f.Waited)), key[:]...)...)
	} else {
		changed, err = t.Affect(finishOnly, append(args, key[:]...)...)
	}
	if err != nil {
		return res, fmt.Errorf("finish a delivery: %w", err)
	}
	if changed == 0 {
		res.Lost = true // another node has taken it over: its word counts
	} else if n.By != 0 {
		if err := t.Exec(setSuperseded, n.By, r.Tenant, r.Notification, r.Target); err != nil {
			return res, fmt.Errorf("say what superseded a delivery: %w", err)
		}
	}
	return res, effects(t, f)
}

// found reads what an attempt could not know, and what Amend asks about it. What
// it reads of the notification stays so until the commit.
func found(t *db.Tx, f *delivery.Finish, holdStands bool) (delivery.Found, error) {
	out := delivery.Found{Channel: f.Row.Channel, Spent: f.Row.Spent, ExpiresAt: f.ExpiresAt, Now: f.Now, HoldStands: holdStands}
	if f.Transition.Blames(f.Row.Channel) {
		again, err := t.Count(`SELECT count(*) FROM devices WHERE id=? AND tenant_id=? AND epoch=? AND status=1 AND status_at>?`,
			f.Row.Target, f.Row.Tenant, f.Row.Epoch, db.Millis(f.StartedAt))
		if err != nil {
			return out, err
		}
		out.Registered = again > 0
	}
	if !f.Transition.State.Unfinished() && !out.Registered {
		return out, nil
	}
	var err error
	if f.WaitHasRow {
		if out.WaitOver, err = waitOver(t, f.Row.Tenant, f.Waited); err != nil {
			return out, err
		}
	}
	if out.Newer, err = newerThan(t, &f.Row); err != nil {
		return out, err
	}
	flags := 0
	_, err = t.One(t.Locking("SELECT flags FROM notifications WHERE tenant_id=? AND id=?", "SHARE"), []any{f.Row.Tenant, f.Row.Notification}, &flags)
	out.Canceled = flags&flagCanceled != 0
	return out, err
}
