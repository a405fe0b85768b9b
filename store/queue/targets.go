package queue

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
)

// targets reads whom notifications name, and targets as they are now.
type targets struct {
	db        *db.DB
	registers *registers.Registers
}

// resolvedColumns are what routing and sending need of a device; the rest of it
// is not read on the hot path.
const resolvedColumns = `d.id,d.user_id,u.external_id,d.epoch,d.app,d.channel,d.kind,d.address,d.environment,d.keys,d.vapid_key,d.installation_id,d.os,
 d.registered_at,d.expires_at,d.status,d.purpose,d.activity_id`

// The lists of names come as JSON arrays, so that one prepared statement serves
// any number of them; CROSS JOIN keeps SQLite from turning the loops around.
const (
	resolveUsers = `SELECT u.external_id,u.id FROM json_each(?2) x CROSS JOIN users u ON u.tenant_id=?1 AND u.external_id=x.value`

	resolveUserDevices = `SELECT ` + resolvedColumns + ` FROM json_each(?2) x CROSS JOIN users u ON u.tenant_id=?1 AND u.external_id=x.value
 CROSS JOIN devices d INDEXED BY devices_user ON d.tenant_id=?1 AND d.user_id=u.id AND d.id>?3`

	resolveDevices = `SELECT ` + resolvedColumns + ` FROM json_each(?2) x CROSS JOIN devices d ON d.id=CAST(x.value AS BIGINT) AND d.tenant_id=?1
 CROSS JOIN users u INDEXED BY users_id ON u.tenant_id=d.tenant_id AND u.id=d.user_id`

	resolveEndpoints = `SELECT ` + registers.EndpointColumns + ` FROM json_each(?2) x CROSS JOIN endpoints e ON e.id=CAST(x.value AS BIGINT) AND e.tenant_id=?1
 LEFT JOIN users u INDEXED BY users_id ON u.tenant_id=e.tenant_id AND u.id=e.user_id`

	resolveBound = `SELECT ` + registers.EndpointColumns + ` FROM json_each(?2) x CROSS JOIN users u ON u.tenant_id=?1 AND u.external_id=x.value
 CROSS JOIN endpoints e INDEXED BY endpoints_user ON e.tenant_id=?1 AND e.user_id=u.id AND e.user_id<>0 AND e.id>?3`

	// No user has the id 0: the join finds none, by a seek.
	resolveUnbound = `SELECT ` + registers.EndpointColumns + ` FROM endpoints e INDEXED BY endpoints_tenant LEFT JOIN users u INDEXED BY users_id ON u.tenant_id=e.tenant_id AND u.id=0 WHERE e.tenant_id=? AND e.id>? ORDER BY e.id LIMIT ?`

	// What is looked up at once stops where it is, and reads no more than that.
	anyOfThem = ` LIMIT ?4`

	// Of one user, in the order of the ids, so that the next look-up can go on behind it. That
	// there is one user has to be seen from the statement, or all devices are sorted.
	pageOfDevices = `SELECT ` + resolvedColumns + ` FROM users u CROSS JOIN devices d INDEXED BY devices_user ON d.tenant_id=?1 AND d.user_id=u.id AND d.id>?3
 WHERE u.tenant_id=?1 AND u.external_id=?2 ORDER BY d.id LIMIT ?4`

	pageOfBound = `SELECT ` + registers.EndpointColumns + ` FROM users u CROSS JOIN endpoints e INDEXED BY endpoints_user ON e.tenant_id=?1 AND e.user_id=u.id AND e.user_id<>0 AND e.id>?3
 WHERE u.tenant_id=?1 AND u.external_id=?2 ORDER BY e.id LIMIT ?4`
)

// Resolve implements delivery.ResolveStore.
func (s *targets) Resolve(ctx context.Context, tenant ids.ID, to delivery.Lookup) (delivery.Resolution, error) {
	var r delivery.Resolution
	// These look-ups are short; with a context that can be cancelled each would
	// cost a goroutine that waits to interrupt it.
	ctx = context.WithoutCancel(ctx)
	if len(to.Users) > 0 {
		names, err := json.Marshal(to.Users)
		if err != nil {
			return r, err
		}
		if err := s.resolveUsers(ctx, tenant, to, string(names), &r); err != nil {
			return r, fmt.Errorf("look up users: %w", err)
		}
	}
	for _, q := range []struct {
		ids   []ids.ID
		query string
		scan  func(*sql.Rows) error
	}{
		{to.Devices, resolveDevices, addDevice(&r, tenant)},
		{to.Endpoints, resolveEndpoints, addEndpoint(&r, tenant)},
	} {
		if len(q.ids) == 0 {
			continue
		}
		list, err := json.Marshal(q.ids)
		if err != nil {
			return r, err
		}
		if err := s.db.Each(ctx, q.scan, q.query, tenant, string(list)); err != nil {
			return r, fmt.Errorf("look up targets: %w", err)
		}
	}
	if to.Subscribers {
		if err := s.resolveSubscribers(ctx, tenant, to, &r); err != nil {
			return r, fmt.Errorf("look up subscribers: %w", err)
		}
	}
	return r, nil
}

// resolveSubscribers reads the unbound endpoints; those that are bound count against the
// limit, since they are read.
func (s *targets) resolveSubscribers(ctx context.Context, tenant ids.ID, to delivery.Lookup, r *delivery.Resolution) error {
	n, last := 0, ids.ID(0)
	return s.db.Each(ctx, func(rows *sql.Rows) error {
		e, err := registers.ScanEndpoint(rows, tenant)
		if n++; n > to.Limit {
			r.Through = last
			return err
		}
		if last = e.ID; e.UserID == 0 {
			r.Endpoints = append(r.Endpoints, e)
		}
		return err
	}, resolveUnbound, tenant, to.After, to.Limit+1)
}

func (s *targets) resolveUsers(ctx context.Context, tenant ids.ID, to delivery.Lookup, names string, r *delivery.Resolution) error {
	n, whose := len(to.Users), names
	selectDevices, selectBound := resolveUserDevices+anyOfThem, resolveBound+anyOfThem
	if to.Paged {
		selectDevices, selectBound, whose = pageOfDevices, pageOfBound, to.Users[0]
	}
	r.Users = make(map[string]ids.ID, n)
	if err := s.db.Each(ctx, addDevice(r, tenant), selectDevices, tenant, whose, to.After, to.Limit+1); err != nil {
		return err
	}
	slices.SortFunc(r.Devices, func(a, b devices.Device) int { return cmp.Compare(a.ID, b.ID) })
	for _, d := range r.Devices {
		r.Users[d.User] = d.UserID
	}
	if len(r.Users) < n { // users without a device are rare, so they cost a second look
		if err := s.db.Each(ctx, func(rows *sql.Rows) error {
			var (
				name string
				id   ids.ID
			)
			err := rows.Scan(&name, &id)
			r.Users[name] = id
			return err
		}, resolveUsers, tenant, names); err != nil {
			return err
		}
	}
	bound, err := s.registers.HasBound(ctx, tenant)
	if err == nil && bound {
		err = s.db.Each(ctx, addEndpoint(r, tenant), selectBound, tenant, whose, to.After, to.Limit+1)
	}
	cutOff(r, to.Limit)
	return err
}

// cutOff leaves what was read completely: where there are more devices or endpoints than
// the limit, those of both up to the same id.
func cutOff(r *delivery.Resolution, limit int) {
	if len(r.Devices) > limit {
		r.Through = r.Devices[limit-1].ID
	}
	if len(r.Endpoints) > limit && (r.Through == 0 || r.Endpoints[limit-1].ID < r.Through) {
		r.Through = r.Endpoints[limit-1].ID
	}
	if r.Through != 0 {
		r.Devices = slices.DeleteFunc(r.Devices, func(d devices.Device) bool { return d.ID > r.Through })
		r.Endpoints = slices.DeleteFunc(r.Endpoints, func(e delivery.BoundEndpoint) bool { return e.ID > r.Through })
	}
}

func addDevice(r *delivery.Resolution, tenant ids.ID) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		r.Devices = append(r.Devices, devices.Device{Tenant: tenant})
		var (
			d                   = &r.Devices[len(r.Devices)-1]
			t                   = &d.Target
			keys                []byte
			registered, expires int64
		)
		err := rows.Scan(&d.ID, &d.UserID, &d.User, &d.Epoch, &d.App, &d.Channel, &t.Kind, &t.Address, &t.Environment, &keys, &d.VAPIDKey,
			&d.InstallationID, &t.OS, &registered, &expires, &d.Status, &d.Purpose, &d.ActivityID)
		t.P256dh, t.Auth = registers.SplitKeys(keys)
		t.RegisteredAt, d.ExpiresAt = db.FromMillis(registered), db.FromMillis(expires)
		return err
	}
}

func addEndpoint(r *delivery.Resolution, tenant ids.ID) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		e, err := registers.ScanEndpoint(rows, tenant)
		r.Endpoints = append(r.Endpoints, e)
		return err
	}
}

// Content implements delivery.ContentStore.
func (s *targets) Content(ctx context.Context, tenant, notification ids.ID) ([]byte, error) {
	var sealed []byte
	if err := s.db.QueryRow(ctx, "SELECT body FROM payloads WHERE notification_id=? AND tenant_id=?", notification, tenant).Scan(&sealed); err != nil {
		return nil, db.NotFoundOr(err, "content")
	}
	return s.db.Unseal(db.SealPayload, tenant, notification, sealed)
}
