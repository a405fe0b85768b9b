package registers

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/pgtest"
)

// TestListsOfDevicesAreLookedUpOneByOne on PostgreSQL, before and after it has looked at
// the tables: an import fills them faster than they are analyzed.
func TestListsOfDevicesAreLookedUpOneByOne(t *testing.T) {
	t.Parallel()
	ring, _, err := db.NewKeyRing()
	require.NoError(t, err)
	d, err := db.Open(context.Background(), db.Options{URL: pgtest.Empty(t), KeyRing: ring, Migrate: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.Close() })
	hash, numbers, texts := [][]byte{{1}}, []int64{1}, []string{"a"}
	explained := func(query string, args ...any) string { return explainedBy(t, d.Lists(), query, args...) }
	look := func() {
		for index, plan := range map[string]string{
			"users_pkey":           explained(usersByNamePostgres, 1, texts),
			"devices_address":      explained(devicesByAddressPostgres, 1, numbers, texts, hash),
			"devices_installation": explained(devicesByInstallationPostgres, 1, numbers, texts, texts, numbers, texts, numbers),
		} {
			require.Contains(t, plan, "Index Scan using "+index)
			require.NotContains(t, plan, "Seq Scan on devices")
			require.NotContains(t, plan, "Seq Scan on users")
		}
	}
	require.NoError(t, d.Do(t.Context(), 1, func(x *db.Tx) error {
		if err := x.Exec(`INSERT INTO users (tenant_id,id,external_id) SELECT 1,i,'u'||i FROM generate_series(1,1000) AS i`); err != nil {
			return err
		}
		return x.Exec(intoDevices + ` SELECT i,1,i,1,'default',1,'token','t'||i,sha256(('t'||i)::bytea),'','','','i'||i,'','','','','{}',0,0,0,0,0,0,1,'',1,'',0,0
 FROM generate_series(1,1000) AS i`)
	}))
	look()
	require.NoError(t, d.Do(t.Context(), 1, func(x *db.Tx) error { return x.Exec("ANALYZE users, devices") }))
	look()
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// explainedBy is what PostgreSQL is going to do for a query.
func explainedBy(t *testing.T, d querier, query string, args ...any) (plan string) {
	t.Helper()
	rows, err := d.QueryContext(t.Context(), "EXPLAIN "+query, args...)
	require.NoError(t, err)
	for rows.Next() {
		var line string
		require.NoError(t, rows.Scan(&line))
		plan += line + "\n"
	}
	require.NoError(t, rows.Err())
	require.NoError(t, rows.Close())
	return plan
}

// TestAnExportReadsOnePageOnPostgreSQL: in the order of the index, from the beginning and from
// the middle, among the devices of another tenant.
func TestAnExportReadsOnePageOnPostgreSQL(t *testing.T) {
	t.Parallel()
	ring, _, err := db.NewKeyRing()
	require.NoError(t, err)
	d, err := db.Open(context.Background(), db.Options{URL: pgtest.Empty(t), KeyRing: ring, Migrate: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.Close() })
	require.NoError(t, d.Do(t.Context(), 1, func(x *db.Tx) error {
		if err := x.Exec(`INSERT INTO users (tenant_id,id,external_id) SELECT 1+i%2,i,'u'||i FROM generate_series(1,40000) AS i`); err != nil {
			return err
		}
		return x.Exec(intoDevices + ` SELECT i,1+i%2,i,1,'default',1,'token','t'||i,sha256(('t'||i)::bytea),'','','','i'||i,'','','','','{}',0,0,0,0,0,0,1,'',1,'',0,0
 FROM generate_series(1,40000) AS i`)
	}))
	for range 2 { // before and after the tables are analyzed
		x, err := d.Lists().BeginTx(t.Context(), nil)
		require.NoError(t, err)
		_, err = x.ExecContext(t.Context(), inOrderOfIndex)
		require.NoError(t, err)
		for _, after := range []int{0, 20000, 39999} {
			plan := explainedBy(t, x, selectDevicesAfterPostgres, 1, after, devices.ExportPage)
			require.Contains(t, plan, "Index Scan using devices_tenant")
			require.Contains(t, plan, fmt.Sprintf("(ROW(tenant_id, id) > ROW('1'::bigint, '%d'::bigint)) AND (tenant_id <= '1'::bigint)", after))
			require.NotContains(t, plan, "Filter", "it begins and ends where the page does")
			require.NotContains(t, plan, "Seq Scan")
			require.NotContains(t, plan, "Sort")
		}
		require.NoError(t, x.Rollback())
		require.NoError(t, d.Do(t.Context(), 1, func(x *db.Tx) error { return x.Exec("ANALYZE users, devices") }))
	}
}
