package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
)

const insertNotification = `INSERT INTO notifications
 (tenant_id,id,lane,type,created_at,send_at,flags,targets) VALUES (?,?,?,?,?,?,?,?)`

const insertPayload = `INSERT INTO payloads (notification_id,tenant_id,sensitive,body) VALUES (?,?,?,?)`

const insertDelivery = `INSERT INTO deliveries
 (tenant_id,notification_id,target_id,channel,lane,state,reason,user_id,device_epoch,credential_id,due_at,expires_at,claim,
  hold_id,order_key,replaces,round,spent,attempts,takeovers,flags,renewed,updated_at,
  att_at,att_ms,att_outcome,att_status,att_ambiguous,att_code,att_detail,att_provider_id)
 VALUES (?,?,?,?,?,?,0,?,?,?,?,?,?,0,?,?,1,0,0,0,0,0,?,0,0,0,0,0,'','','')`

// InsertSkip stores a skip.
const InsertSkip = `INSERT INTO skips
 (tenant_id,notification_id,n,user_id,target_id,channel,reason) VALUES (?,?,?,?,?,?,?)`

// accepts stores what is accepted.
type accepts struct {
	db *db.DB
	// insert stores the deliveries of a notification; bulk the submissions of a
	// batch together, nil where that is no faster.
	insert func(*db.Tx, *delivery.Accepted) error
	bulk   db.Bulk
	// move makes deliveries the newest of their order keys, before they are stored;
	// drop drops what they supersede, after it.
	move func(t *db.Tx, rows []*delivery.Row, until int64) error
	drop func(*db.Tx, []*delivery.Row) error
}

func newAccepts(d *db.DB, b db.Bulk) *accepts {
	return &accepts{db: d, insert: db.Pick(d, insertEach, insertTogether), bulk: b,
		move: db.Pick(d, moveEach, moveTogether), drop: db.Pick(d, dropEach, dropOlderTogether)}
}

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
func (s *accepts) Accept(ctx context.Context, b delivery.Batch) (*delivery.Answer, error) {
	a := &accepting{batch: b, sealed: make([][]byte, len(b.Accepted)), now: s.db.Now()}
	weight := 1
	for i, n := range b.Accepted {
		body, err := s.db.Seal(db.SealPayload, n.Tenant, n.ID, n.Body)
		if err != nil {
			return nil, err
		}
		a.sealed[i] = body
		weight += 2 + len(n.Rows) + len(n.Skips)
	}
	err := s.db.Write(ctx, s.op(a, weight))
	if err == nil && a.stored != nil && a.stored.Status == mismatch {
		return nil, errMismatch()
	}
	return a.stored, err
}

func (s *accepts) op(a *accepting, weight int) db.Op {
	return db.Op{
		Weight: weight, Run: func(t *db.Tx) error { return s.write(t, a) }, Bulk: s.bulk, Member: a,
		Written:     func() { failpoint.Hit("accept.written") },
		MayBeStored: func() { a.maybe = true },
	}
}

func (s *accepts) write(t *db.Tx, a *accepting) (err error) {
	a.stored = nil
	if a.maybe && len(a.batch.Accepted) > 0 {
		first := &a.batch.Accepted[0]
		if there, err := committed(t, first); err != nil || there {
			return err // nobody else makes this id
		}
	}
	if a.batch.Idempotency != nil {
		if a.stored, err = reserve(t, a.batch, a.now); a.stored != nil || err != nil {
			return err
		}
	}
	for i := range a.batch.Accepted {
		if err := s.notification(t, &a.batch.Accepted[i], a.sealed[i]); err != nil {
			return err
		}
	}
	return nil
}

// committed tells whether a notification is stored. It waits for a commit that is
// still under way on a connection that was given up.
func committed(t *db.Tx, a *delivery.Accepted) (bool, error) {
	n, err := t.Affect(insertNotification+" ON CONFLICT DO NOTHING", a.Tenant, a.ID, a.Lane, a.Type, 0, 0, 0, 0)
	if err != nil || n == 0 {
		return err == nil, err
	}
	return false, t.Exec("DELETE FROM notifications WHERE tenant_id=? AND id=?", a.Tenant, a.ID)
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

func (s *accepts) notification(t *db.Tx, a *delivery.Accepted, sealed []byte) error {
	if err := t.Exec(insertNotification, a.Tenant, a.ID, a.Lane, a.Type, db.Millis(a.CreatedAt), db.Millis(a.SendAt),
		flagsOf(a), len(a.Rows)); err != nil {
		return fmt.Errorf("store the notification: %w", err)
	}
	if len(a.Rows) > 0 || a.Scheduled {
		if err := t.Exec(insertPayload, a.ID, a.Tenant, a.Sensitive, sealed); err != nil {
			return fmt.Errorf("store the content: %w", err)
		}
	}
	if a.Scheduled {
		due := max(db.Millis(a.CreatedAt), db.Millis(a.SendAt))
		return t.Exec("INSERT INTO fanouts (tenant_id,notification_id,due_at,moved_at) VALUES (?,?,?,?)", a.Tenant, a.ID, due, db.Millis(a.CreatedAt))
	}
	if err := s.deliveries(t, a, always); err != nil {
		return err
	}
	return insertSkips(t, a, 0)
}

// part stores the deliveries and skips of a part of a fan-out, or of one that is scheduled.
func (s *accepts) part(t *db.Tx, a *delivery.Accepted, p *delivery.Part) error {
	until, skips, stored := int64(always), 0, 0
	if p.At.Stage != delivery.FanOutBegins {
		until = max(db.Millis(a.ID.Time()), db.Millis(a.SendAt))
	}
	if err := s.deliveries(t, a, until); err != nil {
		return err
	}
	if list := ordered(a, nil); until < always && len(list) > 0 {
		targets, err := targetList(a)
		if err != nil {
			return err
		}
		to := delivery.Supersession(0)
		if err := t.Exec(dropOvertaken, to.State, to.Reason, db.Millis(t.Now()), a.Tenant, a.ID, targets); err != nil {
			return fmt.Errorf("drop what was overtaken: %w", err)
		}
	}
	if _, err := t.One("SELECT coalesce(max(n)+1,0) FROM skips WHERE tenant_id=? AND notification_id=?", []any{a.Tenant, a.ID}, &skips); err != nil {
		return err
	}
	if p.Next == nil && len(a.Rows)+len(a.Skips)+skips == 0 && p.IfNothing.Reason != 0 {
		if _, err := t.One("SELECT targets FROM notifications WHERE tenant_id=? AND id=?", []any{a.Tenant, a.ID}, &stored); err != nil {
			return err
		}
		if stored == 0 {
			a.Skips = []delivery.Skip{p.IfNothing}
		}
	}
	return insertSkips(t, a, skips)
}

// deliveries stores those of a notification. They are the newest of their collapse keys
// where what is there was moved until then.
func (s *accepts) deliveries(t *db.Tx, a *delivery.Accepted, until int64) error {
	newest := ordered(a, nil)
	if err := s.move(t, newest, until); err != nil {
		return err
	}
	if err := s.insert(t, a); err != nil {
		return fmt.Errorf("store deliveries: %w", err)
	}
	return s.drop(t, newest)
}

// insertSkips numbers them from n.
func insertSkips(t *db.Tx, a *delivery.Accepted, n int) error {
	for i, k := range a.Skips {
		user := ids.ID(0)
		if k.User != "" {
			var err error
			if user, err = registers.User(t, a.Tenant, k.User); err != nil {
				return err
			}
		}
		if err := t.Exec(InsertSkip, a.Tenant, a.ID, n+i, db.OrNull(user), k.Target, k.Channel, k.Reason); err != nil {
			return fmt.Errorf("store a skip: %w", err)
		}
	}
	return nil
}

func insertEach(t *db.Tx, a *delivery.Accepted) error {
	for i := range a.Rows {
		r := &a.Rows[i]
		if err := t.Exec(insertDelivery, r.Tenant, r.Notification, r.Target, r.Channel, r.Lane, r.State,
			db.OrNull(r.UserID), r.Epoch, r.Credential, db.Millis(r.DueAt), db.Millis(r.ExpiresAt), r.Claim,
			db.OrNull(ids.ID(r.OrderKey)), db.OrNull(r.Replaces), db.Millis(a.CreatedAt)); err != nil {
			return err
		}
	}
	return nil
}
