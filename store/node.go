package store

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
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
	// beatEvery is how often a node says that it lives, and deadAfter how long the
	// others wait for it before they take over what it had in hand.
	beatEvery = time.Second
	deadAfter = 6 * time.Second
	// beatWithin bounds one beat, so that a lost connection is noticed in time.
	beatWithin = 2 * time.Second
	// ahead is how much later than its last beat a node makes ids at most.
	ahead = 5 * time.Minute
	// lapseAtOnce is how many leases of a dead node end in one transaction.
	lapseAtOnce = 1000
)

// membership is this process's place among the nodes.
type membership struct {
	info     Node
	token    atomic.Int64              // of this life; 0: not joined
	lastBeat atomic.Pointer[time.Time] // when the last beat that was taken began
	seen     map[int]sighting          // by the beat's loop alone
	stop     context.CancelFunc
	running  sync.WaitGroup
	onHint   atomic.Pointer[func(Hint)]
	hints    hints
	forgetAt atomic.Int64 // when shared rows are looked through again, unix ms
}

// Join makes this process one of the nodes: it leases a node number, from which
// the store's ids are made from then on, and on PostgreSQL beats until Close.
func (s *Store) Join(ctx context.Context, n Node) error {
	s.node.info = n
	s.node.hints.waiting, s.node.hints.more = map[Hint]bool{}, make(chan struct{}, 1)
	if err := s.register(ctx); err != nil {
		return fmt.Errorf("join the nodes: %w", err)
	}
	if !s.onPostgres() {
		return nil
	}
	loop, stop := context.WithCancel(context.Background())
	s.node.stop = stop
	s.node.running.Go(func() { s.beatLoop(loop) })
	s.node.running.Go(func() { s.hintLoop(loop) })
	s.node.running.Go(func() { s.listenLoop(loop) })
	return nil
}

// leave gives the number back.
func (s *Store) leave() {
	token := s.node.token.Load()
	if token == 0 {
		return
	}
	if s.node.stop != nil {
		s.node.stop()
		s.node.running.Wait()
	}
	ctx, cancel := context.WithTimeout(context.Background(), beatWithin)
	defer cancel()
	_, _ = s.writeDB.ExecContext(ctx, "UPDATE nodes SET token=0, horizon=? WHERE id=? AND token=?",
		millis(s.now().Add(time.Second)), s.opts.IDs.Node(), token)
}

// register takes a free node number. A number that was used last is taken last,
// and ids go on behind the last that its holder before may have made.
func (s *Store) register(ctx context.Context) error {
	token := int64(ids.NewGenerator(rand.IntN(ids.MaxNode), time.Now).Next()) //nolint:gosec // no secret: it tells one life from the next
	var (
		number int
		floor  int64
	)
	n := s.node.info
	began := time.Now()
	err := s.change(ctx, func(t *tx) error {
		if err := t.lock(0, "nodes"); err != nil {
			return err
		}
		var err error
		if number, floor, err = t.freeNumber(s); err != nil {
			return err
		}
		now := s.now()
		return t.exec(`INSERT INTO nodes (id,token,name,role,version,started_at,beat_at,horizon) VALUES (?,?,?,?,?,?,?,?)
 ON CONFLICT (id) DO UPDATE SET token=excluded.token, name=excluded.name, role=excluded.role, version=excluded.version,
 started_at=excluded.started_at, beat_at=excluded.beat_at, horizon=excluded.horizon`,
			number, token, n.Name, n.Role, n.Version, millis(now), millis(now), millis(now.Add(ahead)))
	})
	if err != nil {
		return err
	}
	s.opts.IDs.Assign(number, fromMillis(floor))
	s.node.token.Store(token)
	s.node.lastBeat.Store(&began)
	return nil
}

// freeNumber picks a number that nobody holds. On SQLite the server has number 0.
func (t *tx) freeNumber(s *Store) (number int, floor int64, err error) {
	if !s.onPostgres() && s.node.info.Role != RoleCommand {
		_, err := t.one("SELECT horizon FROM nodes WHERE id=0", nil, &floor)
		return 0, min(floor, millis(s.now())), err
	}
	rows, err := t.query("SELECT id,token,beat_at,horizon FROM nodes")
	if err != nil {
		return 0, 0, err
	}
	type held struct {
		id, token, beat, horizon int64
	}
	list, err := collect(rows, func(r *sql.Rows) (h held, err error) { return h, r.Scan(&h.id, &h.token, &h.beat, &h.horizon) })
	if err != nil {
		return 0, 0, err
	}
	used := map[int64]bool{}
	oldest := held{id: -1}
	gone := millis(s.now().Add(-ahead))
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

// Alive tells whether this node may begin to send: whether it has beaten so lately
// that no other node can have taken over what it has in hand.
func (s *Store) Alive() bool {
	if s.node.stop == nil {
		return true // alone
	}
	return silence(*s.node.lastBeat.Load(), time.Now()) < deadAfter-beatEvery
}

// silence is the time since a beat, by whichever of the machine's clocks says
// more: the monotonic one stands still while the machine sleeps, the other may be
// set. Times without a monotonic reading have only the other.
func silence(beat, now time.Time) time.Duration {
	return max(now.Sub(beat), now.Round(0).Sub(beat.Round(0)))
}

func (s *Store) beatLoop(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	silent := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := s.beat(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !silent:
			s.opts.Log.Warn("this node cannot reach the database; it sends nothing until it can", "error", err)
		case err == nil && silent:
			s.opts.Log.Info("this node reaches the database again")
		}
		silent = err != nil
	}
}

// beat says that this node lives, and looks for those that do not.
func (s *Store) beat(ctx context.Context) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, beatWithin)
	defer cancel()
	if pg, ok := s.db.(*postgres); ok {
		if err := pg.clock.set(ctx, s.writeDB); err != nil {
			return err
		}
	}
	now := s.now()
	r, err := s.writeDB.ExecContext(ctx, "UPDATE nodes SET beat_at=?, horizon=? WHERE id=? AND token=?",
		millis(now), millis(now.Add(ahead)), s.opts.IDs.Node(), s.node.token.Load())
	if err != nil {
		return err
	}
	n, err := r.RowsAffected()
	if err != nil {
		return err
	}
	if n == 0 {
		// The others have given this node up. What it had in hand is theirs; it
		// begins anew with another number, which tells its leases apart.
		s.opts.Log.Warn("this node was silent for so long that the others have taken over its work; it joins anew")
		return s.register(ctx)
	}
	s.node.lastBeat.Store(&began)
	return s.buryDead(ctx, now)
}

// sighting is what was last seen of another node.
type sighting struct {
	token, beat int64
	since       time.Time
}

// buryDead takes over what nodes had in hand that do not beat any more. They must
// have stood still before this node's eyes as well: when the database's clock is
// set forward, all of them look as if they were dead.
func (s *Store) buryDead(ctx context.Context, now time.Time) error {
	rows, err := s.writeDB.QueryContext(ctx, "SELECT id,token,beat_at,name FROM nodes WHERE token<>0")
	if err != nil {
		return err
	}
	type dead struct {
		id    int
		token int64
		name  string
	}
	var list []dead
	seen := map[int]sighting{}
	if _, err := collect(rows, func(r *sql.Rows) (none struct{}, err error) {
		var (
			d  dead
			at sighting
		)
		err = r.Scan(&d.id, &at.token, &at.beat, &d.name)
		d.token, at.since = at.token, time.Now()
		if old := s.node.seen[d.id]; old.token == at.token && old.beat == at.beat {
			at.since = old.since
		}
		seen[d.id] = at
		if at.beat < millis(now.Add(-deadAfter)) && time.Since(at.since) >= deadAfter-2*beatEvery {
			list = append(list, d)
		}
		return none, err
	}); err != nil {
		return err
	}
	s.node.seen = seen
	for _, d := range list {
		// From here on it cannot beat under this number, and finds out.
		r, err := s.writeDB.ExecContext(ctx, "UPDATE nodes SET token=0 WHERE id=? AND token=? AND beat_at<?", d.id, d.token, millis(now.Add(-deadAfter)))
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n == 0 {
			continue // it came back, or another node was faster
		}
		n, err := s.lapse(context.WithoutCancel(ctx), d.id)
		args := []any{"gone", d.name, "number", d.id, "deliveries", n}
		if err != nil {
			args = append(args, "error", err)
		}
		s.opts.Log.Warn("a node is gone; what it had in hand is taken over", args...)
		s.Hint(Hint{Kind: HintDue})
	}
	return nil
}

// lapse ends the leases of a node: its number is in the claims. Should that be cut
// short, they end by themselves.
func (s *Store) lapse(ctx context.Context, node int) (int, error) {
	rows, err := s.listDB.QueryContext(ctx, `SELECT tenant_id,notification_id,target_id,claim FROM deliveries
 WHERE state<4 AND state=2 AND (claim>>12)&1023=?`, node)
	if err != nil {
		return 0, err
	}
	list, err := collect(rows, func(r *sql.Rows) (d delivery.Row, err error) {
		return d, r.Scan(&d.Tenant, &d.Notification, &d.Target, &d.Claim)
	})
	if err != nil {
		return 0, err
	}
	lapsed := 0
	for part := range slices.Chunk(list, lapseAtOnce) {
		if _, err := s.Renew(ctx, part, s.now()); err != nil { // for no time at all
			return lapsed, err
		}
		lapsed += len(part)
	}
	return lapsed, nil
}

// Nodes lists those that are there.
func (s *Store) Nodes(ctx context.Context) ([]Node, error) {
	rows, err := s.listDB.QueryContext(ctx, "SELECT id,name,role,version,started_at,beat_at FROM nodes WHERE token<>0 ORDER BY id")
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (n Node, err error) {
		var started, beat int64
		err = r.Scan(&n.Number, &n.Name, &n.Role, &n.Version, &started, &beat)
		n.StartedAt, n.BeatAt = fromMillis(started), fromMillis(beat)
		return n, err
	})
}

// TakeDuty makes background work this node's for a while: false while it is
// another's.
func (s *Store) TakeDuty(ctx context.Context, name string, every time.Duration) (bool, error) {
	var mine bool
	err := s.do(ctx, 1, func(t *tx) error {
		now := s.now()
		n, err := t.affect(`INSERT INTO duties (name,until) VALUES (?,?)
 ON CONFLICT (name) DO UPDATE SET until=excluded.until WHERE duties.until<=?`, name, millis(now.Add(every)), millis(now))
		mine = n == 1
		return err
	})
	return mine, err
}
