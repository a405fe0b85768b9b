package queue

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
)

// deletedEndpoints drops what waits for endpoints that were deleted.
type deletedEndpoints struct {
	db        *db.DB
	registers *registers.Registers
}

// deletionWindow is how many unfinished deliveries a step looks at.
const deletionWindow = 1000

// selectForDeleted looks at a window of what a tenant has unfinished in a lane. No
// index of the deliveries knows their targets, since that would cost every
// notification more than a deletion now and then is worth.
var selectForDeleted = fmt.Sprintf(`SELECT d.due_at,d.notification_id,d.target_id,
 CASE WHEN d.channel=%d AND d.state<>2 AND NOT EXISTS (SELECT 1 FROM endpoints e WHERE e.id=d.target_id) THEN 1 ELSE 0 END
 FROM deliveries d INDEXED BY deliveries_due WHERE d.lane=? AND d.tenant_id=? AND d.state<4 AND d.due_at>=?
 AND (d.due_at,d.notification_id,d.target_id)>(?,?,?) ORDER BY d.due_at,d.notification_id,d.target_id LIMIT ?`, channels.Webhook)

// dropForDeleted leaves alone what is being sent by now, and what has ended.
const dropForDeleted = `UPDATE deliveries SET state=?, reason=?, due_at=0, hold_id=0, updated_at=?
 WHERE tenant_id=? AND notification_id=? AND target_id=? AND state IN (1,3)`

// deletionCursor is the delivery that was looked at last. A claim, or an attempt,
// moves what waits to a later time or into other hands: what the walk meets twice
// does no harm, and what it misses is found by the second walk.
type deletionCursor struct {
	registers.DeletionBegin
	Second       bool          `json:"second,omitempty"`
	Lane         delivery.Lane `json:"lane"`
	Due          int64         `json:"due"`
	Notification ids.ID        `json:"notification"`
	Target       ids.ID        `json:"target"`
}

// DropForDeletedEndpointsStep implements delivery.EndpointDeletionStore.
func (s *deletedEndpoints) DropForDeletedEndpointsStep(ctx context.Context, j jobs.Job) (jobs.Progress, error) {
	var c deletionCursor
	if j.Cursor != nil {
		if err := json.Unmarshal(j.Cursor, &c); err != nil {
			return jobs.Progress{}, jobs.Permanent(problem.New(problem.Internal, "The job cannot be read."))
		}
	}
	found, looked, err := s.window(ctx, j.Tenant, &c)
	if err != nil {
		return jobs.Progress{}, err
	}
	return s.registers.Step(ctx, j, 1+len(found), func(t *db.Tx) (p jobs.Progress, err error) {
		to, now := delivery.EndpointDeleted(), db.Millis(t.Now())
		for _, k := range found {
			n, err := t.Affect(dropForDeleted, to.State, to.Reason, now, j.Tenant, k[0], k[1])
			if err != nil {
				return p, fmt.Errorf("drop what waits for a deleted endpoint: %w", err)
			}
			p.Done += int(n)
		}
		next := c
		switch {
		case looked == deletionWindow:
		case c.Lane+1 < delivery.LanesCount:
			next = deletionCursor{DeletionBegin: c.DeletionBegin, Second: c.Second, Lane: c.Lane + 1}
		case !c.Second:
			next = deletionCursor{DeletionBegin: c.DeletionBegin, Second: true}
			p.NotBefore = j.CreatedAt.Add(delivery.EraseGrace)
			if c.Since != 0 {
				p.NotBefore = db.FromMillis(c.Since).Add(delivery.EraseGrace)
			}
		default:
			p.End = true
		}
		p.Cursor, err = json.Marshal(next)
		return p, err
	})
}

// window looks at the next deliveries, moves the cursor behind them and tells how
// many there were. found are those that have to be dropped.
func (s *deletedEndpoints) window(ctx context.Context, tenant ids.ID, c *deletionCursor) (found [][2]ids.ID, looked int, err error) {
	rows, err := s.db.Lists().QueryContext(ctx, selectForDeleted, c.Lane, tenant, c.Due, c.Due, c.Notification, c.Target, deletionWindow)
	if err != nil {
		return nil, 0, fmt.Errorf("look for what waits for deleted endpoints: %w", err)
	}
	_, err = db.Collect(rows, func(r *sql.Rows) (none struct{}, err error) {
		var wanted bool
		err = r.Scan(&c.Due, &c.Notification, &c.Target, &wanted)
		if looked++; wanted {
			found = append(found, [2]ids.ID{c.Notification, c.Target})
		}
		return none, err
	})
	return found, looked, err
}
