package db

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillonhq/carillon/problem"
)

// MaxBatch bounds how many rows share a transaction, so that none waits long
// behind the others.
const MaxBatch = 1000

// Op is a write that waits for its turn.
type Op struct {
	// Run writes. It may be run again in another transaction when the first was
	// undone for somebody else's sake.
	Run func(*Tx) error
	// Done is called after the commit, or with why there was none.
	Done   func(error)
	Weight int // rows, about
	// Patient: nobody waits for it, so it may wait for company.
	Patient bool
	// Alone: run in a savepoint of its own, because it may fail half way. The
	// others check first and then only write, and may be run twice.
	Alone bool
	// Bulk writes the ops of a batch together that carry a Member for it, which
	// says what Run would do; nil: each runs by itself.
	Bulk   Bulk
	Member any
	// Written is called when all of a batch has been written and nothing is
	// committed yet: tests stop the program there. It may be nil.
	Written func()
	// MayBeStored is called before the op is run again although its commit may have
	// come through. It may be nil.
	MayBeStored func()
}

// Bulk is how a package above writes those members of a batch that are alike with few
// statements.
type Bulk interface {
	// WriteTogether writes what it can of the members, and tells which those were.
	WriteTogether(t *Tx, members []any) (done []bool, err error)
}

// writer writes what is queued: one goroutine on SQLite, which takes one
// transaction at a time, several on PostgreSQL.
type writer struct {
	db      *DB
	ops     chan Op
	txs     []*Tx
	running sync.WaitGroup
	mu      sync.RWMutex // guards closed against sends on ops
	closed  bool
	beat    atomic.Int64 // unix ms of the last commit
	failing atomic.Bool  // the newest try to commit failed
}

func newWriter(ctx context.Context, d *DB) (*writer, error) {
	w := &writer{db: d, ops: make(chan Op, d.opts.QueueSize)}
	w.beat.Store(d.now().UnixMilli())
	for range d.dialect.writers() {
		t, err := newTx(ctx, d)
		if err != nil {
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

func (w *writer) closeTxs() {
	for _, t := range w.txs {
		t.close()
	}
}

// Do runs an op in a transaction that it may share, and waits for the commit.
func (d *DB) Do(ctx context.Context, weight int, run func(*Tx) error) error {
	return d.Write(ctx, Op{Run: run, Weight: weight})
}

// Change runs an op of several statements that must all happen or none.
func (d *DB) Change(ctx context.Context, run func(*Tx) error) error {
	return d.Write(ctx, Op{Run: run, Weight: 1, Alone: true})
}

// DoCounted is Do for what removes or changes rows, and counts them. What has
// nothing to do costs the writer a look, not a commit of its own: it shares one
// with what waits.
func (d *DB) DoCounted(ctx context.Context, weight int, run func(*Tx) (int64, error)) (rows int, err error) {
	err = d.Do(ctx, weight, func(t *Tx) error {
		n, err := run(t)
		rows = int(n)
		return err
	})
	return rows, err
}

// Write queues an op and waits for the commit.
func (d *DB) Write(ctx context.Context, o Op) error {
	result := make(chan error, 1)
	o.Done = func(err error) { result <- err }
	if err := d.Offer(ctx, o); err != nil {
		return err
	}
	// Once it is in the queue it will be run, so the answer is awaited even when
	// the caller has gone: what it reports must be true.
	return <-result
}

// Offer queues an op and waits for nothing. A full queue is refused at once to a caller that has a
// deadline to answer by, and waited for otherwise.
func (d *DB) Offer(ctx context.Context, o Op) error { return d.writer.offer(ctx, o) }

func (w *writer) offer(ctx context.Context, o Op) error {
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

func (w *writer) loop(t *Tx) {
	batch := make([]Op, 0, 256)
	for first := range w.ops {
		batch = w.gather(append(batch[:0], first))
		w.commit(t, batch)
		if !w.failing.Load() {
			w.beat.Store(w.db.now().UnixMilli())
		}
	}
}

// linger is how long outcomes wait for company. An accept never waits: its
// caller does.
const linger = 5 * time.Millisecond

// gather adds what waits already. As long as only outcomes are in the batch it
// waits a moment for more, so that they ride along with the next accept instead
// of costing a sync of their own.
func (w *writer) gather(batch []Op) []Op {
	weight, patient := 0, true
	add := func(o Op) {
		batch = append(batch, o)
		weight += max(o.Weight, 1)
		patient = patient && o.Patient
	}
	first := batch[0]
	batch = batch[:0]
	add(first)
	var over <-chan time.Time
	for weight < MaxBatch {
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
func (w *writer) commit(t *Tx, batch []Op) {
	bulk, unknown, tries := true, false, 0
	for len(batch) > 0 {
		r := w.try(t, batch, bulk)
		unknown = unknown || r.committing
		switch {
		case r.err == nil:
			w.failing.Store(false)
			for i, o := range batch {
				o.Done(r.refusals[i])
			}
			return
		case w.db.dialect.again(r.err) && tries < commitTries: // nothing was written
			tries++
			continue
		case t.conn == nil || r.culprit == nobody || w.db.dialect.unable(r.err):
			if t.conn == nil && tries < commitTries {
				tries++
				if batch = w.repeatable(batch, r); w.reconnect(t) {
					continue
				}
			}
			w.failing.Store(true)
			w.db.opts.Log.Warn("the database takes no writes", "error", r.err)
			err := errors.Join(errCannotWrite(unknown), r.err)
			for _, o := range batch {
				o.Done(err)
			}
			return
		case r.culprit == all: // which of them is found out one by one
			bulk = false
			continue
		}
		batch[r.culprit].Done(w.explain(r.err))
		batch = slices.Delete(batch, r.culprit, r.culprit+1)
	}
}

// repeatable tells those that cannot be run twice when it is not known whether
// they were: the connection broke while the commit was under way. What the engine
// writes can: its rows have ids and fences.
func (w *writer) repeatable(batch []Op, r tried) []Op {
	if !r.committing {
		return batch
	}
	return slices.DeleteFunc(batch, func(o Op) bool {
		if o.MayBeStored != nil {
			o.MayBeStored()
		}
		if o.Alone {
			o.Done(errors.Join(errCannotWrite(true), r.err))
		}
		return o.Alone
	})
}

// reconnectFor is how long a batch waits for a database that restarts.
const reconnectFor = 3 * time.Second

func (w *writer) reconnect(t *Tx) bool {
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
	if w.db.dialect.raced(err) {
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

func (w *writer) try(t *Tx, batch []Op, bulk bool) (r tried) {
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
	if err := t.Exec(w.db.dialect.begin()); err != nil {
		r.err = fmt.Errorf("begin: %w", err)
		return r
	}
	var done []bool
	if bulk {
		if done, r.err = together(t, batch); r.err != nil {
			r.culprit = all
			return r
		}
	}
	for i, o := range batch {
		switch {
		case done != nil && done[i]:
		case o.Alone:
			r.refusals[i], r.err = w.alone(t, o)
		default:
			r.err = safely(o.Run, t)
		}
		if r.err != nil {
			r.culprit = i
			return r
		}
	}
	for _, o := range batch {
		if o.Written != nil {
			o.Written()
		}
	}
	if r.err = w.db.dialect.whole(t); r.err != nil {
		return r
	}
	if err := t.Exec("COMMIT"); err != nil {
		r.err = fmt.Errorf("commit: %w", err)
		r.committing = true
	}
	return r
}

// together writes those members of a batch that may share statements, and tells
// which they were.
func together(t *Tx, batch []Op) (done []bool, err error) {
	var (
		bulk    Bulk
		members []any
		places  []int
	)
	for i, o := range batch {
		if bulk == nil {
			bulk = o.Bulk
		}
		if o.Bulk != nil && o.Bulk == bulk {
			members, places = append(members, o.Member), append(places, i)
		}
	}
	if bulk == nil {
		return nil, nil
	}
	written, err := bulk.WriteTogether(t, members)
	if err != nil {
		return nil, err
	}
	done = make([]bool, len(batch))
	for k, i := range places {
		done[i] = written[k]
	}
	return done, nil
}

func (w *writer) rollback(t *Tx, reason error) {
	err := t.Exec("ROLLBACK")
	unusable, worth := w.db.dialect.afterRollback(err, reason)
	if worth {
		w.db.opts.Log.Warn("roll back", "error", err)
	}
	if unusable {
		t.disconnect() // the transaction ends with its session
	}
}

func (w *writer) alone(t *Tx, o Op) (refused, fatal error) {
	if err := t.Exec("SAVEPOINT member"); err != nil {
		return nil, err
	}
	refused = safely(o.Run, t)
	if w.db.dialect.unable(refused) || w.db.dialect.again(refused) {
		return nil, refused // the whole transaction may be undone
	}
	if refused != nil {
		fatal = t.Exec("ROLLBACK TO member")
		refused = w.explain(refused)
	}
	return refused, errors.Join(fatal, t.Exec("RELEASE member"))
}

// safely keeps a panic in one op from ending the writer and with it the server.
func safely(run func(*Tx) error, t *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic while writing: %v", p)
		}
	}()
	return run(t)
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
func (d *DB) WriteBeat() (last time.Time, waiting int) {
	waiting = len(d.writer.ops)
	if d.writer.failing.Load() {
		waiting++
	}
	return time.UnixMilli(d.writer.beat.Load()), waiting
}
