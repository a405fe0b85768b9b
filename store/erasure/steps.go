package erasure

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
)

// The parts of an erasure, in this order; then all of them once more, for what
// was on its way when it began.
const (
	eraseDeliveries = "deliveries" // of the user, with their attempts and content
	eraseSkips      = "skips"      // of the user, with their content
	eraseScheduled  = "scheduled"  // content whose targets are still to be resolved
	eraseOld        = "content"    // content whose delivery to the user may have been purged before
	eraseAnswers    = "answers"    // stored with idempotency keys
	eraseRest       = "rest"       // devices, endpoints and jobs
	eraseFile       = "file"       // old versions of what was removed
)

// eraseCursor is where an erasure goes on. It never names the user.
type eraseCursor struct {
	Part   string `json:"part"`
	After  ids.ID `json:"after,omitempty"`
	Second bool   `json:"second,omitempty"` // the second time
	Tries  int    `json:"tries,omitempty"`
}

// erasing is one step.
type erasing struct {
	s    *Eraser
	j    jobs.Job
	e    delivery.Erasure
	user ids.ID
	// passing is the row that a request which was on its way has made for the user
	// again, without any device: 0 if there is none.
	passing ids.ID
	look    sought
	cursor  eraseCursor
	now     time.Time
	more    bool // there is more of this part
}

// EraseStep implements delivery.ErasureStore.
func (s *Eraser) EraseStep(ctx context.Context, j jobs.Job) (jobs.Progress, error) {
	t, err := s.registers.Tenant(ctx, j.Tenant)
	if problem.CodeOf(err) == problem.NotFound || err == nil && t.Deleting() {
		// All of the tenant goes, and nothing of it can be opened any more.
		return s.registers.Step(ctx, j, 1, func(*db.Tx) (jobs.Progress, error) { return jobs.Progress{End: true}, nil })
	}
	if err != nil {
		return jobs.Progress{}, err
	}
	x := &erasing{s: s, j: j, now: s.db.Now(), cursor: eraseCursor{Part: eraseDeliveries}}
	if err := x.read(ctx); err != nil {
		return jobs.Progress{}, err
	}
	switch x.cursor.Part {
	case eraseDeliveries:
		return x.deliveries(ctx)
	case eraseSkips:
		return x.skips(ctx)
	case eraseScheduled:
		return x.scheduled(ctx)
	case eraseOld:
		return x.oldContent(ctx)
	case eraseAnswers:
		return x.answers(ctx)
	case eraseRest:
		return x.rest(ctx)
	}
	return x.finish(ctx)
}

func (x *erasing) read(ctx context.Context) error {
	var spec erasureSpec
	if err := json.Unmarshal(x.j.Spec, &spec); err != nil {
		return jobs.Permanent(fmt.Errorf("read the spec: %w", err))
	}
	id, err := ids.Parse(ids.Erasure, spec.Erasure)
	if err != nil {
		return jobs.Permanent(fmt.Errorf("read the spec: %w", err))
	}
	if x.j.Cursor != nil {
		if err := json.Unmarshal(x.j.Cursor, &x.cursor); err != nil {
			return jobs.Permanent(fmt.Errorf("read the cursor: %w", err))
		}
	}
	var sealed []byte
	if err := x.s.db.Reads().QueryRowContext(ctx, "SELECT user_id,sealed FROM erasures WHERE id=? AND tenant_id=?", id, x.j.Tenant).
		Scan(&x.user, &sealed); err != nil {
		return db.NotFoundOr(err, "erasure")
	}
	x.e = delivery.Erasure{ID: id, Tenant: x.j.Tenant, Rows: map[string]int{}}
	plain, err := x.s.db.Unseal(db.SealErasure, x.j.Tenant, id, sealed)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(plain, &x.look); err != nil || !x.cursor.Second {
		return err
	}
	err = x.s.db.QueryRow(ctx, "SELECT u.id FROM users u WHERE u.tenant_id=? AND u.external_id=? AND u.id<?"+targetless,
		x.j.Tenant, x.look.User, ids.Before(x.j.CreatedAt.Add(delivery.EraseGrace))).Scan(&x.passing)
	if db.IsNoRows(err) {
		err = nil
	}
	return err
}

// targetless is true of a user with neither device nor endpoint: nobody has
// registered.
const targetless = ` AND NOT EXISTS (SELECT 1 FROM devices d WHERE d.tenant_id=u.tenant_id AND d.user_id=u.id)
 AND NOT EXISTS (SELECT 1 FROM endpoints e WHERE e.tenant_id=u.tenant_id AND e.user_id=u.id AND e.user_id<>0)`

// write runs the writing half of a step.
func (x *erasing) write(ctx context.Context, next string, run func(*db.Tx) error) (jobs.Progress, error) {
	return x.s.registers.Step(ctx, x.j, db.MaxBatch, func(t *db.Tx) (p jobs.Progress, err error) {
		x.e.Rows = map[string]int{}
		if run != nil {
			if err := run(t); err != nil {
				return p, err
			}
			if err := countErased(t, x.e); err != nil {
				return p, err
			}
		}
		c := x.cursor
		if !x.more {
			c = eraseCursor{Part: next, Second: c.Second}
			if next == eraseFile && !c.Second {
				c = eraseCursor{Part: eraseDeliveries, Second: true}
				p.NotBefore = x.j.CreatedAt.Add(delivery.EraseGrace)
			}
		}
		for _, n := range x.e.Rows {
			p.Done += n
		}
		p.Cursor, err = json.Marshal(c)
		return p, err
	})
}

// countErased adds to the receipt.
func countErased(t *db.Tx, e delivery.Erasure) error {
	if len(e.Rows) == 0 {
		return nil
	}
	var text string
	if _, err := t.One("SELECT counts FROM erasures WHERE id=?", []any{e.ID}, &text); err != nil {
		return err
	}
	counts := map[string]int{}
	if err := json.Unmarshal([]byte(text), &counts); err != nil {
		return err
	}
	for table, n := range e.Rows {
		if n > 0 {
			counts[table] += n
		}
	}
	b, err := json.Marshal(counts)
	if err != nil {
		return err
	}
	return t.Exec("UPDATE erasures SET counts=? WHERE id=?", string(b), e.ID)
}

// stripDelivery takes the user out of a delivery. One that was not final, or is a
// dead letter, is dropped: there is nobody to send it to.
const stripDelivery = `UPDATE deliveries SET user_id=NULL, order_key=NULL, att_detail='', att_provider_id='', waited='',
 claim=CASE WHEN state<4 THEN ? ELSE claim END, hold_id=0, due_at=CASE WHEN state<4 THEN 0 ELSE due_at END,
 updated_at=CASE WHEN state<4 OR state=6 THEN ? ELSE updated_at END,
 reason=CASE WHEN state<4 OR state=6 THEN ? ELSE reason END, state=CASE WHEN state<4 OR state=6 THEN ? ELSE state END
 WHERE tenant_id=? AND notification_id=? AND target_id=? AND user_id=?`

// stripNewest comes before it. What stands for a collapse key may tell something of the
// user to who has the tenant's keys.
const stripNewest = `DELETE FROM newest WHERE notification_id=? AND (tenant_id,target_id,order_key) IN
 (SELECT tenant_id,target_id,order_key FROM deliveries WHERE tenant_id=? AND notification_id=? AND target_id=? AND user_id=?)`

func (x *erasing) deliveries(ctx context.Context) (jobs.Progress, error) {
	const limit = 100 // each has its attempts and its content
	rows, err := x.s.db.Lists().QueryContext(ctx, `SELECT notification_id,target_id FROM deliveries INDEXED BY deliveries_user
 WHERE tenant_id=? AND user_id=? AND user_id IS NOT NULL ORDER BY notification_id LIMIT ?`, x.j.Tenant, x.user, limit)
	if err != nil {
		return jobs.Progress{}, fmt.Errorf("read deliveries: %w", err)
	}
	list, err := db.Collect(rows, func(r *sql.Rows) (k [2]ids.ID, err error) {
		err = r.Scan(&k[0], &k[1])
		return k, err
	})
	if err != nil {
		return jobs.Progress{}, err
	}
	x.more = len(list) == limit
	return x.write(ctx, eraseSkips, func(t *db.Tx) error {
		to := delivery.EraseDelivery()
		for i, k := range list {
			if err := t.Exec(stripNewest, k[0], x.j.Tenant, k[0], k[1], x.user); err != nil {
				return err
			}
			n, err := t.Affect(stripDelivery, x.e.ID, db.Millis(x.now), to.Reason, to.State, x.j.Tenant, k[0], k[1], x.user)
			if err != nil {
				return err
			}
			x.e.Rows["deliveries"] += int(n)
			n, err = t.Affect(`UPDATE attempts SET detail='', provider_id='' WHERE tenant_id=? AND notification_id=? AND target_id=?
 AND (detail<>'' OR provider_id<>'')`, x.j.Tenant, k[0], k[1])
			if err != nil {
				return err
			}
			x.e.Rows["attempts"] += int(n)
			if i+1 < len(list) && list[i+1][0] == k[0] {
				continue // content once, behind the last of its deliveries
			}
			if err := x.content(t, k[0], targetsOf(list[:i+1], k[0])); err != nil {
				return err
			}
		}
		return nil
	})
}

func targetsOf(list [][2]ids.ID, notification ids.ID) (out []ids.ID) {
	for _, k := range list {
		if k[0] == notification {
			out = append(out, k[1])
		}
	}
	return out
}

func (x *erasing) skips(ctx context.Context) (jobs.Progress, error) {
	rows, err := x.s.db.Lists().QueryContext(ctx, `SELECT notification_id,n FROM skips INDEXED BY skips_user
 WHERE tenant_id=? AND user_id IN (?,?) AND user_id IS NOT NULL ORDER BY notification_id LIMIT ?`, x.j.Tenant, x.user, x.passing, eraseLimit)
	if err != nil {
		return jobs.Progress{}, fmt.Errorf("read skips: %w", err)
	}
	list, err := db.Collect(rows, func(r *sql.Rows) (k [2]ids.ID, err error) {
		err = r.Scan(&k[0], &k[1])
		return k, err
	})
	if err != nil {
		return jobs.Progress{}, err
	}
	x.more = len(list) == eraseLimit
	return x.write(ctx, eraseScheduled, func(t *db.Tx) error {
		for _, k := range list {
			n, err := t.Affect("UPDATE skips SET user_id=NULL WHERE tenant_id=? AND notification_id=? AND n=?", x.j.Tenant, k[0], k[1])
			if err != nil {
				return err
			}
			x.e.Rows["skips"] += int(n)
			if err := x.content(t, k[0], nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// names tells whether a notification is for the user.
func (x *erasing) names(to delivery.To) bool {
	its := func(id ids.ID) bool { return slices.Contains(x.look.Targets, id) }
	return slices.Contains(to.Users, x.look.User) || slices.ContainsFunc(to.Devices, its) || slices.ContainsFunc(to.Endpoints, its)
}

func (x *erasing) scheduled(ctx context.Context) (jobs.Progress, error) {
	const limit = 200
	var list []ids.ID
	if err := x.s.scheduled(ctx, x.j.Tenant, func(id ids.ID, to delivery.To) error {
		if len(list) < limit && x.names(to) {
			list = append(list, id)
		}
		return nil
	}); err != nil {
		return jobs.Progress{}, err
	}
	x.more = len(list) == limit
	return x.write(ctx, eraseOld, x.contents(list))
}

func (x *erasing) contents(list []ids.ID) func(*db.Tx) error {
	if len(list) == 0 {
		return nil
	}
	return func(t *db.Tx) error {
		for _, id := range list {
			if err := x.content(t, id, nil); err != nil {
				return err
			}
		}
		return nil
	}
}

func (x *erasing) rest(ctx context.Context) (jobs.Progress, error) {
	type job struct {
		id    ids.ID
		texts [3]string
	}
	rows, err := x.s.db.Lists().QueryContext(ctx, "SELECT id,spec,cursor,result FROM jobs WHERE tenant_id=?", x.j.Tenant)
	if err != nil {
		return jobs.Progress{}, fmt.Errorf("read jobs: %w", err)
	}
	needle := string(quoted(x.look.User))
	all, err := db.Collect(rows, func(r *sql.Rows) (j job, err error) {
		err = r.Scan(&j.id, &j.texts[0], &j.texts[1], &j.texts[2])
		return j, err
	})
	if err != nil {
		return jobs.Progress{}, err
	}
	naming := slices.DeleteFunc(all, func(j job) bool {
		return !slices.ContainsFunc(j.texts[:], func(s string) bool { return strings.Contains(s, needle) })
	})
	x.more = len(naming) > eraseLimit
	naming = naming[:min(len(naming), eraseLimit)]
	return x.write(ctx, eraseFile, func(t *db.Tx) error {
		for _, j := range naming {
			was := j.texts
			for i, s := range was {
				if clean, ok := blank([]byte(s), x.look.User); ok {
					j.texts[i] = string(bytes.TrimSpace(clean))
				}
			}
			n, err := t.Affect("UPDATE jobs SET spec=?, cursor=?, result=? WHERE id=? AND spec=? AND cursor=? AND result=?",
				j.texts[0], j.texts[1], j.texts[2], j.id, was[0], was[1], was[2])
			if err != nil {
				return err
			}
			x.e.Rows["jobs"] += int(n)
			x.more = x.more || n == 0 // it has made a step meanwhile
		}
		if err := x.removePassing(t); err != nil || x.user == 0 {
			return err
		}
		more, err := eraseTargets(t, x.e, x.user)
		x.more = x.more || more
		return err
	})
}

func (x *erasing) removePassing(t *db.Tx) error {
	if x.passing == 0 {
		return nil
	}
	// Behind whoever registers a device at this moment.
	if err := t.LockRows("SELECT 1 FROM users WHERE tenant_id=? AND id=?", "UPDATE", x.j.Tenant, x.passing); err != nil {
		return err
	}
	n, err := t.Affect("DELETE FROM users AS u WHERE u.tenant_id=? AND u.id=?"+targetless, x.j.Tenant, x.passing)
	x.e.Rows["users"] += int(n)
	return err
}

// fileTries is how often a reader may keep the write-ahead log from being emptied
// before the erasure ends without.
const (
	fileTries = 12
	fileRetry = 5 * time.Second
)

// finish ends the erasure.
func (x *erasing) finish(ctx context.Context) (jobs.Progress, error) {
	flushed, err := x.s.db.Flush(ctx)
	if err != nil {
		return jobs.Progress{}, err
	}
	if !flushed && x.cursor.Tries < fileTries {
		return x.s.registers.Step(ctx, x.j, 1, func(*db.Tx) (p jobs.Progress, err error) {
			c := x.cursor
			c.Tries++
			p.NotBefore = x.now.Add(fileRetry)
			p.Cursor, err = json.Marshal(c)
			return p, err
		})
	}
	if !flushed {
		x.s.db.Log().Warn("the write-ahead log could not be emptied after an erasure: a reader has been in the way for a minute; it holds old versions of pages until its next turn",
			"erasure", x.e.ID.Format(ids.Erasure))
	}
	return x.s.registers.Step(ctx, x.j, 1, func(t *db.Tx) (jobs.Progress, error) {
		err := t.Exec("UPDATE erasures SET sealed=?, user_id=0, finished_at=? WHERE id=?", []byte{}, db.Millis(x.now), x.e.ID)
		return jobs.Progress{End: true}, err
	})
}
