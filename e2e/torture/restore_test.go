package torture_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// canRestore tells whether the program has backups.
func (f *fleet) canRestore() bool {
	help, err := exec.Command(f.program, "--help").Output()
	return err == nil && regexp.MustCompile(`(?m)^\s+restore\s`).Match(help)
}

// restoring loses the database and goes back to a backup that was made under
// load. What was promised before the backup was begun is in it; what was promised
// since is taken back, and whoever has a key asks again. What went out since goes
// out again, which is known.
func restoring() scenario {
	return scenario{"restore", func(a *arena) {
		l := a.load(nil)
		l.begin()
		a.wait(l, 20+a.rng.IntN(60))
		begun := time.Now()
		file := filepath.Join(a.fleet.dir, "backup")
		a.fleet.command(a.t, "backup", "--to", file)
		a.wait(l, int(l.got.Load())+1+a.rng.IntN(60))
		for _, n := range a.fleet.nodes {
			n.kill(a.t)
		}
		l.end()
		a.before = a.seenSoFar()
		a.ledger.forgive(begun)
		a.fleet.db.erase(a.t)
		a.fleet.command(a.t, "restore", file)
		a.fleet.command(a.t, "after-restore", "resume", "--all")
	}}
}

// seenSoFar counts what the providers saw of every delivery that is stored.
func (a *arena) seenSoFar() map[string]int {
	a.t.Helper()
	seen := map[string]int{}
	db := a.fleet.db.open(a.t)
	defer func() { require.NoError(a.t, db.Close()) }()
	rows, err := db.Query("SELECT notification_id,target_id,channel FROM deliveries")
	require.NoError(a.t, err)
	defer func() { require.NoError(a.t, rows.Close()) }()
	for rows.Next() {
		var (
			notification, target ids.ID
			kind                 channels.Kind
		)
		require.NoError(a.t, rows.Scan(&notification, &target, &kind))
		d := stored{ID: ids.FormatDelivery(notification, target), Notification: notification.Format(ids.Notification), Channel: kind.String(), Target: target.Format(ids.Device)}
		if kind == channels.Webhook {
			d.Target = target.Format(ids.Endpoint)
		}
		if n := a.seen(&d); n > 0 {
			seen[d.ID] = n
		}
	}
	require.NoError(a.t, rows.Err())
	return seen
}
