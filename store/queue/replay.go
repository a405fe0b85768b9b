package queue

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
)

// replays sends dead letters again.
type replays struct {
	db        *db.DB
	registers *registers.Registers
	targets   *targets
	reads     *reads
}

// replayDead makes a dead letter pending, if it still is one, and if there is
// content to send: on a database with many writers both may have changed since
// they were looked at. A newer notification with its collapse key is no reason to
// send an older one over it.
const (
	replayDead = replayThat + ` AND state=6` + andNewest
	// resendHook does the same with a webhook that was sent or dropped, but for what was
	// erased (27): its receiver may have lost it, or said 410 too early.
	resendHook  = replayThat + ` AND (state=6 OR channel=4 AND state IN (4,5) AND reason<>27)` + andNewest
	resendEnded = replayThat + ` AND channel=4 AND state=? AND reason<>27`

	replayThat = `UPDATE deliveries SET state=?, reason=?, due_at=?, expires_at=?, round=round+1, spent=?, takeovers=0, renewed=0, updated_at=?
 WHERE tenant_id=? AND notification_id=? AND target_id=? AND EXISTS (SELECT 1 FROM payloads p WHERE p.notification_id=? AND p.tenant_id=?)`

	// andNewest: nothing took the place of a delivery.
	andNewest = ` AND NOT EXISTS (SELECT 1 FROM newest w WHERE w.tenant_id=deliveries.tenant_id AND w.target_id=deliveries.target_id
 AND w.order_key=deliveries.order_key AND w.notification_id<>deliveries.notification_id)`

	// newerThanDead finds the notification that took the place of a dead letter.
	newerThanDead = `SELECT w.notification_id FROM deliveries d JOIN newest w ON w.tenant_id=d.tenant_id AND w.target_id=d.target_id
 AND w.order_key=d.order_key AND w.notification_id<>d.notification_id WHERE d.tenant_id=? AND d.notification_id=? AND d.target_id=? AND d.state=6`
)

func replay(t *db.Tx, query string, tenant, notification, target ids.ID, now, expires time.Time, more ...any) (bool, error) {
	to := delivery.Revival(now)
	n, err := t.Affect(query, append([]any{to.State, to.Reason, db.Millis(to.DueAt), db.Millis(expires), to.Spent, db.Millis(now), tenant, notification, target, notification, tenant}, more...)...)
	return n == 1, err
}

// keepContents keeps the content of notifications from being removed before the
// end of the transaction. What is gone already is seen by what comes after it.
func keepContents(t *db.Tx, tenant ids.ID, notifications ...ids.ID) error {
	return t.LockRows("SELECT 1 FROM payloads WHERE tenant_id=$1 AND notification_id=ANY($2::bigint[]) ORDER BY notification_id", "SHARE",
		tenant, db.Int64s(notifications))
}

// uncancel takes back that a notification was canceled: what is replayed of it is
// wanted.
func uncancel(t *db.Tx, tenant, notification ids.ID) error {
	return t.Exec("UPDATE notifications SET flags=flags & ~4 WHERE tenant_id=? AND id=? AND flags&4<>0", tenant, notification)
}

// Replay implements delivery.CommandStore.
func (s *replays) Replay(ctx context.Context, tenant, notification, target ids.ID, now time.Time,
	ttl func(delivery.Request, channels.Kind) time.Duration, actor string,
) error {
	body, err := s.targets.Content(ctx, tenant, notification)
	if problem.CodeOf(err) == problem.NotFound {
		if _, derr := s.reads.Delivery(ctx, tenant, notification, target); derr != nil {
			return derr
		}
		return problem.New(problem.Conflict, "The content of this notification has been erased, so it cannot be sent again.")
	}
	if err != nil {
		return err
	}
	var req delivery.Request
	if err := json.Unmarshal(body, &req); err != nil {
		return fmt.Errorf("read the stored content: %w", err)
	}
	return s.db.Change(ctx, func(t *db.Tx) error {
		var (
			state  delivery.State
			reason delivery.Reason
			kind   channels.Kind
		)
		key := []any{tenant, notification, target}
		found, err := t.One("SELECT state,reason,channel FROM deliveries WHERE tenant_id=? AND notification_id=? AND target_id=?", key, &state, &reason, &kind)
		switch {
		case err != nil:
			return err
		case !found:
			return problem.New(problem.NotFound, "There is no such delivery.")
		case reason == delivery.Erased:
			return problem.New(problem.Conflict, "This delivery was erased, so it cannot be sent again.")
		case state.Unfinished():
			return problem.New(problem.Conflict, "Only what has ended can be sent again; this delivery is %s.", state)
		case state != delivery.Dead && kind != channels.Webhook:
			return problem.New(problem.Conflict, "Only a dead letter, or a webhook that was sent or dropped, can be sent again; this delivery is %s.", state)
		}
		if err := keepContents(t, tenant, notification); err != nil {
			return err
		}
		done, err := replay(t, resendHook, tenant, notification, target, now, now.Add(ttl(req, kind)))
		switch {
		case err != nil:
			return err
		case !done:
			var newer ids.ID
			if superseded, err := t.One(newerThanDead, key, &newer); err != nil {
				return err
			} else if superseded {
				return errSuperseded(newer)
			}
			return problem.New(problem.Conflict, "The delivery, or its content, has changed at this moment; read it again.")
		}
		if err := uncancel(t, tenant, notification); err != nil {
			return err
		}
		failpoint.Hit("replay.written")
		return t.Audit(tenant, actor, "delivery.replay", ids.FormatDelivery(notification, target))
	})
}

func errSuperseded(newer ids.ID) error {
	return problem.New(problem.Conflict, "A newer notification with the same collapse key, %s, took the place of this delivery on the device, so it is not sent again.",
		newer.Format(ids.Notification))
}

// WalkDead implements delivery.ReplayStore. The window is cut before the filter
// is asked, so that its cost is known however little the filter wants.
func (s *replays) WalkDead(ctx context.Context, tenant ids.ID, w delivery.DeadWalk) (delivery.DeadPage, error) {
	if w.Filter.Ended() {
		return s.walkEnded(ctx, tenant, w)
	}
	from, to := w.After.At, w.Before
	if w.Filter.Since.After(from) {
		from = w.Filter.Since
	}
	if u := w.Filter.Until; !u.IsZero() && u.Before(to) {
		to = u
	}
	joins, wanted, args := deadCondition(w.Filter)
	args = append(args, tenant, db.Millis(from), db.Millis(to), db.Millis(w.After.At), w.After.Notification, w.After.Target, w.Look)
	query := `SELECT d.updated_at,d.notification_id,d.target_id,d.channel,d.state,CASE WHEN ` + wanted + ` THEN 1 ELSE 0 END
 FROM deliveries d INDEXED BY deliveries_dead` + joins + ` WHERE d.tenant_id=? AND d.state=6 AND d.updated_at>=? AND d.updated_at<?
 AND (d.updated_at,d.notification_id,d.target_id)>(?,?,?) ORDER BY d.updated_at,d.notification_id,d.target_id LIMIT ?`
	return s.walked(ctx, w, query, args)
}

// walkEnded walks webhooks that were sent or dropped, in the order in which they were
// accepted: no index knows when they ended.
func (s *replays) walkEnded(ctx context.Context, tenant ids.ID, w delivery.DeadWalk) (delivery.DeadPage, error) {
	joins, wanted, args := deadCondition(w.Filter)
	from, to := max(ids.Before(w.Filter.Since), w.After.Notification), ids.Before(w.Before)
	if u := w.Filter.Until; !u.IsZero() {
		to = min(to, ids.Before(u))
	}
	args = append(args, w.Filter.State, delivery.Erased, db.Millis(w.Before), tenant, from, to, w.After.Notification, w.After.Target, w.Look)
	return s.walked(ctx, w, fmt.Sprintf(walkEnded, wanted, joins), args)
}

const walkEnded = `SELECT d.updated_at,d.notification_id,d.target_id,d.channel,d.state,CASE WHEN %s AND d.state=? AND d.reason<>? AND d.updated_at<? THEN 1 ELSE 0 END
 FROM deliveries d%s WHERE d.tenant_id=? AND d.notification_id>=? AND d.notification_id<?
 AND (d.notification_id,d.target_id)>(?,?) ORDER BY d.notification_id,d.target_id LIMIT ?`

func (s *replays) walked(ctx context.Context, w delivery.DeadWalk, query string, args []any) (delivery.DeadPage, error) {
	rows, err := s.db.Lists().QueryContext(ctx, query, args...)
	if err != nil {
		return delivery.DeadPage{}, fmt.Errorf("walk the dead letters: %w", err)
	}
	type seen struct {
		delivery.DeadLetter
		wanted bool
	}
	list, err := db.Collect(rows, func(r *sql.Rows) (x seen, err error) {
		var died int64
		err = r.Scan(&died, &x.Notification, &x.Target, &x.Channel, &x.State, &x.wanted)
		x.DiedAt = db.FromMillis(died)
		return x, err
	})
	if err != nil {
		return delivery.DeadPage{}, fmt.Errorf("walk the dead letters: %w", err)
	}
	page := delivery.DeadPage{Next: w.After, End: len(list) < w.Look}
	for _, x := range list {
		if x.wanted && len(page.Letters) == w.Want {
			page.End = false
			break
		}
		page.Next = x.Cursor()
		if x.wanted {
			page.Letters = append(page.Letters, x.DeadLetter)
		}
	}
	return page, nil
}

// deadCondition is a filter as SQL, but for the times.
func deadCondition(f delivery.DeadFilter) (joins, wanted string, args []any) {
	conditions := []string{"1=1"}
	and := func(condition string, arg any) {
		conditions, args = append(conditions, condition), append(args, arg)
	}
	if f.Reason != 0 {
		and("d.reason=?", f.Reason)
	}
	if f.Channel != 0 {
		and("d.channel=?", f.Channel)
	}
	if f.Notification != 0 {
		and("d.notification_id=?", f.Notification)
	}
	if f.Endpoint != 0 {
		and(fmt.Sprintf("d.channel=%d AND d.target_id=?", channels.Webhook), f.Endpoint)
	}
	if f.User != "" {
		and("d.user_id=(SELECT u.id FROM users u WHERE u.tenant_id=d.tenant_id AND u.external_id=?)", f.User)
	}
	if f.Type != "" {
		joins += " LEFT JOIN notifications n ON n.tenant_id=d.tenant_id AND n.id=d.notification_id"
		and("n.type=?", f.Type)
	}
	if f.App != "" { // an endpoint has none
		joins += fmt.Sprintf(" LEFT JOIN devices x ON x.id=d.target_id AND d.channel<%d", channels.Webhook)
		and("x.app=?", f.App)
	}
	return joins, strings.Join(conditions, " AND "), args
}

// ReplayDead implements delivery.ReplayStore. The letters are due when they are
// written, not when they were found: what becomes due long before its commit could
// be passed over by a claim that has been further already.
func (s *replays) ReplayDead(ctx context.Context, j jobs.Job, letters []delivery.Replayed, progress func(delivery.ReplayCounts) jobs.Progress) (jobs.Progress, error) {
	return s.registers.Step(ctx, j, 1+2*len(letters), func(t *db.Tx) (jobs.Progress, error) {
		now := s.db.Now()
		notifications := make([]ids.ID, len(letters))
		for i := range letters {
			notifications[i] = letters[i].Notification
		}
		if err := keepContents(t, j.Tenant, notifications...); err != nil {
			return jobs.Progress{}, err
		}
		var c delivery.ReplayCounts
		revived := map[ids.ID]bool{}
		for i := range letters {
			d := &letters[i]
			query, more := replayDead, []any(nil)
			if d.State != delivery.Dead {
				query, more = resendEnded, []any{d.State}
			}
			done, err := replay(t, query, j.Tenant, d.Notification, d.Target, now, d.ExpiresAt, more...)
			if err != nil {
				return jobs.Progress{}, err
			}
			if done {
				c.Replayed++
				if !revived[d.Notification] {
					revived[d.Notification] = true
					err = uncancel(t, j.Tenant, d.Notification)
				}
			} else {
				err = whyNot(t, j.Tenant, d.DeadLetter, &c)
			}
			if err != nil {
				return jobs.Progress{}, err
			}
		}
		return progress(c), nil
	})
}

// whyNot counts a letter that could not be replayed.
func whyNot(t *db.Tx, tenant ids.ID, d delivery.DeadLetter, c *delivery.ReplayCounts) error {
	var (
		one   int
		newer ids.ID
	)
	superseded, err := t.One(newerThanDead, []any{tenant, d.Notification, d.Target}, &newer)
	if superseded || err != nil {
		c.Newer++
		return err
	}
	dead, err := t.One("SELECT 1 FROM deliveries WHERE tenant_id=? AND notification_id=? AND target_id=? AND state=?",
		[]any{tenant, d.Notification, d.Target, d.State}, &one)
	if dead {
		c.Erased++
	} else {
		c.NotDead++
	}
	return err
}
