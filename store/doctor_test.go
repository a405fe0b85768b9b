package store_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/doctor"
	"github.com/carillonhq/carillon/store/pgtest"
)

// examine looks as another process would.
func examine(t *testing.T, o testOptions, deep bool) doctor.Diagnosis {
	t.Helper()
	s, err := store.Peek(context.Background(), o.Options)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	return s.Examine(context.Background(), deep)
}

func TestASoundDatabaseIsFoundSound(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.Machine = time.Now // which doctor compares with the database's
	s := open(t, o)
	sound(t, o, s)
	d := examine(t, o, true)
	require.Empty(t, d.Unknown)
	require.Equal(t, here(), d.Kind)
	require.NoError(t, d.KeyRing)
	require.Empty(t, d.Broken)
	require.False(t, d.Running)
	require.True(t, d.BackupAt.IsZero())
	require.Equal(t, d.Schema.Want, d.Schema.Have)
	require.EqualValues(t, 15, d.Schema.MinReader, "URLs are sealed from the start")
	require.Len(t, d.Depths.Dead, 1)
	require.False(t, d.Pause.On())
	if !pgtest.Postgres() {
		f := d.SQLite
		require.Equal(t, "wal", f.JournalMode)
		require.Equal(t, 2, f.Synchronous)
		require.Equal(t, os.FileMode(0o600), f.Mode)
		require.Empty(t, f.Corrupt)
		require.Positive(t, f.Free)
		require.Positive(t, f.Size)
		require.Positive(t, f.WALSize)
	} else {
		p := d.Postgres
		require.GreaterOrEqual(t, p.Version, 130000)
		require.False(t, p.Recovery)
		require.Equal(t, "on", p.SynchronousCommit)
		require.Positive(t, p.Connections)
		require.Greater(t, p.MaxConnections, p.Connections)
		require.Empty(t, p.Slots)
		require.Less(t, d.ClockAhead.Abs(), time.Second, "it is the same machine")
	}
}

func TestExamineFindsWhatAnInstallationIsTold(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	o := options(t)
	s := open(t, o)
	rows := sound(t, o, s)
	file, sum := backUp(t, o)
	require.NotEmpty(t, file)
	require.NoError(t, s.RecordBackup(ctx, sum, "cli"))
	require.NoError(t, s.PauseSending(ctx, "why", "cli"))
	raw(t, o, "UPDATE deliveries SET reason=0 WHERE notification_id=?", rows[delivery.Dead].Notification)
	require.NoError(t, s.LockEngine())
	require.NoError(t, s.Join(ctx, db.Node{Name: "bell-1", Role: "all", Version: "v1"}))
	other := o
	var err error
	other.KeyRing, _, err = db.NewKeyRing()
	require.NoError(t, err)

	d := examine(t, other, false)
	require.Empty(t, d.Unknown)
	require.ErrorContains(t, d.KeyRing, "key ring")
	require.True(t, d.Running)
	require.Len(t, d.Nodes, 1)
	require.Equal(t, "bell-1", d.Nodes[0].Name)
	require.Equal(t, "why", d.Pause.Reason)
	require.Equal(t, sum.Header.SnapshotAt, d.BackupAt)
	require.Len(t, d.Broken, 1)
	require.Equal(t, "reason_missing", d.Broken[0].Name)

	other.KeyRing = nil
	require.NoError(t, examine(t, other, false).KeyRing, "nothing was given that could be wrong")
	require.NoError(t, s.Close())
	require.False(t, examine(t, o, false).Running)
}

func TestExamineTellsTheSchema(t *testing.T) {
	t.Parallel()
	o := options(t)
	require.NoError(t, open(t, o).Close())
	raw(t, o, "UPDATE schema_info SET min_reader=77")
	d := examine(t, o, false)
	require.EqualValues(t, 77, d.Schema.MinReader)
	raw(t, o, "DELETE FROM goose_db_version WHERE version_id>1")
	d = examine(t, o, false)
	require.Empty(t, d.Unknown, "what needs newer tables was not looked at")
	require.EqualValues(t, 1, d.Schema.Have)
	require.Greater(t, d.Schema.Want, d.Schema.Have)

	d = examine(t, withoutSchema(t, o), false)
	require.Len(t, d.Unknown, 1)
	require.Equal(t, "the schema version", d.Unknown[0].What)
}

// withoutSchema names a database that is there and has no schema.
func withoutSchema(t *testing.T, o testOptions) testOptions {
	t.Helper()
	if pgtest.Postgres() {
		return another(t, o, "postgres")
	}
	o.URL = filepath.Join(t.TempDir(), "empty.db")
	require.NoError(t, os.WriteFile(o.URL, nil, 0o600))
	return o
}

func TestExamineFindsFaultsOfTheFile(t *testing.T) {
	t.Parallel()
	o := options(t)
	s := open(t, o)
	furnished(t, o, s)
	require.NoError(t, s.Close())
	var mode string
	require.NoError(t, rawDB(t, o).QueryRow("PRAGMA journal_mode=DELETE").Scan(&mode))
	require.Equal(t, "delete", mode)
	require.NoError(t, os.Chmod(o.URL, 0o644))
	d := examine(t, o, true)
	require.Empty(t, d.Unknown)
	require.Equal(t, "delete", d.SQLite.JournalMode, "and looking did not change it")
	require.Equal(t, os.FileMode(0o644), d.SQLite.Mode)
	require.Empty(t, d.SQLite.Corrupt)

	b, err := os.ReadFile(o.URL)
	require.NoError(t, err)
	const page = 4096
	last := len(b) - page
	copy(b[last:], bytes.Repeat([]byte{0xff}, 8)) // the header of a page of an index
	require.NoError(t, os.WriteFile(o.URL, b, 0o600))
	require.Empty(t, examine(t, o, false).SQLite.Corrupt, "only a deep look reads every page")
	d = examine(t, o, true)
	require.NotEmpty(t, d.SQLite.Corrupt)
}

// superuser is the URL for the one who may do everything, on a server of the
// test's own.
func superuser(t *testing.T, s *pgtest.Server) string {
	t.Helper()
	u, err := url.Parse(s.URL("postgres"))
	require.NoError(t, err)
	u.User = url.User("postgres")
	return u.String()
}

func TestExamineFindsFaultsOfPostgres(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	server := pgtest.Start(t, pgtest.Options{Settings: map[string]string{"wal_level": "logical", "synchronous_commit": "off"}})
	o := options(t)
	o.URL, o.Connections = superuser(t, server), 8
	open(t, o)
	super := rawDB(t, o)
	for _, q := range []string{"SELECT pg_create_physical_replication_slot('forgotten', true)", "CREATE TABLE noise AS SELECT 1 AS x"} {
		_, err := super.Exec(q)
		require.NoError(t, err)
	}
	conn, err := super.Conn(ctx)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	for _, q := range []string{"SET application_name='sleeper'", "BEGIN", "INSERT INTO noise VALUES (2)"} {
		_, err := conn.ExecContext(ctx, q)
		require.NoError(t, err)
	}
	follower := follow(t, o.URL, "follower")

	slow := o
	slow.Machine = func() time.Time { return time.Now().Add(-time.Hour) }
	require.InDelta(t, time.Hour, examine(t, slow, false).ClockAhead, float64(10*time.Second))

	d := examine(t, o, false)
	require.Empty(t, d.Unknown)
	p := d.Postgres
	require.False(t, p.Fsync, "the test's server saves the time")
	require.False(t, p.FullPageWrites)
	require.Equal(t, "off", p.SynchronousCommit)
	require.Len(t, p.Slots, 1)
	require.Equal(t, "forgotten", p.Slots[0].Name)
	require.False(t, p.Slots[0].Active)
	require.Equal(t, "reserved", p.Slots[0].Status)
	var sleeper doctor.Session
	for _, s := range p.Sessions {
		if s.Application == "sleeper" {
			sleeper = s
		}
	}
	require.Equal(t, "idle in transaction", sleeper.State)
	require.True(t, sleeper.HoldsVacuum)
	require.Positive(t, sleeper.Age)
	require.Equal(t, []doctor.Standby{{Name: "follower", State: "streaming", Sync: "async"}}, p.Standbys)
	require.False(t, p.Standbys[0].Synchronous())

	for _, q := range []string{"ALTER SYSTEM SET synchronous_standby_names='follower'", "SELECT pg_reload_conf()"} {
		_, err := super.Exec(q)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool {
		follower()
		p := examine(t, o, false).Postgres
		return len(p.Standbys) == 1 && p.Standbys[0].Synchronous()
	}, 20*time.Second, 20*time.Millisecond)
}

// follow is a standby as far as the primary can tell. The function that it returns
// confirms what was received.
func follow(t *testing.T, dsn, name string) func() {
	t.Helper()
	ctx := context.Background()
	c, err := pgconn.Connect(ctx, dsn+"&replication=true&application_name="+name)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close(ctx) })
	system := c.Exec(ctx, "IDENTIFY_SYSTEM")
	list, err := system.ReadAll()
	require.NoError(t, err)
	position := string(list[0].Rows[0][2])
	c.Frontend().Send(&pgproto3.Query{String: "START_REPLICATION PHYSICAL " + position})
	require.NoError(t, c.Frontend().Flush())
	for {
		m, err := c.ReceiveMessage(ctx)
		require.NoError(t, err)
		if _, ok := m.(*pgproto3.CopyBothResponse); ok {
			break
		}
	}
	high, low, ok := strings.Cut(position, "/")
	require.True(t, ok)
	lsn := hexOf(t, high)<<32 | hexOf(t, low)
	confirm := func() {
		b := []byte{'r'}
		for range 3 { // written, flushed, applied
			b = binary.BigEndian.AppendUint64(b, lsn)
		}
		b = append(binary.BigEndian.AppendUint64(b, 0), 0)
		c.Frontend().Send(&pgproto3.CopyData{Data: b})
		require.NoError(t, c.Frontend().Flush())
	}
	confirm()
	return confirm
}

func hexOf(t *testing.T, s string) (n uint64) {
	t.Helper()
	for _, c := range s {
		n = n<<4 | uint64(strings.IndexRune("0123456789ABCDEF", c))
	}
	return n
}
