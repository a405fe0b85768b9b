package queue

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/pgtest"
)

// TestHeldDeliveriesAreCountedToALimit: a list costs the same however many wait.
func TestHeldDeliveriesAreCountedToALimit(t *testing.T) {
	t.Parallel()
	d := openDB(t, pgtest.URL(t, func(string) error { return nil }))
	held := map[int]int{1: 25, 2: 10, 3: 0}
	require.NoError(t, d.Do(t.Context(), 1, func(tx *db.Tx) error {
		for hold, n := range held {
			if err := tx.Exec(`INSERT INTO holds (id,tenant_id,scope,subject_id,version,app,channel,qualifier,reason,detail,since,ending)
 VALUES (?,7,1,?,0,'',0,'',1,'',0,0)`, hold, hold); err != nil {
				return err
			}
			for i := range n {
				if err := tx.Exec(`INSERT INTO deliveries (tenant_id,notification_id,target_id,channel,lane,state,reason,device_epoch,credential_id,due_at,expires_at,claim,
 hold_id,round,spent,attempts,takeovers,flags,renewed,updated_at,att_at,att_ms,att_outcome,att_status,att_ambiguous,att_code,att_detail,att_provider_id)
 VALUES (7,?,?,1,1,3,0,0,0,0,0,0,?,1,0,0,0,0,0,0,0,0,0,0,0,'','','')`, hold, i+1, hold); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	s := &heldRows{d}
	list, err := s.holdsUpTo(t.Context(), 7, 100)
	require.NoError(t, err)
	require.Len(t, list, 3)
	for _, h := range list {
		require.Equal(t, min(held[int(h.ID)], 10), h.Held)
		require.Equal(t, h.ID == 1, h.More)
	}
	list, err = s.Holds(t.Context(), 7)
	require.NoError(t, err)
	require.Equal(t, 25, list[0].Held)
	require.False(t, list[0].More)
}
