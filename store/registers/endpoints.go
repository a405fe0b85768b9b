package registers

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/webhooks"
)

// endpointRegister keeps webhook endpoints.
type endpointRegister struct {
	db    *db.DB
	holds Holds
	bound boundTenants
}

// EndpointColumns are those that ScanEndpoint reads, of endpoints e and users u. Where it
// is reached is not among them: to choose an endpoint nobody has to know.
const EndpointColumns = `e.id,e.user_id,coalesce(u.external_id,''),e.description,e.event_types,e.status,e.reason,e.created_at,e.updated_at`

// sealedSecret is how a signing secret is written before it is sealed.
type sealedSecret struct {
	Key       []byte `json:"k"`
	CreatedAt int64  `json:"c"`
	ExpiresAt int64  `json:"x,omitempty"`
}

func sealSecrets(d *db.DB, tenant, id ids.ID, secrets []webhooks.Secret) ([]byte, error) {
	list := make([]sealedSecret, len(secrets))
	for i, x := range secrets {
		list[i] = sealedSecret{Key: x.Key, CreatedAt: db.Millis(x.CreatedAt), ExpiresAt: db.Millis(x.ExpiresAt)}
	}
	plain, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	return d.Seal(db.SealEndpoint, tenant, id, plain)
}

func openSecrets(d *db.DB, tenant, id ids.ID, sealed []byte) ([]webhooks.Secret, error) {
	plain, err := d.Unseal(db.SealEndpoint, tenant, id, sealed)
	if err != nil {
		return nil, err
	}
	var list []sealedSecret
	if err := json.Unmarshal(plain, &list); err != nil {
		return nil, fmt.Errorf("read an endpoint's secrets: %w", err)
	}
	out := make([]webhooks.Secret, len(list))
	for i, x := range list {
		out[i] = webhooks.Secret{Key: x.Key, CreatedAt: db.FromMillis(x.CreatedAt), ExpiresAt: db.FromMillis(x.ExpiresAt)}
	}
	return out, nil
}

// SigningKeys opens the secrets of an endpoint and picks those that count.
func SigningKeys(d *db.DB, tenant, id ids.ID, sealed []byte, now time.Time) ([][]byte, error) {
	secrets, err := openSecrets(d, tenant, id, sealed)
	return webhooks.Endpoint{Secrets: secrets}.SigningKeys(now), err
}

// CreateEndpoint implements webhooks.Store.
func (s *endpointRegister) CreateEndpoint(ctx context.Context, e webhooks.Endpoint, actor string) error {
	sealed, err := sealSecrets(s.db, e.Tenant, e.ID, e.Secrets)
	if err != nil {
		return err
	}
	types, err := json.Marshal(e.EventTypes)
	if err != nil {
		return err
	}
	defer s.bound.changed(e.Tenant)
	return s.db.Change(ctx, func(t *db.Tx) error {
		user, err := userOrNone(t, e.Tenant, e.User)
		if err != nil {
			return err
		}
		url, err := sealURL(s.db, t, e)
		if err != nil {
			return err
		}
		if err := t.Exec(`INSERT INTO endpoints (id,tenant_id,user_id,url,url_sealed,description,event_types,status,reason,sealed,created_at,updated_at)
 VALUES (?,?,?,?,?,?,?,?,?,?,?,?)`, e.ID, e.Tenant, user, url.Clear, url.Sealed, e.Description, string(types), e.Status, e.StatusReason, sealed,
			db.Millis(e.CreatedAt), db.Millis(e.UpdatedAt)); err != nil {
			return err
		}
		return t.Audit(e.Tenant, actor, "endpoint.create", e.ID.Format(ids.Endpoint))
	})
}

func userOrNone(t *db.Tx, tenant ids.ID, external string) (ids.ID, error) {
	if external == "" {
		return 0, nil
	}
	return User(t, tenant, external)
}

// UpdateEndpoint implements webhooks.Store.
func (s *endpointRegister) UpdateEndpoint(ctx context.Context, e webhooks.Endpoint, was time.Time, by webhooks.Edit) error {
	types, err := json.Marshal(e.EventTypes)
	if err != nil {
		return err
	}
	defer s.bound.changed(e.Tenant)
	return s.db.Change(ctx, func(t *db.Tx) error {
		if err := t.LockTenant(e.Tenant, false); err != nil {
			return err
		}
		user, err := userOrNone(t, e.Tenant, e.User)
		if err != nil {
			return err
		}
		url, err := sealURL(s.db, t, e)
		if err != nil {
			return err
		}
		n, err := t.Affect(`UPDATE endpoints SET user_id=?, url=?, url_sealed=?, description=?, event_types=?, status=?, reason=?, updated_at=?
 WHERE id=? AND tenant_id=? AND updated_at=?`,
			user, url.Clear, url.Sealed, e.Description, string(types), e.Status, e.StatusReason, db.Millis(e.UpdatedAt), e.ID, e.Tenant, db.Millis(was))
		if err != nil {
			return err
		}
		if n == 0 {
			return notUpdated(t, e.Tenant, e.ID)
		}
		h := delivery.Hold{Tenant: e.Tenant, Scope: delivery.HoldEndpoint, Subject: e.ID, Channel: channels.Webhook,
			Reason: delivery.EndpointPaused, Detail: e.StatusReason, Since: e.UpdatedAt}
		if e.Status == webhooks.Active {
			err = s.holds.End(t, delivery.Hold{Tenant: e.Tenant, Scope: delivery.HoldEndpoint, Subject: e.ID}, delivery.Resume)
		} else {
			_, _, err = s.holds.Open(t, h)
		}
		if err != nil {
			return err
		}
		if by.Release {
			if err := releaseAll(t, e.Tenant, channels.Webhook, e.ID, by.Actor); err != nil {
				return err
			}
		}
		return t.Audit(e.Tenant, by.Actor, "endpoint.update", e.ID.Format(ids.Endpoint))
	})
}

// notUpdated says why an endpoint was not as it had been read.
func notUpdated(t *db.Tx, tenant, id ids.ID) error {
	there, err := t.Count("SELECT count(*) FROM endpoints WHERE id=? AND tenant_id=?", id, tenant)
	switch {
	case err != nil:
		return err
	case there == 0:
		return problem.New(problem.NotFound, "There is no such endpoint.")
	}
	return problem.New(problem.Conflict, "The endpoint was changed at the same moment; look at it and try again.")
}

// Endpoint implements webhooks.Store.
func (s *endpointRegister) Endpoint(ctx context.Context, tenant, id ids.ID) (webhooks.Endpoint, error) {
	var (
		sealed []byte
		url    StoredURL
	)
	row := s.db.Reads().QueryRowContext(ctx, `SELECT `+EndpointColumns+`,e.url,e.url_sealed,e.sealed FROM endpoints e LEFT JOIN users u ON u.tenant_id=e.tenant_id AND u.id=e.user_id
 WHERE e.id=? AND e.tenant_id=?`, id, tenant)
	e, err := ScanEndpoint(withMore{row, []any{&url.Clear, &url.Sealed, &sealed}}, tenant)
	if err != nil {
		return e.Endpoint, db.NotFoundOr(err, "endpoint")
	}
	if e.URL, err = url.Open(s.db, tenant, id); err != nil {
		return e.Endpoint, err
	}
	e.Secrets, err = openSecrets(s.db, tenant, id, sealed)
	return e.Endpoint, err
}

// withMore scans further columns behind those that a scan function knows.
type withMore struct {
	db.Scanner
	more []any
}

func (w withMore) Scan(into ...any) error { return w.Scanner.Scan(append(into, w.more...)...) }

// Endpoints implements webhooks.Store.
func (s *endpointRegister) Endpoints(ctx context.Context, tenant, after ids.ID, limit int) ([]webhooks.Endpoint, error) {
	var (
		out  []webhooks.Endpoint
		urls []StoredURL
	)
	err := s.db.Each(ctx, func(rows *sql.Rows) error {
		var url StoredURL
		e, err := ScanEndpoint(withMore{rows, []any{&url.Clear, &url.Sealed}}, tenant)
		out, urls = append(out, e.Endpoint), append(urls, url)
		return err
	}, `SELECT `+EndpointColumns+`,e.url,e.url_sealed FROM endpoints e LEFT JOIN users u ON u.tenant_id=e.tenant_id AND u.id=e.user_id
 WHERE e.tenant_id=? AND e.id>? ORDER BY e.id LIMIT ?`, tenant, after, limit)
	for i := 0; i < len(out) && err == nil; i++ { // behind the rows: opening may read the tenant's keys
		out[i].URL, err = urls[i].Open(s.db, tenant, out[i].ID)
	}
	return out, err
}

// DeleteEndpoint implements webhooks.Store. A job drops what waits for the endpoint;
// what is due before that finds no target.
func (s *endpointRegister) DeleteEndpoint(ctx context.Context, tenant, id ids.ID, actor string) error {
	return s.db.Change(ctx, func(t *db.Tx) error {
		if err := t.LockTenant(tenant, false); err != nil {
			return err
		}
		n, err := t.Affect("DELETE FROM endpoints WHERE id=? AND tenant_id=?", id, tenant)
		if err != nil {
			return err
		}
		if n == 0 {
			return problem.New(problem.NotFound, "There is no such endpoint.")
		}
		if err := s.holds.End(t, delivery.Hold{Tenant: tenant, Scope: delivery.HoldEndpoint, Subject: id}, delivery.Resume); err != nil {
			return err
		}
		if err := t.Exec(ForgetWaits, tenant, id); err != nil {
			return err
		}
		if err := dropForDeleted(t, tenant, id, actor); err != nil {
			return err
		}
		return t.Audit(tenant, actor, "endpoint.delete", id.Format(ids.Endpoint))
	})
}

// restartDeletion has a job that nobody takes a step of begin anew.
const restartDeletion = `UPDATE jobs SET cursor=?, lease_until=?, updated_at=? WHERE claim=0 AND state<3 AND id=
 (SELECT id FROM jobs INDEXED BY jobs_due WHERE tenant_id=? AND kind=? AND claim=0 AND state<3 LIMIT 1)`

// DeletionBegin is the cursor of jobs.DropForDeletedEndpoints at its beginning.
type DeletionBegin struct {
	Since int64 `json:"since,omitempty"` // when the newest endpoint was deleted; 0: when the job was made
}

// dropForDeleted makes the job that drops what waits for a deleted endpoint. It
// looks at all that waits in the tenant, so that one job does it for many endpoints.
func dropForDeleted(t *db.Tx, tenant, endpoint ids.ID, actor string) error {
	now := t.Now()
	begin, err := json.Marshal(DeletionBegin{Since: db.Millis(now)})
	if err != nil {
		return err
	}
	n, err := t.Affect(restartDeletion, string(begin), db.Millis(now), db.Millis(now), tenant, jobs.DropForDeletedEndpoints)
	if err != nil || n > 0 {
		return err
	}
	return CreateJob(t, jobs.Job{ID: t.NextID(), Tenant: tenant, Kind: jobs.DropForDeletedEndpoints, Spec: json.RawMessage(`{}`), Actor: actor,
		CreatedAt: now}, endpoint.Format(ids.Endpoint))
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

// HasBound tells whether any endpoint of a tenant is bound to a user.
func (s *endpointRegister) HasBound(ctx context.Context, tenant ids.ID) (bool, error) {
	bound, known, changes := s.bound.get(tenant)
	if s.db.Shared() {
		return true, nil // another node may have made one just now
	}
	if known {
		return bound, nil
	}
	err := s.db.Reads().QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM endpoints INDEXED BY endpoints_user WHERE tenant_id=? AND user_id<>0)", tenant).Scan(&bound)
	if err == nil {
		s.bound.put(tenant, bound, changes)
	}
	return bound, err
}

// BoundChanged is called after an endpoint was changed otherwise.
func (s *endpointRegister) BoundChanged(tenant ids.ID) { s.bound.changed(tenant) }

// ScanEndpoint reads an endpoint, without its secrets and its URL.
func ScanEndpoint(r db.Scanner, tenant ids.ID) (delivery.BoundEndpoint, error) {
	var (
		e                = delivery.BoundEndpoint{}
		types            string
		created, updated int64
	)
	e.Tenant = tenant
	err := r.Scan(&e.ID, &e.UserID, &e.User, &e.Description, &types, &e.Status, &e.StatusReason, &created, &updated)
	if err != nil {
		return e, err
	}
	e.CreatedAt, e.UpdatedAt = db.FromMillis(created), db.FromMillis(updated)
	return e, json.Unmarshal([]byte(types), &e.EventTypes)
}
