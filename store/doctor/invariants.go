package doctor

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
)

// Invariant is a query that finds nothing in a sound database.
type Invariant struct {
	Name  string
	Means string // for people
	query string
	// slow ones walk more than the unfinished rows.
	slow bool
	// Late ones tell of what should have moved by now. Nothing moves while sending
	// is paused, so they are not looked at then.
	Late bool
	// Resolved ones tell of what servers should have resolved, paused or not.
	Resolved bool
}

// The grace that the engine has before a late row is a fault, in ms.
const grace = int64(time.Minute / time.Millisecond)

// handLong is how long a delivery may be in a server's hands, in its queue for the most
// part. A send that does not end keeps it there for ever.
const handLong = 10 * time.Minute

// Invariants lists what must hold. ?1 is now, ?2 is a minute ago, ?3 the first claim that
// is no older than handLong: a claim is an id, which begins with the time.
func Invariants() []Invariant {
	// What is left of a tenant that is being deleted is owed to nobody.
	const from = " FROM deliveries d INDEXED BY deliveries_due WHERE d.state<4 AND NOT EXISTS (SELECT 1 FROM tenants t WHERE t.id=d.tenant_id AND t.deleted_at<>0) AND "
	return []Invariant{
		{Name: "pending_overdue", Late: true, Means: "pending and due for more than a minute",
			query: "SELECT count(*)" + from + "d.state=1 AND d.due_at<?2"},
		{Name: "lease_lapsed", Late: true, Means: "sending with a lease that ended more than a minute ago",
			query: "SELECT count(*)" + from + "d.state=2 AND d.due_at<?2"},
		{Name: "sending_long", Late: true, Means: "in a server's hands for more than ten minutes",
			query: "SELECT count(*)" + from + "d.state=2 AND d.claim<?3"},
		{Name: "held_without_hold", Means: "held, but the hold does not exist",
			query: "SELECT count(*)" + from + "d.state=3 AND NOT EXISTS (SELECT 1 FROM holds h WHERE h.id=d.hold_id)"},
		{Name: "held_past_deadline", Late: true, Means: "held for more than a minute past its deadline",
			query: "SELECT count(*)" + from + "d.state=3 AND d.due_at<?2"},
		{Name: "superseded_waits", Means: "pending or held, though a newer notification with its collapse key took its place more than a minute ago",
			query: "SELECT count(*)" + from + `d.state IN (1,3) AND EXISTS (SELECT 1 FROM newest w WHERE w.tenant_id=d.tenant_id AND w.target_id=d.target_id
 AND w.order_key=d.order_key AND w.notification_id<>d.notification_id AND w.moved_at<?2)`},
		{Name: "hold_on_other_state", Means: "names a hold, but is not held",
			query: "SELECT count(*) FROM deliveries d INDEXED BY deliveries_hold WHERE d.hold_id<>0 AND d.state<>3"},
		{Name: "reason_missing", Means: "held, dropped or dead without a reason", slow: true,
			query: "SELECT count(*) FROM deliveries d WHERE d.state IN (3,5,6) AND d.reason=0"},
		{Name: "endpoint_without_url", Means: "an endpoint whose row says nowhere where it is reached", slow: true,
			query: "SELECT count(*) FROM endpoints WHERE url='' AND url_sealed IS NULL"},
		{Name: "overspent", Means: "more attempts than any policy allows", slow: true,
			query: fmt.Sprintf("SELECT count(*) FROM deliveries d WHERE d.spent>%d", delivery.MaxSpent)},
		{Name: "notification_unserved", Means: "accepted more than a minute ago with neither delivery nor skip nor marker", slow: true,
			query: `SELECT count(*) FROM notifications n WHERE n.created_at<?2 AND n.created_at>?1-86400000 AND n.flags&4=0
 AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.tenant_id=n.tenant_id AND d.notification_id=n.id)
 AND NOT EXISTS (SELECT 1 FROM skips k WHERE k.tenant_id=n.tenant_id AND k.notification_id=n.id)
 AND NOT EXISTS (SELECT 1 FROM fanouts f WHERE f.tenant_id=n.tenant_id AND f.notification_id=n.id)`},
		{Name: "marker_unserved", Resolved: true, Means: "notifications whose targets have been due to be looked up for more than a minute",
			query: `SELECT count(*) FROM fanouts f JOIN notifications n ON n.tenant_id=f.tenant_id AND n.id=f.notification_id
 WHERE (f.due_at<?2 OR (n.send_at<?2 AND f.moved_at<?2)) AND NOT EXISTS (SELECT 1 FROM tenants t WHERE t.id=f.tenant_id AND t.deleted_at<>0)`},
		{Name: "purpose_impossible", Means: "devices whose purpose does not fit their channel, or of which only one of the purpose activity and an activity id is there", slow: true,
			query: fmt.Sprintf("SELECT count(*) FROM devices d WHERE (d.purpose=%d)<>(d.activity_id<>'') OR (d.purpose<>%d AND d.channel<>%d)", channels.Activity, channels.Alert, channels.APNs)},
		{Name: "content_missing", Means: "unfinished, but its content is gone",
			query: "SELECT count(*)" + from + "NOT EXISTS (SELECT 1 FROM payloads p WHERE p.notification_id=d.notification_id)"},
		{Name: "wait_without_subject", Means: "said to wait, but the credential or endpoint does not exist",
			query: `SELECT count(*) FROM waits w WHERE NOT EXISTS (SELECT 1 FROM credentials c WHERE c.id=w.subject_id)
 AND NOT EXISTS (SELECT 1 FROM endpoints e WHERE e.id=w.subject_id) AND NOT EXISTS (SELECT 1 FROM tenants t WHERE t.id=w.tenant_id AND t.deleted_at<>0)`},
	}
}

// Violation is an invariant that does not hold.
type Violation struct {
	Invariant
	Rows int
}

// Check runs the invariant queries; all: also those that walk finished rows.
func (s *Doctor) Check(ctx context.Context, all bool) ([]Violation, error) {
	now := db.Millis(s.db.Now())
	paused, err := s.registers.SendingPaused(ctx)
	if err != nil {
		return nil, err
	}
	var out []Violation
	for _, i := range Invariants() {
		if i.slow && !all || i.Late && paused.On() {
			continue
		}
		n := 0
		// The parameters are bound by number, so each query takes what it needs.
		if err := s.db.Lists().QueryRowContext(ctx, "WITH args(a,b,c) AS (SELECT CAST(?1 AS BIGINT),CAST(?2 AS BIGINT),CAST(?3 AS BIGINT)) "+i.query,
			now, now-grace, int64(ids.Before(s.db.Now().Add(-handLong)))).Scan(&n); err != nil {
			return out, fmt.Errorf("check %s: %w", i.Name, err)
		}
		if n > 0 {
			out = append(out, Violation{Invariant: i, Rows: n})
		}
	}
	return out, nil
}

// Depths counts unfinished deliveries by lane and state, and the age of the
// oldest that is due.
type Depths struct {
	Rows      map[DepthKey]int
	OldestDue time.Duration
	Dead      map[delivery.Reason]int
	Held      map[delivery.Reason]int
	Retired   int
	Suspect   int
	// Waits counts the scopes that are in trouble.
	Waits map[registers.WaitKey]int
}

// DepthKey is a place in the queue.
type DepthKey struct {
	Lane  delivery.Lane
	State delivery.State
}

// InHand is what servers have claimed, and have not sent or given back yet.
type InHand struct {
	Rows    int
	Longest time.Duration // since the oldest was claimed
}

// selectInHand reads no more than what is unfinished.
const selectInHand = `SELECT count(*),min(claim) FROM deliveries INDEXED BY deliveries_due WHERE state=2 AND state<4`

// InHand looks at the claims of what is leased. A claim is an id, which begins with the
// time.
func (s *Doctor) InHand(ctx context.Context) (InHand, error) {
	var (
		out    InHand
		oldest sql.NullInt64
	)
	err := s.db.Lists().QueryRowContext(ctx, selectInHand).Scan(&out.Rows, &oldest)
	if err == nil && oldest.Valid {
		out.Longest = max(s.db.Now().Sub(ids.ID(oldest.Int64).Time()), 0)
	}
	return out, err
}

// DeadLetters are those that died for the same reason and with the same answer.
type DeadLetters struct {
	Reason delivery.Reason
	Code   string // of the last attempt
	Count  int
}

// deadLately is how far back DeadLately looks.
const deadLately = 24 * time.Hour

// selectDeadLately finds the newest of each tenant by their index.
const selectDeadLately = `SELECT d.reason,d.att_code,count(*) FROM tenants t CROSS JOIN deliveries d INDEXED BY deliveries_dead ON d.tenant_id=t.id
 WHERE d.state=6 AND d.updated_at>=? GROUP BY d.reason,d.att_code ORDER BY count(*) DESC,d.reason,d.att_code LIMIT 50`

// DeadLately counts the dead letters of the last day.
func (s *Doctor) DeadLately(ctx context.Context) ([]DeadLetters, error) {
	rows, err := s.db.Lists().QueryContext(ctx, selectDeadLately, db.Millis(s.db.Now().Add(-deadLately)))
	if err != nil {
		return nil, err
	}
	return db.Collect(rows, func(r *sql.Rows) (d DeadLetters, err error) { return d, r.Scan(&d.Reason, &d.Code, &d.Count) })
}

// Depths reads the queue's depths, for metrics.
func (s *Doctor) Depths(ctx context.Context) (Depths, error) {
	d := Depths{Rows: map[DepthKey]int{}, Dead: map[delivery.Reason]int{}, Held: map[delivery.Reason]int{}}
	now := db.Millis(s.db.Now())
	oldest := now
	rows, err := s.db.Lists().QueryContext(ctx, `SELECT lane,state,reason,count(*),min(due_at) FROM deliveries INDEXED BY deliveries_due WHERE state<4 GROUP BY lane,state,reason`)
	if err != nil {
		return d, err
	}
	if _, err := db.Collect(rows, func(r *sql.Rows) (none struct{}, err error) {
		var (
			k      DepthKey
			reason delivery.Reason
			n      int
			due    int64
		)
		err = r.Scan(&k.Lane, &k.State, &reason, &n, &due)
		d.Rows[k] += n
		if k.State == delivery.Held {
			d.Held[reason] += n
		}
		if k.State == delivery.Pending {
			oldest = min(oldest, due)
		}
		return none, err
	}); err != nil {
		return d, err
	}
	d.OldestDue = time.Duration(now-oldest) * time.Millisecond
	dead, err := s.db.Lists().QueryContext(ctx, `SELECT reason,count(*) FROM deliveries INDEXED BY deliveries_dead WHERE state=6 GROUP BY reason`)
	if err != nil {
		return d, err
	}
	if _, err := db.Collect(dead, func(r *sql.Rows) (none struct{}, err error) {
		var (
			reason delivery.Reason
			n      int
		)
		err = r.Scan(&reason, &n)
		d.Dead[reason] = n
		return none, err
	}); err != nil {
		return d, err
	}
	err = s.db.Lists().QueryRowContext(ctx, `SELECT count(*) FILTER (WHERE status=3), count(*) FILTER (WHERE status=2) FROM devices INDEXED BY devices_doubt WHERE status>1`).
		Scan(&d.Retired, &d.Suspect)
	if err != nil {
		return d, err
	}
	d.Waits, err = s.registers.WaitCounts(ctx)
	return d, err
}
