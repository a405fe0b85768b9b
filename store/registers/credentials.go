package registers

import (
	"context"
	"encoding/json"
	"time"

	"gorm.io/gorm"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

// credentialRegister keeps apps and their credentials.
type credentialRegister struct {
	db    *db.DB
	holds Holds
	jobs  *jobRegister // whose steps are taken here
}

// credentialModel is a credential with its newest version.
type credentialModel struct {
	ID          ids.ID
	TenantID    ids.ID
	App         string
	Channel     channels.Kind
	Qualifier   string
	Version     int
	Status      tenants.CredentialStatus
	Reason      string
	CreatedAt   int64
	UpdatedAt   int64
	Settings    string
	ExpiresAt   int64
	ProvenAt    int64
	CheckedAt   int64
	Checked     tenants.VerificationState
	CheckCode   string
	CheckDetail string
}

const credentialColumns = `c.id,c.tenant_id,c.app,c.channel,c.qualifier,c.version,c.status,c.reason,c.created_at,c.updated_at,v.settings,v.expires_at,v.proven_at,
 v.checked_at,v.checked,v.check_code,v.check_detail`

func (m credentialModel) credential() (tenants.Credential, error) {
	return tenants.Credential{
		Tenant: m.TenantID, ID: m.ID, App: m.App, Channel: m.Channel, Qualifier: m.Qualifier, Version: m.Version,
		Settings: json.RawMessage(m.Settings), Status: m.Status, Reason: m.Reason, CreatedAt: db.FromMillis(m.CreatedAt),
		UpdatedAt: db.FromMillis(m.UpdatedAt), ExpiresAt: db.FromMillis(m.ExpiresAt), ProvenAt: db.FromMillis(m.ProvenAt),
		Verification: tenants.Verification{State: m.Checked, Code: m.CheckCode, Detail: m.CheckDetail, At: db.FromMillis(m.CheckedAt)},
	}, nil
}

func withVersion(q *gorm.DB) *gorm.DB {
	return q.Table("credentials c").Select(credentialColumns).
		Joins("JOIN credential_versions v ON v.credential_id=c.id AND v.version=c.version")
}

// PutCredential implements tenants.CredentialStore.
func (s *credentialRegister) PutCredential(ctx context.Context, c tenants.Credential, secret channels.Credential, o tenants.PutOptions, ch tenants.Change) (tenants.Credential, error) {
	now := s.db.Now()
	id := s.db.IDs().Next() // for a first version
	if known, err := s.credentialID(ctx, c.Tenant, c.App, c.Channel, secret.Qualifier); err != nil {
		return c, err
	} else if known != 0 {
		id = known
	}
	sealed, err := s.db.Seal(db.SealCredential, c.Tenant, id, secret.Secret)
	if err != nil {
		return c, err
	}
	err = s.db.Change(ctx, func(t *db.Tx) error {
		if err := t.LockTenant(c.Tenant, false); err != nil {
			return err
		}
		if err := checkPairs(t, c, secret.Qualifier, o); err != nil {
			return err
		}
		if err := putApp(t, tenants.App{Tenant: c.Tenant, Name: c.App, CreatedAt: now}, ch); err != nil {
			return err
		}
		if err := t.Exec(`INSERT INTO credentials (id,tenant_id,app,channel,qualifier,version,status,reason,created_at,updated_at) VALUES (?,?,?,?,?,0,'active','',?,?)
 ON CONFLICT (tenant_id,app,channel,qualifier) DO NOTHING`, id, c.Tenant, c.App, c.Channel, secret.Qualifier, db.Millis(now), db.Millis(now)); err != nil {
			return err
		}
		// Two first versions at the same moment: the second was sealed for an id that is not taken.
		n, err := nextVersion(t, c.Tenant, id, secret.Qualifier, now)
		if err != nil {
			return err
		}
		if n == 0 {
			return problem.New(problem.Conflict, "The credential was put by someone else at the same moment; look at it and try again.")
		}
		v := o.Verification
		if err := t.Exec(`INSERT INTO credential_versions (credential_id,version,settings,sealed,expires_at,created_at,proven_at,
 actor,auto_rollback,checked_at,checked,check_code,check_detail) SELECT id,version,?,?,?,?,0,?,?,?,?,?,? FROM credentials WHERE id=?`,
			string(secret.Settings), sealed, db.Millis(secret.ExpiresAt), db.Millis(now),
			ch.Actor, db.Bit(o.AutoRollback), db.Millis(v.At), v.State, v.Code, v.Detail, id); err != nil {
			return err
		}
		if err := trim(t, id); err != nil {
			return err
		}
		if o.Compromised {
			if err := destroyBefore(t, id); err != nil {
				return err
			}
		}
		if err := s.endReplaced(t, c.Tenant, id, c.App, c.Channel, ch.Actor); err != nil {
			return err
		}
		if err := s.tryPairs(t, c); err != nil {
			return err
		}
		return t.Audit(c.Tenant, ch.Actor, ch.Action, id.Format(ids.Credential))
	})
	if err != nil {
		return c, err
	}
	return s.Credential(ctx, c.Tenant, id)
}

func (s *credentialRegister) credentialID(ctx context.Context, tenant ids.ID, app string, k channels.Kind, qualifier string) (ids.ID, error) {
	var id ids.ID
	err := s.db.Reads().QueryRowContext(ctx, "SELECT id FROM credentials WHERE tenant_id=? AND app=? AND channel=? AND qualifier=?",
		tenant, app, k, qualifier).Scan(&id)
	if db.IsNoRows(err) {
		return 0, nil
	}
	return id, err
}

// endReplaced ends what the version before, or its absence, caused: the new one gives
// its own verdicts. What a person has paused stays so.
func (s *credentialRegister) endReplaced(t *db.Tx, tenant, id ids.ID, app string, k channels.Kind, actor string) error {
	if err := releaseWaiting(t, tenant, k, id, actor); err != nil {
		return err
	}
	return s.end(t, delivery.Hold{Tenant: tenant, Scope: delivery.HoldCredential, Subject: id, Reason: delivery.CredentialDenied}, app, k)
}

// endHolds ends whatever holds because of a credential.
func (s *credentialRegister) endHolds(t *db.Tx, tenant, id ids.ID, app string, k channels.Kind) error {
	return s.end(t, delivery.Hold{Tenant: tenant, Scope: delivery.HoldCredential, Subject: id}, app, k)
}

func (s *credentialRegister) end(t *db.Tx, own delivery.Hold, app string, k channels.Kind) error {
	tenant, id := own.Tenant, own.Subject
	for _, h := range []struct {
		match  delivery.Hold
		ending delivery.Ending
	}{
		{own, delivery.Resume},
		{delivery.Hold{Scope: delivery.HoldDoubt, Subject: id}, delivery.Reverse},
		{delivery.Hold{Scope: delivery.HoldRefusal, Subject: id}, delivery.Resume},
		{delivery.Hold{Scope: delivery.HoldMissing, App: app, Channel: k}, delivery.Resume},
	} {
		h.match.Tenant = tenant
		if err := s.holds.End(t, h.match, h.ending); err != nil {
			return err
		}
	}
	return nil
}

// Credential implements tenants.CredentialStore.
func (s *credentialRegister) Credential(ctx context.Context, tenant, id ids.ID) (tenants.Credential, error) {
	var list []credentialModel
	if err := withVersion(s.db.Gorm(ctx)).Where("c.id=? AND c.tenant_id=?", id, tenant).Find(&list).Error; err != nil {
		return tenants.Credential{}, err
	}
	if len(list) == 0 {
		return tenants.Credential{}, problem.New(problem.NotFound, "There is no such credential.")
	}
	return list[0].credential()
}

// Credentials implements tenants.CredentialStore.
func (s *credentialRegister) Credentials(ctx context.Context, tenant ids.ID) ([]tenants.Credential, error) {
	var list []credentialModel
	if err := withVersion(s.db.Gorm(ctx)).Where("c.tenant_id=?", tenant).Order("c.id").Limit(1000).Find(&list).Error; err != nil {
		return nil, err
	}
	return convert(list, credentialModel.credential)
}

// OpenCredential implements tenants.CredentialStore.
func (s *credentialRegister) OpenCredential(ctx context.Context, tenant, id ids.ID) (channels.Credential, error) {
	var (
		c        = channels.Credential{ID: int64(id)}
		settings string
		sealed   []byte
		expires  int64
	)
	err := s.db.Reads().QueryRowContext(ctx, `SELECT c.version,c.qualifier,v.settings,v.sealed,v.expires_at FROM credentials c
 JOIN credential_versions v ON v.credential_id=c.id AND v.version=c.version WHERE c.id=? AND c.tenant_id=?`, id, tenant).
		Scan(&c.Version, &c.Qualifier, &settings, &sealed, &expires)
	if err != nil {
		return c, db.NotFoundOr(err, "credential")
	}
	c.Settings, c.ExpiresAt = json.RawMessage(settings), db.FromMillis(expires)
	c.Secret, err = s.db.Unseal(db.SealCredential, tenant, id, sealed)
	return c, err
}

// DeleteCredential implements tenants.CredentialStore.
func (s *credentialRegister) DeleteCredential(ctx context.Context, tenant, id ids.ID, c tenants.Change) error {
	return s.db.Change(ctx, func(t *db.Tx) error {
		if err := t.LockTenant(tenant, false); err != nil {
			return err
		}
		there, err := t.Count("SELECT count(*) FROM credentials WHERE id=? AND tenant_id=?", id, tenant)
		if err != nil {
			return err
		}
		if there == 0 {
			return problem.New(problem.NotFound, "There is no such credential.")
		}
		if err := removeCredential(t, tenant, id); err != nil {
			return err
		}
		if err := s.endHolds(t, tenant, id, "", 0); err != nil {
			return err
		}
		return t.Audit(tenant, c.Actor, c.Action, id.Format(ids.Credential))
	})
}

// removeCredential removes a credential with its versions.
func removeCredential(t *db.Tx, tenant, id ids.ID) error {
	if err := t.Exec("DELETE FROM credentials WHERE id=?", id); err != nil {
		return err
	}
	if err := t.Exec(ForgetWaits, tenant, id); err != nil {
		return err
	}
	return t.Exec("DELETE FROM credential_versions WHERE credential_id=?", id)
}

// PauseCredential implements tenants.CredentialStore.
func (s *credentialRegister) PauseCredential(ctx context.Context, tenant, id ids.ID, reason string, c tenants.Change) (tenants.Credential, error) {
	return s.switchCredential(ctx, tenant, id, func(t *db.Tx, now time.Time) error {
		if err := PauseCredential(t, tenant, id, reason, c.Actor, now); err != nil {
			return err
		}
		hold, opened, err := s.holds.Open(t, delivery.Hold{Tenant: tenant, Scope: delivery.HoldCredential, Subject: id,
			Reason: delivery.CredentialPaused, Detail: reason, Since: now})
		if err != nil || opened {
			return err
		}
		// The provider's refusal may have opened it: from now on only a person ends it.
		return t.Exec("UPDATE holds SET reason=?, detail=? WHERE id=?", delivery.CredentialPaused, reason, hold)
	})
}

// ResumeCredential implements tenants.CredentialStore.
func (s *credentialRegister) ResumeCredential(ctx context.Context, tenant, id ids.ID, c tenants.Change) (tenants.Credential, error) {
	return s.switchCredential(ctx, tenant, id, func(t *db.Tx, now time.Time) error {
		if err := t.Exec(`UPDATE credentials SET status=?, reason='', updated_at=? WHERE id=? AND tenant_id=?`,
			tenants.CredentialActive, db.Millis(now), id, tenant); err != nil {
			return err
		}
		if err := releaseAll(t, tenant, 0, id, c.Actor); err != nil {
			return err
		}
		if err := s.endHolds(t, tenant, id, "", 0); err != nil {
			return err
		}
		return t.Audit(tenant, c.Actor, c.Action, id.Format(ids.Credential))
	})
}

func (s *credentialRegister) switchCredential(ctx context.Context, tenant, id ids.ID, run func(*db.Tx, time.Time) error) (tenants.Credential, error) {
	err := s.db.Change(ctx, func(t *db.Tx) error {
		if err := t.LockTenant(tenant, false); err != nil {
			return err
		}
		there, err := t.Count("SELECT count(*) FROM credentials WHERE id=? AND tenant_id=?", id, tenant)
		if err != nil {
			return err
		}
		if there == 0 {
			return problem.New(problem.NotFound, "There is no such credential.")
		}
		return run(t, s.db.Now())
	})
	if err != nil {
		return tenants.Credential{}, err
	}
	return s.Credential(ctx, tenant, id)
}

// RecoverCredential implements delivery.ProbeStore. What its verdicts said of
// devices is another question, and stays in doubt until a send answers it.
func (s *credentialRegister) RecoverCredential(ctx context.Context, tenant, id ids.ID) error {
	_, err := s.switchCredential(ctx, tenant, id, func(t *db.Tx, now time.Time) error {
		denied, err := t.Count("SELECT count(*) FROM holds WHERE tenant_id=? AND scope=? AND subject_id=? AND qualifier='' AND reason=? AND ending=0",
			tenant, delivery.HoldCredential, id, delivery.CredentialDenied)
		if err != nil || denied == 0 {
			return err // somebody has decided while the provider was asked
		}
		if err := t.Exec(`UPDATE credentials SET status=?, reason='', updated_at=? WHERE id=? AND tenant_id=?`,
			tenants.CredentialActive, db.Millis(now), id, tenant); err != nil {
			return err
		}
		if err := s.holds.End(t, delivery.Hold{Tenant: tenant, Scope: delivery.HoldCredential, Subject: id, Reason: delivery.CredentialDenied}, delivery.Resume); err != nil {
			return err
		}
		if err := releaseWaiting(t, tenant, 0, id, "engine"); err != nil {
			return err
		}
		return t.Audit(tenant, "engine", "credential.resume", id.Format(ids.Credential))
	})
	return err
}

// NamedCredential is a credential with the name of its tenant.
type NamedCredential struct {
	tenants.Credential
	TenantName string
	HeldAt     int // push services that refuse it
}

// Label is the credential's id as people see it.
func (n NamedCredential) Label() string { return n.ID.Format(ids.Credential) }

// AllCredentials lists those of every tenant, for metrics.
func (s *credentialRegister) AllCredentials(ctx context.Context) ([]NamedCredential, error) {
	var list []struct {
		Credential credentialModel `gorm:"embedded"` // gorm passes over unexported names
		TenantName string
		HeldAt     int
	}
	q := withVersion(s.db.Gorm(ctx)).Select(credentialColumns + `,t.name AS tenant_name,
 (SELECT count(*) FROM holds h WHERE h.tenant_id=c.tenant_id AND h.scope=1 AND h.subject_id=c.id AND h.qualifier<>'' AND h.ending=0) AS held_at`).Joins("JOIN tenants t ON t.id=c.tenant_id")
	if err := q.Order("c.id").Limit(10_000).Find(&list).Error; err != nil {
		return nil, err
	}
	out := make([]NamedCredential, len(list))
	for i, m := range list {
		c, err := m.Credential.credential()
		if err != nil {
			return nil, err
		}
		out[i] = NamedCredential{Credential: c, TenantName: m.TenantName, HeldAt: m.HeldAt}
	}
	return out, nil
}

// PauseCredential pauses a credential in a transaction that says why.
func PauseCredential(t *db.Tx, tenant, id ids.ID, reason, actor string, now time.Time) error {
	if err := t.Exec(`UPDATE credentials SET status=?, reason=?, updated_at=? WHERE id=? AND tenant_id=?`,
		tenants.CredentialPaused, reason, db.Millis(now), id, tenant); err != nil {
		return err
	}
	return t.Audit(tenant, actor, "credential.pause", id.Format(ids.Credential))
}
