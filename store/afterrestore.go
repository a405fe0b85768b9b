package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/archive"
)

const timeForPeople = "2006-01-02 15:04:05 UTC"

// formerBatch bounds the rows of one transaction.
const formerBatch = maxBatch

// former is a statement that ends something of processes which are no more. Its
// argument is how many rows it may change.
type former struct {
	query  string
	leases bool // of deliveries: it counts what may have been sent
}

// formerLife lists them: leases of deliveries end, so that they are found and
// taken over; leases of other work (lease_until, in whichever table) and duties end;
// nodes give their numbers back.
func formerLife(tables []archive.Table) []former {
	out := []former{
		{leases: true, query: `UPDATE deliveries SET due_at=0 WHERE (tenant_id,notification_id,target_id) IN
 (SELECT tenant_id,notification_id,target_id FROM deliveries WHERE state<4 AND state=2 AND due_at>0 LIMIT ?)`},
		// A node's row stays with its horizon: no other makes ids for a time before
		// it. A command's may be that of this process, and ends by itself.
		{query: "UPDATE nodes SET token=0 WHERE id IN (SELECT id FROM nodes WHERE token<>0 AND role<>'command' LIMIT ?)"},
		{query: "DELETE FROM duties WHERE name IN (SELECT name FROM duties LIMIT ?)"},
	}
	for _, t := range tables {
		if slices.Contains(t.Columns, "lease_until") {
			// The rows are few: what is being worked at.
			out = append(out, former{query: "UPDATE " + identifiers([]string{t.Name}) + " SET lease_until=0 WHERE lease_until>0 AND ?>0"})
		}
	}
	return out
}

// BeginAfterRestore prepares a database that was brought back by other means than
// Restore, such as a copy of its file or a disk: sending is paused, and what
// belonged to the processes of that time ends. No server may run on it. It may be
// called again.
func (s *Store) BeginAfterRestore(ctx context.Context, actor string) (leased int64, err error) {
	if s.onPostgres() {
		if err := s.noServers(ctx, s.readDB); err != nil {
			return 0, err
		}
	}
	err = s.change(ctx, func(t *tx) error {
		const detail = "the database was brought back from a backup"
		for _, name := range []string{factPaused, factRestored} {
			if err := t.exec(setFact, name, millis(s.now()), actor, detail); err != nil {
				return err
			}
		}
		return t.audit(0, actor, "installation.restore", detail)
	})
	if err != nil {
		return 0, err
	}
	tables, err := s.archivedTables(ctx, s.readDB)
	if err != nil {
		return 0, fmt.Errorf("read the schema: %w", err)
	}
	for _, q := range formerLife(tables) {
		for n := int64(formerBatch); n == formerBatch; {
			if err := s.do(ctx, formerBatch, func(t *tx) (err error) { n, err = t.affect(q.query, formerBatch); return err }); err != nil {
				return leased, fmt.Errorf("end what was under way: %w", err)
			}
			if q.leases {
				leased += n
			}
		}
	}
	return leased, nil
}

// Ages of what waits, by how long ago it was accepted, due by its send_at, or
// replayed.
const (
	Under5Minutes = iota
	UnderAnHour
	UnderADay
	Older
	Later // its time has not come
	agesCount
)

// WaitingGroup is what waits of a channel and type.
type WaitingGroup struct {
	Channel channels.Kind
	Type    string
	Ages    [agesCount]int64 // pending, or in somebody's hands when the backup was taken
	// Held ones wait for something else too. PastDeadline ones are not sent, but
	// end as expired.
	Held, PastDeadline int64
}

// Waiting is what would be sent if sending were resumed now.
type Waiting struct {
	Pause  delivery.Pause
	Groups []WaitingGroup
	// Scheduled notifications whose targets are not resolved yet; Overdue ones are
	// as soon as a server runs.
	Scheduled, Overdue int64
}

// since is when a delivery was meant to go out first.
const since = `CASE WHEN d.round>1 THEN d.updated_at WHEN n.send_at>n.created_at THEN n.send_at ELSE n.created_at END`

const unfinishedSince = ` FROM deliveries d INDEXED BY deliveries_due
 JOIN notifications n ON n.tenant_id=d.tenant_id AND n.id=d.notification_id WHERE d.state<4`

// Waiting counts what would be sent. It walks all that is unfinished.
func (s *Store) Waiting(ctx context.Context) (w Waiting, err error) {
	if w.Pause, err = s.SendingPaused(ctx); err != nil {
		return w, err
	}
	now := s.now()
	ago := func(d time.Duration) int64 { return millis(now.Add(-d)) }
	const live = "expires_at>? AND state<>3 AND "
	rows, err := s.listDB.QueryContext(ctx, `SELECT channel, type,
 count(*) FILTER (WHERE `+live+`since<=? AND since>?), count(*) FILTER (WHERE `+live+`since<=? AND since>?),
 count(*) FILTER (WHERE `+live+`since<=? AND since>?), count(*) FILTER (WHERE `+live+`since<=?),
 count(*) FILTER (WHERE `+live+`since>?), count(*) FILTER (WHERE expires_at>? AND state=3), count(*) FILTER (WHERE expires_at<=?)
 FROM (SELECT d.channel AS channel, n.type AS type, d.state AS state, d.expires_at AS expires_at, `+since+` AS since`+unfinishedSince+`) x
 GROUP BY channel, type ORDER BY channel, type`,
		millis(now), millis(now), ago(5*time.Minute), millis(now), ago(5*time.Minute), ago(time.Hour), millis(now), ago(time.Hour), ago(24*time.Hour),
		millis(now), ago(24*time.Hour), millis(now), millis(now), millis(now), millis(now))
	if err != nil {
		return w, fmt.Errorf("count what waits: %w", err)
	}
	if w.Groups, err = collect(rows, func(r *sql.Rows) (g WaitingGroup, err error) {
		err = r.Scan(&g.Channel, &g.Type, &g.Ages[Under5Minutes], &g.Ages[UnderAnHour], &g.Ages[UnderADay], &g.Ages[Older], &g.Ages[Later], &g.Held, &g.PastDeadline)
		return g, err
	}); err != nil {
		return w, fmt.Errorf("count what waits: %w", err)
	}
	err = s.listDB.QueryRowContext(ctx, `SELECT count(*) FILTER (WHERE due_at>?), count(*) FILTER (WHERE due_at<=?) FROM fanouts`, millis(now), millis(now)).
		Scan(&w.Scheduled, &w.Overdue)
	return w, err
}

// Cut says what is not to be sent any more after a restore.
type Cut struct {
	Before time.Time      // zero: nothing; otherwise what was meant to go out before
	State  delivery.State // Dead or Dropped
	// Progress is called now and then with how many were moved. It may be nil.
	Progress func(moved int)
}

// ResumeAfterRestore moves what is too old out of the way, in transactions of at
// most 1,000 rows, and then ends the pause. If it is interrupted nothing is sent,
// and it can be called again. It counts what it moved.
func (s *Store) ResumeAfterRestore(ctx context.Context, c Cut, actor string) (moved int, err error) {
	if !c.Before.IsZero() {
		if moved, err = s.cut(ctx, c); err != nil {
			return moved, err
		}
	}
	detail := "all of it is sent"
	if !c.Before.IsZero() {
		detail = fmt.Sprintf("%d deliveries from before %s are %s", moved, c.Before.UTC().Format(timeForPeople), c.State)
	}
	return moved, s.change(ctx, func(t *tx) error {
		if err := t.exec("DELETE FROM installation WHERE name=?", factRestored); err != nil {
			return err
		}
		if err := t.resume(actor); err != nil {
			return err
		}
		return t.audit(0, actor, "installation.resume", detail)
	})
}

// stale is a delivery that is too old.
type stale struct {
	tenant, notification, target ids.ID
	state                        delivery.State
	claim, updated               int64
}

// cut moves what is too old. It reads while it writes: the reader sees what was
// there when it began, and each row is checked again when it is written.
func (s *Store) cut(ctx context.Context, c Cut) (moved int, err error) {
	const walk = `SELECT d.tenant_id,d.notification_id,d.target_id,d.state,d.claim,d.updated_at` + unfinishedSince + ` AND d.expires_at>? AND ` + since + `<?`
	now, before := millis(s.now()), millis(c.Before)
	var overdue int64
	if err := s.listDB.QueryRowContext(ctx, "SELECT count(*) FROM fanouts WHERE due_at<?", before).Scan(&overdue); err != nil {
		return 0, err
	}
	if overdue > 0 {
		return 0, fmt.Errorf("%d scheduled notifications from before then have no deliveries yet. Start a server, which resolves them within seconds and sends nothing while sending is paused; then do this again", overdue)
	}
	rows, err := s.listDB.QueryContext(ctx, walk, now, before)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }()
	batch := make([]stale, 0, maxBatch)
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
		if batch = append(batch, x); len(batch) == maxBatch {
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
	if err := s.listDB.QueryRowContext(ctx, "SELECT count(*)"+unfinishedSince+" AND d.expires_at>? AND "+since+"<?", millis(s.now()), before).Scan(&left); err != nil {
		return moved, err
	}
	if left > 0 {
		return moved, fmt.Errorf("%d deliveries from before then are in the hands of a server or changed meanwhile; do this again in two minutes. Sending is still paused", left)
	}
	return moved, nil
}

// moveStale settles up to 1,000 rows. One that was in somebody's hands may have
// been sent: that is recorded, as at a takeover.
func (s *Store) moveStale(ctx context.Context, batch []stale, to delivery.State) (moved int, err error) {
	if len(batch) == 0 {
		return 0, nil
	}
	err = s.do(ctx, len(batch), func(t *tx) error {
		now, rest := millis(s.now()), batch
		moved = 0
		if s.onPostgres() { // where every statement costs a trip
			var err error
			if moved, rest, err = t.moveWaiting(batch, to, now); err != nil {
				return err
			}
		}
		for _, x := range rest {
			key := []any{x.tenant, x.notification, x.target}
			set := "UPDATE deliveries SET state=?, reason=?, due_at=0, hold_id=0, claim=?, updated_at=?"
			args := append([]any{to, delivery.Stale, int64(s.opts.IDs.Next()), now}, key...)
			const of = " WHERE tenant_id=? AND notification_id=? AND target_id=? AND claim=?"
			if x.state == delivery.Sending {
				n, err := t.affect(set+", takeovers=takeovers+1, flags=1"+of+" AND state=2 AND due_at<=?", append(args, x.claim, now)...)
				if err != nil {
					return err
				}
				if n == 0 {
					continue // in the hands of a server
				}
				if err := t.exec(keepNewest, key...); err != nil {
					return err
				}
				if err := t.exec(unknownAttempt, append([]any{x.updated, channels.Unknown}, key...)...); err != nil {
					return err
				}
				moved++
				continue
			}
			n, err := t.affect(set+of+" AND state IN (1,3)", append(args, x.claim)...)
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

// moveWaiting settles those that nobody has in hand, together, and gives the rest.
func (t *tx) moveWaiting(batch []stale, to delivery.State, now int64) (moved int, rest []stale, err error) {
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
	n, err := t.affect(moveShared, tenants, notifications, targets, claims, to, delivery.Stale, int64(t.s.opts.IDs.Next()), now)
	return int(n), rest, err
}

// keepNewest moves the newest attempt out of a row that is settled.
const keepNewest = `INSERT INTO attempts
 (tenant_id,notification_id,target_id,number,at,ms,outcome,status,ambiguous,code,detail,provider_id)
 SELECT tenant_id,notification_id,target_id,attempts,att_at,att_ms,att_outcome,att_status,att_ambiguous,att_code,att_detail,att_provider_id
 FROM deliveries WHERE tenant_id=? AND notification_id=? AND target_id=? AND attempts>0
 ON CONFLICT DO NOTHING`
