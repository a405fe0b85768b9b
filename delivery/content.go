package delivery

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// contents keeps payloads of notifications that are claimed again, so that the
// retries of one with many targets prepare it once.
type contents struct {
	mu    sync.Mutex
	known map[contentKey]channels.Payload
}

type contentKey struct {
	notification ids.ID
	kind         channels.Kind
}

const maxContents = 1024

func (c *contents) get(k contentKey) channels.Payload {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known[k]
}

func (c *contents) put(k contentKey, p channels.Payload) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxContents {
		c.known = map[contentKey]channels.Payload{}
	}
	c.known[k] = p
}

// clear forgets all: what was erased must not be sent from memory.
func (c *contents) clear() {
	c.mu.Lock()
	c.known = nil
	c.mu.Unlock()
}

// payload prepares what a claimed row needs. mapping: the stored content cannot
// be turned into a payload, which no retry will mend.
func (e *Engine) payload(ctx context.Context, it *item) (p channels.Payload, mapping bool, err error) {
	k := contentKey{it.Notification, it.Channel}
	if p := e.contents.get(k); p != nil {
		return p, false, nil
	}
	body, err := e.o.Store.Content(ctx, it.Tenant, it.Notification)
	if err != nil {
		return nil, false, err
	}
	var r Request
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, true, fmt.Errorf("read the stored content: %w", err)
	}
	p, err = e.o.Channels[it.Channel].Prepare(r.message(it.Notification.Format(ids.Notification), it.Notification.Time(), it.Channel))
	if err != nil {
		return nil, true, err
	}
	e.contents.put(k, p)
	return p, false, nil
}

// targets keeps endpoints for a moment: the same few are read again and again.
type targets struct {
	mu    sync.Mutex
	known map[ids.ID]TargetNow
}

func (t *targets) get(id ids.ID, now time.Time) (TargetNow, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x, ok := t.known[id]
	return x, ok && now.Sub(x.ReadAt) < targetAge
}

func (t *targets) put(id ids.ID, x TargetNow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil || len(t.known) >= maxContents {
		t.known = map[ids.ID]TargetNow{}
	}
	t.known[id] = x
}

func (t *targets) forget(id ids.ID) {
	t.mu.Lock()
	delete(t.known, id)
	t.mu.Unlock()
}

func (t *targets) clear() {
	t.mu.Lock()
	t.known = nil
	t.mu.Unlock()
}
