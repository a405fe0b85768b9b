package doctor

import (
	"context"
	"database/sql"
	"time"

	"github.com/carillonhq/carillon/store/db"
)

// PostgresFacts are about the server.
type PostgresFacts struct {
	Version           int  // 150004 is 15.4
	Recovery          bool // it is a standby
	Fsync             bool
	FullPageWrites    bool
	SynchronousCommit string // as it is set for Carillon's user
	Standbys          []Standby
	// Sessions that keep VACUUM from removing rows, the oldest first.
	Sessions []Session
	// Deliveries that are in the table, and those that are dead and not vacuumed.
	LiveTuples, DeadTuples int64
	VacuumedAt             time.Time // zero: never
	Slots                  []Slot
	Connections            int // that clients have
	MaxConnections         int // that clients may have
}

// Standby is a server that follows.
type Standby struct {
	Name, State, Sync string // sync, quorum, potential or async; "" where the user may not see it
}

// Synchronous tells whether a commit waits for it.
func (s Standby) Synchronous() bool { return s.Sync == "sync" || s.Sync == "quorum" }

// Session is one with an old transaction.
type Session struct {
	PID         int
	Application string
	State       string // idle in transaction, active, or prepared
	Age         time.Duration
	Prepared    string // the name of a prepared transaction, which has no session
	HoldsVacuum bool   // rows that are deleted since stay
}

// Slot is a replication slot.
type Slot struct {
	Name   string
	Active bool
	Status string // reserved, extended, unreserved or lost
	Held   int64  // bytes of WAL that it keeps
}

const selectSettings = `SELECT current_setting('server_version_num')::bigint, CASE WHEN pg_is_in_recovery() THEN 1 ELSE 0 END,
 CASE WHEN current_setting('fsync')='on' THEN 1 ELSE 0 END, CASE WHEN current_setting('full_page_writes')='on' THEN 1 ELSE 0 END,
 current_setting('synchronous_commit'),
 (SELECT count(*) FROM pg_stat_activity WHERE backend_type='client backend'),
 current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint`

const selectSessions = `SELECT coalesce(pid,0), application_name, coalesce(state,''), (extract(epoch FROM clock_timestamp()-xact_start)*1000)::bigint, '',
 CASE WHEN backend_xmin IS NULL AND backend_xid IS NULL THEN 0 ELSE 1 END
 FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid<>pg_backend_pid() AND backend_type IN ('client backend','walsender')
 AND (datname=current_database() OR datname IS NULL)
 UNION ALL SELECT 0, '', 'prepared', (extract(epoch FROM clock_timestamp()-prepared)*1000)::bigint, gid, 1 FROM pg_prepared_xacts WHERE database=current_database()
 ORDER BY 4 DESC LIMIT 20`

const selectSlots = `SELECT slot_name::text, CASE WHEN active THEN 1 ELSE 0 END, coalesce(wal_status,''),
 coalesce(CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) END,0)::bigint FROM pg_replication_slots ORDER BY slot_name`

func (s *Doctor) postgres(ctx context.Context, f *PostgresFacts) error {
	var recovery, fsync, pages int
	if err := s.db.Reads().QueryRowContext(ctx, selectSettings).
		Scan(&f.Version, &recovery, &fsync, &pages, &f.SynchronousCommit, &f.Connections, &f.MaxConnections); err != nil {
		return err
	}
	f.Recovery, f.Fsync, f.FullPageWrites = recovery == 1, fsync == 1, pages == 1
	rows, err := s.db.Reads().QueryContext(ctx, "SELECT application_name, coalesce(state,''), coalesce(sync_state,'') FROM pg_stat_replication ORDER BY application_name, pid")
	if err != nil {
		return err
	}
	if f.Standbys, err = db.Collect(rows, func(r *sql.Rows) (x Standby, err error) {
		err = r.Scan(&x.Name, &x.State, &x.Sync)
		return x, err
	}); err != nil {
		return err
	}
	if rows, err = s.db.Reads().QueryContext(ctx, selectSessions); err != nil {
		return err
	}
	if f.Sessions, err = db.Collect(rows, scanSession); err != nil {
		return err
	}
	if rows, err = s.db.Reads().QueryContext(ctx, selectSlots); err != nil {
		return err
	}
	if f.Slots, err = db.Collect(rows, func(r *sql.Rows) (x Slot, err error) {
		active := 0
		err = r.Scan(&x.Name, &active, &x.Status, &x.Held)
		x.Active = active == 1
		return x, err
	}); err != nil {
		return err
	}
	var vacuumed int64
	err = s.db.Reads().QueryRowContext(ctx, `SELECT n_live_tup, n_dead_tup, coalesce((extract(epoch FROM greatest(last_vacuum,last_autovacuum))*1000)::bigint,0)
 FROM pg_stat_user_tables WHERE schemaname=current_schema() AND relname='deliveries'`).Scan(&f.LiveTuples, &f.DeadTuples, &vacuumed)
	f.VacuumedAt = db.FromMillis(vacuumed)
	if db.IsNoRows(err) {
		return nil // not migrated yet
	}
	return err
}

func scanSession(r *sql.Rows) (x Session, err error) {
	var age, holds int64
	err = r.Scan(&x.PID, &x.Application, &x.State, &age, &x.Prepared, &holds)
	x.Age, x.HoldsVacuum = time.Duration(age)*time.Millisecond, holds == 1
	return x, err
}
