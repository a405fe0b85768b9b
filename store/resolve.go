package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
)

const deviceColumns = `d.id,d.user_id,u.external_id,d.epoch,d.app,d.channel,d.kind,d.address,d.environment,d.keys,d.vapid_key,d.installation_id,d.os,
 d.app_version,d.locale,d.time_zone,d.tags,d.registered_at,d.last_seen_at,d.expires_at,d.status,d.reason,d.status_at,d.created_at,d.updated_at`

const endpointColumns = `e.id,e.user_id,coalesce(u.external_id,''),e.url,e.description,e.event_types,e.status,e.reason,e.created_at,e.updated_at`

// resolvedColumns are what routing and sending need of a device; the rest of it
// is not read on the hot path.
const resolvedColumns = `d.id,d.user_id,u.external_id,d.epoch,d.app,d.channel,d.kind,d.address,d.environment,d.keys,d.vapid_key,d.installation_id,d.os,
 d.registered_at,d.expires_at,d.status`

// The lists of names come as JSON arrays, so that one prepared statement serves
// any number of them; CROSS JOIN keeps SQLite from turning the loops around.
const (
	resolveUsers = `SELECT u.external_id,u.id FROM json_each(?2) x CROSS JOIN users u ON u.tenant_id=?1 AND u.external_id=x.value`

	resolveUserDevices = `SELECT ` + resolvedColumns + ` FROM json_each(?2) x CROSS JOIN users u ON u.tenant_id=?1 AND u.external_id=x.value
 CROSS JOIN devices d INDEXED BY devices_user ON d.tenant_id=?1 AND d.user_id=u.id ORDER BY d.id`

	resolveDevices = `SELECT ` + resolvedColumns + ` FROM json_each(?2) x CROSS JOIN devices d ON d.id=CAST(x.value AS BIGINT) AND d.tenant_id=?1
 CROSS JOIN users u INDEXED BY users_id ON u.tenant_id=d.tenant_id AND u.id=d.user_id`

	resolveEndpoints = `SELECT ` + endpointColumns + ` FROM json_each(?2) x CROSS JOIN endpoints e ON e.id=CAST(x.value AS BIGINT) AND e.tenant_id=?1
 LEFT JOIN users u INDEXED BY users_id ON u.tenant_id=e.tenant_id AND u.id=e.user_id`

	resolveBound = `SELECT ` + endpointColumns + ` FROM json_each(?2) x CROSS JOIN users u ON u.tenant_id=?1 AND u.external_id=x.value
 CROSS JOIN endpoints e INDEXED BY endpoints_user ON e.tenant_id=?1 AND e.user_id=u.id AND e.user_id<>0`

	resolveUnbound = `SELECT ` + endpointColumns + ` FROM endpoints e INDEXED BY endpoints_tenant LEFT JOIN users u ON 1=0 WHERE e.tenant_id=? AND e.user_id=0 ORDER BY e.id`
)

// Resolve implements delivery.AcceptStore.
func (s *Store) Resolve(ctx context.Context, tenant ids.ID, to delivery.To, subscribers bool) (delivery.Resolution, error) {
	var r delivery.Resolution
	// These look-ups are short; with a context that can be cancelled each would
	// cost a goroutine that waits to interrupt it.
	ctx = context.WithoutCancel(ctx)
	if len(to.Users) > 0 {
		names, err := json.Marshal(to.Users)
		if err != nil {
			return r, err
		}
		if err := s.resolveUsers(ctx, tenant, string(names), len(to.Users), &r); err != nil {
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
		if err := s.each(ctx, q.scan, q.query, tenant, string(list)); err != nil {
			return r, fmt.Errorf("look up targets: %w", err)
		}
	}
	if subscribers {
		if err := s.each(ctx, addEndpoint(&r, tenant), resolveUnbound, tenant); err != nil {
			return r, fmt.Errorf("look up subscribers: %w", err)
		}
	}
	return r, nil
}

func (s *Store) resolveUsers(ctx context.Context, tenant ids.ID, names string, n int, r *delivery.Resolution) error {
	r.Users = make(map[string]ids.ID, n)
	if err := s.each(ctx, addDevice(r, tenant), resolveUserDevices, tenant, names); err != nil {
		return err
	}
	for _, d := range r.Devices {
		r.Users[d.User] = d.UserID
	}
	if len(r.Users) < n { // users without a device are rare, so they cost a second look
		if err := s.each(ctx, func(rows *sql.Rows) error {
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
	bound, err := s.hasBound(ctx, tenant)
	if err != nil || !bound {
		return err
	}
	return s.each(ctx, addEndpoint(r, tenant), resolveBound, tenant, names)
}

// boundTenants knows which tenants have endpoints that are bound to a user. Most
// have none, and need not be asked for each notification: on SQLite this process
// is the only one that writes endpoints, and forgets what it knows when it does.
type boundTenants struct {
	mu      sync.Mutex
	known   map[ids.ID]bool
	changes int
}

func (b *boundTenants) get(tenant ids.ID) (bound, known bool, changes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	bound, known = b.known[tenant]
	return bound, known, b.changes
}

// put keeps what was read, unless something has changed since changes.
func (b *boundTenants) put(tenant ids.ID, bound bool, changes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known == nil {
		b.known = map[ids.ID]bool{}
	}
	if changes == b.changes {
		b.known[tenant] = bound
	}
}

// changed is called after a change is committed, before its maker is answered.
func (b *boundTenants) changed(tenant ids.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changes++
	delete(b.known, tenant)
}

func (s *Store) hasBound(ctx context.Context, tenant ids.ID) (bool, error) {
	bound, known, changes := s.bound.get(tenant)
	if s.onPostgres() {
		return true, nil // another node may have made one just now
	}
	if known {
		return bound, nil
	}
	err := s.readDB.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM endpoints INDEXED BY endpoints_user WHERE tenant_id=? AND user_id<>0)", tenant).Scan(&bound)
	if err == nil {
		s.bound.put(tenant, bound, changes)
	}
	return bound, err
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
			&d.InstallationID, &t.OS, &registered, &expires, &d.Status)
		t.P256dh, t.Auth = splitKeys(keys)
		t.RegisteredAt, d.ExpiresAt = fromMillis(registered), fromMillis(expires)
		return err
	}
}

func addEndpoint(r *delivery.Resolution, tenant ids.ID) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		e, err := scanEndpoint(rows, tenant)
		r.Endpoints = append(r.Endpoints, e)
		return err
	}
}

// each runs a prepared query and hands over every row.
func (s *Store) each(ctx context.Context, scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := s.query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func scanDevice(r scanner, tenant ids.ID) (devices.Device, error) {
	var (
		d                                                       = devices.Device{Tenant: tenant}
		keys                                                    []byte
		tags                                                    string
		registered, seen, expires, statusAt, created, updatedAt int64
		t                                                       = &d.Target
	)
	err := r.Scan(&d.ID, &d.UserID, &d.User, &d.Epoch, &d.App, &d.Channel, &t.Kind, &t.Address, &t.Environment, &keys, &d.VAPIDKey,
		&d.InstallationID, &t.OS, &d.AppVersion, &d.Locale, &d.TimeZone, &tags, &registered, &seen, &expires,
		&d.Status, &d.Reason, &statusAt, &created, &updatedAt)
	if err != nil {
		return d, err
	}
	t.P256dh, t.Auth = splitKeys(keys)
	t.RegisteredAt, d.LastSeenAt, d.ExpiresAt = fromMillis(registered), fromMillis(seen), fromMillis(expires)
	d.StatusAt, d.CreatedAt, d.UpdatedAt = fromMillis(statusAt), fromMillis(created), fromMillis(updatedAt)
	if tags != "" && tags != "{}" {
		err = json.NewDecoder(strings.NewReader(tags)).Decode(&d.Tags)
	}
	return d, err
}

func scanEndpoint(r scanner, tenant ids.ID) (delivery.BoundEndpoint, error) {
	var (
		e                = delivery.BoundEndpoint{}
		types            string
		created, updated int64
	)
	e.Tenant = tenant
	err := r.Scan(&e.ID, &e.UserID, &e.User, &e.URL, &e.Description, &types, &e.Status, &e.StatusReason, &created, &updated)
	if err != nil {
		return e, err
	}
	e.CreatedAt, e.UpdatedAt = fromMillis(created), fromMillis(updated)
	return e, json.Unmarshal([]byte(types), &e.EventTypes)
}
