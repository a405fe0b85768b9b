package queue

import (
	"context"
	"fmt"
	"slices"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
	"github.com/carillonhq/carillon/tenants"
)

// What a call would affect is counted in windows of what there is, so that looking
// costs the same however much there is: each says how many rows it looked at and how
// many of these count.
const (
	windowOfUnfinished = `SELECT count(*),coalesce(sum(CASE WHEN x.target_id=? OR CAST(? AS BIGINT)=0 THEN 1 ELSE 0 END),0) FROM
 (SELECT target_id FROM deliveries INDEXED BY deliveries_due WHERE lane=? AND tenant_id=? AND state<4 LIMIT ?) x`
	windowOfUsersDeliveries = `SELECT count(*),coalesce(sum(CASE WHEN x.state<4 THEN 1 ELSE 0 END),0) FROM
 (SELECT state FROM deliveries INDEXED BY deliveries_user WHERE tenant_id=? AND user_id=? AND user_id IS NOT NULL ORDER BY notification_id DESC LIMIT ?) x`
	windowOfDevices = `SELECT count(*),coalesce(sum(CASE WHEN x.status<3 THEN 1 ELSE 0 END),0) FROM
 (SELECT status FROM devices INDEXED BY devices_tenant WHERE tenant_id=? LIMIT ?) x`
	windowOfUsersDevices = `SELECT count(*),coalesce(sum(CASE WHEN x.status<3 THEN 1 ELSE 0 END),0) FROM
 (SELECT status FROM devices INDEXED BY devices_user WHERE tenant_id=? AND user_id=? LIMIT ?) x`
	windowOfEndpoints      = `SELECT count(*),count(*) FROM (SELECT id FROM endpoints INDEXED BY endpoints_tenant WHERE tenant_id=? LIMIT ?) x`
	windowOfUsersEndpoints = `SELECT count(*),count(*) FROM (SELECT id FROM endpoints INDEXED BY endpoints_user WHERE tenant_id=? AND user_id=? AND user_id<>0 LIMIT ?) x`
)

// A credential is that of devices of its app and channel; which of these nothing else
// serves is said by a condition on v.
const (
	windowOfAppsDevices = `SELECT count(*),coalesce(sum(CASE WHEN v.status<3 AND %s THEN 1 ELSE 0 END),0) FROM
 (SELECT status,environment,vapid_key FROM devices INDEXED BY devices_address WHERE tenant_id=? AND channel=? AND app=? LIMIT ?) v`
	windowOfAppsDeliveries = `SELECT count(*),coalesce(sum(CASE WHEN x.channel=? AND v.app=? AND %s THEN 1 ELSE 0 END),0) FROM
 (SELECT target_id,channel FROM deliveries INDEXED BY deliveries_due WHERE lane=? AND tenant_id=? AND state<4 LIMIT ?) x LEFT JOIN devices v ON v.id=x.target_id`
)

// waitingForApp looks for the app of the device of each delivery.
const waitingForApp = `SELECT count(*),coalesce(sum(CASE WHEN v.app=? THEN 1 ELSE 0 END),0) FROM
 (SELECT target_id FROM deliveries INDEXED BY deliveries_due WHERE lane=? AND tenant_id=? AND state<4 LIMIT ?) x LEFT JOIN devices v ON v.id=x.target_id`

// A VAPID pair is that of the subscriptions which are bound to it, and those have an
// index of their own: however many others the app has, the last one is found.
const windowOfPairsDevices = `SELECT count(*),count(*) FROM
 (SELECT 1 FROM devices INDEXED BY devices_vapid WHERE tenant_id=? AND app=? AND vapid_key=? AND channel=3 AND status<3 LIMIT ?) x`

// affected counts.
type affected struct {
	db        *db.DB
	registers *registers.Registers
}

// window is what is left to look at of one kind of rows.
type window struct {
	ctx  context.Context
	db   *db.DB
	a    *delivery.Affected
	left int
}

// count looks at one window of rows; its last argument is the limit.
func (w *window) count(into *int, query string, args ...any) error {
	var looked, n int
	if err := w.db.Lists().QueryRowContext(w.ctx, query, append(args, w.left+1)...).Scan(&looked, &n); err != nil {
		return fmt.Errorf("count what would be affected: %w", err)
	}
	if looked > w.left {
		w.a.LowerBound, n = true, min(n, w.left)
	}
	*into += n
	w.left -= min(looked, w.left)
	return nil
}

// Affected implements delivery.AffectedReader.
func (s *affected) Affected(ctx context.Context, tenant ids.ID, by delivery.AffectedBy) (delivery.Affected, error) {
	var a delivery.Affected
	most := func() *window { return &window{ctx: ctx, db: s.db, a: &a, left: delivery.AffectedMost} }
	switch {
	case by.User != "":
		err := s.ofUser(ctx, tenant, by.User, &a, most)
		return a, err
	case by.Credential != 0:
		err := s.ofCredential(ctx, tenant, by.Credential, &a, most)
		return a, err
	case by.App != "":
		err := s.ofApp(ctx, tenant, by.App, &a, most)
		return a, err
	case by.Endpoint != 0:
		n := 0
		if err := s.db.Reads().QueryRowContext(ctx, "SELECT count(*) FROM endpoints WHERE id=? AND tenant_id=?", by.Endpoint, tenant).Scan(&n); err != nil {
			return a, err
		}
		if n == 0 {
			return a, problem.New(problem.NotFound, "There is no such endpoint.")
		}
		a.Endpoints = 1
	default:
		if err := most().count(&a.Devices, windowOfDevices, tenant); err != nil {
			return a, err
		}
		if err := most().count(&a.Endpoints, windowOfEndpoints, tenant); err != nil {
			return a, err
		}
	}
	w := most()
	for lane := range delivery.LanesCount {
		if err := w.count(&a.Waiting, windowOfUnfinished, by.Endpoint, by.Endpoint, lane, tenant); err != nil {
			return a, err
		}
	}
	return a, nil
}

// ofUser counts what belongs to a user: nothing where there is none.
func (s *affected) ofUser(ctx context.Context, tenant ids.ID, external string, a *delivery.Affected, most func() *window) error {
	var user ids.ID
	err := s.db.Reads().QueryRowContext(ctx, "SELECT id FROM users WHERE tenant_id=? AND external_id=?", tenant, external).Scan(&user)
	if db.IsNoRows(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := most().count(&a.Devices, windowOfUsersDevices, tenant, user); err != nil {
		return err
	}
	if err := most().count(&a.Endpoints, windowOfUsersEndpoints, tenant, user); err != nil {
		return err
	}
	return most().count(&a.Waiting, windowOfUsersDeliveries, tenant, user)
}

// ofCredential counts what no other credential of its app and channel serves.
func (s *affected) ofCredential(ctx context.Context, tenant, id ids.ID, a *delivery.Affected, most func() *window) error {
	c, err := s.registers.Credential(ctx, tenant, id)
	if err != nil {
		return err
	}
	all, err := s.registers.Credentials(ctx, tenant)
	if err != nil {
		return err
	}
	var others []string
	for _, x := range all {
		if x.App == c.App && x.Channel == c.Channel && x.ID != c.ID {
			others = append(others, x.Qualifier)
		}
	}
	condition, args, some := unserved(c.Channel, c.Qualifier, others)
	if !some {
		return nil
	}
	if c.Channel == channels.WebPush {
		err = s.ofPair(tenant, c, len(others) == 0, a, most())
	} else {
		err = most().count(&a.Devices, fmt.Sprintf(windowOfAppsDevices, condition), append(slices.Clone(args), tenant, c.Channel, c.App)...)
	}
	if err != nil {
		return err
	}
	w := most()
	for lane := range delivery.LanesCount {
		if err := w.count(&a.Waiting, fmt.Sprintf(windowOfAppsDeliveries, condition),
			append(append([]any{c.Channel, c.App}, args...), lane, tenant)...); err != nil {
			return err
		}
	}
	return nil
}

// ofApp counts the devices of an app, of every channel, and what waits for them.
func (s *affected) ofApp(ctx context.Context, tenant ids.ID, app string, a *delivery.Affected, most func() *window) error {
	there, err := registers.AppExists(ctx, s.db.Reads(), tenant, app)
	if err != nil {
		return err
	}
	if !there {
		return registers.NoSuchApp()
	}
	w := most()
	for _, k := range registers.DeviceKinds() {
		if err := w.count(&a.Devices, fmt.Sprintf(windowOfAppsDevices, "1=1"), tenant, k, app); err != nil {
			return err
		}
	}
	w = most()
	for lane := range delivery.LanesCount {
		if err := w.count(&a.Waiting, waitingForApp, app, lane, tenant); err != nil {
			return err
		}
	}
	return nil
}

// ofPair counts the subscriptions of a VAPID pair; those whose pair is not known are
// of the only one.
func (s *affected) ofPair(tenant ids.ID, c tenants.Credential, only bool, a *delivery.Affected, w *window) error {
	keys := []string{c.Qualifier}
	if only {
		keys = append(keys, "")
	}
	for _, key := range keys {
		if err := w.count(&a.Devices, windowOfPairsDevices, tenant, c.App, key); err != nil {
			return err
		}
	}
	return nil
}

// unserved is the condition on a device v of the app and channel of a credential that
// nothing else serves; some is false where something serves them all.
func unserved(k channels.Kind, qualifier string, others []string) (condition string, args []any, some bool) {
	switch {
	case k == channels.WebPush: // a subscription is that of one pair
		condition, args = "(v.vapid_key=? OR v.vapid_key='' AND ?=0)", []any{qualifier, len(others)}
		return condition, args, true
	case len(others) == 0:
		return "1=1", nil, true
	case k != channels.APNs || qualifier == "" && len(others) > 1 || slices.Contains(others, ""):
		return "", nil, false
	}
	return "v.environment NOT IN (?,'auto')", []any{others[0]}, true
}
