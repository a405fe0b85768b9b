package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/doctor"
	"github.com/carillonhq/carillon/store/registers"
	"github.com/carillonhq/carillon/tenants"
)

var doctorNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// soundSQLite and soundPostgres are what there is to know of an installation in
// which nothing is to be found.
func soundSQLite() doctor.Diagnosis {
	return doctor.Diagnosis{Database: "c.db", Kind: "sqlite", Schema: db.SchemaFacts{Have: 5, Want: 5, MinReader: 1}, Running: true,
		BackupAt: doctorNow.Add(-time.Hour),
		KeptFor:  30 * 24 * time.Hour,
		Growth: doctor.Growth{Space: doctor.Space{Files: gib, Used: gib, Spare: 3 * gib, Free: 10 * gib}, PerDay: gib / 4, Over: 7 * 24 * time.Hour,
			Oldest: doctorNow.Add(-10 * 24 * time.Hour)},
		SQLite: &doctor.SQLiteFacts{JournalMode: "wal", Synchronous: 2, Mode: 0o600, Size: gib, Free: 10 * gib}}
}

func soundPostgres() doctor.Diagnosis {
	d := soundSQLite()
	d.Kind, d.SQLite, d.Growth.Spare, d.Growth.Free = "postgres", nil, 0, -1
	d.Nodes = []db.Node{{Number: 1, Name: "a", Role: "all", Version: "v1", BeatAt: doctorNow}, {Number: 2, Name: "b", Role: "worker", Version: "v1", BeatAt: doctorNow}}
	d.Postgres = &doctor.PostgresFacts{Version: 150000, Fsync: true, FullPageWrites: true, SynchronousCommit: "on",
		Standbys:   []doctor.Standby{{Name: "s1", State: "streaming", Sync: "sync"}, {Name: "s2", State: "streaming", Sync: "async"}},
		Sessions:   []doctor.Session{{PID: 9, State: "active", Age: time.Minute, HoldsVacuum: true}, {PID: 10, State: "active", Age: time.Hour}},
		LiveTuples: 1000, DeadTuples: 500, Slots: []doctor.Slot{{Name: "s1", Active: true, Status: "reserved", Held: mib}},
		Connections: 20, MaxConnections: 97}
	return d
}

func TestASoundInstallationHasNoFindings(t *testing.T) {
	t.Parallel()
	for _, d := range []doctor.Diagnosis{soundSQLite(), soundPostgres()} {
		got := newDiagnosis(d, true, nil, doctorNow)
		require.Empty(t, got.Findings)
		require.Equal(t, "sound", got.Status)
		require.Contains(t, got.Checked, "key_ring")
		require.Greater(t, len(got.Checked), 9)
	}
}

// TestEachFindingIsMade plants each fault in facts that are sound otherwise.
func TestEachFindingIsMade(t *testing.T) {
	t.Parallel()
	type planted struct {
		name   string
		on     func() doctor.Diagnosis
		plant  func(*doctor.Diagnosis)
		level  string
		check  string
		phrase string
	}
	held := doctor.DepthKey{State: delivery.Pending}
	list := []planted{
		{"no schema", soundSQLite, func(d *doctor.Diagnosis) { d.Schema = db.SchemaFacts{Want: 5} }, fault, "schema", "no schema"},
		{"old schema", soundSQLite, func(d *doctor.Diagnosis) { d.Schema.Have = 4 }, fault, "schema", "needs 5"},
		{"new schema", soundSQLite, func(d *doctor.Diagnosis) { d.Schema.Have = 6 }, note, "schema", "schema 6"},
		{"closed schema", soundSQLite, func(d *doctor.Diagnosis) { d.Schema.Have, d.Schema.MinReader = 6, 6 }, fault, "schema", "from schema 6 on"},
		{"old keys", soundSQLite, func(d *doctor.Diagnosis) { d.OldKeys = 3 }, warning, "key_ring", "The keys of 3 tenants"},
		{"clear URLs", soundSQLite, func(d *doctor.Diagnosis) { d.ClearURLs = 3 }, note, "key_ring", "The URLs of 3 endpoints"},
		{"AES-GCM", soundSQLite, func(d *doctor.Diagnosis) { d.AESGCM = 3 }, note, "key_ring", "3 tenants seal with AES-GCM"},
		{"key ring", soundSQLite, func(d *doctor.Diagnosis) { d.KeyRing = errors.New("it does not open: is it another one?") }, fault, "key_ring", "It does not open"},
		{"unknown", soundSQLite, func(d *doctor.Diagnosis) {
			d.Unknown = []doctor.UnknownFact{{What: "the queue", Err: errors.New("permission denied")}}
		}, warning, "doctor", "permission denied"},
		{"invariant", soundSQLite, func(d *doctor.Diagnosis) {
			d.Broken = []doctor.Violation{{Invariant: doctor.Invariant{Name: "overspent", Means: "more attempts"}, Rows: 3}}
		}, fault, "invariants", "3 rows: more attempts (overspent)"},
		{"late, nobody runs", soundSQLite, func(d *doctor.Diagnosis) {
			d.Broken = []doctor.Violation{{Invariant: doctor.Invariant{Name: "pending_overdue", Late: true}, Rows: 3}}
			d.Running = false
		}, warning, "invariants", "pending_overdue"},
		{"late, somebody runs", soundSQLite, func(d *doctor.Diagnosis) {
			d.Broken = []doctor.Violation{{Invariant: doctor.Invariant{Name: "pending_overdue", Late: true}, Rows: 3}}
		}, warning, "invariants", "pending_overdue"},
		{"journal mode", soundSQLite, func(d *doctor.Diagnosis) { d.SQLite.JournalMode = "delete" }, warning, "sqlite", "journal mode is delete"},
		{"synchronous", soundSQLite, func(d *doctor.Diagnosis) { d.SQLite.Synchronous = 1 }, fault, "sqlite", "synchronous=1"},
		{"corrupt", soundSQLite, func(d *doctor.Diagnosis) { d.SQLite.Corrupt = []string{"row 3 missing from index x"} }, fault, "sqlite", "row 3 missing"},
		{"mode", soundSQLite, func(d *doctor.Diagnosis) { d.SQLite.Mode = 0o644 }, warning, "sqlite", "0644"},
		{"wal", soundSQLite, func(d *doctor.Diagnosis) { d.SQLite.WALSize = 3 * gib }, warning, "sqlite", "3.0 GiB"},
		{"little room", soundSQLite, func(d *doctor.Diagnosis) { d.SQLite.Free = gib }, warning, "disk", "1.0 GiB left"},
		{"less than the database", soundSQLite, func(d *doctor.Diagnosis) { d.SQLite.Size = 20 * gib }, warning, "disk", "20.0 GiB"},
		{"no room", soundSQLite, func(d *doctor.Diagnosis) { d.SQLite.Free = 10 * mib }, fault, "disk", "10 MiB left"},
		{"full soon", soundSQLite, func(d *doctor.Diagnosis) {
			d.Growth.PerDay = gib
		}, warning, "growth", "full in 13 days: there is room for 13.0 GiB. The database has 1.0 GiB and has grown by 1.0 GiB a day (measured over 7 days). " +
			"Rows are kept for 30 days, the oldest for 10 days so far, so about 20.0 GiB are to come."},
		{"full though it has its age", soundSQLite, func(d *doctor.Diagnosis) {
			d.Growth.PerDay, d.Growth.Oldest = gib, doctorNow.Add(-31*24*time.Hour)
		}, warning, "growth", "full in 13 days"},
		{"full within hours", soundSQLite, func(d *doctor.Diagnosis) {
			d.Growth.PerDay, d.Growth.Oldest, d.Growth.Over = 10*gib, time.Time{}, 20*time.Hour
		}, warning, "growth", "full in 31 hours"},
		{"much to come", soundPostgres, func(d *doctor.Diagnosis) { d.Growth.PerDay = gib }, note, "growth", "about 20.0 GiB are to come"},
		{"nobody runs", soundSQLite, func(d *doctor.Diagnosis) { d.Running = false }, note, "servers", "No server"},
		{"dead node", soundPostgres, func(d *doctor.Diagnosis) { d.Nodes[1].BeatAt = doctorNow.Add(-time.Minute) }, warning, "servers", "node b"},
		{"two versions", soundPostgres, func(d *doctor.Diagnosis) { d.Nodes[1].Version = "v2" }, note, "servers", "v1, v2"},
		{"paused", soundSQLite, func(d *doctor.Diagnosis) { d.Pause = delivery.Pause{Since: doctorNow, Reason: "why", Actor: "cli"} }, warning, "sending", "by cli: why"},
		{"restored", soundSQLite, func(d *doctor.Diagnosis) { d.Pause = delivery.Pause{Since: doctorNow, Restored: doctorNow} }, warning, "sending", "restored"},
		{"late", soundSQLite, func(d *doctor.Diagnosis) {
			d.Depths = doctor.Depths{OldestDue: 2 * time.Minute, Rows: map[doctor.DepthKey]int{held: 7}}
		}, warning, "queue", "2m0s; 7 are pending"},
		{"workers that hang", soundSQLite, func(d *doctor.Diagnosis) {
			d.InHand = doctor.InHand{Rows: 480, Longest: 2 * time.Minute}
		}, warning, "queue", "480 deliveries in the servers' hands has been there for 2m0s"},
		{"held", soundSQLite, func(d *doctor.Diagnosis) {
			d.Depths.Held = map[delivery.Reason]int{delivery.CredentialDenied: 4, delivery.InDoubt: 0}
		}, warning, "holds", "4 deliveries are held: credential_denied"},
		{"waits", soundSQLite, func(d *doctor.Diagnosis) {
			d.Depths.Waits = map[registers.WaitKey]int{{Channel: channels.FCM, Cause: delivery.WaitThrottled}: 2}
		}, warning, "waits", "Credentials of fcm in trouble: 2 (throttled)"},
		{"endpoints that fail", soundSQLite, func(d *doctor.Diagnosis) {
			d.Depths.Waits = map[registers.WaitKey]int{{Channel: channels.Webhook, Cause: delivery.WaitFailing}: 3}
		}, note, "waits", "endpoints in trouble: 3 (failing)"},
		{"dead", soundSQLite, func(d *doctor.Diagnosis) {
			d.Depths.Dead = map[delivery.Reason]int{delivery.Exhausted: 2, delivery.Rejected: 1}
		}, note, "dead_letters", "1 rejected, 2 exhausted"},
		{"dead lately", soundSQLite, func(d *doctor.Diagnosis) {
			d.Depths.Dead = map[delivery.Reason]int{delivery.Exhausted: 9, delivery.Rejected: 1}
			d.DeadLately = []doctor.DeadLetters{{Reason: delivery.Exhausted, Code: "webhook.server_error", Count: 3}, {Reason: delivery.Rejected, Count: 1}}
		}, note, "dead_letters", "4 of them died within the last day: 3 exhausted webhook.server_error, 1 rejected."},
		{"suspect", soundSQLite, func(d *doctor.Diagnosis) { d.Depths.Suspect = 3 }, note, "devices", "3 devices"},
		{"expires soon", soundSQLite, func(d *doctor.Diagnosis) {
			d.Credentials = credentialThat(func(c *tenants.Credential) { c.ExpiresAt = doctorNow.Add(20 * 24 * time.Hour) })
		}, note, "credentials", "expires in 20 days"},
		{"expires in days", soundSQLite, func(d *doctor.Diagnosis) {
			d.Credentials = credentialThat(func(c *tenants.Credential) { c.ExpiresAt = doctorNow.Add(6 * 24 * time.Hour) })
		}, warning, "credentials", "expires in 6 days"},
		{"expires tomorrow", soundSQLite, func(d *doctor.Diagnosis) {
			d.Credentials = credentialThat(func(c *tenants.Credential) { c.ExpiresAt = doctorNow.Add(time.Hour) })
		}, fault, "credentials", "expires in less than a day"},
		{"has expired", soundSQLite, func(d *doctor.Diagnosis) {
			d.Credentials = credentialThat(func(c *tenants.Credential) { c.ExpiresAt = doctorNow.Add(-time.Hour) })
		}, fault, "credentials", "has expired"},
		{"refused", soundSQLite, func(d *doctor.Diagnosis) {
			d.Credentials = credentialThat(func(c *tenants.Credential) {
				c.Verification = tenants.Verification{State: tenants.Refused, Code: "fcm.x", At: doctorNow}
			})
		}, warning, "credentials", "refused by its provider on "},
		{"unverified", soundSQLite, func(d *doctor.Diagnosis) {
			d.Credentials = credentialThat(func(c *tenants.Credential) {
				c.Verification = tenants.Verification{State: tenants.Unverified, Code: "transport.timeout", At: doctorNow}
			})
		}, note, "credentials", "could not be verified"},
		{"wrong pairs", soundSQLite, func(d *doctor.Diagnosis) { d.WrongPairs = map[string]int{"acme": 24} }, warning, "vapid_pairs", "24 browsers of acme"},
		{"no backup", soundSQLite, func(d *doctor.Diagnosis) { d.BackupAt = time.Time{} }, note, "backup", "No backup"},
		{"old backup", soundSQLite, func(d *doctor.Diagnosis) { d.BackupAt = doctorNow.Add(-8 * 24 * time.Hour) }, warning, "backup", "8 days"},
		{"standby", soundPostgres, func(d *doctor.Diagnosis) { d.Postgres.Recovery = true }, fault, "durability", "is a standby"},
		{"fsync", soundPostgres, func(d *doctor.Diagnosis) { d.Postgres.Fsync = false }, fault, "durability", "fsync is off"},
		{"full pages", soundPostgres, func(d *doctor.Diagnosis) { d.Postgres.FullPageWrites = false }, fault, "durability", "full_page_writes"},
		{"commit off", soundPostgres, func(d *doctor.Diagnosis) { d.Postgres.SynchronousCommit = "off" }, note, "durability", "synchronous_commit is off"},
		{"commit local", soundPostgres, func(d *doctor.Diagnosis) { d.Postgres.SynchronousCommit = "local" }, warning, "durability", "is local"},
		{"api alone", soundPostgres, func(d *doctor.Diagnosis) { d.Nodes[0].Role, d.Nodes[1].Role = "api", "api" }, warning, "servers", "role api"},
		{"unresolved", soundSQLite, func(d *doctor.Diagnosis) {
			d.Running, d.Broken = false, []doctor.Violation{{Invariant: doctor.Invariant{Name: "marker_unserved", Resolved: true}, Rows: 1}}
		}, warning, "invariants", "marker_unserved"},
		{"unresolved by a server", soundSQLite, func(d *doctor.Diagnosis) {
			d.Broken = []doctor.Violation{{Invariant: doctor.Invariant{Name: "marker_unserved", Resolved: true}, Rows: 1}}
		}, warning, "invariants", "marker_unserved"},
		{"no standby", soundPostgres, func(d *doctor.Diagnosis) { d.Postgres.Standbys = nil }, warning, "standbys", "no standby"},
		{"asynchronous", soundPostgres, func(d *doctor.Diagnosis) { d.Postgres.Standbys[0].Sync = "async" }, warning, "standbys", "asynchronous: s1, s2"},
		{"hidden", soundPostgres, func(d *doctor.Diagnosis) { d.Postgres.Standbys = []doctor.Standby{{Name: "s1"}} }, note, "standbys", "may not see"},
		{"old snapshot", soundPostgres, func(d *doctor.Diagnosis) { d.Postgres.Sessions[0].Age = time.Hour }, warning, "vacuum", "session 9"},
		{"idle", soundPostgres, func(d *doctor.Diagnosis) { d.Postgres.Sessions[1].State = "idle in transaction" }, warning, "vacuum", "session 10"},
		{"prepared", soundPostgres, func(d *doctor.Diagnosis) {
			d.Postgres.Sessions[0] = doctor.Session{Prepared: "two", State: "prepared", Age: time.Hour, HoldsVacuum: true}
		}, warning, "vacuum", `"two"`},
		{"dead rows", soundPostgres, func(d *doctor.Diagnosis) { d.Postgres.DeadTuples = 200_000 }, warning, "vacuum", "200000 dead rows"},
		{"slot", soundPostgres, func(d *doctor.Diagnosis) { d.Postgres.Slots[0].Active, d.Postgres.Slots[0].Held = false, 2*gib }, warning, "replication_slots", "2.0 GiB"},
		{"lost slot", soundPostgres, func(d *doctor.Diagnosis) { d.Postgres.Slots[0].Status = "lost" }, warning, "replication_slots", "is lost"},
		{"slow slot", soundPostgres, func(d *doctor.Diagnosis) { d.Postgres.Slots[0].Held = 20 * gib }, warning, "replication_slots", "is behind"},
		{"few connections", soundPostgres, func(d *doctor.Diagnosis) { d.Postgres.Connections = 90 }, warning, "connections", "90 of 97"},
		{"no connections", soundPostgres, func(d *doctor.Diagnosis) { d.Postgres.Connections = 97 }, fault, "connections", "97 of 97"},
		{"clock", soundPostgres, func(d *doctor.Diagnosis) { d.ClockAhead = -3 * time.Second }, warning, "clock", "3s behind"},
	}
	for _, p := range list {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			d := p.on()
			p.plant(&d)
			got := newDiagnosis(d, true, nil, doctorNow)
			if !d.Running && p.check != "servers" { // which is said as well
				require.Equal(t, "servers", got.Findings[0].Check)
				got.Findings = got.Findings[1:]
			}
			require.Len(t, got.Findings, 1, "%v", got.Findings)
			f := got.Findings[0]
			require.Equal(t, p.level+" "+p.check, f.Level+" "+f.Check)
			require.Contains(t, f.What, p.phrase)
			for _, text := range []string{f.What, f.Why, f.Do} {
				require.NotEmpty(t, text)
				require.Contains(t, ".:)?", text[len(text)-1:], "a sentence: %s", text)
			}
			require.Equal(t, map[string]string{fault: "faults", warning: "warnings", note: "sound"}[p.level], got.Status)
		})
	}
}

// TestDoctorBesideAServer runs the command, and what its exit code says.
func TestDoctorBesideAServer(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	say := func(want int, args ...string) string {
		t.Helper()
		code, out, errs := k.command(append([]string{"doctor"}, args...)...)
		require.Equal(t, want, code, "%s%s", out, errs)
		require.Empty(t, errs)
		return out
	}
	// Of the machine that the tests run on nothing is known, so what it says of the
	// disk is left out.
	status := func(args ...string) (diagnosis, string) {
		t.Helper()
		code, out, errs := k.command(append([]string{"doctor", "--json"}, args...)...)
		var d diagnosis
		require.NoError(t, json.Unmarshal([]byte(out), &d), errs)
		var names []string
		for _, f := range d.Findings {
			if f.Check != "disk" {
				names = append(names, f.Level+" "+f.Check)
			}
		}
		require.Equal(t, map[string]int{"sound": exitOK, "warnings": exitWarnings, "faults": exitFaults}[d.Status], code)
		return d, strings.Join(names, ", ")
	}
	d, found := status("--deep")
	require.Equal(t, "note backup", found)
	require.Contains(t, d.Checked, "invariants")
	require.Contains(t, d.Database, "carillon.db")
	k.must("backup", "--to", filepath.Join(k.dir, "backup"))
	_, found = status()
	require.Empty(t, found)

	k.must("sending", "pause", "--reason", "moving house")
	_, found = status()
	require.Equal(t, "warning sending", found)
	if d.Status == "sound" { // the disk has room
		text := say(exitWarnings)
		require.Contains(t, text, "WARNING (sending): ")
		require.Contains(t, text, "moving house")
		require.Contains(t, text, "What to do: ")
		require.Contains(t, text, "0 faults, 1 warnings.")
	}
	k.must("sending", "resume")
	require.Zero(t, k.server.stop())
	_, found = status()
	require.Equal(t, "note servers", found)

	ring := filepath.Join(k.dir, "another")
	k.must("key-ring", "init", "--out", ring)
	text := say(exitFaults, "--key-ring-file", ring)
	require.Contains(t, text, "FAULT (key_ring): ")
	_, found = status("--key-ring-file", filepath.Join(k.dir, "missing"))
	require.Equal(t, "fault key_ring, note servers", found)

	missing := filepath.Join(k.dir, "missing.db")
	code, _, errs := k.command("doctor", "--database-url", missing)
	require.Equal(t, exitFailed, code)
	for _, told := range []string{"there is no database " + missing, "at its first start", "database.url", "docs/operations/incidents.md"} {
		require.Contains(t, errs, told)
	}
	require.NoFileExists(t, missing, "looking makes nothing")
	require.NoError(t, os.WriteFile(missing+"-wal", []byte("what was accepted"), 0o600))
	code, _, errs = k.command("doctor", "--database-url", missing)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "missing.db-wal, and no database")
	require.NoError(t, os.WriteFile(filepath.Join(k.dir, "empty.db"), nil, 0o600))
	code, out, _ := k.command("doctor", "--database-url", filepath.Join(k.dir, "empty.db"))
	require.Equal(t, exitFaults, code)
	require.Contains(t, out, "no schema")
}

func credentialThat(change func(*tenants.Credential)) []registers.NamedCredential {
	c := registers.NamedCredential{TenantName: "acme", Credential: tenants.Credential{ID: 7, App: "default", Channel: channels.FCM}}
	change(&c.Credential)
	return []registers.NamedCredential{c}
}

// TestDoctorSaysTheWayBack: of a refused credential, if there is one.
func TestDoctorSaysTheWayBack(t *testing.T) {
	t.Parallel()
	for to, want := range map[int]bool{0: false, 2: true} {
		d := soundSQLite()
		d.WaysBack = map[ids.ID]int{7: to}
		d.Credentials = credentialThat(func(c *tenants.Credential) {
			c.Version, c.Status, c.Verification = 3, tenants.CredentialPaused, tenants.Verification{State: tenants.Refused, Code: "fcm.x", At: doctorNow}
		})
		found := checkCredentials(&d, doctorNow)
		require.Len(t, found, 1)
		require.Equal(t, want, strings.Contains(found[0].Do, "/rollback goes back to version 2"), found[0].Do)
		require.Contains(t, found[0].Do, "/verify, which releases")
		require.Equal(t, "What it serves is held.", found[0].Why)
	}
}

// TestDoctorCallsNobodyForADoubt: what is in doubt goes on by itself.
func TestDoctorCallsNobodyForADoubt(t *testing.T) {
	t.Parallel()
	for reason, want := range map[delivery.Reason]bool{delivery.CredentialDenied: true, delivery.InDoubt: false} {
		d := soundSQLite()
		d.Depths.Held = map[delivery.Reason]int{reason: 1}
		found := checkHolds(&d, doctorNow)
		require.Len(t, found, 1)
		require.Equal(t, want, strings.HasPrefix(found[0].Why, "They wait for a person"), found[0].Why)
	}
}
