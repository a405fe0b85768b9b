package e2e_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/e2e/toxic"
	"github.com/carillonhq/carillon/simulator"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/pgtest"
)

// pair is two servers on one PostgreSQL under load, to whom something happens.
type pair struct {
	tenant
	sim   *simulator.Simulator
	nodes [2]*binary
	load  *load
}

func newPair(t *testing.T, database string) *pair {
	t.Helper()
	sim, err := simulator.Start(simulator.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sim.Close()) })
	s := &pair{sim: sim}
	s.nodes[0] = installOn(t, sim, database)
	other := *s.nodes[0]
	other.log = &lockedLog{}
	s.nodes[1] = &other
	t.Cleanup(other.kill)
	for _, n := range s.nodes {
		n.start()
	}
	s.tenant = newTenant(t, s.nodes[0])
	s.do("PUT", "/v1/devices", map[string]any{"user": "alice", "channel": "fcm", "token": "phone"}, nil)
	s.do("PUT", "/v1/apps/default/credentials/fcm", map[string]any{"service_account": json.RawMessage(sim.FCM().ServiceAccount)}, nil)
	s.load = newLoad(t, s.key)
	s.load.lenient = true
	s.load.to(s.nodes[0].url)
	s.load.more(10)
	s.load.to(s.nodes[1].url)
	s.load.more(10)
	return s
}

// recovers waits until both nodes take notifications again by themselves, and
// judges: what was accepted is sent, and sent once unless it says so.
func (s *pair) recovers() {
	s.t.Helper()
	for _, n := range s.nodes {
		s.load.to(n.url)
		s.load.more(10)
		eventually(s.t, func() bool { status, _ := s.ready(n); return status == http.StatusOK }, "the node is ready again\n"+n.log.tail())
	}
	for _, d := range s.load.end() {
		var v struct {
			State   string
			Unknown bool
		}
		require.Eventually(s.t, func() bool {
			ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
			defer cancel()
			_, err := call(ctx, "GET", s.url+"/v1/deliveries/"+d, s.key, nil, &v)
			return err == nil && v.State == "sent"
		}, 2*time.Minute, 20*time.Millisecond, "%s stays %s\n%s\n%s", d, v.State, s.nodes[0].log.tail(), s.nodes[1].log.tail())
		seen := s.sim.Accepted(simulator.FCM, "", d)
		require.Positive(s.t, seen)
		require.True(s.t, seen == 1 || v.Unknown, "%s was sent %d times and is not flagged", d, seen)
	}
	ring, err := db.ReadKeyRing(filepath.Join(s.nodes[0].dir, "keyring"))
	require.NoError(s.t, err)
	db, err := store.Open(s.t.Context(), store.Options{URL: s.nodes[0].database, KeyRing: ring})
	require.NoError(s.t, err)
	broken, err := db.Check(s.t.Context(), true)
	require.NoError(s.t, err)
	require.Empty(s.t, broken)
	require.NoError(s.t, db.Close())
}

func (s *pair) ready(b *binary) (int, string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+"/readyz", nil)
	require.NoError(s.t, err)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	body, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(body)
}

// saysWhatIsWrong waits until a node is not ready, and says why.
func (s *pair) saysWhatIsWrong(b *binary) {
	s.t.Helper()
	var body string
	eventually(s.t, func() bool {
		var status int
		status, body = s.ready(b)
		return status == http.StatusServiceUnavailable
	}, "the node is not ready")
	require.Contains(s.t, body, "database")
	require.Contains(s.t, b.log.tail(), "this node cannot reach the database")
}

func TestOutageRestart(t *testing.T) {
	t.Parallel()
	db := pgtest.Start(t, pgtest.Options{})
	s := newPair(t, fresh(t, db.URL))
	require.NoError(t, db.Stop())
	require.NoError(t, db.Start())
	s.recovers()
}

func TestOutageCrash(t *testing.T) {
	t.Parallel()
	db := pgtest.Start(t, pgtest.Options{})
	s := newPair(t, fresh(t, db.URL))
	require.NoError(t, db.Kill())
	for _, n := range s.nodes {
		s.saysWhatIsWrong(n)
	}
	require.NoError(t, db.Start())
	s.recovers()
}

// TestOutageFailover: the primary dies, and its synchronous standby has all that
// was accepted.
func TestOutageFailover(t *testing.T) {
	t.Parallel()
	c := pgtest.StartCluster(t)
	s := newPair(t, fresh(t, c.URL))
	require.NoError(t, c.KillPrimary())
	require.NoError(t, c.WaitForFailover())
	s.recovers()
}

func TestOutageNetwork(t *testing.T) {
	t.Parallel()
	for name, happens := range map[string]func(*testing.T, *pair, *toxic.Proxy){
		"Slow": func(t *testing.T, s *pair, p *toxic.Proxy) {
			require.NoError(t, p.Latency(100*time.Millisecond))
			s.load.more(5)
			require.NoError(t, p.Heal())
		},
		"Cut": func(t *testing.T, s *pair, p *toxic.Proxy) { // the connections stay, and nothing comes through
			require.NoError(t, p.Cut())
			for _, n := range s.nodes {
				s.saysWhatIsWrong(n)
			}
			require.NoError(t, p.Heal())
		},
		"AnswersLost": func(t *testing.T, s *pair, p *toxic.Proxy) { // so that nobody knows what was committed
			require.NoError(t, p.CutAnswers())
			s.saysWhatIsWrong(s.nodes[0])
			require.NoError(t, p.Heal())
		},
		"Reset": func(t *testing.T, s *pair, p *toxic.Proxy) {
			require.NoError(t, p.Reset())
			require.NoError(t, p.Heal())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			direct := pgtest.Empty(t)
			p := toxic.New(t, hostOf(t, direct))
			s := newPair(t, p.Through(t, direct))
			happens(t, s, p)
			s.recovers()
		})
	}
}

// TestOutageDisk: the database's disk is full; nothing is accepted until there is
// room again, and then all goes on.
func TestOutageDisk(t *testing.T) {
	t.Parallel()
	disk := pgtest.NewDisk(t, 256)
	db := pgtest.Start(t, pgtest.Options{DataDir: disk.Dir})
	s := newPair(t, fresh(t, db.URL))
	require.NoError(t, disk.Fill())
	eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		status, err := call(ctx, "POST", s.url+"/v1/notifications", s.key, strings.NewReader(`{"to":{"users":["bob"]},"title":"`+strings.Repeat("x", 2000)+`"}`), nil)
		return err != nil && status == http.StatusServiceUnavailable
	}, "nothing is accepted that cannot be stored")
	require.NoError(t, disk.Free())
	if !db.Running() { // it gives up when the log of its own changes cannot be written
		require.NoError(t, db.Start())
	}
	s.recovers()
}

// TestOutagePooler: PgBouncer in transaction mode is in between, which is noticed:
// nothing is kept in a session, and nodes poll instead of listening.
func TestOutagePooler(t *testing.T) {
	t.Parallel()
	s := newPair(t, pgtest.PgBouncer(t, pgtest.Empty(t)))
	require.Contains(t, s.nodes[0].log.tail(), "polls instead of listening")
	s.nodes[1].kill()
	s.nodes[1].start()
	s.recovers()
}

// fresh makes a database on a server of the test's own.
func fresh(t *testing.T, url func(database string) string) string {
	t.Helper()
	conn, err := sql.Open("pgx", url("postgres"))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	_, err = conn.Exec("CREATE DATABASE app")
	require.NoError(t, err)
	return url("app")
}

func hostOf(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	return u.Host
}

// TestOutageNode: what a node had in hand when it was killed, the other takes over
// within seconds, not when a lease of a minute and a half ends.
func TestOutageNode(t *testing.T) {
	t.Parallel()
	s := newPair(t, pgtest.Empty(t))
	// Nothing is answered for as long as the first node lives, whether or not its
	// request has arrived by then.
	s.sim.SetFault("stalls", simulator.Fault{Latency: time.Minute})
	s.do("PUT", "/v1/devices", map[string]any{"user": "bob", "channel": "fcm", "token": "stalls"}, nil)
	got := s.send(map[string]any{"to": map[string]any{"users": []string{"bob"}}, "title": "Hello"})
	s.nodes[0].kill()
	s.sim.ClearFault("stalls")
	s.url = s.nodes[1].url
	var v struct {
		State     string
		Unknown   bool
		Takeovers int
	}
	eventually(t, func() bool {
		s.do("GET", "/v1/deliveries/"+got.Deliveries[0].ID, nil, &v)
		return v.State == "sent"
	}, "the other node sends it")
	require.True(t, v.Unknown)
	require.Equal(t, 1, v.Takeovers)
	require.Contains(t, s.nodes[1].log.tail(), "a node is gone")
	s.nodes[0].start()
	s.recovers()
}
