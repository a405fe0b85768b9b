package tenants

import (
	"context"
	"sync"
	"time"
)

const (
	// maxAge is how old a cached row may be: a change made on another node counts
	// within this time, one made here at once.
	maxAge = 5 * time.Second
	// maxEntries bounds each cache.
	maxEntries = 10_000
)

// cache remembers rows for maxAge. Failures are not remembered.
type cache[K comparable, V any] struct {
	now     func() time.Time
	mu      sync.RWMutex
	entries map[K]entry[V]
	drops   uint64 // how often drop was called
}

type entry[V any] struct {
	value V
	until time.Time
}

func newCache[K comparable, V any](now func() time.Time) *cache[K, V] {
	return &cache[K, V]{now: now, entries: make(map[K]entry[V])}
}

// get returns the remembered value, or what load returns.
func (c *cache[K, V]) get(ctx context.Context, key K, load func(context.Context, K) (V, error)) (V, error) {
	now := c.now()
	c.mu.RLock()
	e, ok := c.entries[key]
	drops := c.drops
	c.mu.RUnlock()
	if ok && now.Before(e.until) {
		return e.value, nil
	}
	v, err := load(ctx, key)
	if err != nil {
		return v, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// A row read before a drop may be what was dropped.
	if c.drops == drops {
		c.makeRoom(now)
		c.entries[key] = entry[V]{value: v, until: now.Add(maxAge)}
	}
	return v, nil
}

// drop forgets a key, also for a load that is under way.
func (c *cache[K, V]) drop(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, key)
	c.drops++
}

// clear forgets everything, also for loads that are under way.
func (c *cache[K, V]) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.entries)
	c.drops++
}

// makeRoom removes what is too old when the cache is full, and anything if
// nothing is.
func (c *cache[K, V]) makeRoom(now time.Time) {
	if len(c.entries) < maxEntries {
		return
	}
	for k, e := range c.entries {
		if !now.Before(e.until) {
			delete(c.entries, k)
		}
	}
	for k := range c.entries {
		if len(c.entries) < maxEntries {
			return
		}
		delete(c.entries, k)
	}
}
