package registers

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

// TestAFairSampleTellsTheShare: of however many subscriptions, and whenever they were
// registered, those that are looked at say how far a rotation is.
func TestAFairSampleTellsTheShare(t *testing.T) {
	t.Parallel()
	d := openDB(t)
	const n = 1200
	require.NoError(t, d.Do(t.Context(), n, func(tx *db.Tx) error {
		for i := range n {
			key := "new"
			if i < n/4 { // the oldest
				key = "old"
			}
			hash := sha256.Sum256([]byte(fmt.Sprint(i)))
			if err := tx.Exec(`INSERT INTO devices (id,tenant_id,user_id,epoch,app,channel,kind,address,address_hash,environment,keys,vapid_key,
 installation_id,os,app_version,locale,time_zone,tags,registered_at,last_seen_at,expires_at,status,reason,status_at,credential_id,version,created_at,updated_at)
 VALUES (?,7,1,1,'a',3,'subscription',?,?,'',?,?,'','','','','','{}',0,0,0,1,'',0,0,0,0,0)`, i+1, fmt.Sprint(i), hash[:], []byte{}, key); err != nil {
				return err
			}
		}
		return nil
	}))
	s := &credentialRegister{db: d}
	all, err := s.CountBound(t.Context(), 7, "a", "old")
	require.NoError(t, err)
	require.Equal(t, tenants.Bound{Pair: n / 4, App: n}, all)
	some, err := s.countBound(t.Context(), 7, "a", "old", n/2)
	require.NoError(t, err)
	require.True(t, some.LowerBound)
	require.Equal(t, n/2, some.App)
	require.InDelta(t, 25, some.Percent(), 5)
}
