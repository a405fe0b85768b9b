package db

import (
	"context"
	"errors"
	"fmt"
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
	pools   *pools
	ops     chan Op
	txs     []*Tx
	running sync.WaitGroup
	mu      sync.RWMutex // guards closed against sends on ops
	closed  bool
	beat    atomic.Int64 // unix ms of when a batch was written last
	trouble trouble
}

func newWriter(p *pools) *writer { return &writer{pools: p} }

func (w *writer) start(ctx context.Context) error {
	w.ops = make(chan Op, w.pools.opts.QueueSize)
	w.beat.Store(w.pools.now().UnixMilli())
	for range w.pools.dialect.writers() {
		t, err := newTx(ctx, w.pools)
		if err != nil {
			w.closeTxs()
			return fmt.Errorf("open the database: %w", err)
		}
		w.txs = append(w.txs, t)
	}
	for _, t := range w.txs {
		w.running.Go(func() { w.loop(t) })
	}
	return nil
}

func (w *writer) closeTxs() {
	for _, t := range w.txs {
		t.close()
	}
}

// Do runs an op in a transaction that it may share, and waits for the commit.
func (w *writer) Do(ctx context.Context, weight int, run func(*Tx) error) error {
	return w.Write(ctx, Op{Run: run, Weight: weight})
}

// Change runs an op of several statements that must all happen or none.
func (w *writer) Change(ctx context.Context, run func(*Tx) error) error {
	return w.Write(ctx, Op{Run: run, Weight: 1, Alone: true})
}

// DoCounted is Do for what removes or changes rows, and counts them. What has
// nothing to do costs the writer a look, not a commit of its own: it shares one
// with what waits.
func (w *writer) DoCounted(ctx context.Context, weight int, run func(*Tx) (int64, error)) (rows int, err error) {
	err = w.Do(ctx, weight, func(t *Tx) error {
		n, err := run(t)
		rows = int(n)
		return err
	})
	return rows, err
}

// Write queues an op and waits for the commit.
func (w *writer) Write(ctx context.Context, o Op) error {
	result := make(chan error, 1)
	o.Done = func(err error) { result <- err }
	if err := w.Offer(ctx, o); err != nil {
		return err
	}
	// Once it is in the queue it will be run, so the answer is awaited even when
	// the caller has gone: what it reports must be true.
	return <-result
}

// Offer queues an op, and does not wait for the commit. A full queue is refused at
// once to a caller that has a deadline to answer by, and waited for otherwise.
func (w *writer) Offer(ctx context.Context, o Op) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.ops == nil {
		return errors.New("the database is open without a writer")
	}
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
	if !w.closed && w.ops != nil {
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
		if w.commit(t, batch) {
			w.beat.Store(w.pools.now().UnixMilli())
		}
	}
}

// WriteBeat is when a batch was last written, and how much waits: with an old beat the
// writer stands still.
func (w *writer) WriteBeat() (last time.Time, waiting int) {
	return time.UnixMilli(w.beat.Load()), len(w.ops)
}

// TakesWrites is false from the first write that the database has failed until none has
// for a while.
func (w *writer) TakesWrites() bool { return !w.trouble.on() }
