package queue

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
)

// cancels takes back what was not sent yet.
type cancels struct{ db *db.DB }

// Cancel implements delivery.CommandStore.
func (s *cancels) Cancel(ctx context.Context, tenant, notification ids.ID, now time.Time) (int, error) {
	var n int64
	err := s.db.Change(ctx, func(t *db.Tx) error {
		found, err := t.Affect("UPDATE notifications SET flags=flags|4 WHERE tenant_id=? AND id=?", tenant, notification)
		if err != nil {
			return err
		}
		if found == 0 {
			return problem.New(problem.NotFound, "There is no such notification.")
		}
		waiting, err := t.Affect("DELETE FROM fanouts WHERE tenant_id=? AND notification_id=?", tenant, notification)
		if err != nil {
			return err
		}
		if waiting > 0 {
			if err := t.Exec("UPDATE notifications SET flags=flags & ~8 WHERE tenant_id=? AND id=?", tenant, notification); err != nil {
				return err
			}
		}
		to := delivery.Cancellation()
		n, err = t.Affect(`UPDATE deliveries SET state=?, reason=?, due_at=0, hold_id=0, updated_at=?
 WHERE tenant_id=? AND notification_id=? AND state IN (1,3)`, to.State, to.Reason, db.Millis(now), tenant, notification)
		failpoint.Hit("cancel.written")
		return err
	})
	return int(n), err
}
