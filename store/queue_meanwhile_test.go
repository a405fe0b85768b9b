package store_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/pgtest"
	"github.com/carillonhq/carillon/tenants"
)

// What another node changes between the moment that a statement finds a row and
// the moment that it may change it.

// shared is a database with a node, and a way to write behind it.
type shared struct {
	*store.Store
	tenant ids.ID
	db     *sql.DB
}

func newShared(t *testing.T) shared {
	t.Helper()
	onlyPostgres(t)
	url := pgtest.URL(t, migrated)
	s := node(t, url, newRing(t), nil)
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return shared{Store: s, tenant: newTenant(t, s), db: db}
}

func (s shared) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	_, err := s.db.Exec(query, args...)
	require.NoError(t, err)
}

func (s shared) number(t *testing.T, query string, args ...any) (n int64) {
	t.Helper()
	require.NoError(t, s.db.QueryRow(query, args...).Scan(&n))
	return n
}

// meanwhile runs statements in a transaction of another's, which commits when
// work waits for it.
func (s shared) meanwhile(t *testing.T, work func(), statements ...string) {
	t.Helper()
	other, err := s.db.Begin()
	require.NoError(t, err)
	defer func() { _ = other.Rollback() }()
	for _, q := range statements {
		_, err := other.Exec(q)
		require.NoError(t, err)
	}
	done := make(chan struct{})
	go func() { defer close(done); work() }()
	require.Eventually(t, func() bool {
		return s.number(t, "SELECT count(*) FROM pg_stat_activity WHERE datname=current_database() AND wait_event_type='Lock'") > 0
	}, 10*time.Second, time.Millisecond, "nobody waits for the other transaction")
	require.NoError(t, other.Commit())
	<-done
}

// deliver makes a delivery in some state, last changed two months ago.
func (s shared) deliver(t *testing.T, state delivery.State, hold ids.ID) (notification ids.ID) {
	t.Helper()
	old := time.Now().AddDate(0, -2, 0)
	notification = ids.Before(old)
	s.exec(t, `INSERT INTO notifications (tenant_id,id,lane,type,created_at,send_at,flags,targets) VALUES ($1,$2,1,'',$3,0,0,1)`,
		int64(s.tenant), int64(notification), old.UnixMilli())
	s.exec(t, insertRaw, int64(s.tenant), int64(notification), int(state), int64(hold), old.UnixMilli())
	return notification
}

const insertRaw = `INSERT INTO deliveries SELECT $1,$2,5,1,1,$3::smallint,3,NULL,0,0,0,$5::bigint+8640000000,9,$4::bigint,NULL,1,1,0,0,0,0,$5,0,0,0,0,0,'','',''`

func (s shared) hold(t *testing.T, scope delivery.HoldScope, subject ids.ID, e delivery.Ending) delivery.Hold {
	t.Helper()
	h := delivery.Hold{ID: s.IDs().Next(), Tenant: s.tenant, Scope: scope, Subject: subject, Version: 1, Ending: e}
	s.exec(t, `INSERT INTO holds (id,tenant_id,scope,subject_id,version,app,channel,qualifier,reason,detail,since,ending) VALUES ($1,$2,$3,$4,1,'default',1,'',1,'',1,$5)`,
		int64(h.ID), int64(s.tenant), int(scope), int64(subject), int(e))
	return h
}

func (s shared) register(t *testing.T, user, address string) devices.Registered {
	t.Helper()
	now := s.Now()
	r, err := s.UpsertDevice(t.Context(), devices.Device{ID: s.IDs().Next(), Tenant: s.tenant, User: user, App: "default", Channel: channels.FCM,
		Target: channels.Target{Kind: channels.FCMToken, Address: address, RegisteredAt: now}, LastSeenAt: now}, devices.Caller{Actor: "key_test"})
	require.NoError(t, err)
	return r
}

func TestAHoldThatIsJoinedIsNotPurged(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	h := s.hold(t, delivery.HoldMissing, 0, delivery.Open)
	n := s.deliver(t, delivery.Sending, 0)
	s.meanwhile(t, func() {
		_, err := s.Purge(t.Context(), delivery.DefaultRetention(), s.Now(), 100)
		if err != nil {
			t.Error(err)
		}
	}, fmt.Sprintf("SELECT pg_advisory_xact_lock_shared(%d)", s.tenant),
		fmt.Sprintf("UPDATE deliveries SET state=3, hold_id=%d WHERE notification_id=%d", h.ID, n))
	require.EqualValues(t, 1, s.number(t, "SELECT count(*) FROM holds"))
}

func TestADeadLetterThatIsReplayedIsNotPurged(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	n := s.deliver(t, delivery.Dead, 0)
	s.meanwhile(t, func() {
		_, err := s.Purge(t.Context(), delivery.DefaultRetention(), s.Now(), 100)
		if err != nil {
			t.Error(err)
		}
	}, fmt.Sprintf("UPDATE deliveries SET state=1, updated_at=%d WHERE notification_id=%d", s.Now().UnixMilli(), n))
	require.EqualValues(t, 1, s.number(t, "SELECT count(*) FROM deliveries WHERE state=1"))
}

// TestContentThatIsReplayedIsNotPurged, and what is purged is not replayed.
func TestContentThatIsReplayedIsNotPurged(t *testing.T) {
	t.Parallel()
	withContent := func(t *testing.T) (shared, ids.ID) {
		t.Helper()
		s := newShared(t)
		pending(t, s.Store, s.tenant, 1)
		s.exec(t, "UPDATE payloads SET sensitive=1") // it goes as soon as it may
		s.exec(t, "UPDATE deliveries SET state=6, reason=1, due_at=0")
		return s, ids.ID(s.number(t, "SELECT notification_id FROM payloads"))
	}
	t.Run("the replay comes first", func(t *testing.T) {
		t.Parallel()
		s, _ := withContent(t)
		s.meanwhile(t, func() {
			if _, err := s.Purge(t.Context(), delivery.DefaultRetention(), s.Now(), 100); err != nil {
				t.Error(err)
			}
		}, "SELECT 1 FROM payloads FOR SHARE", "UPDATE deliveries SET state=1")
		require.EqualValues(t, 1, s.number(t, "SELECT count(*) FROM payloads"))
	})
	t.Run("the purge comes first", func(t *testing.T) {
		t.Parallel()
		s, n := withContent(t)
		target := ids.ID(s.number(t, "SELECT target_id FROM deliveries"))
		s.meanwhile(t, func() {
			err := s.Replay(t.Context(), s.tenant, n, target, s.Now(), func(delivery.Request, channels.Kind) time.Duration { return time.Hour }, "test")
			if problem.CodeOf(err) != problem.Conflict {
				t.Errorf("replayed: %v", err)
			}
		}, "DELETE FROM payloads")
		require.EqualValues(t, 6, s.number(t, "SELECT state FROM deliveries"))
	})
}

func TestTheEndOfAHoldLeavesAnotherHoldAlone(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	h, other := s.hold(t, delivery.HoldCredential, 7, delivery.Resume), s.hold(t, delivery.HoldCredential, 8, delivery.Open)
	s.deliver(t, delivery.Held, h.ID)
	s.meanwhile(t, func() {
		_, _, err := s.MoveHeld(t.Context(), h, 100, s.Now())
		if err != nil {
			t.Error(err)
		}
	}, fmt.Sprintf("UPDATE deliveries SET hold_id=%d", other.ID))
	require.EqualValues(t, other.ID, s.number(t, "SELECT hold_id FROM deliveries WHERE state=3"))
}

func TestADeviceThatIsRegisteredAgainIsInDoubtNoMore(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	h := s.hold(t, delivery.HoldDoubt, 7, delivery.Confirm)
	s.register(t, "alice", "a")
	s.exec(t, "UPDATE devices SET status=2, credential_id=7, version=1")
	s.meanwhile(t, func() {
		_, _, err := s.MoveHeld(t.Context(), h, 100, s.Now())
		if err != nil {
			t.Error(err)
		}
	}, "UPDATE devices SET status=1, credential_id=0, version=0")
	require.EqualValues(t, 1, s.number(t, "SELECT status FROM devices"))
}

func TestADeviceThatIsDeletedMeanwhileIsRegistered(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	s.register(t, "alice", "a")
	s.meanwhile(t, func() {
		if r := s.register(t, "alice", "a"); r.Device.ID == 0 || !r.Created {
			t.Errorf("registered as %+v", r)
		}
	}, "DELETE FROM devices")
	require.EqualValues(t, 1, s.number(t, "SELECT count(*) FROM devices"))
}

func TestNobodyDeletesADeviceThatHasChangedHands(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	r := s.register(t, "alice", "a")
	s.register(t, "bob", "b")
	s.meanwhile(t, func() {
		if err := s.DeleteDevice(t.Context(), s.tenant, r.Device.ID, "alice", "key_test"); err == nil {
			t.Error("alice has deleted the device of bob")
		}
	}, fmt.Sprintf("UPDATE devices SET epoch=2, user_id=(SELECT id FROM users WHERE external_id='bob') WHERE id=%d", r.Device.ID))
	require.EqualValues(t, 2, s.number(t, "SELECT count(*) FROM devices"))
}

// TestTwoErasuresOfOneContent: each takes its user out of the content, and neither
// brings the other's back.
func TestTwoErasuresOfOneContent(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	now := s.Now()
	a := delivery.Accepted{ID: s.IDs().Next(), Tenant: s.tenant, Lane: delivery.Regular, CreatedAt: now}
	var err error
	a.Body, err = json.Marshal(delivery.Request{To: delivery.To{Users: []string{"alice", "bob", "carol"}}})
	require.NoError(t, err)
	for _, u := range []string{"alice", "bob", "carol"} {
		d := s.register(t, u, u).Device
		a.Rows = append(a.Rows, delivery.Row{Tenant: s.tenant, Notification: a.ID, Target: d.ID, Channel: channels.FCM, Lane: a.Lane, State: delivery.Pending,
			UserID: d.UserID, Epoch: d.Epoch, DueAt: now, ExpiresAt: now.Add(time.Hour), Round: 1})
	}
	_, err = s.Accept(t.Context(), delivery.Batch{Tenant: s.tenant, Accepted: []delivery.Accepted{a}})
	require.NoError(t, err)
	body := func() (b []byte) {
		require.NoError(t, s.db.QueryRow("SELECT body FROM payloads").Scan(&b))
		return b
	}
	step := func(user string) {
		if _, _, err := s.EraseUser(t.Context(), s.tenant, user, "test"); err != nil {
			t.Error(err)
			return
		}
		j, _, err := s.ClaimJob(t.Context(), jobs.ClaimOrder{Kinds: []jobs.Kind{jobs.EraseUser}, Now: s.Now().Add(time.Second), Lease: s.Now().Add(time.Minute), Claim: 1})
		if err == nil {
			_, err = s.EraseStep(t.Context(), j)
		}
		if err != nil {
			t.Error(err)
		}
	}
	all := body()
	step("bob")
	without := body()
	s.exec(t, "UPDATE jobs SET state=3")
	s.exec(t, "UPDATE payloads SET body=$1", all)
	s.meanwhile(t, func() { step("carol") }, fmt.Sprintf("UPDATE payloads SET body='\\x%x'", without))
	content, err := s.Content(t.Context(), s.tenant, a.ID)
	require.NoError(t, err)
	require.NotContains(t, string(content), "bob")
	require.NotContains(t, string(content), "carol")
	require.Contains(t, string(content), "alice")
}

// TestWhatIsErasedIsNotCopied: of an attempt that makes room for the next.
func TestWhatIsErasedIsNotCopied(t *testing.T) {
	t.Parallel()
	for name, hold := range map[string]delivery.HoldScope{"together": 0, "alone": delivery.HoldCredential} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShared(t)
			n := s.deliver(t, delivery.Sending, 0)
			s.exec(t, "UPDATE deliveries SET attempts=1, att_at=1, att_detail='to alice', att_provider_id='7'")
			f := delivery.Finish{Row: delivery.Row{Tenant: s.tenant, Notification: n, Target: 5, Channel: channels.FCM, Claim: 9, Attempts: 1},
				Transition: delivery.Transition{State: delivery.Sent}, Attempt: &delivery.Attempt{Number: 2, At: s.Now(), Outcome: channels.Accepted}, Now: s.Now()}
			if hold != 0 {
				f.Transition.Device = delivery.DeviceConfirmed
			}
			s.meanwhile(t, func() {
				done := make(chan delivery.FinishResult, 1)
				s.Finish(f, func(r delivery.FinishResult) { done <- r })
				if r := <-done; r.Err != nil || !r.Lost {
					t.Errorf("finished as %+v", r)
				}
			}, "UPDATE deliveries SET state=5, claim=10, att_detail='', att_provider_id=''", "UPDATE attempts SET detail='', provider_id=''")
			require.Zero(t, s.number(t, "SELECT count(*) FROM attempts WHERE detail<>''"))
		})
	}
}

// TestAllThatBecameDueTooLateIsFound: what is written long after it was due is
// behind the mark of the claim, and may be more than one claim takes.
func TestAllThatBecameDueTooLateIsFound(t *testing.T) {
	t.Parallel()
	onlyPostgres(t)
	o := options(t)
	s := open(t, o)
	tenant := s.IDs().Next()
	require.NoError(t, s.CreateTenant(t.Context(), tenants.Tenant{ID: tenant, Name: "acme"}, tenants.Change{Actor: "test", Action: "test"}))
	pending(t, s, tenant, 50)
	o.clock.Advance(time.Minute)
	require.Len(t, claim(t, s, 60), 50, "from here on there is a mark")
	o.clock.Advance(-time.Minute)
	pending(t, s, tenant, 50)
	o.clock.Advance(time.Minute + 31*time.Second)
	for range 5 {
		require.Len(t, claim(t, s, 10), 10)
	}
	require.Empty(t, claim(t, s, 10))
}
