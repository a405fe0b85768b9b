package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gorm.io/gorm"
	"modernc.org/sqlite"

	"github.com/carillonhq/carillon/delivery"
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
	// others check first and then only write.
	alone bool
}

// writer is the only goroutine that writes.
type writer struct {
	store   *Store
	conn    *sql.Conn
	tx      *tx
	ops     chan op
	stopped chan struct{}
	mu      sync.RWMutex // guards closed against sends on ops
	closed  bool
	beat    atomic.Int64 // unix ms of the last commit
	failing atomic.Bool  // the newest try to commit failed
}

// tx is the transaction that an op writes in: one connection with its prepared
// statements.
type tx struct {
	s     *Store
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
	db    *gorm.DB
	ctx   context.Context
	// served is the tenant that the last claim of a lane ended with.
	served [delivery.LanesCount]ids.ID
}

func newWriter(ctx context.Context, s *Store) (*writer, error) {
	conn, err := s.writeDB.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	// A context that can be cancelled would cost a goroutine per statement.
	bg := context.Background()
	db := s.write.Session(&gorm.Session{Context: bg, NewDB: true})
	db.Statement.ConnPool = conn
	w := &writer{
		store: s, conn: conn, ops: make(chan op, s.opts.QueueSize), stopped: make(chan struct{}),
		tx: &tx{s: s, conn: conn, stmts: map[string]*sql.Stmt{}, db: db, ctx: bg},
	}
	w.beat.Store(s.now().UnixMilli())
	go w.loop()
	return w, nil
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
	<-w.stopped
}

func (w *writer) loop() {
	defer close(w.stopped)
	defer func() {
		for _, st := range w.tx.stmts {
			_ = st.Close()
		}
		_ = w.conn.Close()
	}()
	batch := make([]op, 0, 256)
	for first := range w.ops {
		batch = w.gather(append(batch[:0], first))
		w.commit(batch)
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

// commit runs a batch as one transaction. Should a member fail, the others must
// not suffer: they are run again without it.
func (w *writer) commit(batch []op) {
	for len(batch) > 0 {
		results, culprit, err := w.try(batch)
		switch {
		case err == nil:
			w.failing.Store(false)
			for i, o := range batch {
				o.done(results[i])
			}
			return
		case culprit < 0 || cannotWrite(err): // the database itself takes nothing
			w.failing.Store(true)
			err = errors.Join(errCannotWrite(), err)
			for _, o := range batch {
				o.done(err)
			}
			return
		}
		batch[culprit].done(err)
		batch = slices.Delete(batch, culprit, culprit+1)
	}
}

// try runs a batch. results holds the refusals of members that ran alone, whose
// own writes were undone; err says that nothing was committed, and culprit which
// member it is the fault of, -1 if of none.
func (w *writer) try(batch []op) (results []error, culprit int, err error) {
	results = make([]error, len(batch))
	if err := w.tx.exec("BEGIN IMMEDIATE"); err != nil {
		return results, -1, fmt.Errorf("begin: %w", err)
	}
	for i, o := range batch {
		if o.alone {
			results[i], err = w.alone(o)
		} else {
			err = safely(o.run, w.tx)
		}
		if err != nil {
			w.rollback()
			return results, i, err
		}
	}
	if err := w.tx.exec("COMMIT"); err != nil {
		w.rollback()
		return results, -1, fmt.Errorf("commit: %w", err)
	}
	return results, -1, nil
}

func (w *writer) rollback() {
	// On a full disk SQLite has rolled back already, and has nothing left to undo.
	if err := w.tx.exec("ROLLBACK"); err != nil && !strings.Contains(err.Error(), "no transaction is active") {
		w.store.opts.Log.Warn("roll back", "error", err)
	}
}

func (w *writer) alone(o op) (refused, fatal error) {
	if err := w.tx.exec("SAVEPOINT member"); err != nil {
		return nil, err
	}
	refused = safely(o.run, w.tx)
	if cannotWrite(refused) {
		return nil, refused // SQLite may have undone the whole transaction
	}
	if refused != nil {
		fatal = w.tx.exec("ROLLBACK TO member")
	}
	return refused, errors.Join(fatal, w.tx.exec("RELEASE member"))
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
	_, err := t.affect(query, args...)
	return err
}

// affect runs a statement and counts the rows that it changed.
func (t *tx) affect(query string, args ...any) (int64, error) {
	st, err := t.prepare(query)
	if err != nil {
		return 0, err
	}
	r, err := st.ExecContext(t.ctx, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (t *tx) query(query string, args ...any) (*sql.Rows, error) {
	st, err := t.prepare(query)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(t.ctx, args...)
}

// one scans a single row; false: there is none.
func (t *tx) one(query string, args []any, into ...any) (bool, error) {
	st, err := t.prepare(query)
	if err != nil {
		return false, err
	}
	err = st.QueryRowContext(t.ctx, args...).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// cannotWrite tells whether an error is the database's and not the statement's:
// SQLITE_BUSY, READONLY, IOERR, FULL, CANTOPEN.
func cannotWrite(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && slices.Contains([]int{5, 8, 10, 13, 14}, e.Code()&0xff)
}

func errCannotWrite() error {
	return &problem.Error{Code: problem.Unavailable, RetryAfter: 5 * time.Second,
		Detail: "The database cannot be written at the moment; nothing was changed."}
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
