package registers

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

// version is what going back asks about a version.
type version struct {
	number  int
	content int  // the version in which it was put
	kept    bool // its secret is
	refused bool // by its provider, and it has not worked since
}

const selectVersions = `SELECT version,CASE WHEN same_as=0 THEN version ELSE same_as END,CASE WHEN length(sealed)>0 THEN 1 ELSE 0 END,
 CASE WHEN checked=? AND proven_at<=checked_at THEN 1 ELSE 0 END FROM credential_versions WHERE credential_id=? ORDER BY version DESC LIMIT ?`

// wayBack finds the version that a rollback leads to unless it names one; 0: there is
// none.
func wayBack(t *db.Tx, id ids.ID) (int, error) {
	return readWayBack(t.Query(selectVersions, tenants.Refused, id, 2*tenants.MaxVersions))
}

func readWayBack(rows *sql.Rows, err error) (int, error) {
	if err != nil {
		return 0, fmt.Errorf("look for the version to go back to: %w", err)
	}
	list, err := db.Collect(rows, func(r *sql.Rows) (v version, err error) {
		err = r.Scan(&v.number, &v.content, &v.kept, &v.refused)
		return v, err
	})
	return backFrom(list), err
}

// backFrom is the newest version from before the current content was put (by hand, not by a rollback), that
// is kept, of a content that the provider has not refused, and that was not itself gone
// back from. So going back again goes further back, and never to where it was before.
// The list begins with the newest, which is the current one.
func backFrom(list []version) int {
	refused := map[int]bool{}
	for _, v := range list {
		if v.refused {
			refused[v.content] = true
		}
	}
	for i, v := range list {
		switch {
		case v.number >= list[0].content, !v.kept, refused[v.content]:
		case list[i-1].content < v.content: // somebody went back from it
		default:
			return v.number
		}
	}
	return 0
}

// WayBack implements tenants.CredentialStore.
func (s *credentialRegister) WayBack(ctx context.Context, tenant, id ids.ID) (int, error) {
	if _, err := s.Credential(ctx, tenant, id); err != nil {
		return 0, err
	}
	return readWayBack(s.db.Reads().QueryContext(ctx, selectVersions, tenants.Refused, id, 2*tenants.MaxVersions))
}

// trimVersions removes versions that are too old, but not the one that a rollback
// would lead to. A credential from before there was a limit has more than one call
// removes.
const trimVersions = `DELETE FROM credential_versions WHERE credential_id=? AND version IN
 (SELECT version FROM credential_versions WHERE credential_id=? AND version<=? AND version<>? ORDER BY version LIMIT ?)`

// trim keeps the newest versions of a credential.
func trim(t *db.Tx, id ids.ID) error {
	newest, err := t.Count("SELECT version FROM credentials WHERE id=?", id)
	if err != nil || newest <= tenants.MaxVersions {
		return err
	}
	back, err := wayBack(t, id)
	if err != nil {
		return err
	}
	return t.Exec(trimVersions, id, id, newest-tenants.MaxVersions, back, tenants.MaxVersions)
}
