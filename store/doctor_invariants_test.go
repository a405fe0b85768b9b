package store_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/doctor"
	"github.com/carillonhq/carillon/tenants"
)

// raw changes the database behind the store's back.
func raw(t *testing.T, o testOptions, query string, args ...any) {
	t.Helper()
	db := rawDB(t, o)
	query = numbered(o, query)
	for i, a := range args {
		if id, ok := a.(ids.ID); ok {
			args[i] = int64(id)
		}
	}
	r, err := db.Exec(query, args...)
	require.NoError(t, err)
	n, err := r.RowsAffected()
	require.NoError(t, err)
	require.Positive(t, n, "the fault was planted")
}

func rawDB(t *testing.T, o testOptions) *sql.DB {
	t.Helper()
	driver, name := "sqlite", "file:"+o.URL+"?_pragma=busy_timeout(10000)"
	if db.IsPostgres(o.URL) {
		driver, name = "pgx", o.URL
	}
	db, err := sql.Open(driver, name)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// sound fills a store with a delivery in every state, a skip, a marker and a
// hold, and returns the deliveries by state.
func sound(t *testing.T, o testOptions, s *store.Store) map[delivery.State]delivery.Row {
	t.Helper()
	ctx, now := context.Background(), o.clock.Now()
	tenant := o.IDs.Next()
	require.NoError(t, s.CreateTenant(ctx, tenants.Tenant{ID: tenant, Name: "acme"}, tenants.Change{Actor: "test", Action: "test"}))
	accept := func(edit func(*delivery.Accepted)) delivery.Accepted {
		a := delivery.Accepted{ID: o.IDs.Next(), Tenant: tenant, Lane: delivery.Regular, CreatedAt: now, Body: []byte("{}")}
		edit(&a)
		_, err := s.Accept(ctx, delivery.Batch{Tenant: tenant, Accepted: []delivery.Accepted{a}})
		require.NoError(t, err)
		return a
	}
	row := func(a *delivery.Accepted) {
		a.Rows = []delivery.Row{{Tenant: tenant, Notification: a.ID, Target: o.IDs.Next(), Channel: 1, Lane: a.Lane, State: delivery.Pending,
			DueAt: now, ExpiresAt: now.Add(time.Hour), OrderKey: 7}}
	}
	for range 5 {
		accept(row)
	}
	rows := map[delivery.State]delivery.Row{}
	claimed, err := s.Claim(ctx, delivery.ClaimOrder{Lane: delivery.Regular, Limit: 10, PerTenant: 10, Now: now, Lease: now.Add(time.Minute), Claim: int64(o.IDs.Next())})
	require.NoError(t, err)
	require.Len(t, claimed, 5)
	for i, to := range []delivery.Transition{
		{State: delivery.Held, Reason: delivery.CredentialMissing, Hold: delivery.HoldMissing}, {State: delivery.Sent, Spent: 1},
		{State: delivery.Dropped, Reason: delivery.Gone}, {State: delivery.Dead, Reason: delivery.Exhausted},
	} {
		rows[to.State] = claimed[i].Row
		done := make(chan delivery.FinishResult, 1)
		s.Finish(delivery.Finish{Row: claimed[i].Row, Transition: to, ExpiresAt: claimed[i].ExpiresAt, Now: now,
			Hold: delivery.Hold{App: "default", Channel: 1}}, func(r delivery.FinishResult) { done <- r })
		require.NoError(t, (<-done).Err)
	}
	rows[delivery.Sending] = claimed[4].Row
	rows[delivery.Pending] = accept(row).Rows[0]
	accept(func(a *delivery.Accepted) { a.Skips = []delivery.Skip{{User: "bob", Reason: delivery.SkipUnknownUser}} })
	accept(func(a *delivery.Accepted) { a.Scheduled, a.SendAt = true, now.Add(time.Hour) })
	return rows
}

func TestASoundDatabaseHasNoViolations(t *testing.T) {
	t.Parallel()
	o := options(t)
	s := open(t, o)
	sound(t, o, s)
	o.clock.Advance(59 * time.Second)
	for _, all := range []bool{false, true} {
		v, err := s.Check(context.Background(), all)
		require.NoError(t, err)
		require.Empty(t, v)
	}
}

func TestEachFaultIsFound(t *testing.T) {
	t.Parallel()
	const of = " WHERE notification_id=?"
	faults := map[string]struct {
		in    delivery.State
		plant string
	}{
		"pending_overdue":       {delivery.Pending, "UPDATE deliveries SET due_at=due_at-60001" + of},
		"lease_lapsed":          {delivery.Sending, "UPDATE deliveries SET due_at=due_at-120001" + of},
		"sending_long":          {delivery.Sending, "UPDATE deliveries SET claim=claim-2516586594304" + of},
		"held_without_hold":     {delivery.Held, "UPDATE deliveries SET hold_id=hold_id+1" + of},
		"held_past_deadline":    {delivery.Held, "UPDATE deliveries SET due_at=due_at-3660001" + of},
		"superseded_waits":      {delivery.Pending, "UPDATE newest SET notification_id=notification_id+1, moved_at=moved_at-60001" + of},
		"hold_on_other_state":   {delivery.Sent, "UPDATE deliveries SET hold_id=(SELECT id FROM holds)" + of},
		"reason_missing":        {delivery.Dead, "UPDATE deliveries SET reason=0" + of},
		"overspent":             {delivery.Sent, "UPDATE deliveries SET spent=22" + of},
		"notification_unserved": {delivery.Sent, "DELETE FROM deliveries" + of},
		"marker_unserved":       {delivery.Sent, "UPDATE fanouts SET due_at=due_at-3660001 WHERE notification_id<>?"},
		"purpose_impossible":    {delivery.Pending, "UPDATE devices SET purpose=4 WHERE id<>?"},
		"content_missing":       {delivery.Pending, "DELETE FROM payloads" + of},
		"endpoint_without_url":  {delivery.Sent, "INSERT INTO endpoints (id,tenant_id,user_id,url,description,event_types,status,reason,sealed,created_at,updated_at) SELECT 1,tenant_id,0,'','','[]','active','',body,0,0 FROM payloads" + of},
		"wait_without_subject":  {delivery.Pending, "INSERT INTO waits (tenant_id,subject_id,origin,id,channel,cause,detail,since,until,noted_at,success_at) SELECT tenant_id,1,'',1,1,1,'',0,0,0,0 FROM deliveries" + of},
	}
	for _, i := range doctor.Invariants() {
		t.Run(i.Name, func(t *testing.T) {
			t.Parallel()
			f, ok := faults[i.Name]
			require.True(t, ok, "every invariant is proven here")
			require.NotEmpty(t, i.Means)
			o := options(t)
			s := open(t, o)
			rows := sound(t, o, s)
			if i.Name == "purpose_impossible" {
				_, err := s.UpsertDevice(t.Context(), devices.Device{Tenant: rows[f.in].Tenant, ID: o.IDs.Next(), User: "alice", App: "default", Channel: channels.APNs,
					Target: channels.Target{Kind: channels.APNsToken, Address: "aa"}, Purpose: channels.VoIP}, devices.Caller{})
				require.NoError(t, err)
			}
			if i.Name == "notification_unserved" {
				o.clock.Advance(time.Minute + time.Millisecond)
				renewAll(t, o, s, rows)
			}
			raw(t, o, f.plant, rows[f.in].Notification)
			v, err := s.Check(context.Background(), true)
			require.NoError(t, err)
			require.Len(t, v, 1)
			require.Equal(t, i.Name, v[0].Name)
			require.Equal(t, 1, v[0].Rows)
		})
	}
	require.Len(t, faults, len(doctor.Invariants()))
}

// renewAll keeps what else waits from being late.
func renewAll(t *testing.T, o testOptions, s *store.Store, rows map[delivery.State]delivery.Row) {
	t.Helper()
	soon := o.clock.Now().Add(time.Minute)
	_, err := s.Renew(context.Background(), []delivery.Row{rows[delivery.Sending]}, soon)
	require.NoError(t, err)
	raw(t, o, "UPDATE deliveries SET due_at=? WHERE state=1", soon.UnixMilli())
}

func TestDepths(t *testing.T) {
	t.Parallel()
	o := options(t)
	s := open(t, o)
	sound(t, o, s)
	o.clock.Advance(10 * time.Second)
	d, err := s.Depths(context.Background())
	require.NoError(t, err)
	at := func(st delivery.State) doctor.DepthKey { return doctor.DepthKey{Lane: delivery.Regular, State: st} }
	require.Equal(t, map[doctor.DepthKey]int{at(delivery.Pending): 1, at(delivery.Sending): 1, at(delivery.Held): 1}, d.Rows)
	require.Equal(t, 10*time.Second, d.OldestDue)
	lately, err := s.DeadLately(context.Background())
	require.NoError(t, err)
	require.Len(t, lately, 1)
	require.Equal(t, doctor.DeadLetters{Reason: delivery.Exhausted, Code: lately[0].Code, Count: 1}, lately[0])
	inHand, err := s.InHand(context.Background())
	require.NoError(t, err)
	require.Equal(t, 1, inHand.Rows)
	require.Equal(t, map[delivery.Reason]int{delivery.Exhausted: 1}, d.Dead)
	require.Equal(t, map[delivery.Reason]int{delivery.CredentialMissing: 1}, d.Held)
}

// TestLeasesOfADeadProcessLapse: with the engine lock in hand, no other process
// can hold one.
func TestLeasesOfADeadProcessLapse(t *testing.T) {
	t.Parallel()
	o := options(t)
	s := open(t, o)
	rows := sound(t, o, s)
	n, err := s.LapseLeases(context.Background())
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	now := o.clock.Now()
	list, err := s.Claim(context.Background(), delivery.ClaimOrder{Lane: delivery.Regular, Limit: 10, PerTenant: 10, Now: now, Lease: now, Claim: 8})
	require.NoError(t, err)
	was := map[ids.ID]delivery.State{}
	for _, c := range list {
		was[c.Notification] = c.Was
	}
	require.Equal(t, map[ids.ID]delivery.State{rows[delivery.Sending].Notification: delivery.Sending, rows[delivery.Pending].Notification: delivery.Pending}, was)
}

// TestAPauseExcusesWhatIsLate, and nothing else.
func TestAPauseExcusesWhatIsLate(t *testing.T) {
	t.Parallel()
	o := options(t)
	s := open(t, o)
	rows := sound(t, o, s)
	ctx := context.Background()
	require.NoError(t, s.PauseSending(ctx, "", "test"))
	raw(t, o, "UPDATE deliveries SET reason=0 WHERE notification_id=?", rows[delivery.Dead].Notification)
	o.clock.Advance(2 * time.Hour) // and markers are still resolved
	names := func() (out []string) {
		v, err := s.Check(ctx, true)
		require.NoError(t, err)
		for _, x := range v {
			out = append(out, x.Name)
		}
		return out
	}
	require.Equal(t, []string{"reason_missing", "marker_unserved"}, names())
	require.NoError(t, s.ResumeSending(ctx, "test"))
	require.Equal(t, []string{"pending_overdue", "lease_lapsed", "sending_long", "held_past_deadline", "reason_missing", "marker_unserved"}, names())
}
