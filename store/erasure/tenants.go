package erasure

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
	"github.com/carillonhq/carillon/tenants"
)

// tenantTables lists every table that has rows of tenants with the columns of a
// key, in the order in which a tenant's rows go: first what may still be sent.
var tenantTables = [...]struct{ name, key string }{
	{"fanouts", "tenant_id,notification_id"},
	{"deliveries", "tenant_id,notification_id,target_id"},
	{"newest", "tenant_id,target_id,order_key"},
	{"payloads", "notification_id"},
	{"attempts", "tenant_id,notification_id,target_id,number"},
	{"skips", "tenant_id,notification_id,n"},
	{"notifications", "tenant_id,id"},
	{"holds", "id"},
	{"waits", "tenant_id,subject_id,origin"},
	{"devices", "id"},
	{"device_events", "id"},
	{"endpoints", "id"},
	{"users", "tenant_id,external_id"},
	{"idempotency", "tenant_id,principal_id,route,key"},
	{"credentials", "id"}, // with their versions
	{"apps", "tenant_id,name"},
	{"user_keys", "id"},
	{"api_keys", "id"},
	{"jobs", "id"},
	{"erasures", "id"},
	{"audit", "id"},
}

// deletionSpec is the spec of the job.
type deletionSpec struct {
	Tenant string `json:"tenant"` // ten_...
	Name   string `json:"name"`
}

// deletionCursor is where a deletion goes on.
type deletionCursor struct {
	Table  int  `json:"table"`
	Second bool `json:"second,omitempty"` // the second time, for what was on its way
	Tries  int  `json:"tries,omitempty"`
}

// DeleteTenant implements tenants.Store.
func (s *Eraser) DeleteTenant(ctx context.Context, id ids.ID, c tenants.Change) (tenants.Tenant, error) {
	t, err := s.registers.Tenant(ctx, id)
	if err != nil || t.Deleting() {
		return t, err
	}
	if err := s.log.append(logged{At: s.db.Now().UTC(), Tenant: id.Format(ids.Tenant), Deleted: true}); err != nil {
		return t, err
	}
	return s.deleteTenant(ctx, id, c)
}

// deleteTenant puts a tenant out of use. Its sealing keys are overwritten: what
// they sealed cannot be read from then on, whatever becomes of its rows.
func (s *Eraser) deleteTenant(ctx context.Context, id ids.ID, c tenants.Change) (tenants.Tenant, error) {
	now := s.db.Now().UTC()
	job := s.db.IDs().Next()
	err := s.db.Change(ctx, func(t *db.Tx) error {
		n, err := t.Affect("UPDATE tenants SET deleted_at=?, updated_at=?, keyset=? WHERE id=? AND deleted_at=0", db.Millis(now), db.Millis(now), []byte{}, id)
		if err != nil || n == 0 {
			return err // somebody else did it at the same moment
		}
		var name string
		if _, err := t.One("SELECT name FROM tenants WHERE id=?", []any{id}, &name); err != nil {
			return err
		}
		if err := t.Exec("UPDATE api_keys SET revoked_at=? WHERE tenant_id=? AND revoked_at=0", db.Millis(now), id); err != nil {
			return err
		}
		if err := t.Exec("DELETE FROM user_keys WHERE tenant_id=?", id); err != nil {
			return err
		}
		spec, err := json.Marshal(deletionSpec{Tenant: id.Format(ids.Tenant), Name: name})
		if err != nil {
			return err
		}
		if err := registers.CreateJob(t, jobs.Job{ID: job, Kind: jobs.DeleteTenant, Spec: spec, Actor: c.Actor, CreatedAt: now}, name); err != nil {
			return err
		}
		return t.Audit(0, c.Actor, c.Action, name)
	})
	if err != nil {
		return tenants.Tenant{}, fmt.Errorf("delete a tenant: %w", err)
	}
	return s.registers.Tenant(ctx, id)
}

// DeleteTenantStep implements delivery.ErasureStore.
func (s *Eraser) DeleteTenantStep(ctx context.Context, j jobs.Job) (jobs.Progress, error) {
	var (
		spec deletionSpec
		c    deletionCursor
	)
	if err := json.Unmarshal(j.Spec, &spec); err != nil {
		return jobs.Progress{}, jobs.Permanent(fmt.Errorf("read the spec: %w", err))
	}
	tenant, err := ids.Parse(ids.Tenant, spec.Tenant)
	if err != nil {
		return jobs.Progress{}, jobs.Permanent(fmt.Errorf("read the spec: %w", err))
	}
	if j.Cursor != nil {
		if err := json.Unmarshal(j.Cursor, &c); err != nil {
			return jobs.Progress{}, jobs.Permanent(fmt.Errorf("read the cursor: %w", err))
		}
	}
	s.db.ForgetKeys(tenant)
	flushed := true
	if c == (deletionCursor{}) || c.Table == len(tenantTables) {
		// The old keys are gone from the file at once, if no reader is in the way, and
		// everything in the end.
		if flushed, err = s.db.Flush(ctx); err != nil {
			return jobs.Progress{}, err
		}
	}
	return s.registers.Step(ctx, j, db.MaxBatch, func(t *db.Tx) (p jobs.Progress, err error) {
		next := c
		switch {
		case c.Table < len(tenantTables):
			if p.Done, err = removeOfTenant(t, tenant, &next); err != nil {
				return p, err
			}
			if next.Table == len(tenantTables) && !next.Second {
				next = deletionCursor{Second: true}
				p.NotBefore = j.CreatedAt.Add(delivery.EraseGrace)
			}
		case !flushed && c.Tries < fileTries:
			next.Tries++
			p.NotBefore = s.db.Now().Add(fileRetry)
		default: // the name is free again
			p.End = true
			return p, t.Exec("DELETE FROM tenants WHERE id=?", tenant)
		}
		p.Cursor, err = json.Marshal(next)
		return p, err
	})
}

// removeOfTenant removes up to db.MaxBatch rows, from the table on that the cursor
// names.
func removeOfTenant(t *db.Tx, tenant ids.ID, c *deletionCursor) (removed int, err error) {
	for c.Table < len(tenantTables) && removed < db.MaxBatch {
		table := tenantTables[c.Table]
		if table.name == "credentials" {
			if err := t.Exec("DELETE FROM credential_versions WHERE credential_id IN (SELECT id FROM credentials WHERE tenant_id=?)", tenant); err != nil {
				return removed, err
			}
		}
		left := db.MaxBatch - removed
		n, err := t.Affect("DELETE FROM "+table.name+" WHERE ("+table.key+") IN (SELECT "+table.key+" FROM "+table.name+" WHERE tenant_id=? LIMIT ?)", tenant, left)
		if err != nil {
			return removed, fmt.Errorf("remove %s of a tenant: %w", table.name, err)
		}
		if removed += int(n); n < int64(left) {
			c.Table++
		}
	}
	return removed, nil
}
