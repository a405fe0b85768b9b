package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

func TestGatesStopTheirScope(t *testing.T) {
	t.Parallel()
	to := func(k channels.Kind, target ids.ID, addr string) *inflight {
		return newInflight(Row{Channel: k, Target: target}, false, TargetNow{Target: channels.Target{Address: addr}}, at)
	}
	cred, other := &tenants.Credential{ID: 7}, &tenants.Credential{ID: 8}
	push, sameOrigin, otherOrigin := to(channels.WebPush, 1, "https://a.example/1"), to(channels.WebPush, 2, "https://a.example/2"), to(channels.WebPush, 3, "https://b.example/3")
	hook := to(channels.Webhook, 4, "https://c.example")
	for name, x := range map[string]struct {
		scope channels.Scope
		by    *inflight
		stops map[*inflight]bool
	}{
		"target":     {channels.ScopeTarget, push, map[*inflight]bool{push: true, sameOrigin: false, otherOrigin: false, hook: false}},
		"origin":     {channels.ScopeOrigin, push, map[*inflight]bool{push: true, sameOrigin: true, otherOrigin: false, hook: false}},
		"credential": {channels.ScopeCredential, push, map[*inflight]bool{push: true, sameOrigin: true, otherOrigin: true, hook: false}},
		"endpoint":   {channels.ScopeOrigin, hook, map[*inflight]bool{push: false, hook: true}},
	} {
		var g gates
		require.Zero(t, g.until(gatesOf(push, cred), at))
		g.close(gateOf(x.scope, x.by, 7), in(time.Minute), at)
		for it, stopped := range x.stops {
			c := cred
			if it.Channel == channels.Webhook {
				c = nil
			}
			require.Equal(t, stopped, !g.until(gatesOf(it, c), at).IsZero(), name)
		}
		require.Zero(t, g.until(gatesOf(otherOrigin, other), at), "%s: another credential", name)
	}
}

func TestAGateOpensWhenTheLastDoes(t *testing.T) {
	t.Parallel()
	var g gates
	keys := [3]flowKey{{id: 1}, {id: 2}, {}}
	g.close(keys[0], in(time.Minute), at)
	g.close(keys[1], in(time.Hour), at)
	g.close(keys[1], in(time.Second), at) // sooner does not count
	g.close(flowKey{}, in(24*time.Hour), at)
	require.Equal(t, in(time.Hour), g.until(keys, at))
	require.Equal(t, in(time.Hour), g.until(keys, in(time.Minute)))
	require.Zero(t, g.until(keys, in(time.Hour)))
}

func TestAGateThatMustCloseAgainStaysClosedLonger(t *testing.T) {
	t.Parallel()
	var g gates
	k := flowKey{id: 1}
	keys := [3]flowKey{k}
	g.close(k, in(10*time.Second), at)
	g.close(k, in(10*time.Second), in(11*time.Second)) // it opened, and the first to pass was refused
	require.Equal(t, in(31*time.Second), g.until(keys, in(11*time.Second)))
	for range 10 {
		g.close(k, g.closed[k].until.Add(time.Second), g.closed[k].until)
	}
	require.Equal(t, maxGate, g.closed[k].wait)

	g.sweep(g.closed[k].until.Add(maxGate))
	require.Len(t, g.closed, 1, "it is remembered for as long as it was closed")
	g.sweep(g.closed[k].until.Add(maxGate + 1))
	require.Empty(t, g.closed)
}

// TestASuccessEndsTheTrouble: a provider that fails now and then, and takes the
// rest, is not waited for longer and longer.
func TestASuccessEndsTheTrouble(t *testing.T) {
	t.Parallel()
	var g gates
	keys := [3]flowKey{{id: 1}}
	g.close(keys[0], in(time.Second), at)
	g.close(keys[0], in(3*time.Second), in(2*time.Second))
	require.Equal(t, in(4*time.Second), g.until(keys, in(2*time.Second)), "again, and for twice as long")
	g.success(keys, in(5*time.Second))
	g.close(keys[0], in(7*time.Second), in(6*time.Second))
	require.Equal(t, in(7*time.Second), g.until(keys, in(6*time.Second)), "as if for the first time")
	g.success(keys, in(6500*time.Millisecond))
	require.Equal(t, in(7*time.Second), g.until(keys, in(6500*time.Millisecond)), "what was under way opens no gate")
	g.close(keys[0], in(9*time.Second), in(8*time.Second))
	require.Equal(t, in(9*time.Second), g.until(keys, in(8*time.Second)))
}

func TestOtherNodesAreToldOfAGateOnce(t *testing.T) {
	t.Parallel()
	var g gates
	k := flowKey{id: 1, origin: "https://a.example"}
	g.close(k, in(time.Minute), at)
	require.Empty(t, g.pending(at), "a device's own gate")
	require.True(t, g.markShared(k, at), "it is closed for long")
	want := []SharedGate{{Subject: 1, Origin: "https://a.example", Until: in(time.Minute), Wait: time.Minute}}
	require.Equal(t, want, g.pending(at))
	require.Equal(t, want, g.pending(at), "until they have been told")
	require.True(t, g.markSent(want, at))
	require.Empty(t, g.pending(at))

	g.close(k, in(time.Minute+gateMoves), at)
	require.False(t, g.markShared(k, at))
	require.Empty(t, g.pending(at), "it hardly moved")
	g.close(k, in(time.Minute+gateMoves+1), at)
	require.True(t, g.markShared(k, at))
	require.Len(t, g.pending(at), 1)
	require.Empty(t, g.pending(in(time.Hour)), "it is open")

	short := flowKey{id: 2}
	g.close(short, in(longGate), at)
	require.False(t, g.markShared(short, at), "it can wait for its turn")
	require.False(t, g.markSent([]SharedGate{{Subject: 2, Until: in(longGate)}}, at))
	require.False(t, g.markSent([]SharedGate{{Subject: 3}}, at))
	require.NotContains(t, g.closed, flowKey{id: 3})
}

func TestGatesOfOtherNodesStopThisOne(t *testing.T) {
	t.Parallel()
	var g gates
	k := [3]flowKey{{id: 1}}
	g.merge([]SharedGate{{Subject: 1, Until: in(time.Minute), Wait: 30 * time.Second}, {Subject: 2, Until: at}}, at)
	require.Equal(t, in(time.Minute), g.until(k, at))
	require.Len(t, g.closed, 1, "what is open by now is nothing new")
	require.Empty(t, g.pending(at), "they know")
	g.merge([]SharedGate{{Subject: 1, Until: in(time.Second), Wait: time.Second}}, at)
	require.Equal(t, in(time.Minute), g.until(k, at), "the later one counts")

	g.close(k[0], in(61*time.Second), in(61*time.Second-1))
	require.Equal(t, in(121*time.Second-1), g.until(k, in(61*time.Second-1)), "it is the same trouble, whoever had it first")
	require.True(t, g.markShared(k[0], in(61*time.Second-1)))
}
