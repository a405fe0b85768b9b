package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/carillonhq/carillon/store/doctor"
)

func checkDurability(d *doctor.Diagnosis, _ time.Time) (out []finding) {
	p := d.Postgres
	if p.Version == 0 {
		return nil // what there is to know is not known
	}
	if p.Recovery {
		out = append(out, finding{fault, "durability", "This server of PostgreSQL is a standby.", "It takes no writes, so nothing is accepted.",
			"Name the primary by database.url; with several hosts in it, add target_session_attrs=read-write."})
	}
	if !p.Fsync {
		out = append(out, finding{fault, "durability", "fsync is off.", "A crash of the machine can lose what was acknowledged, and damage the whole database.",
			"Set fsync = on in postgresql.conf and reload."})
	}
	if !p.FullPageWrites {
		out = append(out, finding{fault, "durability", "full_page_writes is off.", "A crash of the machine can leave half-written pages, which no log repairs.",
			"Set full_page_writes = on and reload, unless the file system cannot tear pages."})
	}
	switch p.SynchronousCommit {
	case "off":
		out = append(out, finding{note, "durability", "synchronous_commit is off for Carillon's user.",
			"Carillon asks for it in each of its own transactions, so what it acknowledges is on disk all the same.", "Set it to on, so that nobody has to know this."})
	case "local":
		if anySynchronous(p.Standbys) {
			out = append(out, finding{warning, "durability", "synchronous_commit is local, although there are synchronous standbys.",
				"Commits do not wait for the standbys: a primary that is lost takes acknowledged work with it.", "Set synchronous_commit = on for Carillon's user."})
		}
	}
	return out
}

func anySynchronous(list []doctor.Standby) bool {
	for _, s := range list {
		if s.Synchronous() {
			return true
		}
	}
	return false
}

func checkStandbys(d *doctor.Diagnosis, _ time.Time) []finding {
	p := d.Postgres
	if p.Version == 0 || p.Recovery || anySynchronous(p.Standbys) {
		return nil
	}
	const lost = "If the primary is lost, so is acknowledged work: \"accepted means delivered or explained\" holds only as far as its disk does."
	if len(p.Standbys) == 0 {
		return one(finding{warning, "standbys", "PostgreSQL has no standby.", lost,
			"Where that matters, run a standby and name it in synchronous_standby_names; otherwise keep WAL archives or backups close together."})
	}
	names, hidden := []string{}, true
	for _, s := range p.Standbys {
		names = append(names, s.Name)
		hidden = hidden && s.Sync == ""
	}
	if hidden {
		return one(finding{note, "standbys", "There are standbys (" + strings.Join(names, ", ") + "), but Carillon's user may not see whether they are synchronous.",
			"With asynchronous ones, a lost primary takes acknowledged work with it.", "GRANT pg_monitor to the user, or look at pg_stat_replication yourself."})
	}
	return one(finding{warning, "standbys", "All standbys are asynchronous: " + strings.Join(names, ", ") + ".", "What they have not received yet is lost with the primary, although it was acknowledged. " + lost,
		"Name one of them, or better ANY 1 of two, in synchronous_standby_names."})
}

func checkVacuum(d *doctor.Diagnosis, _ time.Time) (out []finding) {
	p := d.Postgres
	for _, s := range p.Sessions {
		if s.Age < oldSession || !s.HoldsVacuum && s.State != "idle in transaction" {
			continue
		}
		who := fmt.Sprintf("The session %d (%s, %s)", s.PID, cmp.Or(s.Application, "unnamed"), cmp.Or(s.State, "state not visible"))
		do := fmt.Sprintf("End what runs it, or: SELECT pg_terminate_backend(%d). Set idle_in_transaction_session_timeout for its user.", s.PID)
		if s.Prepared != "" {
			who, do = fmt.Sprintf("The prepared transaction %q", s.Prepared), "COMMIT PREPARED or ROLLBACK PREPARED it."
		}
		out = append(out, finding{warning, "vacuum", fmt.Sprintf("%s has a transaction open for %s.", who, s.Age.Truncate(time.Second)),
			"VACUUM cannot remove rows that were deleted since, so the queue's table grows and claims become slow. A running backup is such a session, too.", do})
		if len(out) == maxSessions {
			break
		}
	}
	if p.DeadTuples > manyDead && p.DeadTuples > p.LiveTuples/4 {
		last := "never"
		if !p.VacuumedAt.IsZero() {
			last = "last at " + p.VacuumedAt.Format(time.RFC3339)
		}
		out = append(out, finding{warning, "vacuum", fmt.Sprintf("The table deliveries has %d dead rows beside %d live ones; it was vacuumed %s.", p.DeadTuples, p.LiveTuples, last),
			"Claims read past dead rows, and the table grows.", "See that autovacuum is on and that no old transaction holds it up; make it more eager for this table: ALTER TABLE deliveries SET (autovacuum_vacuum_scale_factor=0.02)."})
	}
	return out
}

func checkSlots(d *doctor.Diagnosis, _ time.Time) (out []finding) {
	for _, s := range d.Postgres.Slots {
		switch {
		case s.Status == "lost":
			out = append(out, finding{warning, "replication_slots", fmt.Sprintf("The replication slot %s is lost: what it needs was removed.", s.Name),
				"Whoever used it must be set up anew; a standby behind it does not follow.", fmt.Sprintf("Set the standby up anew, and: SELECT pg_drop_replication_slot('%s').", s.Name)})
		case !s.Active && s.Held > bigWAL || s.Held > 16*bigWAL:
			state := "and nobody uses it"
			if s.Active {
				state = "because its reader is behind"
			}
			out = append(out, finding{warning, "replication_slots", fmt.Sprintf("The replication slot %s holds %s of WAL, %s.", s.Name, size(s.Held), state),
				"It grows until the volume is full, and then the database stops.", "Bring its standby or reader back, or drop the slot; set max_slot_wal_keep_size as a limit."})
		}
	}
	return out
}

func checkConnections(d *doctor.Diagnosis, _ time.Time) []finding {
	p := d.Postgres
	left := p.MaxConnections - p.Connections
	if p.Version == 0 || left >= fewConns {
		return nil
	}
	level := warning
	if left < shortOfConns {
		level = fault
	}
	return one(finding{level, "connections", fmt.Sprintf("%d of %d connections are taken.", p.Connections, p.MaxConnections),
		"A server that cannot connect is taken for dead, and no other can start.", "Lower database.connections, close what else is connected, or raise max_connections."})
}

func checkClock(d *doctor.Diagnosis, _ time.Time) []finding {
	apart := d.ClockAhead.Abs()
	if apart <= clockApart {
		return nil
	}
	way := "ahead of"
	if d.ClockAhead < 0 {
		way = "behind"
	}
	return one(finding{warning, "clock", fmt.Sprintf("The database's clock is %s %s this machine's.", apart.Truncate(time.Millisecond), way),
		"Carillon goes by the database's clock, so nothing breaks; but tokens that are signed with the time, logs and ids do not fit together.", "Run a time service (chrony, systemd-timesyncd) on both."})
}
