package queue

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/pgtest"
)

// TestACommitThatIsStillUnderWayIsWaitedFor: the connection broke during a commit,
// and the server has not ended it by the time that it is looked for.
func TestACommitThatIsStillUnderWayIsWaitedFor(t *testing.T) {
	t.Parallel()
	if !pgtest.Postgres() {
		t.Skip("about PostgreSQL, on which the tests run once more")
	}
	for name, end := range map[string]string{"it is committed": "COMMIT", "it is undone": "ROLLBACK"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := openDB(t, pgtest.URL(t, func(url string) error { _, err := db.Migrations(context.Background(), url, true); return err }))
			s := newAccepts(d, &bulk{})
			a := &accepting{maybe: true, sealed: [][]byte{{1}}, batch: delivery.Batch{Tenant: 1, Accepted: []delivery.Accepted{{ID: 5, Tenant: 1, Lane: 1}}}}
			before, err := d.Lists().Conn(t.Context())
			require.NoError(t, err)
			defer func() { require.NoError(t, before.Close()) }()
			for _, q := range []string{"BEGIN", "INSERT INTO notifications (tenant_id,id,lane,type,created_at,send_at,flags,targets) VALUES (1,5,1,'first',0,0,0,0)"} {
				_, err := before.ExecContext(t.Context(), q)
				require.NoError(t, err)
			}
			done := make(chan error, 1)
			go func() { done <- d.Write(t.Context(), s.op(a, 1)) }()
			require.Eventually(t, func() bool {
				n := 0
				return d.Reads().QueryRow("SELECT count(*) FROM pg_stat_activity WHERE datname=current_database() AND wait_event_type='Lock'").Scan(&n) == nil && n > 0
			}, 10*time.Second, time.Millisecond)
			_, err = before.ExecContext(t.Context(), end)
			require.NoError(t, err)
			require.NoError(t, <-done)
			require.Nil(t, a.stored, "it is this request's own")
			var n int
			require.NoError(t, d.Reads().QueryRow("SELECT count(*) FROM notifications").Scan(&n))
			require.Equal(t, 1, n)
		})
	}
}
