package db

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// Node is a process on the database.
type Node struct {
	Number    int
	Name      string
	Role      string // all, api or worker; command for what runs beside the servers
	Version   string
	StartedAt time.Time
	BeatAt    time.Time
}

const (
	// beatEvery is how often a node says that it lives, and DeadAfter how long the
	// others wait for it before they take over what it had in hand.
	beatEvery = time.Second
	DeadAfter = 6 * time.Second
	// beatWithin bounds one beat, so that a lost connection is noticed in time.
	beatWithin = 2 * time.Second
	// ahead is how much later than its last beat a node makes ids at most.
	ahead = 5 * time.Minute
)

// nodes is this process's place among the nodes of a database.
type nodes struct {
	pools    *pools
	writer   *writer
	info     Node
	token    atomic.Int64              // of this life; 0: not joined
	lastBeat atomic.Pointer[time.Time] // when the last beat that was taken began
	lost     atomic.Bool               // the database's name leads elsewhere
	seen     map[int]observation       // by the beat's loop alone
	stop     context.CancelFunc
	running  sync.WaitGroup
	takeOver func(ctx context.Context, node int) (rows int, err error)
	*hints
}

func newNodes(p *pools, w *writer) *nodes { return &nodes{pools: p, writer: w, hints: newHints(p)} }

// TakeOver says how what a dead node had in hand is taken over. It is called before
// Join.
func (n *nodes) TakeOver(f func(ctx context.Context, node int) (rows int, err error)) { n.takeOver = f }

// Life tells this life of the process from all others that have joined; 0: it has
// not joined.
func (n *nodes) Life() int64 { return n.token.Load() }

// Join makes this process one of the nodes: it leases a node number, from which
// the store's ids are made from then on, and on PostgreSQL beats until Close.
func (n *nodes) Join(ctx context.Context, info Node) error {
	n.info = info
	if err := n.register(ctx); err != nil {
		return fmt.Errorf("join the nodes: %w", err)
	}
	loop, stop := context.WithCancel(context.Background())
	n.stop = stop
	n.running.Go(func() { n.seeTroubleEnd(loop) })
	if !n.pools.Shared() {
		n.running.Go(func() { n.watchFile(loop) })
		return nil
	}
	n.running.Go(func() { n.beatLoop(loop) })
	n.run(loop, &n.running)
	return nil
}

// leave gives the number back.
func (n *nodes) leave() {
	token := n.token.Load()
	if token == 0 {
		return
	}
	if n.stop != nil {
		n.stop()
		n.running.Wait()
	}
	ctx, cancel := context.WithTimeout(context.Background(), beatWithin)
	defer cancel()
	_, _ = n.pools.writes.ExecContext(ctx, "UPDATE nodes SET token=0, horizon=? WHERE id=? AND token=?",
		Millis(n.pools.Now().Add(time.Second)), n.pools.IDs().Node(), token)
}

// register takes a free node number. A number that was used last is taken last,
// and ids go on behind the last that its holder before may have made.
func (n *nodes) register(ctx context.Context) error {
	token := int64(ids.NewGenerator(rand.IntN(ids.MaxNode), time.Now).Next()) //nolint:gosec // no secret: it tells one life from the next
	var (
		number int
		floor  int64
	)
	began := time.Now()
	err := n.writer.Change(ctx, func(t *Tx) error {
		if err := t.Lock(0, "nodes"); err != nil {
			return err
		}
		var err error
		if number, floor, err = n.freeNumber(t); err != nil {
			return err
		}
		now := n.pools.Now()
		return t.Exec(`INSERT INTO nodes (id,token,name,role,version,started_at,beat_at,horizon) VALUES (?,?,?,?,?,?,?,?)
 ON CONFLICT (id) DO UPDATE SET token=excluded.token, name=excluded.name, role=excluded.role, version=excluded.version,
 started_at=excluded.started_at, beat_at=excluded.beat_at, horizon=excluded.horizon`,
			number, token, n.info.Name, n.info.Role, n.info.Version, Millis(now), Millis(now), Millis(now.Add(ahead)))
	})
	if err != nil {
		return err
	}
	n.pools.IDs().Assign(number, FromMillis(floor))
	n.token.Store(token)
	n.lastBeat.Store(&began)
	return nil
}

// freeNumber picks a number that nobody holds. On SQLite the server has number 0.
func (n *nodes) freeNumber(t *Tx) (number int, floor int64, err error) {
	if !n.pools.Shared() && n.info.Role != RoleCommand {
		_, err := t.One("SELECT horizon FROM nodes WHERE id=0", nil, &floor)
		return 0, min(floor, Millis(n.pools.Now())), err
	}
	rows, err := t.Query("SELECT id,token,beat_at,horizon FROM nodes")
	if err != nil {
		return 0, 0, err
	}
	type held struct {
		id, token, beat, horizon int64
	}
	list, err := Collect(rows, func(r *sql.Rows) (h held, err error) { return h, r.Scan(&h.id, &h.token, &h.beat, &h.horizon) })
	if err != nil {
		return 0, 0, err
	}
	used := map[int64]bool{}
	oldest := held{id: -1}
	gone := Millis(n.pools.Now().Add(-ahead))
	for _, h := range list {
		used[h.id] = true
		free := h.token == 0 || h.beat < gone
		if free && (oldest.id < 0 || h.beat < oldest.beat) {
			oldest = h
		}
	}
	for id := int64(1); id <= ids.MaxNode; id++ {
		if !used[id] {
			return int(id), 0, nil
		}
	}
	if oldest.id < 0 {
		return 0, 0, fmt.Errorf("all %d node numbers are taken", ids.MaxNode)
	}
	return int(oldest.id), oldest.horizon, nil
}

// RoleCommand is the role of a program beside the servers.
const RoleCommand = "command"

// Nodes lists those that are there.
func (n *nodes) Nodes(ctx context.Context) ([]Node, error) {
	rows, err := n.pools.lists.QueryContext(ctx, "SELECT id,name,role,version,started_at,beat_at FROM nodes WHERE token<>0 ORDER BY id")
	if err != nil {
		return nil, err
	}
	return Collect(rows, func(r *sql.Rows) (x Node, err error) {
		var started, beat int64
		err = r.Scan(&x.Number, &x.Name, &x.Role, &x.Version, &started, &beat)
		x.StartedAt, x.BeatAt = FromMillis(started), FromMillis(beat)
		return x, err
	})
}

// OneVersion refuses to go on while a server of another version than this process
// runs on the database.
func (n *nodes) OneVersion(ctx context.Context) error {
	var name, version string
	err := n.pools.reads.QueryRowContext(ctx, "SELECT name,version FROM nodes WHERE token<>0 AND role<>? AND beat_at>? AND version<>? ORDER BY id LIMIT 1",
		RoleCommand, Millis(n.pools.Now().Add(-DeadAfter)), n.info.Version).Scan(&name, &version)
	switch {
	case IsNoRows(err):
		return nil
	case err != nil:
		return fmt.Errorf("look for servers: %w", err)
	}
	return problem.New(problem.Conflict, "The node %s runs %s and another %s: this goes on once all nodes run one version.", name, version, n.info.Version)
}

// Dead tells whether the node has been silent for so long that the others take
// its work.
func (n Node) Dead(now time.Time) bool { return now.Sub(n.BeatAt) > DeadAfter }

// ServerRuns tells whether a server works on the database: one of the nodes that
// beats, or that holds the lock of the file.
func (n *nodes) ServerRuns(list []Node) (bool, error) {
	return n.pools.dialect.serverRuns(list, n.pools.Now())
}

// NoServers refuses to go on while a server runs on a database that nodes share.
func (n *nodes) NoServers(ctx context.Context, q Queryer) error {
	var name string
	err := q.QueryRowContext(ctx, "SELECT name FROM nodes WHERE token<>0 AND role<>? AND beat_at>? ORDER BY id LIMIT 1",
		RoleCommand, Millis(n.pools.Now().Add(-DeadAfter))).Scan(&name)
	switch {
	case IsNoRows(err):
		return nil
	case err != nil:
		return fmt.Errorf("look for servers: %w", err)
	}
	return fmt.Errorf("a server (node %s) runs on %s; stop all servers first", name, n.pools.Database())
}
