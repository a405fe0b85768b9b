package queue

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/pgtest"
	"github.com/carillonhq/carillon/tenants"
)

// TestTheLastBrowserOfAPairIsFound: among however many others of the app, since
// deleting a pair that is in use has to be forced.
func TestTheLastBrowserOfAPairIsFound(t *testing.T) {
	t.Parallel()
	d := openDB(t, pgtest.URL(t, func(string) error { return nil }))
	require.NoError(t, d.Do(t.Context(), 1, func(tx *db.Tx) error {
		for i, key := range []string{"new", "new", "new", "old"} {
			if err := tx.Exec(`INSERT INTO devices (id,tenant_id,user_id,epoch,app,channel,kind,address,address_hash,environment,keys,vapid_key,
 installation_id,os,app_version,locale,time_zone,tags,registered_at,last_seen_at,expires_at,status,reason,status_at,credential_id,version,created_at,updated_at)
 VALUES (?,7,1,1,'a',3,'subscription',?,?,'',?,?,'','','','','','{}',0,0,0,1,'',0,0,0,0,0)`, i+1, fmt.Sprint(i), []byte{byte(i)}, []byte{}, key); err != nil {
				return err
			}
		}
		return nil
	}))
	count := func(key string, only bool) delivery.Affected {
		var a delivery.Affected
		w := &window{ctx: t.Context(), db: d, a: &a, left: 1}
		require.NoError(t, (&affected{db: d}).ofPair(ids.ID(7), tenants.Credential{App: "a", Channel: channels.WebPush, Qualifier: key}, only, &a, w))
		return a
	}
	require.Equal(t, delivery.Affected{Devices: 1}, count("old", false))
	require.Equal(t, delivery.Affected{Devices: 1, LowerBound: true}, count("new", false))
	require.Equal(t, delivery.Affected{}, count("other", true))
}
