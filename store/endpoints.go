package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/webhooks"
)

var _ webhooks.Store = (*Store)(nil)

// sealedSecret is how a signing secret is written before it is sealed.
type sealedSecret struct {
	Key       []byte `json:"k"`
	CreatedAt int64  `json:"c"`
	ExpiresAt int64  `json:"x,omitempty"`
}

func (s *Store) sealSecrets(tenant, id ids.ID, secrets []webhooks.Secret) ([]byte, error) {
	list := make([]sealedSecret, len(secrets))
	for i, x := range secrets {
		list[i] = sealedSecret{Key: x.Key, CreatedAt: millis(x.CreatedAt), ExpiresAt: millis(x.ExpiresAt)}
	}
	plain, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	return s.seal(sealEndpoint, tenant, id, plain)
}

func (s *Store) openSecrets(tenant, id ids.ID, sealed []byte) ([]webhooks.Secret, error) {
	plain, err := s.unseal(sealEndpoint, tenant, id, sealed)
	if err != nil {
		return nil, err
	}
	var list []sealedSecret
	if err := json.Unmarshal(plain, &list); err != nil {
		return nil, fmt.Errorf("read an endpoint's secrets: %w", err)
	}
	out := make([]webhooks.Secret, len(list))
	for i, x := range list {
		out[i] = webhooks.Secret{Key: x.Key, CreatedAt: fromMillis(x.CreatedAt), ExpiresAt: fromMillis(x.ExpiresAt)}
	}
	return out, nil
}

// signingKeys opens the secrets of an endpoint and picks those that count.
func (s *Store) signingKeys(tenant, id ids.ID, sealed []byte, now time.Time) ([][]byte, error) {
	secrets, err := s.openSecrets(tenant, id, sealed)
	return webhooks.Endpoint{Secrets: secrets}.SigningKeys(now), err
}

// CreateEndpoint implements webhooks.Store.
func (s *Store) CreateEndpoint(ctx context.Context, e webhooks.Endpoint, actor string) error {
	sealed, err := s.sealSecrets(e.Tenant, e.ID, e.Secrets)
	if err != nil {
		return err
	}
	types, err := json.Marshal(e.EventTypes)
	if err != nil {
		return err
	}
	defer s.bound.changed(e.Tenant)
	return s.change(ctx, func(t *tx) error {
		user, err := t.userOrNone(e.Tenant, e.User)
		if err != nil {
			return err
		}
		if err := t.exec(`INSERT INTO endpoints (id,tenant_id,user_id,url,description,event_types,status,reason,sealed,created_at,updated_at)
 VALUES (?,?,?,?,?,?,?,?,?,?,?)`, e.ID, e.Tenant, user, e.URL, e.Description, string(types), e.Status, e.StatusReason, sealed,
			millis(e.CreatedAt), millis(e.UpdatedAt)); err != nil {
			return err
		}
		return t.audit(e.Tenant, actor, "endpoint.create", e.ID.Format(ids.Endpoint))
	})
}

func (t *tx) userOrNone(tenant ids.ID, external string) (ids.ID, error) {
	if external == "" {
		return 0, nil
	}
	return t.user(tenant, external)
}

// UpdateEndpoint implements webhooks.Store.
func (s *Store) UpdateEndpoint(ctx context.Context, e webhooks.Endpoint, was time.Time, actor string) error {
	types, err := json.Marshal(e.EventTypes)
	if err != nil {
		return err
	}
	defer s.bound.changed(e.Tenant)
	return s.change(ctx, func(t *tx) error {
		if err := t.lockTenant(e.Tenant, false); err != nil {
			return err
		}
		user, err := t.userOrNone(e.Tenant, e.User)
		if err != nil {
			return err
		}
		n, err := t.affect(`UPDATE endpoints SET user_id=?, url=?, description=?, event_types=?, status=?, reason=?, updated_at=?
 WHERE id=? AND tenant_id=? AND updated_at=?`,
			user, e.URL, e.Description, string(types), e.Status, e.StatusReason, millis(e.UpdatedAt), e.ID, e.Tenant, millis(was))
		if err != nil {
			return err
		}
		if n == 0 {
			return t.notUpdated(e.Tenant, e.ID)
		}
		h := delivery.Hold{Tenant: e.Tenant, Scope: delivery.HoldEndpoint, Subject: e.ID, Channel: channels.Webhook,
			Reason: delivery.EndpointPaused, Detail: e.StatusReason, Since: e.UpdatedAt}
		if e.Status == webhooks.Active {
			err = t.endHolds(`tenant_id=? AND scope=? AND subject_id=?`, delivery.Resume, e.Tenant, h.Scope, e.ID)
		} else {
			_, _, err = t.openHold(h)
		}
		if err != nil {
			return err
		}
		return t.audit(e.Tenant, actor, "endpoint.update", e.ID.Format(ids.Endpoint))
	})
}

// notUpdated says why an endpoint was not as it had been read.
func (t *tx) notUpdated(tenant, id ids.ID) error {
	there, err := t.count("SELECT count(*) FROM endpoints WHERE id=? AND tenant_id=?", id, tenant)
	switch {
	case err != nil:
		return err
	case there == 0:
		return problem.New(problem.NotFound, "There is no such endpoint.")
	}
	return problem.New(problem.Conflict, "The endpoint was changed at the same moment; look at it and try again.")
}

// endHolds starts the end of all holds that match and stand.
func (t *tx) endHolds(where string, e delivery.Ending, args ...any) error {
	return t.exec(`UPDATE holds SET ending=? WHERE ending=0 AND `+where, append([]any{e}, args...)...)
}

// Endpoint implements webhooks.Store.
func (s *Store) Endpoint(ctx context.Context, tenant, id ids.ID) (webhooks.Endpoint, error) {
	var sealed []byte
	row := s.readDB.QueryRowContext(ctx, `SELECT `+endpointColumns+`, e.sealed FROM endpoints e LEFT JOIN users u ON u.tenant_id=e.tenant_id AND u.id=e.user_id
 WHERE e.id=? AND e.tenant_id=?`, id, tenant)
	e, err := scanEndpoint(withMore{row, []any{&sealed}}, tenant)
	if err != nil {
		return e.Endpoint, notFoundOr(err, "endpoint")
	}
	e.Secrets, err = s.openSecrets(tenant, id, sealed)
	return e.Endpoint, err
}

// withMore scans further columns behind those that a scan function knows.
type withMore struct {
	scanner
	more []any
}

func (w withMore) Scan(into ...any) error { return w.scanner.Scan(append(into, w.more...)...) }

// Endpoints implements webhooks.Store.
func (s *Store) Endpoints(ctx context.Context, tenant, after ids.ID, limit int) ([]webhooks.Endpoint, error) {
	var out []webhooks.Endpoint
	err := s.each(ctx, func(rows *sql.Rows) error {
		e, err := scanEndpoint(rows, tenant)
		out = append(out, e.Endpoint)
		return err
	}, `SELECT `+endpointColumns+` FROM endpoints e LEFT JOIN users u ON u.tenant_id=e.tenant_id AND u.id=e.user_id
 WHERE e.tenant_id=? AND e.id>? ORDER BY e.id LIMIT ?`, tenant, after, limit)
	return out, err
}

// DeleteEndpoint implements webhooks.Store. Its unfinished deliveries find no
// target when their turn comes and are dropped as gone.
func (s *Store) DeleteEndpoint(ctx context.Context, tenant, id ids.ID, actor string) error {
	return s.change(ctx, func(t *tx) error {
		if err := t.lockTenant(tenant, false); err != nil {
			return err
		}
		n, err := t.affect("DELETE FROM endpoints WHERE id=? AND tenant_id=?", id, tenant)
		if err != nil {
			return err
		}
		if n == 0 {
			return problem.New(problem.NotFound, "There is no such endpoint.")
		}
		if err := t.endHolds(`tenant_id=? AND scope=? AND subject_id=?`, delivery.Resume, tenant, delivery.HoldEndpoint, id); err != nil {
			return err
		}
		return t.audit(tenant, actor, "endpoint.delete", id.Format(ids.Endpoint))
	})
}
