package store_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/backup"
	"github.com/carillonhq/carillon/store/backup/archive"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/pgtest"
	"github.com/carillonhq/carillon/store/storetest"
	"github.com/carillonhq/carillon/tenants"
)

// backup takes one beside whatever else has the database open, and gives its file.
func backUp(t *testing.T, o testOptions) (string, archive.Summary) {
	t.Helper()
	s, err := store.Peek(context.Background(), o.Options)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	file := filepath.Join(t.TempDir(), "backup")
	f, err := os.Create(file)
	require.NoError(t, err)
	sum, err := s.Backup(context.Background(), "v1", f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return file, sum
}

// kinds of databases.
func kinds() []string { return []string{"sqlite", "postgres"} }

// here is the kind that the tests run on at the moment.
func here() string {
	if pgtest.Postgres() {
		return "postgres"
	}
	return "sqlite"
}

// another names a database that is empty or does not exist yet, for the same key
// ring.
func another(t *testing.T, o testOptions, kind string) testOptions {
	t.Helper()
	o.URL = filepath.Join(t.TempDir(), "below", "c.db")
	if kind == "postgres" {
		o.URL, o.Connections = pgtest.Empty(t), 8
	}
	return o
}

// contents is all that a database holds, by table, as text.
func contents(t *testing.T, o testOptions) map[string][]string {
	t.Helper()
	s, err := store.Peek(context.Background(), o.Options)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	var b bytes.Buffer
	_, err = s.Backup(context.Background(), "v1", &b)
	require.NoError(t, err)
	out, table := map[string][]string{}, ""
	_, err = archive.Read(&b, archive.Visitor{
		Table: func(x archive.Table) error {
			table = x.Name
			out[table] = []string{strings.Join(x.Columns, " ")}
			return nil
		},
		Rows: func(rows [][]any) error {
			for _, r := range rows {
				out[table] = append(out[table], fmt.Sprintf("%#v", r))
			}
			slices.Sort(out[table][1:])
			return nil
		},
	})
	require.NoError(t, err)
	return out
}

// furnished is a sound database with something in every register.
func furnished(t *testing.T, o testOptions, s *store.Store) map[delivery.State]delivery.Row {
	t.Helper()
	rows, ctx := sound(t, o, s), context.Background()
	tenant := rows[delivery.Sent].Tenant
	_, err := s.PutCredential(ctx, tenants.Credential{Tenant: tenant, App: "default", Channel: channels.FCM},
		channels.Credential{Settings: []byte(`{"project":"p"}`), Secret: []byte("credential-secret")}, tenants.PutOptions{Rotate: true}, tenants.Change{Actor: "test", Action: "test"})
	require.NoError(t, err)
	_, err = s.UpsertDevice(ctx, devices.Device{Tenant: tenant, ID: o.IDs.Next(), User: "zoë", App: "default", Channel: channels.FCM,
		Target: channels.Target{Kind: channels.FCMToken, Address: "the-device-token"}}, devices.Caller{Actor: "key_test"})
	require.NoError(t, err)
	return rows
}

func TestARestoredDatabaseIsTheSameButSendsNothing(t *testing.T) {
	t.Parallel()
	for _, to := range kinds() {
		t.Run("into "+to, func(t *testing.T) {
			t.Parallel()
			restoredIsTheSame(t, to)
		})
	}
}

func restoredIsTheSame(t *testing.T, to string) {
	t.Helper()
	o := options(t)
	s := open(t, o)
	rows := furnished(t, o, s)
	before := contents(t, o)
	file, sum := backUp(t, o)
	require.Equal(t, o.clock.Now(), sum.Header.SnapshotAt)
	require.NoError(t, s.RecordBackup(context.Background(), sum, "cli"))
	require.Equal(t, here(), sum.Header.Database)

	target := another(t, o, to)
	o.clock.Advance(time.Second)
	restored, err := store.Restore(context.Background(), target.Options, file, "cli")
	require.NoError(t, err)
	require.Equal(t, sum, restored.Summary)
	require.EqualValues(t, 1, restored.Leased)
	if to == "sqlite" {
		info, err := os.Stat(target.URL)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "it holds device tokens")
	}
	after := contents(t, target)
	for table := range before {
		if table == "installation" || table == "audit" || table == "deliveries" {
			continue
		}
		require.Equal(t, before[table], after[table], table)
	}
	require.Len(t, after["deliveries"], len(before["deliveries"]))
	require.Len(t, after["audit"], len(before["audit"])+1)

	r := open(t, target)
	require.NoError(t, r.CheckKeyRing(context.Background()))
	p, err := r.SendingPaused(context.Background())
	require.NoError(t, err)
	require.Equal(t, o.clock.Now(), p.Since)
	require.Equal(t, o.clock.Now(), p.Restored)
	require.ErrorContains(t, r.ResumeSending(context.Background(), "cli"), "after-restore")
	v, err := r.Check(context.Background(), true)
	require.NoError(t, err)
	require.Empty(t, v)

	// What was leased is taken over at once.
	now := o.clock.Now()
	claimed, err := r.Claim(context.Background(), delivery.ClaimOrder{Lane: delivery.Regular, Limit: 10, PerTenant: 10, Now: now, Lease: now, Claim: 8})
	require.NoError(t, err)
	was := map[delivery.State]delivery.Claimed{}
	for _, c := range claimed {
		was[c.Was] = c
	}
	require.Len(t, was, 2)
	require.Equal(t, rows[delivery.Sending].Notification, was[delivery.Sending].Notification)
	require.True(t, was[delivery.Sending].Unknown)
	require.False(t, was[delivery.Pending].Unknown)
}

// TestEveryTableIsArchived but that of the migrations.
func TestEveryTableIsArchived(t *testing.T) {
	t.Parallel()
	o := options(t)
	open(t, o)
	have, n := contents(t, o), 0
	for name := range behind(t, o, storetest.Opened{}).Dump(t) {
		if name != "goose_db_version" && name != "sqlite_sequence" && !strings.HasPrefix(name, "shared_") {
			require.Contains(t, have, name)
			n++
		}
	}
	require.Len(t, have, n)
	require.Greater(t, n, 15)
}

// TestABackupBesideWritersIsOneMoment: whatever commits while it is taken is in it
// as a whole or not at all.
func TestABackupBesideWritersIsOneMoment(t *testing.T) {
	t.Parallel()
	o := options(t)
	s := open(t, o)
	tenant := sound(t, o, s)[delivery.Sent].Tenant
	ctx, now := context.Background(), o.clock.Now()
	const targets = 7
	var (
		stop    atomic.Bool
		written atomic.Int64
		writers sync.WaitGroup
	)
	for range 4 {
		writers.Go(func() {
			for !stop.Load() && written.Load() < 300 { // enough to be under way all the time
				a := delivery.Accepted{ID: o.IDs.Next(), Tenant: tenant, Lane: delivery.Regular, CreatedAt: now, Body: []byte("{}")}
				claim := int64(o.IDs.Next())
				for range targets {
					a.Rows = append(a.Rows, delivery.Row{Tenant: tenant, Notification: a.ID, Target: o.IDs.Next(), Channel: 1, Lane: a.Lane,
						State: delivery.Sending, Claim: claim, DueAt: now.Add(time.Minute), ExpiresAt: now.Add(time.Hour), Round: 1})
				}
				if _, err := s.Accept(ctx, delivery.Batch{Tenant: tenant, Accepted: []delivery.Accepted{a}}); err != nil {
					t.Error(err)
					return
				}
				for _, r := range a.Rows[1:] {
					s.Finish(delivery.Finish{Row: r, Transition: delivery.Transition{State: delivery.Sent, Spent: 1}, ExpiresAt: r.ExpiresAt, Now: now,
						Attempt: &delivery.Attempt{Number: 1, At: now, Outcome: channels.Accepted}}, func(delivery.FinishResult) {})
				}
				written.Add(1)
			}
		})
	}
	defer func() { stop.Store(true); writers.Wait() }()
	for n := range 2 {
		require.Eventually(t, func() bool { return written.Load() > int64(50*(n+1)) }, 20*time.Second, time.Millisecond)
		file, _ := backUp(t, o)
		target := another(t, o, "sqlite")
		_, err := store.Restore(ctx, target.Options, file, "cli")
		require.NoError(t, err)
		r := open(t, target)
		v, err := r.Check(ctx, true)
		require.NoError(t, err)
		require.Empty(t, v)
		var notifications, torn int
		require.NoError(t, rawDB(t, target).QueryRow(`SELECT count(*), count(*) FILTER (WHERE targets<>(SELECT count(*) FROM deliveries d WHERE d.tenant_id=n.tenant_id AND d.notification_id=n.id)
 OR targets>0 AND NOT EXISTS (SELECT 1 FROM payloads p WHERE p.notification_id=n.id)) FROM notifications n`).Scan(&notifications, &torn))
		require.Greater(t, notifications, 50*(n+1))
		require.Zero(t, torn)
	}
}

func TestADamagedBackupIsRefusedBeforeAnythingIsWritten(t *testing.T) {
	t.Parallel()
	o := options(t)
	furnished(t, o, open(t, o))
	file, _ := backUp(t, o)
	whole, err := os.ReadFile(file)
	require.NoError(t, err)
	for name, b := range map[string][]byte{"cut off": whole[:len(whole)-10], "changed": append(append(bytes.Clone(whole[:len(whole)/2]), whole[len(whole)/2]^1), whole[len(whole)/2+1:]...), "empty": nil} {
		damaged := filepath.Join(t.TempDir(), "damaged")
		require.NoError(t, os.WriteFile(damaged, b, 0o600))
		_, err := backup.VerifyBackup(damaged)
		require.ErrorIs(t, err, archive.ErrDamaged, name)
		target := another(t, o, "sqlite")
		_, err = store.Restore(context.Background(), target.Options, damaged, "cli")
		require.ErrorIs(t, err, archive.ErrDamaged, name)
		require.NoFileExists(t, target.URL, name)
	}
	_, err = backup.VerifyBackup(file)
	require.NoError(t, err)
}

// TestAnInterruptedRestoreLeavesAnEmptyDatabase, into which it can be tried again.
func TestAnInterruptedRestoreLeavesAnEmptyDatabase(t *testing.T) {
	t.Parallel()
	o := options(t)
	rows := furnished(t, o, open(t, o))
	file, _ := backUp(t, o)
	target := another(t, o, here())

	ctx, cancel := context.WithCancel(context.Background())
	cut := target.Options
	asked := 0
	cut.Now = func() time.Time {
		if asked++; !pgtest.Postgres() || asked == 2 { // on PostgreSQL, first to look for servers
			cancel() // all rows are there
		}
		return o.clock.Now()
	}
	_, err := store.Restore(ctx, cut, file, "cli")
	require.ErrorIs(t, err, context.Canceled)

	other := target.Options
	other.KeyRing, _, err = db.NewKeyRing()
	require.NoError(t, err)
	_, err = store.Restore(context.Background(), other, file, "cli")
	require.ErrorContains(t, err, "another key ring")

	for table, content := range contents(t, target) {
		if table != "schema_info" {
			require.Len(t, content, 1, "%s is empty", table)
		}
	}
	_, err = store.Restore(context.Background(), target.Options, file, "cli")
	require.NoError(t, err)
	_, err = open(t, target).Delivery(context.Background(), rows[delivery.Sent].Tenant, rows[delivery.Sent].Notification, rows[delivery.Sent].Target)
	require.NoError(t, err)

	_, err = store.Restore(context.Background(), target.Options, file, "cli")
	require.ErrorContains(t, err, "not empty")
}

func TestNoRestoreUnderARunningServer(t *testing.T) {
	t.Parallel()
	o := options(t)
	furnished(t, o, open(t, o))
	file, _ := backUp(t, o)
	target := another(t, o, "sqlite")
	require.NoError(t, open(t, target).LockEngine())
	_, err := store.Restore(context.Background(), target.Options, file, "cli")
	require.ErrorContains(t, err, "another server")
	require.ErrorContains(t, err, fmt.Sprintf("pid %d", os.Getpid()))

	// Nodes on PostgreSQL know of each other.
	target = another(t, o, "postgres")
	s := open(t, target)
	require.NoError(t, s.Join(context.Background(), db.Node{Name: "bell-1", Role: "all", Version: "test"}))
	_, err = store.Restore(context.Background(), target.Options, file, "cli")
	require.ErrorContains(t, err, "bell-1")
	_, err = s.BeginAfterRestore(context.Background(), "cli")
	require.ErrorContains(t, err, "bell-1")
	require.NoError(t, s.Close())
	_, err = store.Restore(context.Background(), target.Options, file, "cli")
	require.NoError(t, err)
}
