package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
)

// Hints travel between nodes by LISTEN and NOTIFY. They are sent after the commit
// that they are about, from a connection of their own: a NOTIFY within it would
// make all commits of the database wait for each other.

// Hint and its kinds are the engine's.
type Hint = delivery.Hint

// HintDue says that something is due.
const HintDue = delivery.HintDue

const (
	hintChannel = "carillon"
	hintPause   = 20 * time.Millisecond // between two sends: what comes meanwhile goes together
	mostHints   = 64                    // in one message; more become one hint to look at everything
)

// hints are those that wait to be sent.
type hints struct {
	mu      sync.Mutex
	waiting map[Hint]bool
	more    chan struct{}
}

// Hint tells the other nodes to look at something now instead of at their next
// poll. It is lost where nobody listens.
func (s *Store) Hint(h Hint) {
	if s.node.stop == nil || s.db.(*postgres).pooled {
		return
	}
	q := &s.node.hints
	q.mu.Lock()
	if len(q.waiting) < mostHints {
		q.waiting[h] = true
	}
	q.mu.Unlock()
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// OnHint calls f with each hint of another node.
func (s *Store) OnHint(f func(Hint)) { s.node.onHint.Store(&f) }

func (s *Store) hintLoop(ctx context.Context) {
	q := &s.node.hints
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.more:
		}
		q.mu.Lock()
		list := q.waiting
		q.waiting = map[Hint]bool{}
		q.mu.Unlock()
		words := make([]string, 0, len(list)+1)
		words = append(words, strconv.Itoa(s.opts.IDs.Node()))
		for h := range list {
			words = append(words, fmt.Sprintf("%d:%d:%d", h.Kind, h.Tenant, h.Notification))
		}
		sendCtx, cancel := context.WithTimeout(ctx, beatWithin)
		_, _ = s.writeDB.ExecContext(sendCtx, "SELECT pg_notify(?,?)", hintChannel, strings.Join(words, " ")) // a hint may be lost
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-time.After(hintPause):
		}
	}
}

// listenLoop hands over the hints of other nodes. Where a pooler is in between, or
// while the connection is lost, the poll does without.
func (s *Store) listenLoop(ctx context.Context) {
	pg := s.db.(*postgres)
	if pg.pooled {
		s.opts.Log.Info("a connection pooler is in between: this node polls instead of listening")
		return
	}
	for ctx.Err() == nil {
		err := s.listen(ctx, pg)
		if ctx.Err() != nil {
			return
		}
		s.opts.Log.Debug("listening for hints has ended; it is tried again", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(beatEvery):
		}
	}
}

func (s *Store) listen(ctx context.Context, pg *postgres) error {
	conn, err := pgx.ConnectConfig(ctx, pg.config.Copy())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "LISTEN "+hintChannel); err != nil {
		return err
	}
	s.received(Hint{Kind: HintDue}) // for what was missed meanwhile
	for {
		waiting, cancel := context.WithTimeout(ctx, deadAfter)
		n, err := conn.WaitForNotification(waiting)
		cancel()
		switch {
		case err == nil:
			s.hear(n.Payload)
		case ctx.Err() != nil || waiting.Err() == nil:
			return err
		case conn.IsClosed():
			return err
		default: // silence: is it still there?
			ping, cancel := context.WithTimeout(ctx, beatWithin)
			err := conn.Ping(ping)
			cancel()
			if err != nil {
				return err
			}
		}
	}
}

func (s *Store) hear(payload string) {
	words := strings.Fields(payload)
	if len(words) == 0 || words[0] == strconv.Itoa(s.opts.IDs.Node()) {
		return // our own
	}
	for _, w := range words[1:] {
		var kind, tenant, notification int64
		if _, err := fmt.Sscanf(w, "%d:%d:%d", &kind, &tenant, &notification); err == nil {
			s.received(Hint{Kind: delivery.HintKind(kind), Tenant: ids.ID(tenant), Notification: ids.ID(notification)})
		}
	}
}

func (s *Store) received(h Hint) {
	if f := s.node.onHint.Load(); f != nil {
		(*f)(h)
	}
}
