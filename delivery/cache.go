package delivery

import "sync"

// cache keeps up to most values in memory. When it is full it forgets all of them:
// what it saves is reading the same few again and again.
type cache[K comparable, V any] struct {
	most int

	mu    sync.Mutex
	known map[K]V
}

func (c *cache[K, V]) get(k K) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok = c.known[k]
	return v, ok
}

func (c *cache[K, V]) put(k K, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= c.most {
		c.known = map[K]V{}
	}
	c.known[k] = v
}

func (c *cache[K, V]) forget(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, k)
}

func (c *cache[K, V]) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = nil
}
