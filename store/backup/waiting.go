package backup

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store/db"
)

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
func (s *Backups) Waiting(ctx context.Context) (w Waiting, err error) {
	if w.Pause, err = s.registers.SendingPaused(ctx); err != nil {
		return w, err
	}
	now := s.db.Now()
	ago := func(d time.Duration) int64 { return db.Millis(now.Add(-d)) }
	const live = "expires_at>? AND state<>3 AND "
	rows, err := s.db.Lists().QueryContext(ctx, `SELECT channel, type,
 count(*) FILTER (WHERE `+live+`since<=? AND since>?), count(*) FILTER (WHERE `+live+`since<=? AND since>?),
 count(*) FILTER (WHERE `+live+`since<=? AND since>?), count(*) FILTER (WHERE `+live+`since<=?),
 count(*) FILTER (WHERE `+live+`since>?), count(*) FILTER (WHERE expires_at>? AND state=3), count(*) FILTER (WHERE expires_at<=?)
 FROM (SELECT d.channel AS channel, n.type AS type, d.state AS state, d.expires_at AS expires_at, `+since+` AS since`+unfinishedSince+`) x
 GROUP BY channel, type ORDER BY channel, type`,
		db.Millis(now), db.Millis(now), ago(5*time.Minute), db.Millis(now), ago(5*time.Minute), ago(time.Hour), db.Millis(now), ago(time.Hour), ago(24*time.Hour),
		db.Millis(now), ago(24*time.Hour), db.Millis(now), db.Millis(now), db.Millis(now), db.Millis(now))
	if err != nil {
		return w, fmt.Errorf("count what waits: %w", err)
	}
	if w.Groups, err = db.Collect(rows, func(r *sql.Rows) (g WaitingGroup, err error) {
		err = r.Scan(&g.Channel, &g.Type, &g.Ages[Under5Minutes], &g.Ages[UnderAnHour], &g.Ages[UnderADay], &g.Ages[Older], &g.Ages[Later], &g.Held, &g.PastDeadline)
		return g, err
	}); err != nil {
		return w, fmt.Errorf("count what waits: %w", err)
	}
	err = s.db.Lists().QueryRowContext(ctx, `SELECT count(*) FILTER (WHERE due_at>?), count(*) FILTER (WHERE due_at<=?) FROM fanouts`, db.Millis(now), db.Millis(now)).
		Scan(&w.Scheduled, &w.Overdue)
	return w, err
}
