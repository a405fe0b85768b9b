package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOtherNodesAreToldOfAGateOnce(t *testing.T) {
	t.Parallel()
	var g gates
	k := flowKey{id: 1, origin: "https://a.example"}
	g.close(k, in(time.Minute), at)
	require.Empty(t, g.news(at), "a device's own gate")
	require.True(t, g.widen(k, at), "it is closed for long")
	want := []SharedGate{{Subject: 1, Origin: "https://a.example", Until: in(time.Minute), Wait: time.Minute}}
	require.Equal(t, want, g.news(at))
	require.Equal(t, want, g.news(at), "until they have been told")
	require.True(t, g.told(want, at))
	require.Empty(t, g.news(at))

	g.close(k, in(time.Minute+gateMoves), at)
	require.False(t, g.widen(k, at))
	require.Empty(t, g.news(at), "it hardly moved")
	g.close(k, in(time.Minute+gateMoves+1), at)
	require.True(t, g.widen(k, at))
	require.Len(t, g.news(at), 1)
	require.Empty(t, g.news(in(time.Hour)), "it is open")

	short := flowKey{id: 2}
	g.close(short, in(longGate), at)
	require.False(t, g.widen(short, at), "it can wait for its turn")
	require.False(t, g.told([]SharedGate{{Subject: 2, Until: in(longGate)}}, at))
	require.False(t, g.told([]SharedGate{{Subject: 3}}, at))
	require.NotContains(t, g.closed, flowKey{id: 3})
}

func TestGatesOfOtherNodesStopThisOne(t *testing.T) {
	t.Parallel()
	var g gates
	k := [3]flowKey{{id: 1}}
	g.merge([]SharedGate{{Subject: 1, Until: in(time.Minute), Wait: 30 * time.Second}, {Subject: 2, Until: at}}, at)
	require.Equal(t, in(time.Minute), g.until(k, at))
	require.Len(t, g.closed, 1, "what is open by now is nothing new")
	require.Empty(t, g.news(at), "they know")
	g.merge([]SharedGate{{Subject: 1, Until: in(time.Second), Wait: time.Second}}, at)
	require.Equal(t, in(time.Minute), g.until(k, at), "the later one counts")

	g.close(k[0], in(61*time.Second), in(61*time.Second-1))
	require.Equal(t, in(121*time.Second-1), g.until(k, in(61*time.Second-1)), "it is the same trouble, whoever had it first")
	require.True(t, g.widen(k[0], in(61*time.Second-1)))
}

func TestTheBreakerOpensOnTheVerdictsOfAllNodes(t *testing.T) {
	t.Parallel()
	k := versionKey{1, 1}
	var a, b health
	for i := range 12 { // neither has enough to tell
		at := in(time.Duration(i) * time.Second)
		require.False(t, a.verdict(k, gone, true, false, at).BreakerOpen)
		require.False(t, b.verdict(k, gone, true, false, at.Add(time.Minute)).BreakerOpen)
	}
	now := in(2 * time.Minute)
	fromA, fromB := a.news(now), b.news(now)
	require.Equal(t, []Verdicts{{Credential: 1, Version: 1, Seen: 12, Gone: 12, Since: at, Newest: in(11 * time.Second)}}, fromA)
	require.Equal(t, map[versionKey]time.Time{k: at}, a.share(fromB))
	require.Equal(t, map[versionKey]time.Time{k: at}, b.share(fromA), "from the oldest, whoever heard it")
	require.Empty(t, b.share(fromA), "it opens once")
	o := b.verdict(k, gone, true, false, now)
	require.True(t, o.BreakerOpen && !o.opened)
	require.Equal(t, at, o.since)
	require.False(t, b.confirms(k, at))
	require.Empty(t, b.share(nil), "the other node is gone, and its verdicts with it")
	require.False(t, b.versions[k].open)
}

func TestSuccessesOfOtherNodesKeepTheBreakerClosed(t *testing.T) {
	t.Parallel()
	k := versionKey{1, 1}
	var a, b health
	for range breakerWindow {
		b.verdict(k, good, true, false, at)
	}
	require.Empty(t, b.news(at), "of what nobody calls gone nobody has to know")
	a.verdict(k, gone, true, false, at)
	require.Empty(t, b.share(a.news(at)))
	require.Len(t, b.news(at), 1, "now they do")
	a.share(b.news(at))
	for range 49 {
		require.False(t, a.verdict(k, gone, true, false, at).BreakerOpen)
	}
	require.True(t, a.verdict(k, gone, true, false, at).opened, "51 of 251")
}

func TestVerdictsAreToldWhenTheyChange(t *testing.T) {
	t.Parallel()
	k := versionKey{1, 1}
	var h health
	told := func(now time.Time) bool {
		list := h.news(now)
		h.told(list)
		return len(list) > 0
	}
	h.verdict(k, gone, true, false, at)
	require.True(t, told(at))
	require.False(t, told(at))
	h.verdict(k, good, true, false, at)
	require.True(t, told(at))
	for i := range breakerWindow { // the one that was called gone leaves the window
		h.verdict(k, good, true, false, in(time.Duration(i)*time.Millisecond))
	}
	list := h.news(at)
	require.Len(t, list, 1)
	require.Zero(t, list[0].Gone)
	h.told(list)
	h.verdict(k, good, true, false, in(verdictsAgain+time.Second))
	require.False(t, told(in(verdictsAgain+time.Second)), "it is as good as never called gone")

	h.share([]Verdicts{{Credential: 1, Version: 1, Seen: 1, Gone: 1}})
	require.True(t, told(in(2*verdictsAgain)), "another node wants to know, and they are younger by a minute")
	h.verdict(k, good, true, false, in(2*verdictsAgain))
	require.False(t, told(in(2*verdictsAgain)), "the sums are the same")
	h.verdict(k, good, true, false, in(3*verdictsAgain))
	require.False(t, told(in(3*verdictsAgain+verdictsLast)), "too old to count")
	require.True(t, told(in(3*verdictsAgain)))

	h.told([]Verdicts{{Credential: 9}})
	require.Len(t, h.versions, 1, "a version that is pruned meanwhile stays so")
}
