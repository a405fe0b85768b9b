package delivery

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestACacheStaysInBounds(t *testing.T) {
	t.Parallel()
	c := cache[int, string]{most: 2}
	has := func(k int) bool { _, ok := c.get(k); return ok }
	require.False(t, has(1))
	c.put(1, "a")
	c.put(2, "b")
	v, ok := c.get(1)
	require.True(t, ok)
	require.Equal(t, "a", v)
	c.put(3, "c")
	require.True(t, has(3))
	require.False(t, has(1) || has(2), "a full one begins anew")
	c.forget(3)
	require.False(t, has(3))
	c.forget(4)
	c.put(5, "e")
	c.clear()
	require.False(t, has(5))
	c.clear()
	c.put(6, "f")
	require.True(t, has(6))
}

func TestWhatIsHeavyIsBoundedToo(t *testing.T) {
	t.Parallel()
	c := cache[int, string]{most: 100, weigh: func(s string) int { return len(s) }, mostWeight: 10}
	has := func(k int) bool { _, ok := c.get(k); return ok }
	c.put(1, "aaaa")
	c.put(2, "bbbb")
	c.put(1, "aaaaaa") // instead of what it had
	require.True(t, has(1) && has(2))
	require.Equal(t, 10, c.weight)
	c.put(3, "c")
	require.True(t, has(3) && !has(1) && !has(2), "a full one begins anew")
	c.forget(3)
	require.Zero(t, c.weight)
	c.put(4, "dddddddddddd")
	require.True(t, has(4), "one alone is kept, however heavy")
	c.clear()
	require.Zero(t, c.weight)
}
