package queue

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
)

const insertIdempotency = `INSERT INTO idempotency
 (tenant_id,principal_id,route,key,body_hash,status,answer,expires_at) VALUES (?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING`

const selectIdempotency = `SELECT body_hash,status,answer,expires_at FROM idempotency
 WHERE tenant_id=? AND principal_id=? AND route=? AND key=?`

// DeleteIdempotency removes an idempotency key with its answer.
const DeleteIdempotency = `DELETE FROM idempotency WHERE tenant_id=? AND principal_id=? AND route=? AND key=?`

// mismatch marks a stored answer to another body. It is not an error inside the
// transaction, since nothing has to be undone.
const mismatch = -1

func errMismatch() error {
	return problem.New(problem.IdempotencyMismatch,
		"This Idempotency-Key was used with another request body within the last 24 hours; use a new key for a new request.")
}

// reserve takes the idempotency key, or finds the answer that it has already.
func reserve(t *db.Tx, b delivery.Batch, now time.Time) (*delivery.Answer, error) {
	i := b.Idempotency
	key := []any{b.Tenant, i.Principal, i.Route, i.Key}
	for {
		n, err := t.Affect(insertIdempotency, b.Tenant, i.Principal, i.Route, i.Key, i.BodyHash[:],
			b.Answer.Status, b.Answer.Body, db.Millis(b.ExpiresAt))
		if err != nil || n == 1 {
			return nil, err
		}
		var (
			hash    []byte
			expires int64
			a       = &delivery.Answer{Replayed: true}
		)
		found, err := t.One(selectIdempotency, key, &hash, &a.Status, &a.Body, &expires)
		switch {
		case err != nil:
			return nil, err
		case found && expires > db.Millis(now):
			if !bytes.Equal(hash, i.BodyHash[:]) {
				a.Status = mismatch
			}
			return a, nil
		}
		// Its time is over, only the purge has not come by yet.
		if err := t.Exec(DeleteIdempotency, key...); err != nil {
			return nil, err
		}
	}
}

// Stored implements delivery.NotificationReader.
func (s *reads) Stored(ctx context.Context, tenant ids.ID, i delivery.Idempotency) (delivery.Answer, bool, error) {
	var (
		hash    []byte
		expires int64
		a       = delivery.Answer{Replayed: true}
	)
	err := s.db.QueryRow(ctx, selectIdempotency, tenant, i.Principal, i.Route, i.Key).Scan(&hash, &a.Status, &a.Body, &expires)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return delivery.Answer{}, false, nil
	case err != nil:
		return delivery.Answer{}, false, fmt.Errorf("look up the idempotency key: %w", err)
	case expires <= db.Millis(s.db.Now()):
		return delivery.Answer{}, false, nil
	case !bytes.Equal(hash, i.BodyHash[:]):
		return delivery.Answer{}, false, errMismatch()
	}
	return a, true, nil
}
