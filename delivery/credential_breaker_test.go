package delivery

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

var (
	good = channels.Accepted
	gone = channels.Gone
)

func TestAVersionProvesItselfOnce(t *testing.T) {
	t.Parallel()
	var h breakers
	k := versionKey{1, 1}
	require.False(t, h.tell(k, gone, false, false, at).proven)
	o := h.tell(k, good, false, false, at)
	require.True(t, o.first && o.proven)
	o = h.tell(k, good, false, false, at)
	require.False(t, o.first)
	require.True(t, h.tell(k, gone, false, false, at).proven)
	require.False(t, h.tell(versionKey{1, 2}, gone, false, false, at).proven, "a new version has yet to")
	o = h.tell(versionKey{2, 1}, good, true, false, at)
	require.True(t, o.proven && !o.first, "the database knows it already")
}

func TestTheBreakerOpensOnManyGone(t *testing.T) {
	t.Parallel()
	var h breakers
	k := versionKey{1, 1}
	for i := range breakerLeast - 1 {
		o := h.tell(k, gone, true, false, in(time.Duration(i)*time.Second))
		require.False(t, o.open || o.opened, "too few to tell")
	}
	o := h.tell(k, gone, true, false, in(time.Hour))
	require.True(t, o.open && o.opened)
	require.Equal(t, at, o.since, "all of the window is in doubt")
	o = h.tell(k, gone, true, false, at)
	require.True(t, o.open && !o.opened, "it opens once")
}

func TestTheBreakerIsOfTheLastVerdicts(t *testing.T) {
	t.Parallel()
	var h breakers
	k := versionKey{1, 1}
	at := at
	tell := func(r channels.Outcome, n int) (o noted) {
		for range n {
			at = at.Add(time.Second)
			o = h.tell(k, r, true, false, at)
		}
		return o
	}
	tell(good, breakerWindow)
	require.False(t, tell(gone, 40).open, "a fifth is life")
	o := tell(gone, 1)
	require.True(t, o.opened)
	require.Equal(t, at.Add(-(breakerWindow-1)*time.Second), o.since, "the oldest verdict of the window")
	require.True(t, tell(good, breakerWindow-41).open)
	require.False(t, tell(good, 1).open, "it closes as the window moves on")
	require.False(t, tell(gone, 39).open)
	require.False(t, tell(gone, 1).open)
	require.True(t, tell(gone, 1).opened, "and opens again")
}

func TestWhatSaysNothingAboutTheCredential(t *testing.T) {
	t.Parallel()
	var h breakers
	k := versionKey{1, 1}
	for range breakerWindow {
		for _, o := range []channels.Outcome{channels.Retry, channels.Throttled, channels.Rejected, channels.Denied, channels.Interrupted} {
			require.False(t, h.tell(k, o, true, false, at).open)
		}
		require.False(t, h.tell(k, gone, true, true, at).open, "nor does a suspect that is called gone again")
	}
	require.Zero(t, h.versions[k].seen)
}

func TestOldVersionsAreForgotten(t *testing.T) {
	t.Parallel()
	var h breakers
	for _, k := range []versionKey{{1, 1}, {1, 2}, {2, 1}} {
		h.tell(k, good, false, false, at)
	}
	h.prune(map[ids.ID]int{1: 2})
	require.Len(t, h.versions, 1)
	require.Contains(t, h.versions, versionKey{1, 2})
}

func TestTheBreakerOpensOnTheVerdictsOfAllNodes(t *testing.T) {
	t.Parallel()
	k := versionKey{1, 1}
	var a, b breakers
	for i := range 12 { // neither has enough to tell
		at := in(time.Duration(i) * time.Second)
		require.False(t, a.tell(k, gone, true, false, at).open)
		require.False(t, b.tell(k, gone, true, false, at.Add(time.Minute)).open)
	}
	now := in(2 * time.Minute)
	fromA, fromB := a.pending(now), b.pending(now)
	require.Equal(t, []Verdicts{{Credential: 1, Version: 1, Seen: 12, Gone: 12, Since: at, Newest: in(11 * time.Second)}}, fromA)
	require.Equal(t, map[versionKey]time.Time{k: at}, a.merge(fromB))
	require.Equal(t, map[versionKey]time.Time{k: at}, b.merge(fromA), "from the oldest, whoever heard it")
	require.Empty(t, b.merge(fromA), "it opens once")
	o := b.tell(k, gone, true, false, now)
	require.True(t, o.open && !o.opened)
	require.Equal(t, at, o.since)
	require.False(t, b.confirms(k, at))
	require.Empty(t, b.merge(nil), "the other node is gone, and its verdicts with it")
	require.False(t, b.versions[k].open)
}

func TestSuccessesOfOtherNodesKeepTheBreakerClosed(t *testing.T) {
	t.Parallel()
	k := versionKey{1, 1}
	var a, b breakers
	for range breakerWindow {
		b.tell(k, good, true, false, at)
	}
	require.Empty(t, b.pending(at), "of what nobody calls gone nobody has to know")
	a.tell(k, gone, true, false, at)
	require.Empty(t, b.merge(a.pending(at)))
	require.Len(t, b.pending(at), 1, "now they do")
	a.merge(b.pending(at))
	for range 49 {
		require.False(t, a.tell(k, gone, true, false, at).open)
	}
	require.True(t, a.tell(k, gone, true, false, at).opened, "51 of 251")
}

func TestVerdictsAreToldWhenTheyChange(t *testing.T) {
	t.Parallel()
	k := versionKey{1, 1}
	var h breakers
	told := func(now time.Time) bool {
		list := h.pending(now)
		h.markSent(list)
		return len(list) > 0
	}
	h.tell(k, gone, true, false, at)
	require.True(t, told(at))
	require.False(t, told(at))
	h.tell(k, good, true, false, at)
	require.True(t, told(at))
	for i := range breakerWindow { // the one that was called gone leaves the window
		h.tell(k, good, true, false, in(time.Duration(i)*time.Millisecond))
	}
	list := h.pending(at)
	require.Len(t, list, 1)
	require.Zero(t, list[0].Gone)
	h.markSent(list)
	h.tell(k, good, true, false, in(verdictsAgain+time.Second))
	require.False(t, told(in(verdictsAgain+time.Second)), "it is as good as never called gone")

	h.merge([]Verdicts{{Credential: 1, Version: 1, Seen: 1, Gone: 1}})
	require.True(t, told(in(2*verdictsAgain)), "another node wants to know, and they are younger by a minute")
	h.tell(k, good, true, false, in(2*verdictsAgain))
	require.False(t, told(in(2*verdictsAgain)), "the sums are the same")
	h.tell(k, good, true, false, in(3*verdictsAgain))
	require.False(t, told(in(3*verdictsAgain+verdictsLast)), "too old to count")
	require.True(t, told(in(3*verdictsAgain)))

	h.markSent([]Verdicts{{Credential: 9}})
	require.Len(t, h.versions, 1, "a version that is pruned meanwhile stays so")
}

func TestABreakerThatIsOpenConfirmsNothing(t *testing.T) {
	t.Parallel()
	var b breakers
	k := versionKey{1, 1}
	require.False(t, b.confirms(k, at), "a version that nobody has used")
	b.tell(k, gone, true, false, at)
	require.False(t, b.confirms(k, at), "it has had no success")
	b.tell(k, good, true, false, at)
	require.True(t, b.confirms(k, at), "a success at the moment of the doubt is since")
	require.False(t, b.confirms(k, in(time.Second)), "one before it is not")
	require.False(t, b.confirms(versionKey{1, 2}, at), "nor is that of another version")

	for range breakerLeast {
		b.tell(k, gone, true, false, at)
	}
	require.True(t, b.tell(k, good, true, false, in(time.Minute)).open, "a success closes no breaker")
	require.False(t, b.confirms(k, at), "while it is open, a success confirms nothing")
	for i := range breakerWindow {
		b.tell(k, good, true, false, in(time.Hour+time.Duration(i)))
	}
	require.True(t, b.confirms(k, at), "once it is closed, it does")
}

var somebody atomic.Int64

// tell counts a verdict about somebody else each time, to whom something was sent
// before.
func (b *breakers) tell(k versionKey, o channels.Outcome, proven, again bool, now time.Time) noted {
	return b.note(k, o, proven, witness{user: ids.ID(somebody.Add(1)), worked: true, again: again}, now)
}

// TestAnOpenBreakerConfirmsNothing: successes of some do not make the verdicts on many
// true.
func TestAnOpenBreakerConfirmsNothing(t *testing.T) {
	t.Parallel()
	var h breakers
	k := versionKey{1, 1}
	for i := range breakerLeast {
		h.tell(k, gone, true, false, in(time.Duration(i)*time.Second))
	}
	require.True(t, h.tell(k, good, true, false, in(time.Minute)).open)
	require.False(t, h.confirms(k, at), "though there was a success since")
	for i := range breakerWindow {
		h.tell(k, good, true, false, in(time.Hour+time.Duration(i)*time.Second))
	}
	require.True(t, h.confirms(k, in(time.Minute)), "until it closes")
}
