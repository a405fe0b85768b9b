package store_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/pgtest"
	"github.com/carillonhq/carillon/tenants"
)

// What only a database that others share can show.

func onlyPostgres(t *testing.T) {
	t.Helper()
	if !pgtest.Postgres() {
		t.Skip("about PostgreSQL, on which the tests run once more")
	}
}

// node opens a store as a server does: by the database's clock, with a number of
// its own.
func node(t *testing.T, url string, ring *db.KeyRing, edit func(*store.Options)) *store.Store {
	t.Helper()
	o := store.Options{URL: url, KeyRing: ring, Connections: 8}
	if edit != nil {
		edit(&o)
	}
	s, err := store.Open(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	require.NoError(t, s.Join(t.Context(), db.Node{Name: t.Name(), Role: "all", Version: "test"}))
	return s
}

func newRing(t *testing.T) *db.KeyRing {
	t.Helper()
	ring, _, err := db.NewKeyRing()
	require.NoError(t, err)
	return ring
}

func newTenant(t *testing.T, s *store.Store) ids.ID {
	t.Helper()
	id := s.IDs().Next()
	require.NoError(t, s.CreateTenant(t.Context(), tenants.Tenant{ID: id, Name: "acme"}, tenants.Change{Actor: "test", Action: "test"}))
	return id
}

// pending accepts n notifications with a delivery each, due now.
func pending(t *testing.T, s *store.Store, tenant ids.ID, n int) {
	t.Helper()
	now := s.Now()
	b := delivery.Batch{Tenant: tenant}
	for range n {
		a := delivery.Accepted{ID: s.IDs().Next(), Tenant: tenant, Lane: delivery.Regular, CreatedAt: now, Body: []byte("{}")}
		a.Rows = []delivery.Row{{Tenant: tenant, Notification: a.ID, Target: s.IDs().Next(), Channel: 1, Lane: a.Lane, State: delivery.Pending,
			DueAt: now, ExpiresAt: now.Add(time.Hour), Round: 1}}
		b.Accepted = append(b.Accepted, a)
	}
	_, err := s.Accept(t.Context(), b)
	require.NoError(t, err)
}

func claim(t *testing.T, s *store.Store, limit int) []delivery.Claimed {
	t.Helper()
	now := s.Now()
	list, err := s.Claim(t.Context(), delivery.ClaimOrder{Lane: delivery.Regular, Limit: limit, PerTenant: limit, Now: now,
		Lease: now.Add(90 * time.Second), Claim: int64(s.IDs().Next())})
	require.NoError(t, err)
	return list
}

func TestNodesHaveNumbersOfTheirOwn(t *testing.T) {
	t.Parallel()
	onlyPostgres(t)
	url, ring := pgtest.URL(t, migrated), newRing(t)
	seen := map[int]bool{}
	var nodes []*store.Store
	for range 3 {
		s := node(t, url, ring, nil)
		require.False(t, seen[s.IDs().Node()])
		seen[s.IDs().Node()] = true
		nodes = append(nodes, s)
	}
	list, err := nodes[0].Nodes(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 3)
	require.Equal(t, "test", list[0].Version)
	require.NoError(t, nodes[2].Close())
	list, err = nodes[0].Nodes(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 2, "who stops in order gives the number back")
	s := node(t, url, ring, nil)
	require.False(t, seen[s.IDs().Node()], "a number that was used lately is taken last")
}

// TestAClockThatIsWrongDoesNotMatter: nodes compare times by the database's clock.
// With their own, the one that is ahead would take over what the other has in hand.
func TestAClockThatIsWrongDoesNotMatter(t *testing.T) {
	t.Parallel()
	onlyPostgres(t)
	url, ring := pgtest.URL(t, migrated), newRing(t)
	off := func(d time.Duration) func(*store.Options) {
		return func(o *store.Options) { o.Machine = func() time.Time { return time.Now().Add(d) } }
	}
	right, early, late := node(t, url, ring, nil), node(t, url, ring, off(2*time.Minute)), node(t, url, ring, off(-time.Minute))
	for _, s := range []*store.Store{early, late} {
		require.WithinDuration(t, right.Now(), s.Now(), 5*time.Second)
	}
	tenant := newTenant(t, right)
	pending(t, late, tenant, 5)
	taken := 0 // by clocks that agree to a few milliseconds
	require.Eventually(t, func() bool { taken += len(claim(t, right, 10)); return taken == 5 }, 5*time.Second, time.Millisecond,
		"what one has just accepted is due for the others")
	require.Empty(t, claim(t, early, 10), "and leases have not ended for the one whose clock is ahead")
	require.True(t, early.Alive())
	require.True(t, late.Alive())
}

func TestManyClaimNothingTwice(t *testing.T) {
	t.Parallel()
	onlyPostgres(t)
	const nodes, rows = 4, 600
	url, ring := pgtest.URL(t, migrated), newRing(t)
	all := make([]*store.Store, nodes)
	for i := range all {
		all[i] = node(t, url, ring, nil)
	}
	tenant := newTenant(t, all[0])
	pending(t, all[0], tenant, rows)
	var (
		mu   sync.Mutex
		seen = map[ids.ID]int{}
		wg   sync.WaitGroup
	)
	for _, s := range all {
		wg.Go(func() {
			for {
				list := claim(t, s, 20)
				mu.Lock()
				for _, c := range list {
					seen[c.Notification]++
				}
				done := len(seen) == rows
				mu.Unlock()
				if done {
					return
				}
			}
		})
	}
	wg.Wait()
	for id, n := range seen {
		require.Equal(t, 1, n, id)
	}
}

// TestAnOldSnapshotDoesNotSlowTheClaim: as long as somebody has a snapshot open,
// such as a dump, what is finished stays in the index; the claim passes it by.
func TestAnOldSnapshotDoesNotSlowTheClaim(t *testing.T) {
	t.Parallel()
	onlyPostgres(t)
	url, ring := pgtest.URL(t, migrated), newRing(t)
	s := node(t, url, ring, nil)
	tenant := newTenant(t, s)
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	snapshot, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	require.NoError(t, err)
	var n int
	require.NoError(t, snapshot.QueryRow("SELECT count(*) FROM deliveries").Scan(&n))

	// What an hour leaves at twenty-five a second, in bulk: due once, and sent since.
	const finished = 90_000
	_, err = db.Exec(fmt.Sprintf(`INSERT INTO deliveries SELECT %d,n,n,1,1,1,0,NULL,0,0,%d+n,%d,0,0,NULL,1,0,0,0,0,0,0,0,0,0,0,0,'','',''
 FROM generate_series(1,%d) n`, tenant, time.Now().Add(-time.Hour).UnixMilli(), time.Now().Add(time.Hour).UnixMilli(), finished))
	require.NoError(t, err)
	_, err = db.Exec("UPDATE deliveries SET state=4, due_at=0, spent=1")
	require.NoError(t, err)
	pending(t, s, tenant, 10)
	require.Len(t, claim(t, s, 20), 10, "from here on there is a mark")
	pending(t, s, tenant, 10)
	walked := func(mark int64) int {
		var plan []byte
		require.NoError(t, db.QueryRow(fmt.Sprintf(`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT 1 FROM deliveries
 WHERE lane=1 AND tenant_id=%d AND state<4 AND due_at<=%d AND due_at>=%d ORDER BY due_at LIMIT 10`, tenant, s.Now().UnixMilli(), mark)).Scan(&plan))
		var out []struct {
			Plan struct {
				Hit  int `json:"Shared Hit Blocks"`
				Read int `json:"Shared Read Blocks"`
			}
		}
		require.NoError(t, json.Unmarshal(plan, &out))
		return out[0].Plan.Hit + out[0].Plan.Read
	}
	without, with := walked(0), walked(s.Now().Add(-5*time.Second).UnixMilli())
	require.Greater(t, without, 50*with, "the walk over what is finished: %d pages against %d", without, with)
	require.Len(t, claim(t, s, 20), 10)
	pending(t, s, tenant, 10)
	require.Len(t, claim(t, s, 20), 10)
	require.NoError(t, snapshot.Rollback())
}

// TestManyMigrateAtOnce: of servers that start together one migrates, and the
// others wait for it.
func TestManyMigrateAtOnce(t *testing.T) {
	t.Parallel()
	onlyPostgres(t)
	url, ring := pgtest.Empty(t), newRing(t)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			s, err := store.Open(context.Background(), store.Options{URL: url, KeyRing: ring, Connections: 8, Migrate: true})
			if err == nil {
				err = s.Close()
			}
			if err != nil {
				t.Errorf("a server that started with others: %v", err)
			}
		})
	}
	wg.Wait()
	list, err := db.Migrations(t.Context(), url, false)
	require.NoError(t, err)
	for _, m := range list {
		require.True(t, m.Applied, m.Name)
	}
}

func TestASchemaThatIsMissingIsNamed(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t, migrated)
	if pgtest.Postgres() {
		url = pgtest.Empty(t)
	}
	_, err := store.Open(t.Context(), store.Options{URL: url, KeyRing: newRing(t)})
	require.ErrorContains(t, err, "carillon migrate up")
}

func TestURLsShowNoPassword(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{"postgres://u:s3cret@h/db", "postgresql://u:s3cret@h1:1,h2:2/db?sslmode=disable", "postgres://h/db?user=u&password=s3cret"} {
		require.True(t, db.IsPostgres(raw))
		require.Empty(t, db.CheckURL(raw), raw)
		require.NotContains(t, db.RedactURL(raw), "s3cret")
		_, err := store.Open(t.Context(), store.Options{URL: strings.Replace(raw, "@h", "@127.0.0.1:1/", 1), KeyRing: newRing(t)})
		require.Error(t, err)
		require.NotContains(t, err.Error(), "s3cret")
	}
	require.Equal(t, "/var/lib/c.db", db.RedactURL("/var/lib/c.db"))
}
