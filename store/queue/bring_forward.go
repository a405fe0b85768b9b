package queue

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
)

// broughtForward makes due what waits for a scope that works again.
type broughtForward struct {
	db        *db.DB
	registers *registers.Registers
}

const (
	// bringWindow is how many unfinished deliveries a step looks at.
	bringWindow = 5000
	// bringFirst and bringMost are how many it makes due, at first and at most.
	bringFirst = 10
	bringMost  = 640
	// bringPause is the least time between two steps, and bringWait how long the next
	// waits at most for what became of the last.
	bringPause = time.Second
	bringWait  = 30 * time.Second
)

// Looks at a window of what a tenant has pending in a lane, whatever it is for. What
// was attempted since the job began keeps its new schedule, and what the provider
// itself put off keeps that, unless it was released.
const (
	bringColumns = `SELECT d.due_at,d.notification_id,d.target_id,
 CASE WHEN d.state=1 AND d.updated_at<=? AND (d.att_outcome<>3 OR ?=1) AND `
	bringFrom = ` THEN 1 ELSE 0 END FROM deliveries d INDEXED BY deliveries_due`
	bringRows = ` WHERE d.lane=? AND d.tenant_id=? AND d.state<4 AND d.due_at>=?
 AND (d.due_at,d.notification_id,d.target_id)>(?,?,?) ORDER BY d.due_at,d.notification_id,d.target_id LIMIT ?`

	windowOfEndpoint   = bringColumns + `d.channel=4 AND d.target_id=?` + bringFrom + bringRows
	windowOfCredential = bringColumns + `d.channel=? AND x.app=? AND (?='' OR x.environment IN ('','auto',?) AND x.vapid_key IN ('',?))
 AND (?='' OR substr(x.address,1,?)=?)` + bringFrom + ` LEFT JOIN devices x ON x.id=d.target_id AND d.channel<4` + bringRows

	bringForward = `UPDATE deliveries SET due_at=? WHERE tenant_id=? AND notification_id=? AND target_id=? AND state=1 AND due_at>?`
	// newerBring finds a job that was made since to do the same.
	newerBring = `SELECT count(*) FROM jobs INDEXED BY jobs_due WHERE tenant_id=? AND kind=? AND state<3 AND spec=? AND id>?`
	// newTrouble finds what was noted of a scope since.
	newTrouble = `SELECT count(*) FROM waits WHERE tenant_id=? AND subject_id=? AND (origin='' OR origin=?) AND noted_at>?`
)

// bringCursor is how far the job is: the delivery that was looked at last, and what
// the last step made due.
type bringCursor struct {
	Began        int64         `json:"began"`
	Lane         delivery.Lane `json:"lane"`
	Due          int64         `json:"due"`
	Notification ids.ID        `json:"notification"`
	Target       ids.ID        `json:"target"`
	Size         int           `json:"size"`
	At           int64         `json:"at,omitempty"`
	Batch        [][2]ids.ID   `json:"batch,omitempty"`
}

// bring is the scope of a job.
type bring struct {
	registers.BringSpec
	total      int // that wait, where they were counted just now; 0: they were not
	subject    ids.ID
	credential struct {
		app, qualifier string
		channel        channels.Kind
	}
}

// BringForwardStep implements delivery.BringForwardStore: first few, then twice as many
// as long as nine in ten of them are sent, and no more once the scope is in trouble
// again. Urgent ones come first, then the oldest.
func (s *broughtForward) BringForwardStep(ctx context.Context, j jobs.Job) (jobs.Progress, error) {
	b, c, err := s.read(ctx, j)
	if err != nil || b.subject == 0 {
		return jobs.Progress{End: true}, err
	}
	now := s.db.Now()
	if c.Began == 0 {
		c.Began, c.Size = db.Millis(now), bringFirst
		if b.total, err = s.count(ctx, j.Tenant, &b, c, now); err != nil {
			return jobs.Progress{}, err
		}
	}
	if len(c.Batch) > 0 {
		sent, failed, open, err := s.fared(ctx, j.Tenant, c.Batch, now)
		if err != nil {
			return jobs.Progress{}, err
		}
		switch {
		case open*10 > len(c.Batch) && now.Sub(db.FromMillis(c.At)) < bringWait:
			return s.step(ctx, j, &b, c, nil)
		case sent*10 >= (sent+failed)*9:
			c.Size = min(2*c.Size, bringMost)
		}
		c.Batch = nil
	}
	var found [][2]ids.ID
	for len(found) == 0 && c.Lane < delivery.LanesCount {
		looked, more := 0, false
		if found, looked, more, err = s.window(ctx, j.Tenant, &b, &c, now); err != nil {
			return jobs.Progress{}, err
		}
		if looked < bringWindow && !more {
			c.Lane, c.Due, c.Notification, c.Target = c.Lane+1, 0, 0, 0
		} else if len(found) == 0 {
			break // the next window is the next step's
		}
	}
	c.Batch, c.At = found, db.Millis(now)
	return s.step(ctx, j, &b, c, found)
}

// count counts what waits, where it is no more than a window of each lane; 0: it is not
// known. What comes later is not the job's.
func (s *broughtForward) count(ctx context.Context, tenant ids.ID, b *bring, c bringCursor, now time.Time) (total int, err error) {
	for c.Lane, c.Size = 0, bringWindow; c.Lane < delivery.LanesCount; c.Lane++ {
		at := c
		found, looked, _, err := s.window(ctx, tenant, b, &at, now)
		if err != nil || looked == bringWindow {
			return 0, err
		}
		total += len(found)
	}
	return total, nil
}

// step makes deliveries due, unless the scope is in trouble again. Of those that were
// counted at first, what got due by itself was skipped.
func (s *broughtForward) step(ctx context.Context, j jobs.Job, b *bring, c bringCursor, found [][2]ids.ID) (jobs.Progress, error) {
	return s.registers.Step(ctx, j, 1+len(found), func(t *db.Tx) (p jobs.Progress, err error) {
		trouble, err := t.Count(newTrouble, j.Tenant, b.subject, b.PushService, c.Began)
		if err != nil {
			return p, err
		}
		newer, err := t.Count(newerBring, j.Tenant, j.Kind, string(j.Spec), j.ID)
		if err != nil {
			return p, err
		}
		switch {
		case trouble > 0:
			return jobs.Progress{End: true, Result: json.RawMessage(`{"stopped":"It fails again."}`)}, nil
		case newer > 0: // it failed in between
			return jobs.Progress{End: true, Result: json.RawMessage(`{"stopped":"A newer job does the same."}`)}, nil
		}
		at := db.Millis(t.Now())
		for _, k := range found {
			n, err := t.Affect(bringForward, at, j.Tenant, k[0], k[1], at)
			if err != nil {
				return p, fmt.Errorf("bring deliveries forward: %w", err)
			}
			p.Done += int(n)
			p.Skipped += 1 - int(n)
		}
		p.Total = b.total
		if p.End = c.Lane == delivery.LanesCount && len(found) == 0 && len(c.Batch) == 0; p.End {
			p.Skipped += max(max(j.Total, p.Total)-j.Done-j.Skipped-p.Done-p.Skipped, 0)
		}
		p.NotBefore = t.Now().Add(bringPause)
		p.Cursor, err = json.Marshal(c)
		return p, err
	})
}

// read reads what a job is to do, and how far it is. Without a subject there is nothing
// to do any more.
func (s *broughtForward) read(ctx context.Context, j jobs.Job) (b bring, c bringCursor, err error) {
	broken := jobs.Permanent(problem.New(problem.Internal, "The job cannot be read."))
	if json.Unmarshal(j.Spec, &b.BringSpec) != nil || j.Cursor != nil && json.Unmarshal(j.Cursor, &c) != nil {
		return b, c, broken
	}
	if b.Endpoint != "" {
		if b.subject, err = ids.Parse(ids.Endpoint, b.Endpoint); err != nil {
			return b, c, broken
		}
		return b, c, nil
	}
	id, err := ids.Parse(ids.Credential, b.Credential)
	if err != nil {
		return b, c, broken
	}
	x := &b.credential
	err = s.db.Reads().QueryRowContext(ctx, "SELECT app,channel,qualifier FROM credentials WHERE id=? AND tenant_id=?", id, j.Tenant).Scan(&x.app, &x.channel, &x.qualifier)
	if db.IsNoRows(err) {
		return b, c, nil
	}
	b.subject = id
	return b, c, err
}

// window looks at the next deliveries, and finds the oldest that are to be made due.
// more: of those that it looked at, others are left for the next step.
func (s *broughtForward) window(ctx context.Context, tenant ids.ID, b *bring, c *bringCursor, now time.Time) (found [][2]ids.ID, looked int, more bool, err error) {
	query, args := windowOfEndpoint, []any{c.Began, db.Bit(b.Released), b.subject}
	if x := &b.credential; b.Endpoint == "" {
		at := ""
		if b.PushService != "" {
			at = b.PushService + "/"
		}
		query, args = windowOfCredential, []any{c.Began, db.Bit(b.Released), x.channel, x.app, x.qualifier, x.qualifier, x.qualifier, at, len(at), at}
	}
	next := *c
	if due := db.Millis(now) + 1; next.Due < due { // what is due needs nobody
		next.Due, next.Notification, next.Target = due, 0, 0
	}
	args = append(args, next.Lane, tenant, next.Due, next.Due, next.Notification, next.Target, bringWindow)
	rows, err := s.db.Lists().QueryContext(ctx, query, args...)
	if err != nil {
		return nil, 0, false, fmt.Errorf("look for what waits for a scope: %w", err)
	}
	_, err = db.Collect(rows, func(r *sql.Rows) (none struct{}, err error) {
		wanted := false
		err = r.Scan(&next.Due, &next.Notification, &next.Target, &wanted)
		if looked++; wanted {
			found = append(found, [2]ids.ID{next.Notification, next.Target})
		}
		return none, err
	})
	if err != nil {
		return nil, 0, false, fmt.Errorf("look for what waits for a scope: %w", err)
	}
	slices.SortFunc(found, func(a, b [2]ids.ID) int { return slices.Compare(a[:], b[:]) })
	if more = len(found) > c.Size; more {
		return found[:c.Size], looked, true, nil
	}
	*c = next
	return found, looked, false, nil
}

// fared tells how many of those that were made due were sent, how many were not, and
// of how many it is not known yet. What has ended otherwise says nothing.
func (s *broughtForward) fared(ctx context.Context, tenant ids.ID, batch [][2]ids.ID, now time.Time) (sent, failed, open int, err error) {
	for _, k := range batch {
		var (
			state delivery.State
			due   int64
		)
		err := s.db.Reads().QueryRowContext(ctx, "SELECT state,due_at FROM deliveries WHERE tenant_id=? AND notification_id=? AND target_id=?", tenant, k[0], k[1]).Scan(&state, &due)
		switch {
		case db.IsNoRows(err), state == delivery.Dropped:
		case err != nil:
			return 0, 0, 0, fmt.Errorf("look what became of deliveries: %w", err)
		case state == delivery.Sent:
			sent++
		case state == delivery.Sending, state == delivery.Pending && due <= db.Millis(now):
			open++
		default:
			failed++
		}
	}
	return sent, failed, open, nil
}
