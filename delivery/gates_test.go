package delivery

import (
	"math/rand/v2"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

func TestGatesStopTheirScope(t *testing.T) {
	t.Parallel()
	to := func(k channels.Kind, target ids.ID, addr string) *item {
		return newItem(Row{Channel: k, Target: target}, false, TargetNow{Target: channels.Target{Address: addr}}, at)
	}
	cred, other := &tenants.Credential{ID: 7}, &tenants.Credential{ID: 8}
	push, sameOrigin, otherOrigin := to(channels.WebPush, 1, "https://a.example/1"), to(channels.WebPush, 2, "https://a.example/2"), to(channels.WebPush, 3, "https://b.example/3")
	hook := to(channels.Webhook, 4, "https://c.example")
	for name, x := range map[string]struct {
		scope channels.Scope
		by    *item
		stops map[*item]bool
	}{
		"target":     {channels.ScopeTarget, push, map[*item]bool{push: true, sameOrigin: false, otherOrigin: false, hook: false}},
		"origin":     {channels.ScopeOrigin, push, map[*item]bool{push: true, sameOrigin: true, otherOrigin: false, hook: false}},
		"credential": {channels.ScopeCredential, push, map[*item]bool{push: true, sameOrigin: true, otherOrigin: true, hook: false}},
		"endpoint":   {channels.ScopeOrigin, hook, map[*item]bool{push: false, hook: true}},
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

func TestUUIDsOfDeliveries(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := map[string][2]ids.ID{}
	r := rand.New(rand.NewPCG(1, 2))
	note := func(ntf, target ids.ID) {
		u := uuidOf(ntf, target)
		require.Regexp(t, form, u)
		require.Equal(t, u, uuidOf(ntf, target))
		if other, ok := seen[u]; ok {
			require.Equal(t, [2]ids.ID{ntf, target}, other, "two deliveries have the same id")
		}
		seen[u] = [2]ids.ID{ntf, target}
	}
	// Neighbours, as generators make them, and anything of the next years.
	base := ids.Before(at)
	for i := range ids.ID(200) {
		for _, step := range []ids.ID{1, 1 << 12, 1 << 15, 1 << 22} {
			note(base+i*step, base)
			note(base, base+i*step)
		}
	}
	span := int64(ids.Before(at.AddDate(7, 0, 0)))
	for range 100_000 {
		note(ids.ID(r.Int64N(span)), ids.ID(r.Int64N(span)))
	}
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
	g.calm(keys, in(5*time.Second))
	g.close(keys[0], in(7*time.Second), in(6*time.Second))
	require.Equal(t, in(7*time.Second), g.until(keys, in(6*time.Second)), "as if for the first time")
	g.calm(keys, in(6500*time.Millisecond))
	require.Equal(t, in(7*time.Second), g.until(keys, in(6500*time.Millisecond)), "what was under way opens no gate")
	g.close(keys[0], in(9*time.Second), in(8*time.Second))
	require.Equal(t, in(9*time.Second), g.until(keys, in(8*time.Second)))
}
