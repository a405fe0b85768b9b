package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"gorm.io/gorm"

	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// maxBatch bounds how many rows share a transaction, so that none waits long
// behind the others.
const maxBatch = 1000

// op is a write that waits for its turn.
type op struct {
	run func(*tx) error
	// done is called after the commit, or with why there was none.
	done   func(error)
	weight int // rows, about
	// patient: nobody waits for it, so it may wait for company.
	patient bool
	// alone: run in a savepoint of its own, because it may fail half way. The
	// others check first and then only write, and may be run twice.
	alone bool
	// accept or finish is what run does, where it may be written together with
	// others of its kind.
	accept *accepting
	finish *finishing
}

// writer writes what is queued: one goroutine on SQLite, which takes one
// transaction at a time, several on PostgreSQL.
type writer struct {
	store   *Store
	ops     chan op
	txs     []*tx
	running sync.WaitGroup
	mu      sync.RWMutex // guards closed against sends on ops
	closed  bool
	beat    atomic.Int64 // unix ms of the last commit
	failing atomic.Bool  // the newest try to commit failed
}

// tx is the transaction that an op writes in: one connection with its prepared
// statements.
type tx struct {
	s     *Store
	conn  *sql.Conn // nil: lost, and to be opened again
	stmts map[string]*sql.Stmt
	db    *gorm.DB
	ctx   context.Context
}

func newWriter(ctx context.Context, s *Store) (*writer, error) {
	w := &writer{store: s, ops: make(chan op, s.opts.QueueSize)}
	w.beat.Store(s.now().UnixMilli())
	for range s.db.writers() {
		// A context that can be cancelled would cost a goroutine per statement.
		t := &tx{s: s, stmts: map[string]*sql.Stmt{}, ctx: context.Background()}
		if err := t.connect(ctx); err != nil {
			w.closeTxs()
			return nil, fmt.Errorf("open the database: %w", err)
		}
		w.txs = append(w.txs, t)
	}
	for _, t := range w.txs {
		w.running.Go(func() { w.loop(t) })
	}
	return w, nil
}

func (t *tx) connect(ctx context.Context) error {
	conn, err := t.s.writeDB.Conn(ctx)
	if err != nil {
		return err
	}
	t.conn = conn
	t.db = t.s.write.Session(&gorm.Session{Context: t.ctx, NewDB: true})
	t.db.Statement.ConnPool = conn
	return nil
}

// disconnect gives up a connection that is of no use any more.
func (t *tx) disconnect() {
	_ = t.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = t.conn.Close()
	t.conn = nil
	clear(t.stmts)
}

func (w *writer) closeTxs() {
	for _, t := range w.txs {
		for _, st := range t.stmts {
			_ = st.Close()
		}
		if t.conn != nil {
			_ = t.conn.Close()
		}
	}
}

// do runs an op in a transaction that it may share, and waits for the commit.
func (s *Store) do(ctx context.Context, weight int, run func(*tx) error) error {
	return s.writer.wait(ctx, op{run: run, weight: weight})
}

// change runs an op of several statements that must all happen or none.
func (s *Store) change(ctx context.Context, run func(*tx) error) error {
	return s.writer.wait(ctx, op{run: run, weight: 1, alone: true})
}

func (w *writer) wait(ctx context.Context, o op) error {
	result := make(chan error, 1)
	o.done = func(err error) { result <- err }
	if err := w.offer(ctx, o); err != nil {
		return err
	}
	// Once it is in the queue it will be run, so the answer is awaited even when
	// the caller has gone: what it reports must be true.
	return <-result
}

// offer queues an op. A full queue is refused at once to a caller that has a
// deadline to answer by, and waited for otherwise.
func (w *writer) offer(ctx context.Context, o op) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return problem.New(problem.Unavailable, "The server is stopping.")
	}
	if ctx.Done() == nil {
		w.ops <- o
		return nil
	}
	select {
	case w.ops <- o:
		return nil
	default:
		return &problem.Error{Code: problem.Unavailable, RetryAfter: time.Second,
			Detail: "The database cannot take more writes at the moment; try again."}
	}
}

func (w *writer) close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.ops)
	}
	w.mu.Unlock()
	w.running.Wait()
	w.closeTxs()
	w.txs = nil
}

func (w *writer) loop(t *tx) {
	batch := make([]op, 0, 256)
	for first := range w.ops {
		batch = w.gather(append(batch[:0], first))
		w.commit(t, batch)
		if !w.failing.Load() {
			w.beat.Store(w.store.now().UnixMilli())
		}
	}
}

// linger is how long outcomes wait for company. An accept never waits: its
// caller does.
const linger = 5 * time.Millisecond

// gather adds what waits already. As long as only outcomes are in the batch it
// waits a moment for more, so that they ride along with the next accept instead
// of costing a sync of their own.
func (w *writer) gather(batch []op) []op {
	weight, patient := 0, true
	add := func(o op) {
		batch = append(batch, o)
		weight += max(o.weight, 1)
		patient = patient && o.patient
	}
	first := batch[0]
	batch = batch[:0]
	add(first)
	var over <-chan time.Time
	for weight < maxBatch {
		select {
		case o, ok := <-w.ops:
			if !ok {
				return batch
			}
			add(o)
			continue
		default:
		}
		if !patient {
			return batch
		}
		if over == nil {
			over = time.After(linger)
		}
		select {
		case o, ok := <-w.ops:
			if !ok {
				return batch
			}
			add(o)
		case <-over:
			return batch
		}
	}
	return batch
}

// commitTries is how often a batch is begun that had to give way to others, or
// whose connection broke.
const commitTries = 6

// commit runs a batch as one transaction. Should a member fail, the others must
// not suffer: they are run again without it.
func (w *writer) commit(t *tx, batch []op) {
	bulk, unknown, tries := true, false, 0
	for len(batch) > 0 {
		r := w.try(t, batch, bulk)
		unknown = unknown || r.committing
		switch {
		case r.err == nil:
			w.failing.Store(false)
			for i, o := range batch {
				o.done(r.refusals[i])
			}
			return
		case w.store.db.again(r.err) && tries < commitTries: // nothing was written
			tries++
			continue
		case t.conn == nil || r.culprit == nobody || w.store.db.unable(r.err):
			if t.conn == nil && tries < commitTries {
				tries++
				if batch = w.repeatable(batch, r); w.reconnect(t) {
					continue
				}
			}
			w.failing.Store(true)
			w.store.opts.Log.Warn("the database takes no writes", "error", r.err)
			err := errors.Join(errCannotWrite(unknown), r.err)
			for _, o := range batch {
				o.done(err)
			}
			return
		case r.culprit == all: // which of them is found out one by one
			bulk = false
			continue
		}
		batch[r.culprit].done(w.explain(r.err))
		batch = slices.Delete(batch, r.culprit, r.culprit+1)
	}
}

// repeatable tells those that cannot be run twice when it is not known whether
// they were: the connection broke while the commit was under way. What the engine
// writes can: its rows have ids and fences.
func (w *writer) repeatable(batch []op, r tried) []op {
	if !r.committing {
		return batch
	}
	return slices.DeleteFunc(batch, func(o op) bool {
		if o.accept != nil {
			o.accept.maybe = true
		}
		if o.alone {
			o.done(errors.Join(errCannotWrite(true), r.err))
		}
		return o.alone
	})
}

// reconnectFor is how long a batch waits for a database that restarts.
const reconnectFor = 3 * time.Second

func (w *writer) reconnect(t *tx) bool {
	ctx, cancel := context.WithTimeout(context.Background(), reconnectFor)
	defer cancel()
	for {
		err := t.connect(ctx)
		if err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(reconnectPause):
		}
	}
}

// explain makes a unique key that was taken at the same moment, by another node,
// a problem of the caller's.
func (w *writer) explain(err error) error {
	if w.store.onPostgres() && w.store.db.taken(err) {
		return problem.New(problem.Conflict, "It was made by someone else at the same moment; look at it and try again.")
	}
	return err
}

// tried is what came of a transaction.
type tried struct {
	refusals   []error // of members that ran alone, whose own writes were undone
	err        error   // nothing was committed, unless committing
	culprit    int     // whose fault err is
	committing bool    // the connection broke after the commit was asked for
}

// Culprits that are no single member.
const (
	nobody = -1 // the database is at fault
	all    = -2 // those that were written together
)

var errLostConnection = errors.New("the connection to the database is lost")

func (w *writer) try(t *tx, batch []op, bulk bool) (r tried) {
	r = tried{refusals: make([]error, len(batch)), culprit: nobody}
	if t.conn == nil {
		r.err = errLostConnection
		return r
	}
	defer func() {
		if r.err != nil {
			w.rollback(t, r.err)
		}
	}()
	if err := t.exec(w.store.db.begin()); err != nil {
		r.err = fmt.Errorf("begin: %w", err)
		return r
	}
	var done []bool
	if bulk && w.store.onPostgres() {
		if done, r.err = t.together(batch); r.err != nil {
			r.culprit = all
			return r
		}
	}
	for i, o := range batch {
		switch {
		case done != nil && done[i]:
		case o.alone:
			r.refusals[i], r.err = w.alone(t, o)
		default:
			r.err = safely(o.run, t)
		}
		if r.err != nil {
			r.culprit = i
			return r
		}
	}
	written(batch)
	if r.err = t.whole(); r.err != nil {
		return r
	}
	if err := t.exec("COMMIT"); err != nil {
		r.err = fmt.Errorf("commit: %w", err)
		r.committing = true
	}
	return r
}

// written marks the instant before a commit, for tests.
func written(batch []op) {
	for _, o := range batch {
		switch {
		case o.accept != nil:
			failpoint.Hit("accept.written")
		case o.finish != nil:
			failpoint.Hit("finish.written")
		}
	}
}

// whole tells whether a transaction can be committed as it is. PostgreSQL answers
// the COMMIT of one in which a statement failed with a rollback, and no error.
func (t *tx) whole() error {
	if !t.s.onPostgres() {
		return nil
	}
	return rawConn(t.conn, func(c *pgx.Conn) error {
		if status := c.PgConn().TxStatus(); status != 'T' {
			return fmt.Errorf("the transaction is in the state %q", status)
		}
		return nil
	})
}

func (w *writer) rollback(t *tx, why error) {
	err := t.exec("ROLLBACK")
	switch {
	case w.store.onPostgres():
		if err != nil || w.store.db.unable(why) {
			t.disconnect() // the transaction ends with its session
		}
	case err != nil && !strings.Contains(err.Error(), "no transaction is active"):
		// On a full disk SQLite has rolled back already, and has nothing left to undo.
		w.store.opts.Log.Warn("roll back", "error", err)
	}
}

func (w *writer) alone(t *tx, o op) (refused, fatal error) {
	if err := t.exec("SAVEPOINT member"); err != nil {
		return nil, err
	}
	refused = safely(o.run, t)
	if w.store.db.unable(refused) || w.store.db.again(refused) {
		return nil, refused // the whole transaction may be undone
	}
	if refused != nil {
		fatal = t.exec("ROLLBACK TO member")
		refused = w.explain(refused)
	}
	return refused, errors.Join(fatal, t.exec("RELEASE member"))
}

// safely keeps a panic in one op from ending the writer and with it the server.
func safely(run func(*tx) error, t *tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic while writing: %v", p)
		}
	}()
	return run(t)
}

// prepare prepares a statement once for the life of the connection.
func (t *tx) prepare(query string) (*sql.Stmt, error) {
	if st := t.stmts[query]; st != nil {
		return st, nil
	}
	st, err := t.conn.PrepareContext(t.ctx, query)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	t.stmts[query] = st
	return st, nil
}

func (t *tx) exec(query string, args ...any) error {
	_, err := t.execute(query, args...)
	return err
}

// affect runs a statement and says how many rows it changed.
func (t *tx) affect(query string, args ...any) (int64, error) {
	r, err := t.execute(query, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (t *tx) execute(query string, args ...any) (sql.Result, error) {
	if t.s.onPostgres() { // its driver prepares by itself
		return t.conn.ExecContext(t.ctx, query, args...)
	}
	st, err := t.prepare(query)
	if err != nil {
		return nil, err
	}
	return st.ExecContext(t.ctx, args...)
}

func (t *tx) query(query string, args ...any) (*sql.Rows, error) {
	if t.s.onPostgres() {
		return t.conn.QueryContext(t.ctx, query, args...)
	}
	st, err := t.prepare(query)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(t.ctx, args...)
}

func (t *tx) queryRow(query string, args ...any) scanner {
	if t.s.onPostgres() {
		return t.conn.QueryRowContext(t.ctx, query, args...)
	}
	st, err := t.prepare(query)
	if err != nil {
		return failed{err}
	}
	return st.QueryRowContext(t.ctx, args...)
}

// one reads one row; false means that there is none.
func (t *tx) one(query string, args []any, into ...any) (bool, error) {
	err := t.queryRow(query, args...).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// lockTenant keeps two nodes from deciding at the same time what holds and
// credentials of a tenant mean: those that only join share it, those that change
// them do not. SQLite has one writer, which is lock enough.
func (t *tx) lockTenant(tenant ids.ID, shared bool) error {
	switch {
	case !t.s.onPostgres():
		return nil
	case shared:
		return t.exec("SELECT pg_advisory_xact_lock_shared(?)", tenant)
	}
	return t.exec("SELECT pg_advisory_xact_lock(?)", tenant)
}

// lock does the same for anything that has a name.
func (t *tx) lock(tenant ids.ID, names ...string) error {
	if !t.s.onPostgres() {
		return nil
	}
	keys := make([]int64, len(names))
	for i, name := range names {
		h := fnv.New64a()
		_, _ = h.Write([]byte(name))
		keys[i] = int64(h.Sum64()) ^ int64(tenant)
	}
	slices.Sort(keys) // always in the same order, so that none waits for the other
	for _, k := range slices.Compact(keys) {
		if err := t.exec("SELECT pg_advisory_xact_lock(?)", k); err != nil {
			return err
		}
	}
	return nil
}

// errCannotWrite is the answer while the database takes nothing. unknown: the
// connection broke between the commit and its confirmation.
func errCannotWrite(unknown bool) error {
	e := &problem.Error{Code: problem.Unavailable, RetryAfter: 5 * time.Second,
		Detail: "The database cannot be written at the moment; nothing was changed."}
	if unknown {
		e.Detail = "The connection to the database broke while this was being stored, so it may have been; repeat a request that had an " +
			"Idempotency-Key with the same key, and look at what others have changed before you repeat them."
	}
	return e
}

// WriteBeat is when the writer last committed, and how much waits for it or
// failed: with an old beat it stands still.
func (s *Store) WriteBeat() (last time.Time, waiting int) {
	waiting = len(s.writer.ops)
	if s.writer.failing.Load() {
		waiting++
	}
	return time.UnixMilli(s.writer.beat.Load()), waiting
}
