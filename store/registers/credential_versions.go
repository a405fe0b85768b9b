package registers

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
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

// nextVersion begins a version of a credential. A credential that a person has paused
// stays so; one that its provider refused is tried again.
func nextVersion(t *db.Tx, tenant, id ids.ID, qualifier string, now time.Time) (int64, error) {
	const paused = `EXISTS (SELECT 1 FROM holds h WHERE h.tenant_id=credentials.tenant_id AND h.scope=? AND h.subject_id=credentials.id AND h.qualifier='' AND h.reason=? AND h.ending=0)`
	return t.Affect(`UPDATE credentials SET version=version+1, status=CASE WHEN `+paused+` THEN status ELSE 'active' END,
 reason=CASE WHEN `+paused+` THEN reason ELSE '' END, updated_at=? WHERE id=? AND tenant_id=? AND qualifier=?`,
		delivery.HoldCredential, delivery.CredentialPaused, delivery.HoldCredential, delivery.CredentialPaused, db.Millis(now), id, tenant, qualifier)
}

// destroyBefore destroys the secrets of the versions before the newest.
func destroyBefore(t *db.Tx, id ids.ID) error {
	return t.Exec(`UPDATE credential_versions SET sealed=? WHERE credential_id=? AND version<(SELECT c.version FROM credentials c WHERE c.id=?)`, []byte{}, id, id)
}

// CredentialVersions implements tenants.CredentialStore.
func (s *credentialRegister) CredentialVersions(ctx context.Context, tenant, id ids.ID) ([]tenants.CredentialVersion, error) {
	c, err := s.Credential(ctx, tenant, id)
	if err != nil {
		return nil, err
	}
	rows, err := s.db.Reads().QueryContext(ctx, `SELECT version,settings,actor,auto_rollback,expires_at,created_at,proven_at,checked_at,checked,check_code,check_detail,length(sealed)
 FROM credential_versions WHERE credential_id=? ORDER BY version DESC LIMIT ?`, id, tenants.MaxVersions+1)
	if err != nil {
		return nil, fmt.Errorf("read the versions of a credential: %w", err)
	}
	return db.Collect(rows, func(r *sql.Rows) (v tenants.CredentialVersion, err error) {
		var (
			settings                          string
			expires, created, proven, checked int64
			size                              int
		)
		err = r.Scan(&v.Version, &settings, &v.Actor, &v.AutoRollback, &expires, &created, &proven, &checked,
			&v.Verification.State, &v.Verification.Code, &v.Verification.Detail, &size)
		v.Settings, v.Kept, v.Current = json.RawMessage(settings), size > 0, v.Version == c.Version
		v.ExpiresAt, v.CreatedAt, v.ProvenAt, v.Verification.At = db.FromMillis(expires), db.FromMillis(created), db.FromMillis(proven), db.FromMillis(checked)
		return v, err
	})
}

// OpenVersion implements tenants.CredentialStore.
func (s *credentialRegister) OpenVersion(ctx context.Context, tenant, id ids.ID, version int) (channels.Credential, error) {
	c := channels.Credential{ID: int64(id), Version: version}
	var (
		settings string
		sealed   []byte
		expires  int64
	)
	err := s.db.Reads().QueryRowContext(ctx, `SELECT c.qualifier,v.settings,v.sealed,v.expires_at FROM credentials c
 JOIN credential_versions v ON v.credential_id=c.id AND v.version=? WHERE c.id=? AND c.tenant_id=?`, version, id, tenant).
		Scan(&c.Qualifier, &settings, &sealed, &expires)
	if err != nil {
		return c, db.NotFoundOr(err, "version of the credential")
	}
	if len(sealed) == 0 {
		return c, destroyed(version)
	}
	c.Settings, c.ExpiresAt = json.RawMessage(settings), db.FromMillis(expires)
	c.Secret, err = s.db.Unseal(db.SealCredential, tenant, id, sealed)
	return c, err
}

func destroyed(version int) error {
	return problem.New(problem.Conflict, "The secret of version %d is destroyed: it was replaced longer ago than retention.credentials keeps it, or a later version was put as compromised. Put the credential itself.", version)
}

// RollbackCredential implements tenants.CredentialStore.
func (s *credentialRegister) RollbackCredential(ctx context.Context, tenant, id ids.ID, to int, v tenants.Verification, c tenants.Change) (tenants.Credential, error) {
	return s.switchCredential(ctx, tenant, id, func(t *db.Tx, now time.Time) error {
		if err := s.goBack(t, tenant, id, to, v, c.Actor, now); err != nil {
			return err
		}
		return t.Audit(tenant, c.Actor, c.Action, id.Format(ids.Credential))
	})
}

// goBack makes a version with the content of an earlier one.
func (s *credentialRegister) goBack(t *db.Tx, tenant, id ids.ID, to int, v tenants.Verification, actor string, now time.Time) error {
	var (
		app, qualifier string
		channel        channels.Kind
	)
	if _, err := t.One("SELECT app,channel,qualifier FROM credentials WHERE id=? AND tenant_id=?", []any{id, tenant}, &app, &channel, &qualifier); err != nil {
		return err
	}
	if _, err := nextVersion(t, tenant, id, qualifier, now); err != nil {
		return err
	}
	n, err := t.Affect(`INSERT INTO credential_versions (credential_id,version,settings,sealed,expires_at,created_at,proven_at,
 actor,auto_rollback,checked_at,checked,check_code,check_detail,same_as)
 SELECT v.credential_id,c.version,v.settings,v.sealed,v.expires_at,CAST(? AS BIGINT),0,CAST(? AS TEXT),0,CAST(? AS BIGINT),CAST(? AS SMALLINT),CAST(? AS TEXT),CAST(? AS TEXT),
 CASE WHEN v.same_as=0 THEN v.version ELSE v.same_as END
 FROM credential_versions v JOIN credentials c ON c.id=v.credential_id WHERE v.credential_id=? AND v.version=? AND v.version<c.version AND length(v.sealed)>0`,
		db.Millis(now), actor, db.Millis(v.At), v.State, v.Code, v.Detail, id, to)
	if err != nil {
		return err
	}
	if n == 0 {
		return destroyed(to)
	}
	if err := trim(t, id); err != nil {
		return err
	}
	return s.endReplaced(t, tenant, id, app, channel, actor)
}

// NoteVerification implements tenants.CredentialStore.
func (s *credentialRegister) NoteVerification(ctx context.Context, tenant, id ids.ID, version int, v tenants.Verification) error {
	return s.db.Do(context.WithoutCancel(ctx), 1, func(t *db.Tx) error {
		return t.Exec(`UPDATE credential_versions SET checked_at=?, checked=?, check_code=?, check_detail=? WHERE credential_id=? AND version=?
 AND EXISTS (SELECT 1 FROM credentials c WHERE c.id=credential_versions.credential_id AND c.tenant_id=? AND c.version=credential_versions.version)`,
			db.Millis(v.At), v.State, v.Code, v.Detail, id, version, tenant)
	})
}

// GoBack implements delivery.DoubtStore.
func (s *credentialRegister) GoBack(ctx context.Context, tenant, id ids.ID, version int, now time.Time) (asked bool, to int, err error) {
	err = s.db.Do(context.WithoutCancel(ctx), 1, func(t *db.Tx) error {
		asked, to = false, 0
		if err := t.LockTenant(tenant, false); err != nil {
			return err
		}
		n, err := t.Count(`SELECT count(*) FROM credentials c JOIN credential_versions v ON v.credential_id=c.id AND v.version=c.version
 WHERE c.id=? AND c.tenant_id=? AND c.version=? AND v.auto_rollback=1 AND v.proven_at=0`, id, tenant, version)
		if err != nil || n == 0 {
			return err
		}
		asked = true
		back, err := wayBack(t, id)
		if err != nil || back == 0 {
			return err
		}
		if err := s.goBack(t, tenant, id, back, tenants.Verification{}, "engine", now); err != nil {
			return err
		}
		to = back
		return t.Audit(tenant, "engine", "credential.rollback", id.Format(ids.Credential))
	})
	return asked, to, err
}

// WayBack says how to go back from a version that is refused before its first
// success, or that it cannot go back though it was put with auto_rollback; "" where
// that is not the case.
func WayBack(t *db.Tx, id ids.ID, version int) (string, error) {
	var asked bool
	found, err := t.One(`SELECT auto_rollback FROM credential_versions WHERE credential_id=? AND version=? AND proven_at=0`, []any{id, version}, &asked)
	if err != nil || !found {
		return "", err
	}
	back, err := wayBack(t, id)
	switch {
	case err != nil:
		return "", err
	case back == 0 && asked:
		return fmt.Sprintf(" Version %d was put with auto_rollback, but there is no version to go back to.", version), nil
	case back == 0:
		return "", nil
	}
	return fmt.Sprintf(" Version %d has never worked: POST /v1/credentials/%s/rollback goes back to version %d.", version, id.Format(ids.Credential), back), nil
}

// CredentialsToVerify implements delivery.VerifyStore.
func (s *credentialRegister) CredentialsToVerify(ctx context.Context, of []channels.Kind, before, again time.Time, limit int) ([]tenants.Credential, error) {
	if len(of) == 0 {
		return nil, nil
	}
	var list []credentialModel
	const turns = "row_number() OVER (PARTITION BY c.tenant_id ORDER BY v.checked_at,c.id),v.checked_at,c.id"
	if err := withVersion(s.db.Gorm(ctx)).Joins("JOIN tenants t ON t.id=c.tenant_id AND t.deleted_at=0").
		Where("c.channel IN ? AND c.status=? AND (v.checked_at<? AND v.created_at<? OR v.checked_at<? AND v.checked IN ?)", of, tenants.CredentialActive,
			db.Millis(before), db.Millis(before), db.Millis(again), []tenants.VerificationState{tenants.Unverified, tenants.Refused}).
		Order(turns).Limit(limit).Find(&list).Error; err != nil {
		return nil, err
	}
	return convert(list, credentialModel.credential)
}
