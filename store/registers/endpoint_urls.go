package registers

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/webhooks"
)

// readsSealed is the first schema whose programs read sealed URLs. They are written
// once the database lets no older program in.
const readsSealed = 15

// StoredURL is where an endpoint is reached, as its row has it: one of the two.
type StoredURL struct {
	Clear  string
	Sealed []byte
}

// sealURL is how the URL of an endpoint is written in a transaction.
func sealURL(d *db.DB, t *db.Tx, e webhooks.Endpoint) (StoredURL, error) {
	// Behind whoever decides that from now on they are sealed: see sealURLs.
	if err := t.LockTenant(0, true); err != nil {
		return StoredURL{}, err
	}
	oldest := 0
	if _, err := t.One("SELECT min_reader FROM schema_info", nil, &oldest); err != nil {
		return StoredURL{}, fmt.Errorf("read who may be on the database: %w", err)
	}
	if oldest < readsSealed {
		return StoredURL{Clear: e.URL}, nil
	}
	sealed, err := d.Seal(db.SealEndpointURL, e.Tenant, e.ID, []byte(e.URL))
	return StoredURL{Sealed: sealed}, err
}

// Open reads where an endpoint is reached: sealed, or in clear as versions before wrote
// it.
func (u StoredURL) Open(d *db.DB, tenant, id ids.ID) (string, error) {
	if u.Sealed == nil {
		return u.Clear, nil
	}
	plain, err := d.Unseal(db.SealEndpointURL, tenant, id, u.Sealed)
	return string(plain), err
}

// urlRow is an endpoint in the walk of sealURLs.
type urlRow struct {
	tenant, id ids.ID
	deleting   bool
	url        StoredURL
}

// selectURLs walks all endpoints, those whose URL is sealed as well, so that the cost of
// a step is known.
const selectURLs = `SELECT e.id,e.tenant_id,e.url,CASE WHEN t.deleted_at=0 THEN 0 ELSE 1 END FROM endpoints e
 LEFT JOIN tenants t ON t.id=e.tenant_id WHERE e.id>? ORDER BY e.id LIMIT ?`

// urls reads a part of the walk and seals what is in clear.
func (s *resealer) urls(ctx context.Context, after ids.ID) (list []urlRow, failed int, err error) {
	rows, err := s.db.Lists().QueryContext(ctx, selectURLs, after, db.MaxBatch)
	if err != nil {
		return nil, 0, fmt.Errorf("read the endpoints: %w", err)
	}
	list, err = db.Collect(rows, func(r *sql.Rows) (x urlRow, err error) {
		return x, r.Scan(&x.id, &x.tenant, &x.url.Clear, &x.deleting)
	})
	for i := range list {
		x := &list[i]
		if x.url.Clear == "" || x.deleting { // what is being deleted has no keys any more
			continue
		}
		var broken error
		if x.url.Sealed, broken = s.db.Seal(db.SealEndpointURL, x.tenant, x.id, []byte(x.url.Clear)); broken != nil {
			failed++
		}
	}
	return list, failed, err
}

// closeToOlder keeps programs away that do not read sealed URLs. From its commit on
// every URL is written sealed.
func closeToOlder(t *db.Tx) error {
	if err := t.LockTenant(0, false); err != nil {
		return err
	}
	return t.Exec("UPDATE schema_info SET min_reader=? WHERE min_reader<?", readsSealed, readsSealed)
}

// sealURLs writes the URLs that are still as they were read.
func sealURLs(t *db.Tx, list []urlRow) (sealed int, err error) {
	for _, x := range list {
		if x.url.Sealed == nil {
			continue
		}
		n, err := t.Affect("UPDATE endpoints SET url='', url_sealed=? WHERE id=? AND tenant_id=? AND url=?", x.url.Sealed, x.id, x.tenant, x.url.Clear)
		if err != nil {
			return sealed, fmt.Errorf("seal the URL of an endpoint: %w", err)
		}
		sealed += int(n)
	}
	return sealed, nil
}

// MaxClearURLs is as far as ClearURLs counts.
const MaxClearURLs = 10_000

// ClearURLs counts endpoints whose URLs are not sealed, up to 10,000.
func (s *resealer) ClearURLs(ctx context.Context) (n int, err error) {
	err = s.db.Lists().QueryRowContext(ctx, "SELECT count(*) FROM (SELECT 1 FROM endpoints WHERE url<>'' LIMIT ?) x", MaxClearURLs).Scan(&n)
	return n, err
}
