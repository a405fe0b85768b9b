package delivery

import "sync"

// cache keeps up to most values in memory, and of those that are weighed no more than
// mostWeight together. When it is full it forgets all of them: what it saves is reading
// the same few again and again.
type cache[K comparable, V any] struct {
	most       int
	weigh      func(V) int // nil: they weigh nothing
	mostWeight int

	mu     sync.Mutex
	known  map[K]V
	weight int
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
	c.remove(k)
	w := c.of(v)
	if c.known == nil || len(c.known) >= c.most || c.weigh != nil && c.weight+w > c.mostWeight {
		c.known, c.weight = map[K]V{}, 0
	}
	c.known[k] = v
	c.weight += w
}

func (c *cache[K, V]) of(v V) int {
	if c.weigh == nil {
		return 0
	}
	return c.weigh(v)
}

func (c *cache[K, V]) remove(k K) {
	if v, known := c.known[k]; known {
		c.weight -= c.of(v)
		delete(c.known, k)
	}
}

func (c *cache[K, V]) forget(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(k)
}

func (c *cache[K, V]) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known, c.weight = nil, 0
}
