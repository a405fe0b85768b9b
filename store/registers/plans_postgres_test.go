package registers

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

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
	explained := func(query string, args ...any) (plan string) {
		rows, err := d.Lists().Query("EXPLAIN "+query, args...)
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
