package registers

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/webhooks"
)

// cleanup removes what has served its time.
type cleanup struct{ db *db.DB }

// cleanupWindow is how many rows a walk looks at in one query.
const cleanupWindow = 2000

// unheard is true of a device that nothing was heard of since a time.
const unheard = `status<3 AND updated_at<? AND registered_at<? AND last_seen_at<?`

// RetireStale implements delivery.CleanupStore.
func (s *cleanup) RetireStale(ctx context.Context, after time.Duration, now time.Time) (total int, err error) {
	rows, err := s.db.Lists().QueryContext(ctx, "SELECT id,settings FROM tenants WHERE deleted_at=0 ORDER BY id")
	if err != nil {
		return 0, fmt.Errorf("read the tenants: %w", err)
	}
	type tenant struct {
		id    ids.ID
		after time.Duration
	}
	list, err := db.Collect(rows, func(r *sql.Rows) (t tenant, err error) {
		var settings string
		if err := r.Scan(&t.id, &settings); err != nil {
			return t, err
		}
		t.after = after
		if strings.Contains(settings, `"stale_after_ms"`) {
			var own tenants.Settings
			if err := json.Unmarshal([]byte(settings), &own); err != nil {
				return t, fmt.Errorf("read a tenant's settings: %w", err)
			}
			if own.StaleAfter != nil {
				t.after = time.Duration(*own.StaleAfter) * time.Millisecond
			}
		}
		return t, nil
	})
	if err != nil {
		return 0, err
	}
	for _, t := range list {
		if t.after <= 0 {
			continue
		}
		n, err := s.retireStale(ctx, t.id, now.Add(-t.after), now)
		total += n
		if err != nil {
			return total, fmt.Errorf("retire stale devices: %w", err)
		}
	}
	return total, nil
}

// staleDevice is one that nothing was heard of.
type staleDevice struct{ id, user ids.ID }

// retireStale walks the devices of a tenant.
func (s *cleanup) retireStale(ctx context.Context, tenant ids.ID, since, now time.Time) (total int, err error) {
	cut := db.Millis(since)
	for after := ids.ID(0); ctx.Err() == nil; {
		looked := 0
		rows, err := s.db.Lists().QueryContext(ctx, `SELECT id,user_id,CASE WHEN `+unheard+` THEN 1 ELSE 0 END FROM devices INDEXED BY devices_tenant
 WHERE tenant_id=? AND id>? ORDER BY id LIMIT ?`, cut, cut, cut, tenant, after, cleanupWindow)
		if err != nil {
			return total, err
		}
		var found []staleDevice
		if _, err := db.Collect(rows, func(r *sql.Rows) (none struct{}, err error) {
			var (
				d     staleDevice
				stale bool
			)
			err = r.Scan(&d.id, &d.user, &stale)
			if looked++; stale {
				found = append(found, d)
			}
			after = d.id
			return none, err
		}); err != nil {
			return total, err
		}
		if found, err = s.withoutSuccess(ctx, tenant, found, since); err != nil {
			return total, err
		}
		for part := range slices.Chunk(found, db.MaxBatch) {
			n, err := s.retire(ctx, tenant, part, cut, now)
			total += n
			if err != nil {
				return total, err
			}
		}
		if looked < cleanupWindow {
			break
		}
	}
	return total, ctx.Err()
}

// withoutSuccess leaves out those to which something was sent since: an app that
// registers only when its address changes is alive all the same.
func (s *cleanup) withoutSuccess(ctx context.Context, tenant ids.ID, found []staleDevice, since time.Time) (out []staleDevice, err error) {
	for _, d := range found {
		var alive bool
		if err := s.db.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM deliveries d INDEXED BY deliveries_user
 WHERE d.tenant_id=? AND d.user_id=? AND d.user_id IS NOT NULL AND d.notification_id>=? AND d.target_id=? AND d.state=4)`,
			tenant, d.user, ids.Before(since), d.id).Scan(&alive); err != nil {
			return nil, err
		}
		if !alive {
			out = append(out, d)
		}
	}
	return out, nil
}

func (s *cleanup) retire(ctx context.Context, tenant ids.ID, list []staleDevice, cut int64, now time.Time) (total int, err error) {
	err = s.db.Do(context.WithoutCancel(ctx), len(list), func(t *db.Tx) error {
		total = 0
		for _, d := range list {
			n, err := t.Affect(`UPDATE devices SET status=3, reason=?, status_at=?, credential_id=0, version=0, updated_at=?
 WHERE id=? AND tenant_id=? AND `+unheard, devices.Stale, db.Millis(now), db.Millis(now), d.id, tenant, cut, cut, cut)
			if err != nil {
				return err
			}
			if total += int(n); n == 0 {
				continue
			}
			if err := RecordDevice(t, devices.Event{Tenant: tenant, Device: d.id, Kind: devices.EventRetired, Reason: devices.Stale, Actor: devices.EngineActor}); err != nil {
				return err
			}
		}
		return nil
	})
	return total, err
}

// DropExpiredSecrets implements delivery.CleanupStore.
func (s *cleanup) DropExpiredSecrets(ctx context.Context, now time.Time) (total int, err error) {
	type endpoint struct {
		id, tenant ids.ID
		sealed     []byte
	}
	for after := ids.ID(0); ctx.Err() == nil; {
		rows, err := s.db.Lists().QueryContext(ctx, "SELECT id,tenant_id,sealed FROM endpoints WHERE id>? ORDER BY id LIMIT ?", after, cleanupWindow)
		if err != nil {
			return total, fmt.Errorf("read endpoints: %w", err)
		}
		list, err := db.Collect(rows, func(r *sql.Rows) (e endpoint, err error) {
			err = r.Scan(&e.id, &e.tenant, &e.sealed)
			return e, err
		})
		if err != nil {
			return total, fmt.Errorf("read endpoints: %w", err)
		}
		for _, e := range list {
			after = e.id
			n, err := s.dropExpired(ctx, e.tenant, e.id, e.sealed, now)
			total += n
			if err != nil {
				return total, fmt.Errorf("remove expired secrets: %w", err)
			}
		}
		if len(list) < cleanupWindow {
			break
		}
	}
	return total, ctx.Err()
}

// dropExpired writes an endpoint's secrets anew without those that have expired,
// unless they have changed meanwhile.
func (s *cleanup) dropExpired(ctx context.Context, tenant, id ids.ID, sealed []byte, now time.Time) (int, error) {
	all, err := openSecrets(s.db, tenant, id, sealed)
	if err != nil {
		return 0, nil //nolint:nilerr // of a tenant that is being deleted, or nothing that this could mend
	}
	left := slices.DeleteFunc(slices.Clone(all), func(x webhooks.Secret) bool { return !x.Counts(now) })
	if len(left) == len(all) {
		return 0, nil
	}
	anew, err := sealSecrets(s.db, tenant, id, left)
	if err != nil {
		return 0, err
	}
	removed := 0
	err = s.db.Do(context.WithoutCancel(ctx), 1, func(t *db.Tx) error {
		n, err := t.Affect("UPDATE endpoints SET sealed=? WHERE id=? AND tenant_id=? AND sealed=?", anew, id, tenant, sealed)
		removed = int(n) * (len(all) - len(left))
		return err
	})
	return removed, err
}

// dropReplaced goes by the next version that is there, since not all are kept.
const dropReplaced = `UPDATE credential_versions SET sealed=? WHERE (credential_id,version) IN (SELECT v.credential_id,v.version FROM credential_versions v
 JOIN credential_versions n ON n.credential_id=v.credential_id
  AND n.version=(SELECT min(m.version) FROM credential_versions m WHERE m.credential_id=v.credential_id AND m.version>v.version)
 WHERE n.created_at<? AND length(v.sealed)>0 LIMIT ?)`

// DropReplacedCredentials implements delivery.CleanupStore.
func (s *cleanup) DropReplacedCredentials(ctx context.Context, before time.Time, limit int) (int, error) {
	return s.db.DoCounted(context.WithoutCancel(ctx), limit, func(t *db.Tx) (int64, error) {
		return t.Affect(dropReplaced, []byte{}, db.Millis(before), limit)
	})
}

// dropEnded asks twice, because an app may register one anew meanwhile. 4 is
// channels.Activity.
const dropEnded = `DELETE FROM devices WHERE purpose=4 AND expires_at<?1 AND id IN (
 SELECT id FROM devices INDEXED BY devices_activities WHERE purpose=4 AND expires_at<?1 ORDER BY expires_at LIMIT ?2)`

// DropEndedActivities implements delivery.CleanupStore.
func (s *cleanup) DropEndedActivities(ctx context.Context, before time.Time, limit int) (int, error) {
	return s.db.DoCounted(context.WithoutCancel(ctx), limit, func(t *db.Tx) (int64, error) {
		event := devices.Event{Kind: devices.EventDeleted, Reason: devices.Ended, Actor: devices.EngineActor}
		gone, err := RecordDevices(t, event, dropEnded, db.Millis(before), limit)
		return int64(len(gone)), err
	})
}

// DropOldKeys implements delivery.CleanupStore.
func (s *cleanup) DropOldKeys(ctx context.Context, before time.Time, limit int) (int, error) {
	return s.db.DoCounted(context.WithoutCancel(ctx), limit, func(t *db.Tx) (int64, error) {
		return t.Affect(`DELETE FROM api_keys WHERE id IN (SELECT id FROM api_keys
 WHERE revoked_at<>0 AND revoked_at<? OR expires_at<>0 AND expires_at<? LIMIT ?)`, db.Millis(before), db.Millis(before), limit)
	})
}
