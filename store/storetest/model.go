package storetest

import (
	"maps"
	"slices"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

func modelTests() map[string]func(*kit) {
	return map[string]func(*kit){"Model/AnySequenceOfWrites": followsTheModel}
}

// model is what a store should hold after a sequence of writes.
type model struct {
	rows     map[ids.ID]*modelRow // by notification: each has one target
	canceled map[ids.ID]bool
}

type modelRow struct {
	row   delivery.Row
	tries int
	begun bool           // Begin was written of its claim
	past  []delivery.Row // claims that were lost
}

// followsTheModel lets any sequence of accepts, claims, finishes, cancels and
// replays happen, and compares every row now and then, and in the end.
func followsTheModel(k *kit) {
	rapid.Check(k.T, func(t *rapid.T) {
		k.Clock.Advance(time.Hour) // what the run before has left ends now
		for _, c := range k.claim() {
			k.sends(c)
		}
		k := &kit{T: k.T, Opened: k.Opened, ctx: k.ctx, tenant: k.newTenant("t" + k.IDs.Next().Format(""))}
		m := &model{rows: map[ids.ID]*modelRow{}, canceled: map[ids.ID]bool{}}
		t.Repeat(map[string]func(*rapid.T){
			"accept": func(t *rapid.T) {
				a := k.accepted(1)
				m.rows[a.ID] = &modelRow{row: a.Rows[0]}
			},
			"claim":  func(t *rapid.T) { m.claim(k, t) },
			"begin":  func(t *rapid.T) { m.begin(k, t) },
			"finish": func(t *rapid.T) { m.finish(k, t) },
			"late":   func(t *rapid.T) { m.late(k, t) },
			"cancel": func(t *rapid.T) { m.cancel(k, t) },
			"replay": func(t *rapid.T) { m.replay(k, t) },
			"wait": func(t *rapid.T) {
				k.Clock.Advance(time.Duration(rapid.IntRange(1, 90).Draw(t, "seconds")) * time.Second)
			},
			"look": func(t *rapid.T) { m.compare(k, t) },
		})
		m.compare(k, t)
		m.compareAll(k, t)
	})
}

func (m *model) pick(t *rapid.T, in ...delivery.State) *modelRow {
	var list []ids.ID
	for _, id := range slices.Sorted(maps.Keys(m.rows)) {
		if slices.Contains(in, m.rows[id].row.State) {
			list = append(list, id)
		}
	}
	if len(list) == 0 {
		t.Skip("none in that state")
	}
	return m.rows[rapid.SampledFrom(list).Draw(t, "notification")]
}

func (m *model) claim(k *kit, t *rapid.T) {
	now, limit := k.Clock.Now(), rapid.IntRange(1, 5).Draw(t, "limit")
	due := 0
	for _, r := range m.rows {
		if r.row.State.Unfinished() && !r.row.DueAt.After(now) {
			due++
		}
	}
	list := k.claim(func(o *delivery.ClaimOrder) { o.PerTenant = limit })
	require.Len(t, list, min(due, limit))
	for _, c := range list {
		r := m.rows[c.Notification]
		require.False(t, r.row.DueAt.After(now), "due")
		require.Equal(t, r.row.State, c.Was)
		require.Equal(t, m.canceled[c.Notification], c.Canceled)
		if c.Was == delivery.Sending {
			r.past = append(r.past, r.row)
			if r.begun || !r.row.Unknown {
				r.row.Takeovers++
				r.tries++
				r.row.Unknown = true
			}
		}
		r.begun = false
		r.row.State, r.row.Reason, r.row.Claim, r.row.DueAt = delivery.Sending, delivery.NoReason, c.Claim, now.Add(time.Minute)
		r.row.Attempts, r.row.Spent, r.row.UpdatedAt = c.Attempts, c.Spent, now
		require.Equal(t, r.tries, c.Attempts)
	}
}

func (m *model) begin(k *kit, t *rapid.T) {
	r := m.pick(t, delivery.Sending)
	ours, err := k.Store.Begin(k.ctx, r.row)
	require.NoError(t, err)
	require.True(t, ours)
	r.begun = true
}

func (m *model) finish(k *kit, t *rapid.T) {
	r := m.pick(t, delivery.Sending)
	now := k.Clock.Now()
	n := rapid.SampledFrom([]delivery.Transition{
		{State: delivery.Sent}, {State: delivery.Dropped, Reason: delivery.Expired}, {State: delivery.Dead, Reason: delivery.Exhausted},
		{State: delivery.Pending, DueAt: now}, {State: delivery.Pending, DueAt: now.Add(30 * time.Second)},
	}).Draw(t, "to")
	n.Spent = r.row.Spent + 1
	f := delivery.Finish{Row: r.row, Transition: n}
	if rapid.Bool().Draw(t, "attempted") {
		f.Attempt = k.attempt(r.row, channels.Retry, "x")
		r.tries++
	}
	require.False(t, k.finish(f).Lost)
	if n.State == delivery.Pending && m.canceled[r.row.Notification] {
		n = delivery.Transition{State: delivery.Dropped, Reason: delivery.Canceled, Spent: n.Spent}
	}
	r.row.State, r.row.Reason, r.row.DueAt, r.row.Spent = n.State, n.Reason, n.DueAt, n.Spent
}

// late writes with a claim that was lost.
func (m *model) late(k *kit, t *rapid.T) {
	r := m.pick(t, delivery.States()...)
	if len(r.past) == 0 {
		t.Skip("nobody has lost it")
	}
	old := rapid.SampledFrom(r.past).Draw(t, "claim")
	require.True(t, k.finish(delivery.Finish{Row: old, Transition: delivery.Transition{State: delivery.Dead, Reason: delivery.Rejected},
		Attempt: k.attempt(old, channels.Rejected, "late")}).Lost)
}

func (m *model) cancel(k *kit, t *rapid.T) {
	r := m.pick(t, delivery.States()...)
	want := 0
	if r.row.State == delivery.Pending {
		want = 1
		r.row.State, r.row.Reason = delivery.Dropped, delivery.Canceled
	}
	m.canceled[r.row.Notification] = true
	n, err := k.Store.Cancel(k.ctx, k.tenant, r.row.Notification, k.Clock.Now())
	require.NoError(t, err)
	require.Equal(t, want, n)
}

func (m *model) replay(k *kit, t *rapid.T) {
	r := m.pick(t, delivery.States()...)
	err := k.replay(r.row)
	if r.row.State != delivery.Dead {
		require.Equal(t, problem.Conflict, problem.CodeOf(err))
		return
	}
	require.NoError(t, err)
	delete(m.canceled, r.row.Notification)
	r.row.State, r.row.Reason, r.row.DueAt, r.row.Round, r.row.Spent, r.row.Takeovers = delivery.Pending, delivery.NoReason, k.Clock.Now(), r.row.Round+1, 0, 0
}

// compare looks at every row.
func (m *model) compare(k *kit, t *rapid.T) {
	list, err := k.Store.Deliveries(k.ctx, k.tenant, delivery.Query{Limit: 500})
	require.NoError(t, err)
	require.Len(t, list, len(m.rows))
	for _, v := range list {
		r := m.rows[v.Notification]
		require.Equal(t, r.row.State, v.State)
		require.Equal(t, r.row.Reason, v.Reason)
		require.Equal(t, r.row.Round, v.Round)
		require.Equal(t, r.row.Spent, v.Spent)
		require.Equal(t, r.row.Takeovers, v.Takeovers)
		require.Equal(t, r.row.Unknown, v.Unknown)
		require.Equal(t, r.tries, v.Last.Number)
		if v.State == delivery.Pending {
			require.Equal(t, r.row.DueAt, v.DueAt)
		}
	}
}

// compareAll looks at the history of every row too.
func (m *model) compareAll(k *kit, t *rapid.T) {
	for id, r := range m.rows {
		v := k.view(r.row)
		require.Len(t, v.Attempts, r.tries)
		for i, a := range v.Attempts {
			require.Equal(t, i+1, a.Number)
		}
		view, err := k.Store.Notification(k.ctx, k.tenant, id)
		require.NoError(t, err)
		require.Equal(t, m.canceled[id], view.Canceled)
	}
}
