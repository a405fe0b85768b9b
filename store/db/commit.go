package db

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/carillonhq/carillon/problem"
)

// commitTries is how often a batch is begun that had to give way to others, or
// whose connection broke.
const commitTries = 6

// commit runs a batch as one transaction. Should a member fail, the others must
// not suffer: they are run again without it. false: the database took nothing.
func (w *writer) commit(t *Tx, batch []Op) bool {
	bulk, unknown, tries := true, false, 0
	for len(batch) > 0 {
		r := w.try(t, batch, bulk)
		unknown = unknown || r.committing
		switch {
		case r.err == nil:
			w.trouble.over(w.pools.opts.Log)
			for i, o := range batch {
				o.Done(r.refusals[i])
			}
			return true
		case w.pools.dialect.again(r.err) && tries < commitTries: // nothing was written
			tries++
			continue
		case t.conn == nil || r.culprit == nobody || w.pools.dialect.unable(r.err):
			if t.conn == nil && tries < commitTries {
				tries++
				if batch = w.repeatable(batch, r); w.reconnect(t) {
					continue
				}
			}
			w.trouble.met(w.pools.opts.Log, w.pools.dialect.explain(r.err))
			err := errors.Join(errCannotWrite(unknown), r.err)
			for _, o := range batch {
				o.Done(err)
			}
			return false
		case r.culprit == all: // which of them is found out one by one
			bulk = false
			continue
		}
		batch[r.culprit].Done(w.explain(r.err))
		batch = slices.Delete(batch, r.culprit, r.culprit+1)
	}
	return true
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
	if w.pools.dialect.raced(err) {
		return problem.New(problem.Conflict, "It was made by someone else at the same moment; look at it and try again.")
	}
	return err
}

// tried is what came of a transaction.
type tried struct {
	refusals   []error // of members that ran alone, whose own writes were undone
	err        error   // nothing was committed, unless committing
	culprit    int     // whose fault err is
	committing bool    // it is not known whether the commit, which was asked for, was made
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
	if err := t.Exec(w.pools.dialect.begin()); err != nil {
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
	if r.err = w.pools.dialect.whole(t.conn); r.err != nil {
		return r
	}
	if err := t.Exec("COMMIT"); err != nil {
		r.err = fmt.Errorf("commit: %w", err)
		r.committing = !w.pools.dialect.undone(err)
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
	unusable, worth := w.pools.dialect.afterRollback(err, reason)
	if worth {
		w.pools.opts.Log.Warn("roll back", "error", err)
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
	if w.pools.dialect.unable(refused) || w.pools.dialect.again(refused) {
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
	e := &problem.Error{Code: problem.Unavailable, RetryAfter: unreachableRetry,
		Detail: "The database cannot be written at the moment; nothing was changed."}
	if unknown {
		e.Detail = "The connection to the database broke while this was being stored, so it may have been; repeat a request that had an " +
			"Idempotency-Key with the same key, and look at what others have changed before you repeat them."
	}
	return e
}
