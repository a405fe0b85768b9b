package queue

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/pgtest"
)

// way is a database with a way to write a batch.
type way struct {
	name string
	db   *db.DB
	bulk db.Bulk // nil: each member by itself
}

// write writes a batch in one transaction, as the writer does.
func (w way) write(t require.TestingT, members []any) {
	s := newAccepts(w.db, w.bulk)
	require.NoError(t, w.db.Do(context.Background(), 1, func(x *db.Tx) (err error) {
		done := make([]bool, len(members))
		if w.bulk != nil {
			if done, err = w.bulk.WriteTogether(x, members); err != nil {
				return err
			}
		}
		for i, m := range members {
			if done[i] {
				continue
			}
			switch m := m.(type) {
			case *accepting:
				err = s.write(x, m)
			case *finishing:
				m.res, err = finish(x, &m.f)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
		return nil
	}), w.name)
}

// tables are those that a batch may write, with an order of their rows.
func tables() map[string]string {
	return map[string]string{"notifications": "id", "payloads": "notification_id", "deliveries": "notification_id,target_id",
		"attempts": "notification_id,target_id,number", "skips": "notification_id,n", "idempotency": "key", "users": "external_id",
		"fanouts": "notification_id", "devices": "id", "holds": "scope,subject_id,app"}
}

// clear removes what the run before has left.
func (w way) clear(t require.TestingT) {
	require.NoError(t, w.db.Do(context.Background(), 1, func(x *db.Tx) error {
		for table := range tables() {
			if err := x.Exec("DELETE FROM " + table); err != nil {
				return err
			}
		}
		return nil
	}))
}

// release makes what waits leased again, as a claim does.
func (w way) release(t require.TestingT, claim int64) {
	require.NoError(t, w.db.Do(context.Background(), 1, func(x *db.Tx) error {
		return x.Exec("UPDATE deliveries SET state=2, due_at=0, hold_id=0, claim=? WHERE state IN (1,3)", claim)
	}))
}

// cancel cancels a notification while its deliveries are leased.
func (w way) cancel(t require.TestingT, notification ids.ID) {
	require.NoError(t, w.db.Do(context.Background(), 1, func(x *db.Tx) error {
		return x.Exec("UPDATE notifications SET flags=flags|4 WHERE tenant_id=? AND id=?", drawnTenant, notification)
	}))
}

// rows reads the leased deliveries.
func (w way) rows(t require.TestingT) []delivery.Row {
	rows, err := w.db.Lists().Query("SELECT " + rowColumns + " FROM deliveries d WHERE d.state=2 ORDER BY d.notification_id,d.target_id")
	require.NoError(t, err)
	var list []delivery.Row
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		r, err := scanRow(rows)
		require.NoError(t, err)
		list = append(list, r)
	}
	require.NoError(t, rows.Err())
	return list
}

// dump is all that a batch may have written.
func (w way) dump(t require.TestingT) map[string][]string {
	out := map[string][]string{}
	for table, order := range tables() {
		rows, err := w.db.Lists().Query("SELECT * FROM " + table + " ORDER BY " + order)
		require.NoError(t, err)
		columns, err := rows.Columns()
		require.NoError(t, err)
		for rows.Next() {
			values, into := make([]any, len(columns)), make([]any, len(columns))
			for i := range values {
				into[i] = &values[i]
			}
			require.NoError(t, rows.Scan(into...))
			line := ""
			for i, c := range columns {
				switch v := values[i].(type) {
				case []byte:
					values[i] = string(v)
				case string: // PostgreSQL does not take every text
					values[i] = db.Storable(v)
				}
				if id, ok := values[i].(int64); ok && id > 1<<53 {
					values[i] = "an id of the store's own making"
				}
				line += fmt.Sprintf(" %s=%v", c, values[i])
			}
			out[table] = append(out[table], line)
		}
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
	}
	return out
}

// TestWhatIsWrittenTogetherIsWrittenTheSame: any batch leaves the same rows, and
// gives the same answers, whether PostgreSQL takes its members together or one by
// one, or SQLite takes them.
func TestWhatIsWrittenTogetherIsWrittenTheSame(t *testing.T) {
	t.Parallel()
	if !pgtest.Postgres() {
		t.Skip("about PostgreSQL, on which the tests run once more")
	}
	migrate := func(url string) error { _, err := db.Migrations(context.Background(), url, true); return err }
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	open := func(url string) *db.DB {
		ring, _, err := db.NewKeyRing()
		require.NoError(t, err)
		now := func() time.Time { return at }
		d, err := db.Open(context.Background(), db.Options{URL: url, KeyRing: ring, Migrate: true, Now: now, IDs: ids.NewGenerator(1, now)})
		require.NoError(t, err)
		t.Cleanup(func() { _ = d.Close() })
		return d
	}
	ways := []way{
		{"together", open(pgtest.URL(t, migrate)), &bulk{}},
		{"one by one", open(pgtest.URL(t, migrate)), nil},
		{"on SQLite", open(filepath.Join(t.TempDir(), "c.db")), nil},
	}
	rapid.Check(t, func(t *rapid.T) {
		g := &batches{at: at}
		for _, w := range ways {
			w.clear(t)
		}
		for range rapid.IntRange(1, 4).Draw(t, "batches") {
			leased := ways[0].rows(t)
			if len(leased) > 0 && rapid.Bool().Draw(t, "cancel") {
				canceled := rapid.SampledFrom(leased).Draw(t, "canceled").Notification
				for _, w := range ways {
					w.cancel(t, canceled)
				}
			}
			batch := g.draw(t, leased)
			answers := make([][]any, len(ways))
			for i, w := range ways {
				members := make([]any, len(batch))
				for k := range batch {
					members[k] = batch[k]()
				}
				w.write(t, members)
				for _, m := range members {
					switch m := m.(type) {
					case *accepting:
						answers[i] = append(answers[i], m.stored)
					case *finishing:
						answers[i] = append(answers[i], m.res)
					}
				}
			}
			for i, w := range ways[1:] {
				require.Equal(t, answers[0], answers[i+1], w.name)
				want, have := ways[0].dump(t), w.dump(t)
				for table := range want {
					require.Equal(t, want[table], have[table], "%s %s", table, w.name)
				}
				require.Len(t, have, len(want), w.name)
			}
			g.claim++
			for _, w := range ways {
				w.release(t, g.claim)
			}
		}
	})
}

// batches draws what a batch may be made of. Each member is a function, so that
// every way gets its own.
type batches struct {
	at    time.Time
	next  ids.ID
	claim int64
}

const drawnTenant = ids.ID(7)

func (g *batches) draw(t *rapid.T, leased []delivery.Row) (out []func() any) {
	keys := rapid.Permutation([]string{"", "a", "b", "c", "d"}).Draw(t, "keys")
	for i := range rapid.IntRange(0, len(keys)).Draw(t, "accepts") {
		out = append(out, g.accept(t, keys[i]))
	}
	for _, r := range leased {
		if rapid.Bool().Draw(t, "finished") {
			out = append(out, g.finish(t, r))
		}
	}
	return rapid.Permutation(out).Draw(t, "order")
}

func (g *batches) accept(t *rapid.T, key string) func() any {
	b := delivery.Batch{Tenant: drawnTenant, Answer: delivery.Answer{Status: 202, Body: []byte("answer")}, ExpiresAt: g.at.Add(time.Hour)}
	if key != "" {
		b.Idempotency = &delivery.Idempotency{Principal: 1, Route: "POST /v1/notifications", Key: key}
		b.Idempotency.BodyHash[0] = byte(rapid.IntRange(0, 1).Draw(t, "body"))
	}
	var sealed [][]byte
	for range rapid.IntRange(0, 3).Draw(t, "notifications") {
		g.next++
		a := delivery.Accepted{ID: g.next, Tenant: drawnTenant, Lane: delivery.Regular, Type: rapid.SampledFrom([]string{"", "order.shipped", "a\x00b"}).Draw(t, "type"),
			CreatedAt: g.at, Sensitive: rapid.Bool().Draw(t, "sensitive"), AtMostOnce: rapid.Bool().Draw(t, "once")}
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			a.Scheduled, a.SendAt = true, g.at.Add(time.Hour)
		case 1:
			a.Skips = []delivery.Skip{{User: rapid.SampledFrom([]string{"alice", "bob"}).Draw(t, "user"), Reason: delivery.SkipNoDevice}}
		default:
		}
		if !a.Scheduled {
			for target := range rapid.IntRange(0, 3).Draw(t, "targets") {
				a.Rows = append(a.Rows, delivery.Row{Tenant: drawnTenant, Notification: a.ID, Target: ids.ID(target + 1), Channel: channels.FCM, Lane: a.Lane,
					State: delivery.Sending, UserID: ids.ID(target % 2), Epoch: 1, Credential: 3, DueAt: g.at.Add(time.Minute), ExpiresAt: g.at.Add(time.Hour), Claim: g.claim, Round: 1})
			}
		}
		b.Accepted = append(b.Accepted, a)
		sealed = append(sealed, []byte{byte(a.ID)})
	}
	return func() any { return &accepting{batch: b, sealed: sealed, now: g.at} }
}

func (g *batches) finish(t *rapid.T, r delivery.Row) func() any {
	f := delivery.Finish{Row: r, Now: g.at, StartedAt: g.at, ExpiresAt: r.ExpiresAt, Credential: 3, Version: 1,
		Transition: drawTransition(t, g.at)}
	f.Transition.Spent = r.Spent + 1
	if rapid.Bool().Draw(t, "attempted") {
		f.Attempt = &delivery.Attempt{Number: r.Attempts + 1, At: g.at, Duration: time.Second, Outcome: channels.Retry, Code: "busy", Status: 503,
			Detail: rapid.SampledFrom([]string{"", "too busy", "a\x00b", "\xff"}).Draw(t, "detail"), Ambiguous: rapid.Bool().Draw(t, "ambiguous")}
	}
	if rapid.IntRange(0, 4).Draw(t, "lost") == 0 {
		f.Row.Claim-- // another node has it
	}
	return func() any { return &finishing{f: f} }
}

func drawTransition(t *rapid.T, at time.Time) delivery.Transition {
	return rapid.SampledFrom([]delivery.Transition{
		{State: delivery.Sent}, {State: delivery.Sent, DueAt: at}, {State: delivery.Sent, Device: delivery.DeviceConfirmed},
		{State: delivery.Pending, DueAt: at.Add(time.Second)}, {State: delivery.Pending, DueAt: at, Renew: channels.RenewToken},
		{State: delivery.Dropped, Reason: delivery.Expired}, {State: delivery.Dead, Reason: delivery.Exhausted},
		{State: delivery.Dropped, Reason: delivery.Gone, Device: delivery.DeviceRetired},
		{State: delivery.Held, Reason: delivery.InDoubt, Device: delivery.DeviceSuspect, Hold: delivery.HoldDoubt},
		{State: delivery.Held, Reason: delivery.CredentialMissing, Hold: delivery.HoldMissing},
	}).Draw(t, "to")
}

// TestOfAPlainFinishOnlyACancellationMatters: what is written together is not
// amended by anything else that a finish may find.
func TestOfAPlainFinishOnlyACancellationMatters(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	plain := 0
	rapid.Check(t, func(t *rapid.T) {
		f := delivery.Finish{Now: at, ExpiresAt: at.Add(time.Hour), Transition: drawTransition(t, at), Attempt: &delivery.Attempt{},
			Prove: rapid.Bool().Draw(t, "prove"), Learned: rapid.SampledFrom([]channels.Environment{"", channels.Sandbox}).Draw(t, "learned")}
		f.Row.Channel = rapid.SampledFrom(channels.Kinds()).Draw(t, "channel")
		f.Row.Spent = rapid.IntRange(0, 3).Draw(t, "spent")
		if rapid.Bool().Draw(t, "not attempted") {
			f.Attempt = nil
		}
		if !plainFinish(&f) {
			return
		}
		plain++
		found := delivery.Found{Channel: f.Row.Channel, Spent: f.Row.Spent, ExpiresAt: f.ExpiresAt, Now: at,
			Registered: rapid.Bool().Draw(t, "registered"), HoldStands: rapid.Bool().Draw(t, "hold")}
		require.Equal(t, plainly(&f), delivery.Amend(f.Transition, found))
		require.Zero(t, f.Transition.Hold, "no hold is opened")
	})
	require.Positive(t, plain)
}
