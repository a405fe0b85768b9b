package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/backup"
	"github.com/carillonhq/carillon/tenants"
)

// aged is a database of long ago, brought back: deliveries of every age and state.
type aged struct {
	t   *testing.T
	o   testOptions
	s   *store.Store
	now time.Time
	row map[string]delivery.Row
}

func newAged(t *testing.T) *aged {
	t.Helper()
	a := &aged{t: t, o: options(t), row: map[string]delivery.Row{}}
	a.s = open(t, a.o)
	ctx := context.Background()
	tenant := a.o.IDs.Next()
	require.NoError(t, a.s.CreateTenant(ctx, tenants.Tenant{ID: tenant, Name: "acme"}, tenants.Change{Actor: "test", Action: "test"}))
	a.now = a.o.clock.Now().Add(48 * time.Hour)
	accept := func(name string, kind channels.Kind, typ string, created, sendAt time.Time, ttl time.Duration, edit func(*delivery.Row)) {
		n := delivery.Accepted{ID: a.o.IDs.Next(), Tenant: tenant, Lane: delivery.Regular, Type: typ, CreatedAt: created, SendAt: sendAt, Body: []byte("{}")}
		r := delivery.Row{Tenant: tenant, Notification: n.ID, Target: a.o.IDs.Next(), Channel: kind, Lane: n.Lane, State: delivery.Pending,
			DueAt: created, ExpiresAt: created.Add(ttl), Round: 1, UpdatedAt: created}
		if edit != nil {
			edit(&r)
		}
		n.Rows = []delivery.Row{r}
		a.row[name] = r
		_, err := a.s.Accept(ctx, delivery.Batch{Tenant: tenant, Accepted: []delivery.Accepted{n}})
		require.NoError(t, err)
	}
	ago := func(d time.Duration) time.Time { return a.now.Add(-d) }
	const long = 100 * time.Hour
	none := time.Time{}
	accept("new", channels.FCM, "chat", ago(time.Minute), none, long, nil)
	accept("half hour", channels.FCM, "chat", ago(30*time.Minute), none, long, nil)
	accept("half day", channels.FCM, "order", ago(12*time.Hour), none, long, nil)
	accept("two days", channels.Webhook, "order", ago(48*time.Hour), none, long, nil)
	accept("expired", channels.FCM, "order", ago(12*time.Hour), none, time.Hour, nil)
	accept("leased", channels.Webhook, "order", ago(12*time.Hour), none, long, func(r *delivery.Row) {
		r.State, r.Claim, r.DueAt = delivery.Sending, 7, a.now.Add(time.Minute) // its lease has not even ended
	})
	accept("scheduled for yesterday", channels.FCM, "order", ago(48*time.Hour), ago(23*time.Hour), long, nil)
	accept("scheduled for tomorrow", channels.FCM, "order", ago(48*time.Hour), ago(-24*time.Hour), 200*time.Hour, nil)
	accept("replayed", channels.FCM, "order", ago(48*time.Hour), none, long, nil)
	raw(t, a.o, "UPDATE deliveries SET round=2, updated_at=? WHERE notification_id=?", ago(time.Minute).UnixMilli(), a.row["replayed"].Notification)
	accept("held", channels.FCM, "order", ago(12*time.Hour), none, long, nil)
	raw(t, a.o, "UPDATE deliveries SET state=3, reason=2, hold_id=99 WHERE notification_id=?", a.row["held"].Notification)
	raw(t, a.o, "INSERT INTO holds (id,tenant_id,scope,subject_id,version,app,channel,qualifier,reason,detail,since,ending) VALUES (99,?,1,1,0,'',0,'',2,'',0,0)", tenant)
	accept("sent", channels.FCM, "order", ago(12*time.Hour), none, long, nil)
	raw(t, a.o, "UPDATE deliveries SET state=4, due_at=0 WHERE notification_id=?", a.row["sent"].Notification)
	a.o.clock.Advance(48 * time.Hour)
	return a
}

func (a *aged) is(name string, s delivery.State, why delivery.Reason) delivery.View {
	a.t.Helper()
	r := a.row[name]
	v, err := a.s.Delivery(context.Background(), r.Tenant, r.Notification, r.Target)
	require.NoError(a.t, err)
	require.Equal(a.t, s.String()+" "+why.String(), v.State.String()+" "+v.Reason.String(), name)
	return v
}

func (a *aged) begin() {
	a.t.Helper()
	require.NoError(a.t, a.s.LockEngine())
	n, err := a.s.BeginAfterRestore(context.Background(), "cli")
	require.NoError(a.t, err)
	require.EqualValues(a.t, 1, n)
}

func TestWhatWouldBeSentAfterARestore(t *testing.T) {
	t.Parallel()
	a := newAged(t)
	a.begin()
	n, err := a.s.BeginAfterRestore(context.Background(), "cli")
	require.NoError(t, err)
	require.Zero(t, n, "it may be called again")
	w, err := a.s.Waiting(context.Background())
	require.NoError(t, err)
	require.True(t, w.Pause.On())
	require.Equal(t, a.now, w.Pause.Restored)
	require.Equal(t, []backup.WaitingGroup{
		{Channel: channels.FCM, Type: "chat", Ages: [5]int64{1, 1, 0, 0, 0}},
		{Channel: channels.FCM, Type: "order", Ages: [5]int64{1, 0, 2, 0, 1}, Held: 1, PastDeadline: 1}, // replayed; half day, yesterday; tomorrow
		{Channel: channels.Webhook, Type: "order", Ages: [5]int64{0, 0, 1, 1, 0}},
	}, w.Groups)
}

func TestTheOldIsMovedOutOfTheWay(t *testing.T) {
	t.Parallel()
	for _, to := range []delivery.State{delivery.Dead, delivery.Dropped} {
		a, ctx := newAged(t), context.Background()
		a.begin()
		seen := 0
		moved, err := a.s.ResumeAfterRestore(ctx, backup.Cutoff{Before: a.now.Add(-time.Hour), State: to, Progress: func(n int) { seen = n }}, "cli")
		require.NoError(t, err)
		require.Equal(t, 5, moved)
		require.Equal(t, 5, seen)
		for _, name := range []string{"half day", "two days", "scheduled for yesterday", "held"} {
			require.Empty(t, a.is(name, to, delivery.Stale).Attempts)
		}
		v := a.is("leased", to, delivery.Stale)
		require.Len(t, v.Attempts, 1)
		require.Equal(t, channels.Unknown, v.Attempts[0].Outcome, "it may have been sent")
		for _, name := range []string{"new", "half hour", "scheduled for tomorrow", "replayed", "expired"} {
			a.is(name, delivery.Pending, delivery.NoReason) // the engine ends what is past its deadline
		}
		a.is("sent", delivery.Sent, delivery.NoReason)
		p, err := a.s.SendingPaused(ctx)
		require.NoError(t, err)
		require.Equal(t, delivery.Pause{}, p)
		if to == delivery.Dead {
			r := a.row["half day"]
			require.NoError(t, a.s.Replay(ctx, r.Tenant, r.Notification, r.Target, a.now,
				func(delivery.Request, channels.Kind) time.Duration { return time.Hour }, "test"))
			a.is("half day", delivery.Pending, delivery.NoReason)
		}
	}
}

func TestAllOfItIsSent(t *testing.T) {
	t.Parallel()
	a := newAged(t)
	a.begin()
	moved, err := a.s.ResumeAfterRestore(context.Background(), backup.Cutoff{}, "cli")
	require.NoError(t, err)
	require.Zero(t, moved)
	a.is("two days", delivery.Pending, delivery.NoReason)
	now := a.o.clock.Now()
	list, err := a.s.Claim(context.Background(), delivery.ClaimOrder{Lane: delivery.Regular, Limit: 100, PerTenant: 100, Now: now, Lease: now.Add(time.Minute), Claim: 9})
	require.NoError(t, err)
	unknown := map[ids.ID]bool{}
	for _, c := range list {
		if c.Unknown {
			unknown[c.Notification] = true
		}
	}
	require.Equal(t, map[ids.ID]bool{a.row["leased"].Notification: true}, unknown)
}

// TestWhatAServerHasInHandKeepsThePause: nothing may slip through.
func TestWhatAServerHasInHandKeepsThePause(t *testing.T) {
	t.Parallel()
	a, ctx := newAged(t), context.Background()
	a.begin()
	raw(t, a.o, "UPDATE deliveries SET due_at=? WHERE notification_id=?", a.now.Add(time.Minute).UnixMilli(), a.row["leased"].Notification)
	cut := backup.Cutoff{Before: a.now.Add(-time.Hour), State: delivery.Dead}
	moved, err := a.s.ResumeAfterRestore(ctx, cut, "cli")
	require.ErrorContains(t, err, "1 deliveries")
	require.Equal(t, 4, moved, "what can be moved is moved")
	a.is("leased", delivery.Sending, delivery.NoReason)
	p, err := a.s.SendingPaused(ctx)
	require.NoError(t, err)
	require.True(t, p.On())
	a.o.clock.Advance(2 * time.Minute)
	moved, err = a.s.ResumeAfterRestore(ctx, cut, "cli")
	require.NoError(t, err)
	require.Equal(t, 1, moved)
	a.is("leased", delivery.Dead, delivery.Stale)
}

// TestScheduledOnesAreResolvedFirst: they have no deliveries that could be judged.
func TestScheduledOnesAreResolvedFirst(t *testing.T) {
	t.Parallel()
	a, ctx := newAged(t), context.Background()
	tenant := a.row["new"].Tenant
	n := delivery.Accepted{ID: a.o.IDs.Next(), Tenant: tenant, CreatedAt: a.now.Add(-40 * time.Hour), SendAt: a.now.Add(-2 * time.Hour), Scheduled: true, Body: []byte("{}")}
	_, err := a.s.Accept(ctx, delivery.Batch{Tenant: tenant, Accepted: []delivery.Accepted{n}})
	require.NoError(t, err)
	a.begin()
	w, err := a.s.Waiting(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 1, w.Overdue)
	_, err = a.s.ResumeAfterRestore(ctx, backup.Cutoff{Before: a.now.Add(-time.Hour), State: delivery.Dead}, "cli")
	require.ErrorContains(t, err, "Start a server")
	a.is("half day", delivery.Pending, delivery.NoReason)
	done, err := a.s.ResolveScheduled(ctx, delivery.Part{Accepted: delivery.Accepted{ID: n.ID, Tenant: tenant, Skips: []delivery.Skip{{User: "bob", Reason: delivery.SkipUnknownUser}}}})
	require.NoError(t, err)
	require.True(t, done)
	_, err = a.s.ResumeAfterRestore(ctx, backup.Cutoff{Before: a.now.Add(-time.Hour), State: delivery.Dead}, "cli")
	require.NoError(t, err)
}

// TestManyAreMovedInParts: no transaction of more than 1,000 rows.
func TestManyAreMovedInParts(t *testing.T) {
	t.Parallel()
	a, ctx := newAged(t), context.Background()
	const more = 2500
	created := a.now.Add(-3 * time.Hour)
	n := delivery.Accepted{ID: a.o.IDs.Next(), Tenant: a.row["new"].Tenant, Lane: delivery.Bulk, CreatedAt: created, Body: []byte("{}")}
	for range more {
		n.Rows = append(n.Rows, delivery.Row{Tenant: n.Tenant, Notification: n.ID, Target: a.o.IDs.Next(), Channel: channels.FCM, Lane: n.Lane,
			State: delivery.Pending, DueAt: created, ExpiresAt: created.Add(90 * time.Hour), Round: 1})
	}
	_, err := a.s.Accept(ctx, delivery.Batch{Tenant: n.Tenant, Accepted: []delivery.Accepted{n}})
	require.NoError(t, err)
	a.begin()
	var steps []int
	moved, err := a.s.ResumeAfterRestore(ctx, backup.Cutoff{Before: a.now.Add(-time.Hour), State: delivery.Dead, Progress: func(n int) { steps = append(steps, n) }}, "cli")
	require.NoError(t, err)
	require.Equal(t, more+5, moved)
	require.Equal(t, []int{1000, 2000, more + 5}, steps)
	d, err := a.s.Depths(ctx)
	require.NoError(t, err)
	require.Equal(t, map[delivery.Reason]int{delivery.Stale: more + 5}, d.Dead)
}
