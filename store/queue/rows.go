package queue

import (
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store/db"
)

// Flags of a notification.
const (
	flagSensitive  = 1
	flagAtMostOnce = 2
	flagCanceled   = 4
	flagScheduled  = 8
)

// Flags of a delivery.
const (
	flagUnknown = 1 // a node died with it, so it may have been sent
	flagBegun   = 2 // its attempt has begun; written only where that matters: see delivery.Claimed.MayHaveBegun
	flagAsked   = 4 // a person asked for it to be sent now; the next claim takes it off
)

const rowColumns = `d.tenant_id,d.notification_id,d.target_id,d.channel,d.lane,d.state,d.reason,coalesce(d.user_id,0),d.device_epoch,
 d.credential_id,d.due_at,d.expires_at,d.claim,d.hold_id,d.round,d.spent,d.attempts,d.takeovers,d.flags,d.renewed,d.updated_at,
 coalesce(d.order_key,0),coalesce(d.replaces,0)`

func scanRow(r db.Scanner, more ...any) (delivery.Row, error) {
	var (
		d                     delivery.Row
		due, expires, updated int64
		flags                 int
	)
	err := r.Scan(append([]any{&d.Tenant, &d.Notification, &d.Target, &d.Channel, &d.Lane, &d.State, &d.Reason, &d.UserID, &d.Epoch,
		&d.Credential, &due, &expires, &d.Claim, &d.HoldID, &d.Round, &d.Spent, &d.Attempts, &d.Takeovers, &flags, &d.Renewed, &updated,
		&d.OrderKey, &d.Replaces},
		more...)...)
	d.DueAt, d.ExpiresAt, d.UpdatedAt = time.UnixMilli(due), time.UnixMilli(expires), time.UnixMilli(updated)
	d.Unknown = flags&flagUnknown != 0
	return d, err
}

// rowKey is the primary key of a delivery.
type rowKey struct{ tenant, notification, target int64 }

func keyOfRow(r *delivery.Row) rowKey {
	return rowKey{int64(r.Tenant), int64(r.Notification), int64(r.Target)}
}

func compareKeys(a, b rowKey) int {
	for _, d := range [3][2]int64{{a.tenant, b.tenant}, {a.notification, b.notification}, {a.target, b.target}} {
		if d[0] != d[1] {
			if d[0] < d[1] {
				return -1
			}
			return 1
		}
	}
	return 0
}

// keysOf splits the keys and claims of rows into columns.
func keysOf(rows []delivery.Row) (tenants, notifications, targets, claims []int64) {
	for i := range rows {
		r := &rows[i]
		tenants, notifications = append(tenants, int64(r.Tenant)), append(notifications, int64(r.Notification))
		targets, claims = append(targets, int64(r.Target)), append(claims, r.Claim)
	}
	return tenants, notifications, targets, claims
}
