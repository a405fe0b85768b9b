package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/doctor"
	"github.com/carillonhq/carillon/store/registers"
	"github.com/carillonhq/carillon/tenants"
)

// The bounds of what is called sound.
const (
	mib = int64(1) << 20
	gib = int64(1) << 30

	leastFree    = 200 * mib // below it a server is about to stop accepting
	fewFree      = 2 * gib
	bigWAL       = gib // an SQLite -wal that is not reset, or WAL that a slot holds
	lateAfter    = time.Minute
	oldSession   = 10 * time.Minute
	manyDead     = 100_000 // dead tuples, if they are also a fifth of the table
	clockApart   = 2 * time.Second
	fewConns     = 10
	oldBackup    = 7 * 24 * time.Hour
	shortOfConns = 3
	maxSessions  = 3 // sessions that are named
	mostCauses   = 5 // causes of death
)

func one(f finding) []finding { return []finding{f} }

func checkKeyRing(d *doctor.Diagnosis) (out []finding) {
	if d.KeyRing != nil {
		return one(finding{fault, "key_ring", sentence(d.KeyRing.Error()), "A server does not start with it, and no credential or content can be read.",
			"Give the key ring that this database was made with, or the one that it was rotated to: nothing is damaged."})
	}
	if d.OldKeys > 0 {
		out = append(out, finding{warning, "key_ring", fmt.Sprintf("The keys of %d tenants are sealed with an old key of the key ring.", d.OldKeys),
			"The rotation has not reached them: whoever has the old key ring reads what they seal.", "Run `carillon key-ring reseal`; `carillon key-ring show` tells how far it is."})
	}
	if d.ClearURLs > 0 {
		more := ""
		if d.ClearURLs == registers.MaxClearURLs {
			more = " or more"
		}
		out = append(out, finding{note, "key_ring", fmt.Sprintf("The URLs of %d endpoints%s are in clear in the database, as versions before wrote them.", d.ClearURLs, more),
			"Many a webhook's URL is a secret, and backups have it.", "Run `carillon key-ring reseal` once all servers are of this version. The version before cannot be started on the database from then on."})
	}
	if d.AESGCM > 0 {
		out = append(out, finding{note, "key_ring", fmt.Sprintf("%d tenants seal with AES-GCM, as versions before did.", d.AESGCM),
			"A key of AES-GCM is good for about four billion messages.", "Run `carillon key-ring reseal` once all servers are of this version: it gives them new keys."})
	}
	return out
}

func checkSchema(d *doctor.Diagnosis, _ time.Time) []finding {
	s := d.Schema
	switch {
	case s.Have == 0 && s.MinReader == 0:
		return one(finding{fault, "schema", "The database has no schema.", "No server can use it as it is.",
			"If it is a new database, run `carillon migrate up` or start a server; otherwise see that database.url names the right one."})
	case s.MinReader > s.Want:
		return one(finding{fault, "schema", fmt.Sprintf("The database has schema %d and may be used from schema %d on; this program knows %d.", s.Have, s.MinReader, s.Want),
			"This version refuses to run on it.", "Use the version that migrated it, or a newer one."})
	case s.Have < s.Want:
		return one(finding{fault, "schema", fmt.Sprintf("The database has schema %d; this version needs %d. Nothing else of it was looked at.", s.Have, s.Want),
			"A server of this version migrates it when it starts, or refuses to start if it is told not to migrate.", "Make a backup, then run `carillon migrate up`."})
	case s.Have > s.Want:
		return one(finding{note, "schema", fmt.Sprintf("The database has schema %d, and this version knows %d; it may run on it.", s.Have, s.Want),
			"An upgrade is under way, or was not finished.", "Bring every server to the newer version."})
	}
	return nil
}

func checkSQLite(d *doctor.Diagnosis, _ time.Time) (out []finding) {
	f := d.SQLite
	if f.JournalMode != "wal" {
		out = append(out, finding{warning, "sqlite", fmt.Sprintf("The file's journal mode is %s, not wal: something else has changed it.", f.JournalMode),
			"Without the write-ahead log readers and the writer wait for each other.", "Nothing, if no server runs: it sets the mode when it starts. Find out which program changed it."})
	}
	if f.Synchronous < 2 {
		out = append(out, finding{fault, "sqlite", fmt.Sprintf("SQLite runs with synchronous=%d instead of 2 (FULL).", f.Synchronous),
			"A power cut can take back what was acknowledged.", "Use the binary as it is published: it asks for FULL on every connection."})
	}
	if len(f.Corrupt) > 0 {
		out = append(out, finding{fault, "sqlite", fmt.Sprintf("The file is damaged: %s.", strings.Join(f.Corrupt[:min(len(f.Corrupt), 5)], "; ")),
			"What is damaged cannot be delivered or explained, and it may spread.", "Stop the server, copy the files away, restore the newest backup, and look for the cause: the disk, memory, or a copy of a file in use."})
	}
	if f.Mode&0o077 != 0 {
		out = append(out, finding{warning, "sqlite", fmt.Sprintf("Other users of the machine have rights on the file (mode %04o).", f.Mode),
			"Device tokens and the ids of users are not sealed.", "chmod 600 the file, its -wal and its -shm."})
	}
	if f.WALSize > bigWAL {
		out = append(out, finding{warning, "sqlite", fmt.Sprintf("The -wal file has %s.", size(f.WALSize)),
			"Some reader keeps it from being reset, and it grows until the volume is full.", "Look for a program that has the database open and reads for long, such as a backup that hangs."})
	}
	return out
}

func checkServers(d *doctor.Diagnosis, now time.Time) (out []finding) {
	if !d.Running {
		out = append(out, finding{note, "servers", "No server runs on this database.", "Nothing is accepted or sent.", "Start one, unless it is stopped on purpose."})
	}
	if d.Postgres == nil {
		return out
	}
	now = now.Add(d.ClockAhead)
	if d.Running && !somebodySends(d, now) {
		out = append(out, finding{warning, "servers", "Servers run, but all of them have the role api.", "What is accepted is not sent.",
			"Start a server with the role all or worker."})
	}
	versions := []string{}
	for _, n := range d.Nodes {
		if n.Role == db.RoleCommand {
			continue
		}
		if n.Dead(now) {
			out = append(out, finding{warning, "servers", fmt.Sprintf("The node %s (number %d) has not been heard of since %s.", n.Name, n.Number, n.BeatAt.Format(time.RFC3339)),
				"It stopped without an end in order, or does not reach the database. The others take over what it had in hand as soon as one of them runs.",
				"See whether its process runs and reaches the database."})
			continue
		}
		if !slices.Contains(versions, n.Version) {
			versions = append(versions, n.Version)
		}
	}
	if len(versions) > 1 {
		out = append(out, finding{note, "servers", "Servers of different versions run: " + strings.Join(versions, ", ") + ".",
			"That is meant for the time of an upgrade.", "Bring all of them to the newer version."})
	}
	return out
}

// somebodySends tells whether a server runs that sends.
func somebodySends(d *doctor.Diagnosis, now time.Time) bool {
	if d.Postgres == nil {
		return d.Running
	}
	return slices.ContainsFunc(d.Nodes, func(n db.Node) bool {
		return n.Role != db.RoleCommand && n.Role != delivery.RoleAPI && !n.Dead(now)
	})
}

func checkInvariants(d *doctor.Diagnosis, now time.Time) (out []finding) {
	sends := somebodySends(d, now.Add(d.ClockAhead))
	for _, v := range d.Broken {
		why, do := "A delivery in this state may never end, or cannot be explained. It is a fault of the program, unless the database was changed by hand.",
			"Keep a backup of the database and report it with the name "+v.Name+"."
		level := fault
		switch {
		case (v.Late || v.Resolved) && !sends:
			level, why, do = warning, "It waits because no server runs that sends.", "Start a server with the role all or worker."
		case v.Late:
			level, why, do = warning, "Sending does not keep up, or stands still.", "See the log of the servers, and what doctor says of the queue."
		case v.Resolved:
			level, why, do = warning, "Looking up targets does not keep up, or fails. Tenants take turns: it may be one that has many of them.",
				"See the log of the servers; `carillon usage` tells which tenants have most that is not final."
		}
		out = append(out, finding{level, "invariants", fmt.Sprintf("%d rows: %s (%s).", v.Rows, v.Means, v.Name), why, do})
	}
	return out
}

func checkSending(d *doctor.Diagnosis, _ time.Time) []finding {
	if !d.Pause.On() {
		return nil
	}
	if !d.Pause.Restored.IsZero() {
		return one(finding{warning, "sending", "The database was restored from a backup, and sending is paused since " + d.Pause.Since.Format(time.RFC3339) + ".",
			"Notifications are accepted and wait; those that wait for too long expire.", "Look at what would be sent with `carillon after-restore`, and resume there."})
	}
	what := fmt.Sprintf("Sending is paused since %s by %s", d.Pause.Since.Format(time.RFC3339), d.Pause.Actor)
	if d.Pause.Reason != "" {
		what += ": " + d.Pause.Reason
	}
	return one(finding{warning, "sending", what + ".", "Notifications are accepted and wait; those that wait for too long expire.", "When its reason is over, run `carillon sending resume`."})
}

func checkQueue(d *doctor.Diagnosis, now time.Time) []finding {
	waiting := 0
	for k, n := range d.Depths.Rows {
		if k.State == delivery.Pending {
			waiting += n
		}
	}
	if d.Pause.On() {
		return nil
	}
	if d.Depths.OldestDue <= lateAfter {
		if d.InHand.Longest <= lateAfter || !somebodySends(d, now.Add(d.ClockAhead)) {
			return nil
		}
		return one(finding{warning, "queue", fmt.Sprintf("The oldest of %d deliveries in the servers' hands has been there for %s.", d.InHand.Rows, d.InHand.Longest.Truncate(time.Second)),
			"Workers are busy with what does not answer, and others wait behind them.",
			"Compare carillon_workers_busy with carillon_workers, and see by carillon_attempts_total which channel answers late; raise workers, or pause what hangs."})
	}
	do := "Compare carillon_attempt_duration_seconds with what it was; raise workers, or add servers on PostgreSQL."
	if !somebodySends(d, now.Add(d.ClockAhead)) {
		do = "Start a server that sends."
	}
	return one(finding{warning, "queue", fmt.Sprintf("The oldest due delivery waits for %s; %d are pending.", d.Depths.OldestDue.Truncate(time.Second), waiting),
		"Notifications come late, and expire if it goes on.", do})
}

func checkHolds(d *doctor.Diagnosis, _ time.Time) (out []finding) {
	for _, r := range sortedReasons(d.Depths.Held) {
		why := "They wait for a person, and pushes among them expire."
		if r == delivery.InDoubt {
			why = "They are tried again, or judged by the next success, without a person; pushes among them expire meanwhile."
		}
		out = append(out, finding{warning, "holds", fmt.Sprintf("%d deliveries are held: %s.", d.Depths.Held[r], r),
			why, "`carillon holds` says what each waits for, and the call that releases it."})
	}
	return out
}

// checkWaits tells of what goes on by itself, unless its trouble lasts. A receiver of
// webhooks is somebody else's server.
func checkWaits(d *doctor.Diagnosis, _ time.Time) (out []finding) {
	const why, do = "What is sent there comes late, and pushes among it expire.", "`carillon holds` says since when, until when, and what the provider said; the call beside it makes it try now."
	for _, k := range channels.Kinds() {
		for _, cause := range delivery.WaitCauses() {
			n := d.Depths.Waits[registers.WaitKey{Channel: k, Cause: cause}]
			switch {
			case n == 0:
			case k == channels.Webhook:
				out = append(out, finding{note, "waits", fmt.Sprintf("Webhook endpoints in trouble: %d (%s).", n, cause), why, do})
			default:
				out = append(out, finding{warning, "waits", fmt.Sprintf("Credentials of %s in trouble: %d (%s).", k, n, cause), why, do})
			}
		}
	}
	return out
}

func checkDead(d *doctor.Diagnosis, _ time.Time) []finding {
	if len(d.Depths.Dead) == 0 {
		return nil
	}
	parts := []string{}
	for _, r := range sortedReasons(d.Depths.Dead) {
		parts = append(parts, fmt.Sprintf("%d %s", d.Depths.Dead[r], r))
	}
	what := "There are dead letters: " + strings.Join(parts, ", ") + "."
	lately, why := 0, []string{}
	for _, x := range d.DeadLately {
		lately += x.Count
		if len(why) < mostCauses {
			why = append(why, strings.TrimSpace(fmt.Sprintf("%d %s %s", x.Count, x.Reason, x.Code)))
		}
	}
	if lately > 0 {
		what += fmt.Sprintf(" %d of them died within the last day: %s.", lately, strings.Join(why, ", "))
	}
	return one(finding{note, "dead_letters", what,
		"Each is a delivery that did not arrive, and is kept to be replayed.", "`carillon dead list` shows them with what the provider said."})
}

func sortedReasons(m map[delivery.Reason]int) []delivery.Reason {
	var list []delivery.Reason
	for r, n := range m {
		if n > 0 {
			list = append(list, r)
		}
	}
	slices.Sort(list)
	return list
}

func checkDoubt(d *doctor.Diagnosis, _ time.Time) []finding {
	if d.Depths.Suspect == 0 {
		return nil
	}
	return one(finding{note, "devices", fmt.Sprintf("%d devices are suspect: a provider called them gone or refused them, and a wrong credential would cause that too.", d.Depths.Suspect),
		"What is sent to them waits. Those called gone are retired when the credential is seen to work; all come back when it is replaced.", "`carillon holds` shows whose word is in doubt, `carillon devices suspects` names them."})
}

// credentialDays are how long before the end of a credential doctor speaks of it, and
// how urgently.
var credentialDays = []struct {
	days  int
	level string
}{{1, fault}, {7, warning}, {30, note}}

func checkCredentials(d *doctor.Diagnosis, now time.Time) (out []finding) {
	for _, c := range d.Credentials {
		name := fmt.Sprintf("The %s credential %s of %s (app %s)", c.Channel, c.Label(), c.TenantName, c.App)
		if !c.ExpiresAt.IsZero() {
			for _, x := range credentialDays {
				if left := c.ExpiresAt.Sub(now); left <= time.Duration(x.days)*24*time.Hour {
					when := "expires in " + strconv.Itoa(int(left.Hours()/24)) + " days, on "
					if left < 24*time.Hour {
						when = "expires in less than a day, on "
					}
					if left <= 0 {
						when = "has expired on "
					}
					out = append(out, finding{x.level, "credentials", name + " " + when + c.ExpiresAt.UTC().Format(time.DateOnly) + ".",
						"A certificate is refused from then on, and what it serves is held; of a key it is the time that was set for its replacement.", "Put another: PUT /v1/apps/" + c.App + "/credentials/" + c.Channel.String() + "."})
					break
				}
			}
		}
		switch v := c.Verification; {
		case !c.Doubted():
		case v.State == tenants.Refused:
			call := "POST /v1/credentials/" + c.Label()
			back := ""
			if to := d.WaysBack[c.ID]; to > 0 {
				back = fmt.Sprintf("; %s/rollback goes back to version %d", call, to)
			}
			why := "What it serves is held."
			if c.Status == tenants.CredentialActive {
				why = "It is in use all the same, because it was resumed: it is asked about again within an hour, and held if it is refused then."
			}
			out = append(out, finding{warning, "credentials", name + " was refused by its provider on " + v.At.UTC().Format(time.RFC3339) + " (" + v.Code + ").",
				why, "Mend it at the provider and have it asked with " + call + "/verify, which releases what is held if it is taken; or put another" + back + "."})
		default:
			out = append(out, finding{note, "credentials", name + " could not be verified (" + v.Code + "), and nothing was sent with it yet.",
				"Whether it works shows with the first notification, or when it is asked about again within an hour.",
				"Ask with POST /v1/credentials/" + c.Label() + "/verify when the provider can be reached."})
		}
	}
	return out
}

func checkPairs(d *doctor.Diagnosis, _ time.Time) (out []finding) {
	for _, tenant := range slices.Sorted(maps.Keys(d.WrongPairs)) {
		out = append(out, finding{warning, "vapid_pairs", fmt.Sprintf("%d browsers of %s were retired because another VAPID key was used than theirs.", d.WrongPairs[tenant], tenant),
			"They get nothing, though the pair may be there.", "Restore them, and each is sent to with its own pair: `carillon devices restore --reason webpush.key_mismatch` with a key of the tenant."})
	}
	return out
}

func checkBackup(d *doctor.Diagnosis, now time.Time) []finding {
	if d.BackupAt.IsZero() {
		return one(finding{note, "backup", "No backup by `carillon backup` is known of.", "If the disk is lost, what is not in a backup is lost.",
			"If there is none by other means either, run `carillon backup` regularly, and keep the key ring apart from it."})
	}
	if age := now.Sub(d.BackupAt); age > oldBackup {
		return one(finding{warning, "backup", fmt.Sprintf("The newest backup that is known of is %d days old.", int(age.Hours()/24)),
			"What was accepted since would be lost with the disk.", "See why `carillon backup` has not run."})
	}
	return nil
}
