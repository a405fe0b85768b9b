package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

var (
	good = channels.Result{Outcome: channels.Accepted}
	gone = channels.Result{Outcome: channels.Gone}
)

func TestAVersionProvesItselfOnce(t *testing.T) {
	t.Parallel()
	var h health
	k := versionKey{1, 1}
	require.False(t, h.verdict(k, gone, false, false, at).Proven)
	o := h.verdict(k, good, false, false, at)
	require.True(t, o.first && o.Proven)
	o = h.verdict(k, good, false, false, at)
	require.False(t, o.first)
	require.True(t, h.verdict(k, gone, false, false, at).Proven)
	require.False(t, h.verdict(versionKey{1, 2}, gone, false, false, at).Proven, "a new version has yet to")
	o = h.verdict(versionKey{2, 1}, good, true, false, at)
	require.True(t, o.Proven && !o.first, "the database knows it already")
}

func TestTheBreakerOpensOnManyGone(t *testing.T) {
	t.Parallel()
	var h health
	k := versionKey{1, 1}
	for i := range breakerLeast - 1 {
		o := h.verdict(k, gone, true, false, in(time.Duration(i)*time.Second))
		require.False(t, o.BreakerOpen || o.opened, "too few to tell")
	}
	o := h.verdict(k, gone, true, false, in(time.Hour))
	require.True(t, o.BreakerOpen && o.opened)
	require.Equal(t, at, o.since, "all of the window is in doubt")
	o = h.verdict(k, gone, true, false, at)
	require.True(t, o.BreakerOpen && !o.opened, "it opens once")
}

func TestTheBreakerIsOfTheLastVerdicts(t *testing.T) {
	t.Parallel()
	var h health
	k := versionKey{1, 1}
	at := at
	tell := func(r channels.Result, n int) (o opinion) {
		for range n {
			at = at.Add(time.Second)
			o = h.verdict(k, r, true, false, at)
		}
		return o
	}
	tell(good, breakerWindow)
	require.False(t, tell(gone, 40).BreakerOpen, "a fifth is life")
	o := tell(gone, 1)
	require.True(t, o.opened)
	require.Equal(t, at.Add(-(breakerWindow-1)*time.Second), o.since, "the oldest verdict of the window")
	require.True(t, tell(good, breakerWindow-41).BreakerOpen)
	require.False(t, tell(good, 1).BreakerOpen, "it closes as the window moves on")
	require.False(t, tell(gone, 39).BreakerOpen)
	require.False(t, tell(gone, 1).BreakerOpen)
	require.True(t, tell(gone, 1).opened, "and opens again")
}

func TestWhatSaysNothingAboutTheCredential(t *testing.T) {
	t.Parallel()
	var h health
	k := versionKey{1, 1}
	for range breakerWindow {
		for _, o := range []channels.Outcome{channels.Retry, channels.Throttled, channels.Rejected, channels.Denied, channels.Interrupted} {
			require.False(t, h.verdict(k, channels.Result{Outcome: o}, true, false, at).BreakerOpen)
		}
		require.False(t, h.verdict(k, gone, true, true, at).BreakerOpen, "nor does a suspect that is called gone again")
	}
	require.Zero(t, h.versions[k].n)
}

func TestOldVersionsAreForgotten(t *testing.T) {
	t.Parallel()
	var h health
	for _, k := range []versionKey{{1, 1}, {1, 2}, {2, 1}} {
		h.verdict(k, good, false, false, at)
	}
	h.prune(map[ids.ID]int{1: 2})
	require.Len(t, h.versions, 1)
	require.Contains(t, h.versions, versionKey{1, 2})
}
