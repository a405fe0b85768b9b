package storetest

import (
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
)

func sharedTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Exchange/Verdicts":             exchangesVerdicts,
		"Exchange/Refusals":             exchangesRefusals,
		"Exchange/Uses":                 exchangesUses,
		"Exchange/NodesThatAreThere":    exchangesWithTheLiving,
		"Exchange/NothingBeforeItJoins": exchangesNothingBeforeItJoins,
		"Exchange/Many":                 exchangesMany,
	}
}

// node is one of several on a database.
type node struct {
	*kit
	Store Store
	leave func()
}

func (k *kit) node(role string) node {
	k.Helper()
	s, leave := k.Join(role)
	return node{k, s, leave}
}

func (n node) tells(s delivery.NodeState) delivery.OtherNodes {
	n.Helper()
	o, err := n.Store.Exchange(n.ctx, s)
	n.ok(err)
	return o
}

func (n node) hears() delivery.OtherNodes {
	n.Helper()
	return n.tells(delivery.NodeState{})
}

func exchangesVerdicts(k *kit) {
	now := k.Clock.Now()
	a, b, c := k.node(delivery.RoleAll), k.node(delivery.RoleWorker), k.node(delivery.RoleWorker)
	v := delivery.Verdicts{Credential: 1, Version: 2, Seen: 100, Gone: 10, Since: now.Add(-time.Hour), Newest: now}
	next := delivery.Verdicts{Credential: 1, Version: 3, Seen: 1, Gone: 1, Since: now, Newest: now}
	require.Empty(k, a.tells(delivery.NodeState{Verdicts: []delivery.Verdicts{v, next}}).Verdicts, "its own are no news")
	fromB := delivery.Verdicts{Credential: 1, Version: 2, Seen: 50, Gone: 1, Since: now.Add(-2 * time.Hour), Newest: now.Add(-time.Minute)}
	b.tells(delivery.NodeState{Verdicts: []delivery.Verdicts{fromB}})
	require.ElementsMatch(k, []delivery.Verdicts{{Credential: 1, Version: 2, Seen: 150, Gone: 11, Since: fromB.Since, Newest: now}, next}, c.hears().Verdicts)
	require.Equal(k, []delivery.Verdicts{fromB}, a.hears().Verdicts)

	fromB.Seen, fromB.Gone = 60, 0
	b.tells(delivery.NodeState{Verdicts: []delivery.Verdicts{fromB}})
	require.Equal(k, []delivery.Verdicts{fromB}, a.hears().Verdicts, "a node's newest replace its others")
	fromB.Newest = now.Add(-11 * time.Minute)
	b.tells(delivery.NodeState{Verdicts: []delivery.Verdicts{fromB}})
	require.Empty(k, a.hears().Verdicts, "too old")
	a.leave()
	require.Empty(k, c.hears().Verdicts, "they went with their node")
}

func exchangesRefusals(k *kit) {
	now := k.Clock.Now().UTC()
	a, b := k.node(delivery.RoleAll), k.node(delivery.RoleAll)
	first := delivery.Refusal{Credential: 1, Version: 2, Origin: "https://push.example", Tenant: 3, Target: 4, User: 5, Worked: true, At: now, Detail: "no"}
	other := delivery.Refusal{Credential: 1, Version: 2, Tenant: 3, Target: 5, User: 5, At: now}
	taken := delivery.Success{Credential: 1, Version: 2, At: now}
	a.tells(delivery.NodeState{Refusals: []delivery.Refusal{first, other}, Successes: []delivery.Success{taken}})
	heard := func(since time.Time) (out []delivery.Refusal, successes []time.Time) {
		o := b.tells(delivery.NodeState{KnownSince: since})
		for _, r := range o.Refusals {
			r.At = r.At.UTC()
			out = append(out, r)
		}
		for _, s := range o.Successes {
			successes = append(successes, s.At.UTC())
		}
		slices.SortFunc(out, func(a, b delivery.Refusal) int { return int(a.Target - b.Target) })
		return out, successes
	}
	list, successes := heard(time.Time{})
	require.Equal(k, []delivery.Refusal{first, other}, list)
	require.Equal(k, []time.Time{now}, successes)

	k.Clock.Advance(time.Second)
	later, older := first, other
	later.At, older.At = now.Add(time.Second), now.Add(-time.Second)
	b.tells(delivery.NodeState{Refusals: []delivery.Refusal{older, later}, Successes: []delivery.Success{{Credential: 1, Version: 2, At: now.Add(-time.Second)}}})
	list, successes = heard(k.Clock.Now())
	require.Equal(k, []delivery.Refusal{later}, list, "the newest counts, and what is known is not said again")
	require.Empty(k, successes)
	k.Clock.Advance(10*time.Minute + time.Second)
	list, successes = heard(time.Time{})
	require.Empty(k, list, "it has served its time")
	require.Empty(k, successes)
	k.Clock.Advance(time.Minute)
	b.hears()
	require.Empty(k, k.Dump(k.T)["shared_refusals"].Rows)
	require.Empty(k, k.Dump(k.T)["shared_successes"].Rows)
}

func exchangesUses(k *kit) {
	a, b, c := k.node(delivery.RoleAll), k.node(delivery.RoleAll), k.node(delivery.RoleAll)
	use := func(kind delivery.BudgetKind, subject ids.ID, n float64) delivery.Use {
		return delivery.Use{Kind: kind, Subject: subject, PerSecond: n}
	}
	require.Empty(k, a.tells(delivery.NodeState{Uses: []delivery.Use{use(delivery.UrgentBudget, 1, 10.5), use(delivery.RequestBudget, 1, 7)}}).Uses)
	b.tells(delivery.NodeState{Uses: []delivery.Use{use(delivery.UrgentBudget, 1, 0.25), use(delivery.UrgentBudget, 2, 1)}})
	require.ElementsMatch(k, []delivery.Use{use(delivery.UrgentBudget, 1, 10.75), use(delivery.RequestBudget, 1, 7), use(delivery.UrgentBudget, 2, 1)}, c.hears().Uses)
	b.tells(delivery.NodeState{Uses: []delivery.Use{use(delivery.UrgentBudget, 2, 3)}})
	require.ElementsMatch(k, []delivery.Use{use(delivery.UrgentBudget, 1, 0.25), use(delivery.UrgentBudget, 2, 3)}, a.hears().Uses)
	k.Clock.Advance(3*time.Second + time.Millisecond)
	require.Empty(k, a.hears().Uses, "what is not said again ends")
}

func exchangesWithTheLiving(k *kit) {
	a := k.node(delivery.RoleAll)
	require.Equal(k, 1, a.hears().Serving)
	b, w := k.node(delivery.RoleAPI), k.node(delivery.RoleWorker)
	require.Equal(k, 2, a.hears().Serving)
	require.Equal(k, 2, w.hears().Serving, "a worker takes no requests")
	b.leave()
	require.Equal(k, 1, a.hears().Serving)
}

func exchangesNothingBeforeItJoins(k *kit) {
	a := k.node(delivery.RoleAll)
	o, err := k.Store.Exchange(k.ctx, delivery.NodeState{Uses: []delivery.Use{{Kind: delivery.RequestBudget, Subject: 1, PerSecond: 1}}})
	k.ok(err)
	require.Equal(k, delivery.OtherNodes{Serving: 1}, o)
	require.Empty(k, a.hears().Uses)
}

// exchangesMany is about rows that are written by several statements.
func exchangesMany(k *kit) {
	const n = 1234
	now := k.Clock.Now()
	a, b := k.node(delivery.RoleAll), k.node(delivery.RoleAll)
	var s delivery.NodeState
	for i := range n {
		id := ids.ID(i + 1)
		s.Verdicts = append(s.Verdicts, delivery.Verdicts{Credential: id, Version: 1, Seen: i, Gone: 1, Since: now, Newest: now})
		s.Uses = append(s.Uses, delivery.Use{Kind: delivery.RequestBudget, Subject: id, PerSecond: float64(i)})
	}
	a.tells(s)
	o := b.hears()
	require.ElementsMatch(k, s.Verdicts, o.Verdicts)
	require.ElementsMatch(k, s.Uses, o.Uses)
}
