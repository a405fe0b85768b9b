package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// Flags of a notification.
const (
	flagSensitive  = 1
	flagAtMostOnce = 2
	flagCanceled   = 4
	flagScheduled  = 8
)

const insertNotification = `INSERT INTO notifications
 (tenant_id,id,lane,type,created_at,send_at,flags,targets) VALUES (?,?,?,?,?,?,?,?)`

const insertPayload = `INSERT INTO payloads (notification_id,tenant_id,sensitive,body) VALUES (?,?,?,?)`

const insertDelivery = `INSERT INTO deliveries
 (tenant_id,notification_id,target_id,channel,lane,state,reason,user_id,device_epoch,credential_id,due_at,expires_at,claim,
  hold_id,round,spent,attempts,takeovers,flags,renewed,updated_at,
  att_at,att_ms,att_outcome,att_status,att_ambiguous,att_code,att_detail,att_provider_id)
 VALUES (?,?,?,?,?,?,0,?,?,?,?,?,?,0,1,0,0,0,0,0,?,0,0,0,0,0,'','','')`

const insertSkip = `INSERT INTO skips
 (tenant_id,notification_id,n,user_id,target_id,channel,reason) VALUES (?,?,?,?,?,?,?)`

const insertIdempotency = `INSERT INTO idempotency
 (tenant_id,principal_id,route,key,body_hash,status,answer,expires_at) VALUES (?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING`

const selectIdempotency = `SELECT body_hash,status,answer,expires_at FROM idempotency
 WHERE tenant_id=? AND principal_id=? AND route=? AND key=?`

const deleteIdempotency = `DELETE FROM idempotency WHERE tenant_id=? AND principal_id=? AND route=? AND key=?`

var _ delivery.AcceptStore = (*Store)(nil)

// accepting is a submission on its way into the database.
type accepting struct {
	batch  delivery.Batch
	sealed [][]byte // the content of each notification
	now    time.Time
	stored *delivery.Answer // of an idempotency key that was taken
	// maybe: it may be stored already, since the connection broke during a commit.
	maybe bool
}

// Accept implements delivery.AcceptStore.
func (s *Store) Accept(ctx context.Context, b delivery.Batch) (*delivery.Answer, error) {
	a := &accepting{batch: b, sealed: make([][]byte, len(b.Accepted)), now: s.now()}
	weight := 1
	for i, n := range b.Accepted {
		body, err := s.seal(sealPayload, n.Tenant, n.ID, n.Body)
		if err != nil {
			return nil, err
		}
		a.sealed[i] = body
		weight += 2 + len(n.Rows) + len(n.Skips)
	}
	err := s.writer.wait(ctx, op{weight: weight, accept: a, run: a.run})
	if err == nil && a.stored != nil && a.stored.Status == mismatch {
		return nil, errMismatch()
	}
	return a.stored, err
}

func (a *accepting) run(t *tx) (err error) {
	a.stored = nil
	if a.maybe && len(a.batch.Accepted) > 0 {
		first := &a.batch.Accepted[0]
		if there, err := t.committed(first); err != nil || there {
			return err // nobody else makes this id
		}
	}
	if a.batch.Idempotency != nil {
		if a.stored, err = t.reserve(a.batch, a.now); a.stored != nil || err != nil {
			return err
		}
	}
	for i := range a.batch.Accepted {
		if err := t.accept(&a.batch.Accepted[i], a.sealed[i]); err != nil {
			return err
		}
	}
	return nil
}

// committed tells whether a notification is stored. It waits for a commit that is
// still under way on a connection that was given up.
func (t *tx) committed(a *delivery.Accepted) (bool, error) {
	n, err := t.affect(insertNotification+" ON CONFLICT DO NOTHING", a.Tenant, a.ID, a.Lane, a.Type, 0, 0, 0, 0)
	if err != nil || n == 0 {
		return err == nil, err
	}
	return false, t.exec("DELETE FROM notifications WHERE tenant_id=? AND id=?", a.Tenant, a.ID)
}

// mismatch marks a stored answer to another body. It is not an error inside the
// transaction, since nothing has to be undone.
const mismatch = -1

func errMismatch() error {
	return problem.New(problem.IdempotencyMismatch,
		"This Idempotency-Key was used with another request body within the last 24 hours; use a new key for a new request.")
}

// reserve takes the idempotency key, or finds the answer that it has already.
func (t *tx) reserve(b delivery.Batch, now time.Time) (*delivery.Answer, error) {
	i := b.Idempotency
	key := []any{b.Tenant, i.Principal, i.Route, i.Key}
	for {
		n, err := t.affect(insertIdempotency, b.Tenant, i.Principal, i.Route, i.Key, i.BodyHash[:],
			b.Answer.Status, b.Answer.Body, millis(b.ExpiresAt))
		if err != nil || n == 1 {
			return nil, err
		}
		var (
			hash    []byte
			expires int64
			a       = &delivery.Answer{Replayed: true}
		)
		found, err := t.one(selectIdempotency, key, &hash, &a.Status, &a.Body, &expires)
		switch {
		case err != nil:
			return nil, err
		case found && expires > millis(now):
			if !bytes.Equal(hash, i.BodyHash[:]) {
				a.Status = mismatch
			}
			return a, nil
		}
		// Its time is over, only the purge has not come by yet.
		if err := t.exec(deleteIdempotency, key...); err != nil {
			return nil, err
		}
	}
}

func flagsOf(a *delivery.Accepted) (flags int) {
	if a.Sensitive {
		flags |= flagSensitive
	}
	if a.AtMostOnce {
		flags |= flagAtMostOnce
	}
	if a.Scheduled {
		flags |= flagScheduled
	}
	return flags
}

func (t *tx) accept(a *delivery.Accepted, sealed []byte) error {
	if err := t.exec(insertNotification, a.Tenant, a.ID, a.Lane, a.Type, millis(a.CreatedAt), millis(a.SendAt),
		flagsOf(a), len(a.Rows)); err != nil {
		return fmt.Errorf("store the notification: %w", err)
	}
	if len(a.Rows) > 0 || a.Scheduled {
		if err := t.exec(insertPayload, a.ID, a.Tenant, a.Sensitive, sealed); err != nil {
			return fmt.Errorf("store the content: %w", err)
		}
	}
	if a.Scheduled {
		return t.exec("INSERT INTO fanouts (tenant_id,notification_id,due_at) VALUES (?,?,?)", a.Tenant, a.ID, millis(a.SendAt))
	}
	return t.targets(a)
}

// targets stores the deliveries and skips of a notification.
func (t *tx) targets(a *delivery.Accepted) error {
	if err := t.insertDeliveries(a); err != nil {
		return fmt.Errorf("store deliveries: %w", err)
	}
	for n, k := range a.Skips {
		user := ids.ID(0)
		if k.User != "" {
			var err error
			if user, err = t.user(a.Tenant, k.User); err != nil {
				return err
			}
		}
		if err := t.exec(insertSkip, a.Tenant, a.ID, n, orNull(user), k.Target, k.Channel, k.Reason); err != nil {
			return fmt.Errorf("store a skip: %w", err)
		}
	}
	return nil
}

func (t *tx) insertDeliveries(a *delivery.Accepted) error {
	if t.s.onPostgres() && len(a.Rows) > 1 {
		return t.pipeline(func(b *pgx.Batch) { deliveryColumns{}.add(a).queue(b) })
	}
	for i := range a.Rows {
		r := &a.Rows[i]
		if err := t.exec(insertDelivery, r.Tenant, r.Notification, r.Target, r.Channel, r.Lane, r.State,
			orNull(r.UserID), r.Epoch, r.Credential, millis(r.DueAt), millis(r.ExpiresAt), r.Claim, millis(a.CreatedAt)); err != nil {
			return err
		}
	}
	return nil
}

// user finds or makes the row of a user: users exist from first sight. It cannot
// be erased before the transaction ends.
func (t *tx) user(tenant ids.ID, external string) (ids.ID, error) {
	for {
		var id ids.ID
		found, err := t.one(t.locking("SELECT id FROM users WHERE tenant_id=? AND external_id=?", "SHARE"), []any{tenant, external}, &id)
		if err != nil || found {
			return id, err
		}
		id = t.s.opts.IDs.Next()
		n, err := t.affect("INSERT INTO users (tenant_id,id,external_id) VALUES (?,?,?) ON CONFLICT DO NOTHING", tenant, id, external)
		if err != nil || n == 1 {
			return id, err
		} // another node was faster: its row is there now
	}
}

// Stored implements delivery.Reader.
func (s *Store) Stored(ctx context.Context, tenant ids.ID, i delivery.Idempotency) (delivery.Answer, bool, error) {
	var (
		hash    []byte
		expires int64
		a       = delivery.Answer{Replayed: true}
	)
	err := s.queryRow(ctx, selectIdempotency, tenant, i.Principal, i.Route, i.Key).Scan(&hash, &a.Status, &a.Body, &expires)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return delivery.Answer{}, false, nil
	case err != nil:
		return delivery.Answer{}, false, fmt.Errorf("look up the idempotency key: %w", err)
	case expires <= millis(s.now()):
		return delivery.Answer{}, false, nil
	case !bytes.Equal(hash, i.BodyHash[:]):
		return delivery.Answer{}, false, errMismatch()
	}
	return a, true, nil
}

func orNull(id ids.ID) any {
	if id == 0 {
		return nil
	}
	return int64(id)
}
