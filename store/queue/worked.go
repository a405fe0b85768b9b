package queue

import (
	"context"
	"fmt"

	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
)

// workedWindow is how many of a user's newest deliveries say whether a target works.
const workedWindow = 200

const lastWorked = `SELECT coalesce(max(x.notification_id),0) FROM (SELECT target_id,state,notification_id FROM deliveries INDEXED BY deliveries_user
 WHERE tenant_id=? AND user_id=? AND user_id IS NOT NULL ORDER BY notification_id DESC LIMIT ?) x WHERE x.target_id=? AND x.state=4`

// lastAddress is when the installation of a device got its present address; 0: with its
// first registration, or longer ago than its history goes.
const lastAddress = `SELECT coalesce(max(x.at),0) FROM (SELECT at,event FROM device_events INDEXED BY device_events_device
 WHERE tenant_id=? AND device_id=? AND event=? ORDER BY id DESC LIMIT ?) x`

// worked tells whether targets have worked before.
type worked struct{ db *db.DB }

// HasWorked implements delivery.EvidenceStore. What went to an address that the device
// had before says nothing of the one that it has.
func (s *worked) HasWorked(ctx context.Context, tenant, user, target ids.ID) (bool, error) {
	var (
		last    ids.ID
		changed int64
	)
	if err := s.db.Reads().QueryRowContext(ctx, lastWorked, tenant, user, workedWindow, target).Scan(&last); err != nil || last == 0 {
		return false, notKnown(err)
	}
	if err := s.db.Reads().QueryRowContext(ctx, lastAddress, tenant, target, devices.EventAddressChanged, devices.MaxHistory).Scan(&changed); err != nil {
		return false, notKnown(err)
	}
	return last >= ids.Before(db.FromMillis(changed)), nil
}

func notKnown(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("look whether a target has worked: %w", err)
}
