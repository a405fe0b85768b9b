package queue

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"gorm.io/gorm"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
)

// reads are for whoever asks what became of notifications and deliveries.
type reads struct {
	db      *db.DB
	targets *targets
}

// Notification implements delivery.NotificationReader.
func (s *reads) Notification(ctx context.Context, tenant, id ids.ID) (delivery.NotificationView, error) {
	list, err := s.notifications(ctx, tenant, `n.id=?`, id, 1)
	if err != nil {
		return delivery.NotificationView{}, err
	}
	if len(list) == 0 {
		return delivery.NotificationView{}, problem.New(problem.NotFound, "There is no such notification.")
	}
	v := list[0]
	if v.Skips, err = s.skips(ctx, tenant, id); err != nil {
		return v, err
	}
	if !v.Sensitive {
		v.Content, err = s.targets.Content(ctx, tenant, id)
		if problem.CodeOf(err) == problem.NotFound {
			err = nil // nobody needed it, or its time is over
		}
	}
	return v, err
}

func (s *reads) notifications(ctx context.Context, tenant ids.ID, where string, arg any, limit int) ([]delivery.NotificationView, error) {
	const query = `SELECT n.id,n.type,n.created_at,n.send_at,n.flags FROM notifications n WHERE n.tenant_id=? AND `
	rows, err := s.db.Lists().QueryContext(ctx, query+where+` ORDER BY n.id DESC LIMIT ?`, tenant, arg, limit)
	if err != nil {
		return nil, fmt.Errorf("read notifications: %w", err)
	}
	list, err := db.Collect(rows, func(r *sql.Rows) (v delivery.NotificationView, err error) {
		var (
			created, at int64
			flags       int
		)
		err = r.Scan(&v.ID, &v.Type, &created, &at, &flags)
		v.CreatedAt, v.SendAt = db.FromMillis(created), db.FromMillis(at)
		v.Sensitive, v.Canceled = flags&flagSensitive != 0, flags&flagCanceled != 0
		if flags&flagScheduled != 0 {
			v.Scheduled, v.FansOut = !v.SendAt.IsZero(), !v.SendAt.After(s.db.Now())
		}
		return v, err
	})
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Counts, err = s.counts(ctx, tenant, list[i].ID); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (s *reads) counts(ctx context.Context, tenant, notification ids.ID) (map[delivery.State]int, error) {
	counts := map[delivery.State]int{}
	err := s.db.Each(ctx, func(r *sql.Rows) error {
		var (
			state delivery.State
			n     int
		)
		err := r.Scan(&state, &n)
		counts[state] = n
		return err
	}, "SELECT state,count(*) FROM deliveries WHERE tenant_id=? AND notification_id=? GROUP BY state", tenant, notification)
	return counts, err
}

func (s *reads) skips(ctx context.Context, tenant, notification ids.ID) ([]delivery.Skip, error) {
	var out []delivery.Skip
	err := s.db.Each(ctx, func(r *sql.Rows) error {
		var k delivery.Skip
		err := r.Scan(&k.User, &k.Target, &k.Channel, &k.Reason)
		out = append(out, k)
		return err
	}, `SELECT coalesce(u.external_id,''),k.target_id,k.channel,k.reason FROM skips k
 LEFT JOIN users u ON u.tenant_id=k.tenant_id AND u.id=k.user_id WHERE k.tenant_id=? AND k.notification_id=? ORDER BY k.n LIMIT 1000`, tenant, notification)
	return out, err
}

// UserNotifications implements delivery.NotificationReader.
func (s *reads) UserNotifications(ctx context.Context, tenant ids.ID, user string, after ids.ID, limit int) ([]delivery.NotificationView, error) {
	if after == 0 {
		after = 1<<63 - 1
	}
	rows, err := s.db.Lists().QueryContext(ctx, `SELECT DISTINCT notification_id FROM (
 SELECT notification_id FROM deliveries WHERE tenant_id=?1 AND user_id=(SELECT id FROM users WHERE tenant_id=?1 AND external_id=?2) AND notification_id<?3
 UNION SELECT notification_id FROM skips WHERE tenant_id=?1 AND user_id=(SELECT id FROM users WHERE tenant_id=?1 AND external_id=?2) AND notification_id<?3) AS seen
 ORDER BY notification_id DESC LIMIT ?4`, tenant, user, after, limit)
	if err != nil {
		return nil, err
	}
	list, err := db.Collect(rows, db.ScanID)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, nil
	}
	in, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	views, err := s.notifications(ctx, tenant, "n.id IN (SELECT CAST(x.value AS BIGINT) FROM json_each(?) x)", string(in), limit)
	if err != nil {
		return nil, err
	}
	for i := range views {
		all, err := s.skips(ctx, tenant, views[i].ID)
		if err != nil {
			return nil, err
		}
		views[i].Skips = slices.DeleteFunc(all, func(k delivery.Skip) bool { return k.User != user })
	}
	return views, nil
}

const viewColumns = rowColumns + `,coalesce(u.external_id,''),coalesce(x.app,''),
 d.att_at,d.att_ms,d.att_outcome,d.att_status,d.att_ambiguous,d.att_code,d.att_detail,d.att_provider_id,coalesce(d.superseded_by,0),d.waited`

func (s *reads) views(ctx context.Context) *gorm.DB {
	return s.db.Gorm(ctx).Table("deliveries d").Select(viewColumns).
		Joins("LEFT JOIN users u ON u.tenant_id=d.tenant_id AND u.id=d.user_id").
		Joins("LEFT JOIN devices x ON x.id=d.target_id AND d.channel<4")
}

func scanView(r *sql.Rows) (delivery.View, error) {
	var (
		v      delivery.View
		at     int64
		ms     int64
		a      = &v.Last
		owner  string
		waited string
	)
	d, err := scanRow(r, &owner, &v.App, &at, &ms, &a.Outcome, &a.Status, &a.Ambiguous, &a.Code, &a.Detail, &a.ProviderID, &v.SupersededBy, &waited)
	if err != nil {
		return v, err
	}
	a.Number, a.At, a.Duration = d.Attempts, db.FromMillis(at), time.Duration(ms)*time.Millisecond
	v.Notification, v.Target, v.Channel, v.User = d.Notification, d.Target, d.Channel, owner
	v.State, v.Reason, v.ExpiresAt, v.HoldID = d.State, d.Reason, d.ExpiresAt.UTC(), d.HoldID
	v.Round, v.Spent, v.Takeovers, v.Unknown = d.Round, d.Spent, d.Takeovers, d.Unknown
	v.Waited = parseWaited(waited)
	v.CreatedAt, v.UpdatedAt = d.Notification.Time(), d.UpdatedAt.UTC()
	if v.State == delivery.Pending {
		v.DueAt = d.DueAt.UTC()
	}
	return v, nil
}

// Delivery implements delivery.DeliveryReader.
func (s *reads) Delivery(ctx context.Context, tenant, notification, target ids.ID) (delivery.View, error) {
	list, err := s.list(s.views(ctx).Where("d.tenant_id=? AND d.notification_id=? AND d.target_id=?", tenant, notification, target))
	if err != nil {
		return delivery.View{}, err
	}
	if len(list) == 0 {
		return delivery.View{}, problem.New(problem.NotFound, "There is no such delivery.")
	}
	v := list[0]
	err = s.db.Each(ctx, func(r *sql.Rows) error {
		var (
			a      delivery.Attempt
			at, ms int64
		)
		err := r.Scan(&a.Number, &at, &ms, &a.Outcome, &a.Status, &a.Ambiguous, &a.Code, &a.Detail, &a.ProviderID)
		a.At, a.Duration = db.FromMillis(at), time.Duration(ms)*time.Millisecond
		v.Attempts = append(v.Attempts, a)
		return err
	}, `SELECT number,at,ms,outcome,status,ambiguous,code,detail,provider_id FROM attempts
 WHERE tenant_id=? AND notification_id=? AND target_id=? ORDER BY number`, tenant, notification, target)
	if v.Last.Number > 0 {
		v.Attempts = append(v.Attempts, v.Last)
	}
	return v, err
}

func (s *reads) list(q *gorm.DB) ([]delivery.View, error) {
	rows, err := q.Rows()
	if err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	return db.Collect(rows, scanView)
}

// lookAt is how many rows a page of a filtered list looks at.
const lookAt = 5000

// listing is one of the lists of deliveries.
type listing struct {
	order string
	from  func(*gorm.DB, delivery.Query) *gorm.DB
}

// The lists of deliveries: all, newest first, and dead letters, the latest death first.
var (
	allDeliveries = listing{order: "d.notification_id DESC, d.target_id DESC", from: func(g *gorm.DB, q delivery.Query) *gorm.DB {
		if q.Notification != 0 {
			g = g.Where("d.notification_id=?", q.Notification)
		}
		if c := q.After; c.Notification != 0 {
			g = g.Where("(d.notification_id,d.target_id)<(?,?)", c.Notification, c.Target)
		}
		if c := q.To; c.Notification != 0 {
			g = g.Where("(d.notification_id,d.target_id)>=(?,?)", c.Notification, c.Target)
		}
		if !q.Since.IsZero() {
			g = g.Where("d.notification_id>=?", ids.Before(q.Since))
		}
		if !q.Until.IsZero() {
			g = g.Where("d.notification_id<?", ids.Before(q.Until))
		}
		return g
	}}
	deadLetters = listing{order: "d.updated_at DESC, d.notification_id DESC, d.target_id DESC", from: func(g *gorm.DB, q delivery.Query) *gorm.DB {
		g = g.Where("d.state=6") // the literal lets SQLite use the index of dead letters
		if q.Notification != 0 {
			g = g.Where("d.notification_id=?", q.Notification)
		}
		if c := q.After; !c.At.IsZero() {
			g = g.Where("d.updated_at<=? AND (d.updated_at,d.notification_id,d.target_id)<(?,?,?)", db.Millis(c.At), db.Millis(c.At), c.Notification, c.Target)
		}
		if c := q.To; !c.At.IsZero() {
			g = g.Where("d.updated_at>=? AND (d.updated_at,d.notification_id,d.target_id)>=(?,?,?)", db.Millis(c.At), db.Millis(c.At), c.Notification, c.Target)
		}
		if !q.Since.IsZero() {
			g = g.Where("d.updated_at>=?", db.Millis(q.Since))
		}
		if !q.Until.IsZero() {
			g = g.Where("d.updated_at<?", db.Millis(q.Until))
		}
		return g
	}}
)

func listOf(dead bool) listing {
	if dead {
		return deadLetters
	}
	return allDeliveries
}

// rows are those of a list in its order, before a filter passes any over: an index leads
// to each of them.
func (l listing) rows(g *gorm.DB, tenant ids.ID, q delivery.Query) *gorm.DB {
	g = l.from(g.Where("d.tenant_id=?", tenant), q)
	if q.User != "" && q.Notification == 0 { // SQLite would read all that the tenant has between two ends
		g = g.Table("deliveries d INDEXED BY deliveries_user")
	}
	if q.User != "" {
		g = g.Where("d.user_id=(SELECT id FROM users WHERE tenant_id=? AND external_id=?)", tenant, q.User)
	}
	return g.Order(l.order)
}

// DeliveryWindow implements delivery.DeliveryReader.
func (s *reads) DeliveryWindow(ctx context.Context, tenant ids.ID, q delivery.Query, dead bool) (delivery.Cursor, error) {
	if !q.IsFiltered() || q.Notification != 0 { // of one there are few
		return delivery.Cursor{}, nil
	}
	rows, err := s.window(ctx, tenant, q, dead).Rows()
	if err != nil {
		return delivery.Cursor{}, fmt.Errorf("read deliveries: %w", err)
	}
	last, err := db.Collect(rows, func(r *sql.Rows) (c delivery.Cursor, err error) {
		var at int64
		err = r.Scan(&c.Notification, &c.Target, &at)
		c.At = db.FromMillis(at)
		return c, err
	})
	if err != nil || len(last) == 0 {
		return delivery.Cursor{}, err
	}
	if !dead {
		last[0].At = time.Time{}
	}
	return last[0], nil
}

func (s *reads) window(ctx context.Context, tenant ids.ID, q delivery.Query, dead bool) *gorm.DB {
	g := s.db.Gorm(ctx).Table("deliveries d").Select("d.notification_id,d.target_id,d.updated_at")
	return listOf(dead).rows(g, tenant, q).Limit(1).Offset(lookAt - 1)
}

// Deliveries implements delivery.DeliveryReader.
func (s *reads) Deliveries(ctx context.Context, tenant ids.ID, q delivery.Query) ([]delivery.View, error) {
	return s.list(filtered(allDeliveries.rows(s.views(ctx), tenant, q), q).Limit(q.Limit))
}

// DeadLetters implements delivery.DeliveryReader.
func (s *reads) DeadLetters(ctx context.Context, tenant ids.ID, q delivery.Query) ([]delivery.View, error) {
	q.State = 0
	return s.list(filtered(deadLetters.rows(s.views(ctx), tenant, q), q).Limit(q.Limit))
}

// filtered passes over what is not wanted.
func filtered(g *gorm.DB, q delivery.Query) *gorm.DB {
	if q.State != 0 {
		g = g.Where("d.state=?", q.State)
	}
	if q.Reason != 0 {
		g = g.Where("d.reason=?", q.Reason)
	}
	if q.Channel != 0 {
		g = g.Where("d.channel=?", q.Channel)
	}
	return g
}
