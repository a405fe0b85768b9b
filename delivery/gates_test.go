package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

// opens is when the last of the gates of a delivery does, by what this node has met.
func (g *gates) opens(p passage, now time.Time) time.Time {
	return g.stand(p, nil, time.Time{}, now).opens
}

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
		require.Zero(t, g.opens(passageOf(push, cred), at))
		g.close(gateOf(x.scope, x.by, 7), in(time.Minute), at, Wait{}, Wait{})
		for it, stopped := range x.stops {
			c := cred
			if it.Channel == channels.Webhook {
				c = nil
			}
			require.Equal(t, stopped, !g.opens(passageOf(it, c), at).IsZero(), name)
		}
		require.Zero(t, g.opens(passageOf(otherOrigin, other), at), "%s: another credential", name)
	}
}

func TestAGateOpensWhenTheLastDoes(t *testing.T) {
	t.Parallel()
	var g gates
	keys := passage{keys: [3]flowKey{{id: 1}, {id: 2}, {}}}
	g.close(keys.keys[0], in(time.Minute), at, Wait{}, Wait{})
	g.close(keys.keys[1], in(time.Hour), at, Wait{}, Wait{})
	g.close(keys.keys[1], in(time.Second), at, Wait{}, Wait{}) // sooner does not count
	g.close(flowKey{}, in(24*time.Hour), at, Wait{}, Wait{})
	require.Equal(t, in(time.Hour), g.opens(keys, at))
	require.Equal(t, in(time.Hour), g.opens(keys, in(time.Minute)))
	require.Zero(t, g.opens(keys, in(time.Hour)))
}

func TestAGateThatMustCloseAgainStaysClosedLonger(t *testing.T) {
	t.Parallel()
	var g gates
	k := flowKey{id: 1}
	keys := passage{keys: [3]flowKey{k}}
	g.close(k, in(10*time.Second), at, Wait{}, Wait{})
	g.close(k, in(10*time.Second), in(11*time.Second), Wait{}, Wait{}) // it opened, and the first to pass was refused
	require.Equal(t, in(31*time.Second), g.opens(keys, in(11*time.Second)))
	for range 10 {
		g.close(k, g.closed[k].until.Add(time.Second), g.closed[k].until, Wait{}, Wait{})
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
	keys := passage{keys: [3]flowKey{{id: 1}}}
	g.close(keys.keys[0], in(time.Second), at, Wait{}, Wait{})
	g.close(keys.keys[0], in(3*time.Second), in(2*time.Second), Wait{}, Wait{})
	require.Equal(t, in(4*time.Second), g.opens(keys, in(2*time.Second)), "again, and for twice as long")
	g.success(keys, in(5*time.Second), in(5*time.Second), false)
	g.close(keys.keys[0], in(7*time.Second), in(6*time.Second), Wait{}, Wait{})
	require.Equal(t, in(7*time.Second), g.opens(keys, in(6*time.Second)), "as if for the first time")
	g.success(keys, in(6500*time.Millisecond), in(6500*time.Millisecond), false)
	require.Equal(t, in(7*time.Second), g.opens(keys, in(6500*time.Millisecond)), "what was under way opens no gate")
	g.close(keys.keys[0], in(9*time.Second), in(8*time.Second), Wait{}, Wait{})
	require.Equal(t, in(9*time.Second), g.opens(keys, in(8*time.Second)))
}

// TestAScopeThatNobodyNamesWaitsForThreeUsers: each of them counts once, until somebody
// succeeds whose request began after it, and each time that it has to wait takes three.
func TestAScopeThatNobodyNamesWaitsForThreeUsers(t *testing.T) {
	t.Parallel()
	k := flowKey{id: 7, origin: "https://a.example"}
	scope := passage{keys: [3]flowKey{{id: 1}, {id: 7}, k}, own: true}
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
		"a fourth":                    {told: []ids.ID{1, 2, 3, 1}, last: 4, at: 4 * s},
		"a fifth":                     {told: []ids.ID{1, 2, 3, 4}, last: 5, at: 4 * s},
		"three more":                  {told: []ids.ID{1, 2, 3, 4, 5}, last: 6, at: 5 * s, want: true},
		"a success since":             {told: []ids.ID{1, 2}, then: func(g *gates) { g.success(scope, in(2*s), in(3*s), false) }, last: 3, at: 3 * s},
		"a success that began before": {told: []ids.ID{1, 2}, then: func(g *gates) { g.success(scope, at, in(3*s), false) }, last: 3, at: 3 * s, want: true},
		"a success in between":        {told: []ids.ID{1, 2}, then: func(g *gates) { g.success(scope, in(s/2), in(3*s), false) }, last: 3, at: 3 * s},
		"a success elsewhere": {told: []ids.ID{1, 2}, then: func(g *gates) {
			g.success(passage{keys: [3]flowKey{{id: 1}, {id: 7}}, own: true}, in(2*s), in(3*s), false)
		}, last: 3, at: 3 * s, want: true},
		"after long":      {told: []ids.ID{1, 2}, last: 3, at: evidenceLasts + s/2},
		"just in time":    {told: []ids.ID{1, 2}, last: 3, at: evidenceLasts, want: true},
		"swept too early": {told: []ids.ID{1, 2}, then: func(g *gates) { g.sweep(in(evidenceLasts)) }, last: 3, at: 2 * s, want: true},
		"elsewhere":       {told: []ids.ID{1, 2}, then: func(g *gates) { g.slowed = map[flowKey]*slowed{{id: 7}: g.slowed[k]} }, last: 3, at: 2 * s},
	} {
		var g gates
		for i, user := range x.told {
			require.Equal(t, i == 2 && user == 3, g.throttled(k, user, in(time.Duration(i)*s)), name)
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
	for user := range ids.ID(21) {
		if g.throttled(k, user, now) {
			g.close(k, now.Add(throttleFloor), now, Wait{}, Wait{})
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
		require.Equal(t, (user+1)%evidenceUsers == 0, g.throttled(k, user, at), "more users than are remembered are news")
	}
	require.Len(t, g.slowed[k].users, evidenceMost)
	g.sweep(in(evidenceLasts))
	require.Len(t, g.slowed[k].users, evidenceMost)
	g.sweep(in(evidenceLasts + 1))
	require.Empty(t, g.slowed)
	g.throttled(k, 1, at)
	g.success(passage{keys: [3]flowKey{k}}, in(1), in(1), false)
	require.Empty(t, g.slowed)
}

// TestALongGateLetsOneThroughNowAndThen: on each node, and nobody whose own device has
// to wait.
func TestALongGateLetsOneThroughNowAndThen(t *testing.T) {
	t.Parallel()
	var g gates
	k := flowKey{id: 7}
	p := passage{keys: [3]flowKey{{id: 1}, k}, own: true}
	g.close(k, in(24*time.Hour), at, Wait{NotedAt: at, Detail: "quota"}, Wait{})
	looks := func(p passage, after time.Duration) bool {
		s := g.stand(p, nil, time.Time{}, in(after))
		require.Equal(t, s.look, s.opens.IsZero())
		return s.look
	}
	require.False(t, looks(p, lookEvery-1))
	require.True(t, looks(p, lookEvery))
	require.False(t, looks(p, lookEvery), "one")
	require.False(t, looks(p, 2*lookEvery-1))
	require.True(t, looks(p, 2*lookEvery))
	limited := passage{keys: [3]flowKey{{id: 2}, k}, own: true}
	g.close(flowKey{id: 2}, in(24*time.Hour), at, Wait{NotedAt: at}, Wait{})
	require.False(t, looks(limited, time.Hour))
	require.True(t, looks(p, time.Hour))

	s := g.stand(p, nil, time.Time{}, in(time.Hour+1))
	require.True(t, s.shared)
	require.Equal(t, "quota", s.why.Detail)
	g.success(p, in(time.Hour), in(time.Hour+1), false)
	require.NotZero(t, g.opens(p, in(time.Hour+2)), "what was under way opens no gate")
	g.success(p, in(time.Hour), in(time.Hour+1), true)
	require.Zero(t, g.opens(p, in(time.Hour+2)), "who was let through does")
	require.Zero(t, g.opens(limited, in(24*time.Hour)))
}

// TestARowStopsAllNodes, and where it ends the gate does.
func TestARowStopsAllNodes(t *testing.T) {
	t.Parallel()
	var g gates
	k := flowKey{id: 7, origin: "https://a.example"}
	p := passage{keys: [3]flowKey{{id: 1}, {id: 7}, k}, own: true}
	row := Wait{Subject: 7, Origin: k.origin, Until: in(time.Minute), NotedAt: at}
	rows := map[flowKey]Wait{k: row}
	require.Equal(t, in(time.Minute), g.stand(p, rows, at, at).opens, "another node has met it")
	require.Zero(t, g.stand(p, rows, at, in(time.Minute)).opens)

	g.close(k, in(70*time.Second), in(61*time.Second), Wait{}, row)
	require.Equal(t, in(181*time.Second), g.opens(p, in(61*time.Second)), "it is the same trouble, whoever had it first")
	w, tell := g.tell(k, in(61*time.Second))
	require.True(t, tell)
	require.Equal(t, in(181*time.Second), w.Until)
	_, tell = g.tell(k, in(61*time.Second))
	require.False(t, tell, "it is being told")
	g.written(k, time.Time{})
	_, tell = g.tell(k, in(61*time.Second))
	require.True(t, tell, "it could not be written")
	g.written(k, in(62*time.Second))
	require.NotZero(t, g.stand(p, nil, in(62*time.Second), in(63*time.Second)).opens, "what was read before it was written says nothing")
	require.Zero(t, g.stand(p, nil, in(62*time.Second+1), in(63*time.Second)).opens, "somebody has ended it")
	require.NotContains(t, g.closed, k)

	g.close(k, in(61*time.Second+longGate), in(61*time.Second), Wait{}, Wait{})
	_, tell = g.tell(k, in(61*time.Second))
	require.False(t, tell, "it opens soon")
}

// TestASpellIsTold once it lasts: of a push provider by several users, of an endpoint
// by itself.
func TestASpellIsTold(t *testing.T) {
	t.Parallel()
	var g gates
	k := flowKey{id: 7}
	fails := func(user ids.ID, endpoint bool, after time.Duration) bool {
		_, tell := g.failed(k, user, endpoint, Wait{}, in(after))
		return tell
	}
	const s = time.Second
	require.False(t, fails(1, true, 0))
	require.False(t, fails(1, true, 5*s-1))
	require.True(t, fails(1, true, 5*s))
	require.False(t, fails(1, true, 6*s), "it was told")
	require.True(t, fails(1, true, 65*s), "that it goes on")
	g.untold(k)
	require.True(t, fails(1, true, 66*s))
	g.success(passage{keys: [3]flowKey{k}}, in(67*s), in(67*s), false)
	require.False(t, fails(1, true, 68*s))
	require.True(t, fails(1, true, 24*time.Hour), "its schedule has long waits")
	require.False(t, fails(1, true, 80*time.Hour))

	g = gates{}
	require.False(t, fails(1, false, 0))
	require.False(t, fails(2, false, 5*s))
	require.True(t, fails(3, false, 6*s))
	require.False(t, fails(4, false, evidenceLasts+7*s), "that was another time")
	g.sweep(in(2*evidenceLasts + 8*s))
	require.Empty(t, g.spells)
}
