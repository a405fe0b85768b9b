package erasure

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/queue"
	"github.com/carillonhq/carillon/store/registers"
)

// eraseLimit is how much of each table one transaction of an erasure takes.
const eraseLimit = 300

// dropErased ends an unfinished delivery. The new claim takes it out of the hands
// of the node that sends it: whatever that node writes of it comes too late.
const dropErased = `UPDATE deliveries SET state=?, reason=?, due_at=0, hold_id=0, claim=?, updated_at=?
 WHERE tenant_id=? AND notification_id=? AND target_id=? AND state<4`

// subjects returns the function that makes the hash which stands for a user of
// the tenant: see delivery.Erasure.
func (s *Eraser) subjects(ctx context.Context, tenant ids.ID) (func(user string) string, error) {
	var sealed []byte
	if err := s.db.Reads().QueryRowContext(ctx, "SELECT keyset FROM tenants WHERE id=?", tenant).Scan(&sealed); err != nil {
		return nil, db.NotFoundOr(err, "tenant")
	}
	key, err := s.db.KeyRing().SubjectKey(tenant, sealed)
	if err != nil {
		return nil, err
	}
	return func(user string) string {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(user))
		return hex.EncodeToString(mac.Sum(nil))
	}, nil
}

// erasureSpec is the spec of the job.
type erasureSpec struct {
	Erasure string `json:"erasure"` // ers_...
}

// sought is what an erasure looks for, sealed while it is under way.
type sought struct {
	User    string   `json:"user"`
	Targets []ids.ID `json:"targets,omitempty"` // devices and endpoints that content may name
}

// EraseUser implements delivery.ErasureStore.
func (s *Eraser) EraseUser(ctx context.Context, tenant ids.ID, user, actor string) (delivery.Erasure, ids.ID, error) {
	return s.eraseUser(ctx, tenant, user, actor, delivery.ErasureAsked)
}

func (s *Eraser) eraseUser(ctx context.Context, tenant ids.ID, user, actor string, origin delivery.ErasureOrigin) (delivery.Erasure, ids.ID, error) {
	e := delivery.Erasure{ID: s.db.IDs().Next(), Tenant: tenant, Job: s.db.IDs().Next(), Actor: actor, Origin: origin, RequestedAt: s.db.Now().UTC()}
	hash, err := s.subjects(ctx, tenant)
	if err != nil {
		return e, 0, err
	}
	e.Subject = hash(user)
	var id ids.ID
	err = s.db.Reads().QueryRowContext(ctx, "SELECT id FROM users WHERE tenant_id=? AND external_id=?", tenant, user).Scan(&id)
	if err != nil && !db.IsNoRows(err) {
		return e, 0, fmt.Errorf("read a user: %w", err)
	}
	look := sought{User: user}
	var waiting [][2]ids.ID
	if id != 0 {
		if look.Targets, err = s.idsOf(ctx, `SELECT id FROM devices WHERE tenant_id=? AND user_id=?
 UNION ALL SELECT id FROM endpoints WHERE tenant_id=? AND user_id=? AND user_id<>0 LIMIT 10000`, tenant, id, tenant, id); err != nil {
			return e, 0, err
		}
		if waiting, err = s.unfinishedOf(ctx, tenant, id); err != nil {
			return e, 0, err
		}
	}
	plain, err := json.Marshal(look)
	if err != nil {
		return e, 0, err
	}
	sealed, err := s.db.Seal(db.SealErasure, tenant, e.ID, plain)
	if err != nil {
		return e, 0, err
	}
	if origin == delivery.ErasureAsked {
		if err := s.log.append(logged{At: e.RequestedAt, Tenant: tenant.Format(ids.Tenant), Subject: e.Subject}); err != nil {
			return e, 0, err
		}
	}
	defer s.registers.BoundChanged(tenant)
	err = s.db.Change(ctx, func(t *db.Tx) error {
		e.Rows = map[string]int{}
		if err := takeOut(t, e, id, waiting); err != nil {
			return fmt.Errorf("erase a user: %w", err)
		}
		return openErasure(t, e, id, sealed)
	})
	return e, id, err
}

// unfinishedOf finds deliveries of a user that are not final.
func (s *Eraser) unfinishedOf(ctx context.Context, tenant, user ids.ID) ([][2]ids.ID, error) {
	rows, err := s.db.Lists().QueryContext(ctx, `SELECT notification_id,target_id FROM deliveries INDEXED BY deliveries_user
 WHERE tenant_id=? AND user_id=? AND user_id IS NOT NULL AND state<4 LIMIT ?`, tenant, user, eraseLimit)
	if err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	return db.Collect(rows, func(r *sql.Rows) (k [2]ids.ID, err error) {
		err = r.Scan(&k[0], &k[1])
		return k, err
	})
}

func (s *Eraser) idsOf(ctx context.Context, query string, args ...any) ([]ids.ID, error) {
	rows, err := s.db.Lists().QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return db.Collect(rows, db.ScanID)
}

// takeOut takes a user out of use: nothing is sent any more, and the tenant's own
// id is free for a new user. What is more than one transaction may change is left
// to the job.
func takeOut(t *db.Tx, e delivery.Erasure, user ids.ID, waiting [][2]ids.ID) error {
	if user == 0 {
		return nil
	}
	if err := t.LockTenant(e.Tenant, false); err != nil {
		return err
	}
	now, to := db.Millis(e.RequestedAt), delivery.EraseDelivery()
	for _, k := range waiting {
		n, err := t.Affect(dropErased, to.State, to.Reason, e.ID, now, e.Tenant, k[0], k[1])
		if err != nil {
			return err
		}
		e.Rows["deliveries"] += int(n)
	}
	if _, err := eraseTargets(t, e, user); err != nil {
		return err
	}
	n, err := t.Affect("DELETE FROM users WHERE tenant_id=? AND id=?", e.Tenant, user)
	e.Rows["users"] += int(n)
	return err
}

// eraseTargets removes devices and bound endpoints of a user; more: there may be
// others.
func eraseTargets(t *db.Tx, e delivery.Erasure, user ids.ID) (more bool, err error) {
	n, err := t.Affect("DELETE FROM devices WHERE tenant_id=? AND user_id=? AND id IN (SELECT id FROM devices WHERE tenant_id=? AND user_id=? LIMIT ?)",
		e.Tenant, user, e.Tenant, user, eraseLimit)
	if err != nil {
		return false, err
	}
	e.Rows["devices"] += int(n)
	more = n == eraseLimit
	// What else has happened to its devices names nobody, and goes after its time.
	if n, err = t.Affect("DELETE FROM device_events WHERE tenant_id=? AND user_id=? AND id IN (SELECT id FROM device_events WHERE tenant_id=? AND user_id=? LIMIT ?)",
		e.Tenant, user, e.Tenant, user, eraseLimit); err != nil {
		return false, err
	}
	e.Rows["device_events"] += int(n)
	more = more || n == eraseLimit
	rows, err := t.Query("SELECT id FROM endpoints WHERE tenant_id=? AND user_id=? AND user_id<>0 LIMIT ?", e.Tenant, user, eraseLimit)
	if err != nil {
		return false, err
	}
	list, err := db.Collect(rows, db.ScanID)
	if err != nil {
		return false, err
	}
	for _, id := range list {
		if gone, err := t.Affect("DELETE FROM endpoints WHERE id=? AND tenant_id=? AND user_id=?", id, e.Tenant, user); err != nil {
			return false, err
		} else if gone == 0 {
			continue // it is another's since it was found
		}
		if err := (queue.Holds{}).End(t, delivery.Hold{Tenant: e.Tenant, Scope: delivery.HoldEndpoint, Subject: id}, delivery.Resume); err != nil {
			return false, err
		}
		if err := t.Exec(registers.ForgetWaits, e.Tenant, id); err != nil {
			return false, err
		}
		held, err := t.Affect("UPDATE holds SET detail='' WHERE tenant_id=? AND scope=? AND subject_id=? AND detail<>''", e.Tenant, delivery.HoldEndpoint, id)
		if err != nil {
			return false, err
		}
		e.Rows["endpoints"]++
		e.Rows["holds"] += int(held)
	}
	return more || len(list) == eraseLimit, nil
}

// openErasure stores the receipt and the job.
func openErasure(t *db.Tx, e delivery.Erasure, user ids.ID, sealed []byte) error {
	subject, err := hex.DecodeString(e.Subject)
	if err != nil {
		return err
	}
	counts, err := json.Marshal(e.Rows)
	if err != nil {
		return err
	}
	if err := t.Exec(`INSERT INTO erasures (id,tenant_id,subject,user_id,sealed,job_id,actor,origin,requested_at,finished_at,counts)
 VALUES (?,?,?,?,?,?,?,?,?,0,?)`, e.ID, e.Tenant, subject, user, sealed, e.Job, e.Actor, e.Origin, db.Millis(e.RequestedAt), string(counts)); err != nil {
		return fmt.Errorf("store the receipt: %w", err)
	}
	spec, err := json.Marshal(erasureSpec{Erasure: e.ID.Format(ids.Erasure)})
	if err != nil {
		return err
	}
	return registers.CreateJob(t, jobs.Job{ID: e.Job, Tenant: e.Tenant, Kind: jobs.EraseUser, Spec: spec, Actor: e.Actor, CreatedAt: e.RequestedAt},
		e.ID.Format(ids.Erasure))
}

const selectErasure = `SELECT id,tenant_id,subject,job_id,actor,origin,requested_at,finished_at,counts FROM erasures WHERE tenant_id=? AND `

func scanErasure(r db.Scanner) (e delivery.Erasure, err error) {
	var (
		subject             []byte
		requested, finished int64
		counts              string
	)
	if err := r.Scan(&e.ID, &e.Tenant, &subject, &e.Job, &e.Actor, &e.Origin, &requested, &finished, &counts); err != nil {
		return e, err
	}
	e.Subject, e.RequestedAt, e.FinishedAt = hex.EncodeToString(subject), db.FromMillis(requested), db.FromMillis(finished)
	if err := json.Unmarshal([]byte(counts), &e.Rows); err != nil {
		return e, fmt.Errorf("read a receipt: %w", err)
	}
	return e, nil
}

// Erasure implements delivery.ErasureReader.
func (s *Eraser) Erasure(ctx context.Context, tenant, id ids.ID) (delivery.Erasure, error) {
	e, err := scanErasure(s.db.Reads().QueryRowContext(ctx, selectErasure+"id=?", tenant, id))
	return e, db.NotFoundOr(err, "erasure")
}

// Erasures implements delivery.ErasureReader.
func (s *Eraser) Erasures(ctx context.Context, tenant, after ids.ID, limit int) ([]delivery.Erasure, error) {
	if after == 0 {
		after = 1<<63 - 1
	}
	rows, err := s.db.Lists().QueryContext(ctx, selectErasure+"id<? ORDER BY id DESC LIMIT ?", tenant, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read erasures: %w", err)
	}
	return db.Collect(rows, func(r *sql.Rows) (delivery.Erasure, error) { return scanErasure(r) })
}
