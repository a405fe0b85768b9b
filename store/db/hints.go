package db

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/carillonhq/carillon/ids"
)

// Hints travel between nodes by LISTEN and NOTIFY. They are sent after the commit
// that they are about, from a connection of their own: a NOTIFY within it would
// make all commits of the database wait for each other.

// Hint tells another node to look at something at once. It may be lost: the next
// poll finds what it was about. What the kinds mean is not the kernel's business;
// 0 says that hints may have been missed.
type Hint struct {
	Kind                 uint8
	Tenant, Notification ids.ID // as the kind needs them
}

const (
	hintChannel = "carillon"
	hintPause   = 20 * time.Millisecond // between two sends: what comes meanwhile goes together
	mostHints   = 64                    // in one message; more become one hint to look at everything
)

// hints are those that wait to be sent, and whoever gets those of the others.
type hints struct {
	pools   *pools
	mu      sync.Mutex
	waiting map[Hint]bool
	more    chan struct{}
	receive atomic.Pointer[func(Hint)]
	sends   atomic.Bool // somebody may be listening
}

func newHints(p *pools) *hints {
	return &hints{pools: p, waiting: map[Hint]bool{}, more: make(chan struct{}, 1)}
}

// run sends and receives until ctx ends. Where a pooler is in between, the polls do
// without.
func (q *hints) run(ctx context.Context, running *sync.WaitGroup) {
	pg := q.pools.dialect.(*postgres)
	if pg.pooled {
		q.pools.Log().Info("a connection pooler is in between: this node polls instead of listening")
		return
	}
	q.sends.Store(true)
	running.Go(func() { q.sendLoop(ctx) })
	running.Go(func() { q.listenLoop(ctx, pg) })
}

// SendHint tells the other nodes to look at something now instead of at their next
// poll. It is lost where nobody listens.
func (q *hints) SendHint(h Hint) {
	if !q.sends.Load() {
		return
	}
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

// ReceiveHints calls f with each hint of another node.
func (q *hints) ReceiveHints(f func(Hint)) { q.receive.Store(&f) }

func (q *hints) sendLoop(ctx context.Context) {
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
		words = append(words, strconv.Itoa(q.pools.IDs().Node()))
		for h := range list {
			words = append(words, fmt.Sprintf("%d:%d:%d", h.Kind, h.Tenant, h.Notification))
		}
		sendCtx, cancel := context.WithTimeout(ctx, beatWithin)
		_, _ = q.pools.writes.ExecContext(sendCtx, "SELECT pg_notify(?,?)", hintChannel, strings.Join(words, " ")) // a hint may be lost
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-time.After(hintPause):
		}
	}
}

// listenLoop hands over the hints of other nodes. While the connection is lost, the
// poll does without.
func (q *hints) listenLoop(ctx context.Context, pg *postgres) {
	for ctx.Err() == nil {
		err := q.listen(ctx, pg)
		if ctx.Err() != nil {
			return
		}
		q.pools.Log().Debug("listening for hints has ended; it is tried again", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(beatEvery):
		}
	}
}

func (q *hints) listen(ctx context.Context, pg *postgres) error {
	conn, err := pgx.ConnectConfig(ctx, pg.config.Copy())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "LISTEN "+hintChannel); err != nil {
		return err
	}
	q.received(Hint{}) // for what was missed meanwhile
	for {
		waiting, cancel := context.WithTimeout(ctx, DeadAfter)
		n, err := conn.WaitForNotification(waiting)
		cancel()
		switch {
		case err == nil:
			q.hear(n.Payload)
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

func (q *hints) hear(payload string) {
	words := strings.Fields(payload)
	if len(words) == 0 || words[0] == strconv.Itoa(q.pools.IDs().Node()) {
		return // our own
	}
	for _, w := range words[1:] {
		var (
			kind                 uint8
			tenant, notification int64
		)
		if _, err := fmt.Sscanf(w, "%d:%d:%d", &kind, &tenant, &notification); err == nil {
			q.received(Hint{Kind: kind, Tenant: ids.ID(tenant), Notification: ids.ID(notification)})
		}
	}
}

func (q *hints) received(h Hint) {
	if f := q.receive.Load(); f != nil {
		(*f)(h)
	}
}
