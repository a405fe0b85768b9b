package queue

import (
	"context"
	"fmt"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
)

// workedWindow is how many of a user's newest deliveries say whether a target works.
const workedWindow = 200

const hasWorked = `SELECT count(*) FROM (SELECT target_id,state FROM deliveries INDEXED BY deliveries_user
 WHERE tenant_id=? AND user_id=? AND user_id IS NOT NULL ORDER BY notification_id DESC LIMIT ?) x WHERE x.target_id=? AND x.state=4`

// worked tells whether targets have worked before.
type worked struct{ db *db.DB }

// HasWorked implements delivery.EvidenceStore.
func (s *worked) HasWorked(ctx context.Context, tenant, user, target ids.ID) (bool, error) {
	n := 0
	if err := s.db.Reads().QueryRowContext(ctx, hasWorked, tenant, user, workedWindow, target).Scan(&n); err != nil {
		return false, fmt.Errorf("look whether a target has worked: %w", err)
	}
	return n > 0, nil
}
