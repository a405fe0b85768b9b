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
	g.success(keys, in(5*time.Second), in(5*time.Second))
	g.close(keys[0], in(7*time.Second), in(6*time.Second))
	require.Equal(t, in(7*time.Second), g.until(keys, in(6*time.Second)), "as if for the first time")
	g.success(keys, in(6500*time.Millisecond), in(6500*time.Millisecond))
	require.Equal(t, in(7*time.Second), g.until(keys, in(6500*time.Millisecond)), "what was under way opens no gate")
	g.close(keys[0], in(9*time.Second), in(8*time.Second))
	require.Equal(t, in(9*time.Second), g.until(keys, in(8*time.Second)))
}

// TestAScopeThatNobodyNamesWaitsForThreeUsers: and each of them counts once, until
// somebody succeeds whose request began after it.
func TestAScopeThatNobodyNamesWaitsForThreeUsers(t *testing.T) {
	t.Parallel()
	k := flowKey{id: 7, origin: "https://a.example"}
	scope := [3]flowKey{{id: 1}, {id: 7}, k}
	const s = time.Second
	for name, x := range map[string]struct {
		told []ids.ID // one a second
		then func(g *gates)
		last ids.ID
		at   time.Duration
		want bool
	}{
		"the first":                   {last: 1},
		"two users":                   {told: []ids.ID{1}, last: 2, at: s},
		"three users":                 {told: []ids.ID{1, 2}, last: 3, at: 2 * s, want: true},
		"one user's many devices":     {told: []ids.ID{1, 1, 1, 1, 1}, last: 1, at: 5 * s},
		"two users' many devices":     {told: []ids.ID{1, 2, 1, 2, 1}, last: 2, at: 5 * s},
		"the third again":             {told: []ids.ID{1, 2, 3}, last: 3, at: 3 * s},
		"the first of three again":    {told: []ids.ID{1, 2, 3}, last: 1, at: 3 * s},
		"a fourth":                    {told: []ids.ID{1, 2, 3, 1}, last: 4, at: 4 * s, want: true},
		"a success since":             {told: []ids.ID{1, 2}, then: func(g *gates) { g.success(scope, in(2*s), in(3*s)) }, last: 3, at: 3 * s},
		"a success that began before": {told: []ids.ID{1, 2}, then: func(g *gates) { g.success(scope, at, in(3*s)) }, last: 3, at: 3 * s, want: true},
		"a success in between":        {told: []ids.ID{1, 2}, then: func(g *gates) { g.success(scope, in(s/2), in(3*s)) }, last: 3, at: 3 * s},
		"a success elsewhere":         {told: []ids.ID{1, 2}, then: func(g *gates) { g.success([3]flowKey{{id: 1}, {id: 7}}, in(2*s), in(3*s)) }, last: 3, at: 3 * s, want: true},
		"after long":                  {told: []ids.ID{1, 2}, last: 3, at: evidenceLasts + s/2},
		"just in time":                {told: []ids.ID{1, 2}, last: 3, at: evidenceLasts, want: true},
		"swept too early":             {told: []ids.ID{1, 2}, then: func(g *gates) { g.sweep(in(evidenceLasts)) }, last: 3, at: 2 * s, want: true},
		"elsewhere":                   {told: []ids.ID{1, 2}, then: func(g *gates) { g.slowed = map[flowKey]map[ids.ID]time.Time{{id: 7}: g.slowed[k]} }, last: 3, at: 2 * s},
	} {
		var g gates
		for i, user := range x.told {
			require.Equal(t, i > 0 && user > 2 && x.told[i-1] != user, g.throttled(k, user, in(time.Duration(i)*s)), name)
		}
		if x.then != nil {
			x.then(&g)
		}
		require.Equal(t, x.want, g.throttled(k, x.last, in(x.at)), name)
	}
}

// TestASlowProviderIsWaitedForLongerAndLonger: it says so to each user once, and
// names nothing.
func TestASlowProviderIsWaitedForLongerAndLonger(t *testing.T) {
	t.Parallel()
	var g gates
	k := flowKey{id: 7}
	now := at
	var waits []time.Duration
	for user := range ids.ID(9) {
		if g.throttled(k, user, now) {
			g.close(k, now.Add(throttleFloor), now)
			waits = append(waits, g.closed[k].until.Sub(now))
			now = g.closed[k].until
		}
	}
	s := time.Second
	require.Equal(t, []time.Duration{10 * s, 20 * s, 40 * s, 80 * s, 160 * s, 300 * s, 300 * s}, waits)
}

func TestWhoWasToldSoIsForgotten(t *testing.T) {
	t.Parallel()
	var g gates
	k := flowKey{id: 7}
	for user := range ids.ID(10 * evidenceMost) {
		require.Equal(t, user+1 >= evidenceUsers, g.throttled(k, user, at), "more users than are remembered are news")
	}
	require.Len(t, g.slowed[k], evidenceMost)
	g.sweep(in(evidenceLasts))
	require.Len(t, g.slowed[k], evidenceMost)
	g.sweep(in(evidenceLasts + 1))
	require.Empty(t, g.slowed)
	g.throttled(k, 1, at)
	g.success([3]flowKey{k}, in(1), in(1))
	require.Empty(t, g.slowed)
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
