package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/store/pgtest"
)

// TestBackupRestoreAndAfter is the whole of it: a backup beside a running server,
// restored into another database, on which nothing is sent until somebody says so.
func TestBackupRestoreAndAfter(t *testing.T) {
	t.Parallel()
	t.Run("into SQLite", func(t *testing.T) {
		t.Parallel()
		backupRestoreAndAfter(t, filepath.Join(t.TempDir(), "restored.db"))
	})
	t.Run("into PostgreSQL", func(t *testing.T) {
		t.Parallel()
		backupRestoreAndAfter(t, pgtest.Empty(t))
	})
}

func backupRestoreAndAfter(t *testing.T, target string) {
	t.Helper()
	k := startServer(t)
	k.phone("alice", "phone")
	require.Contains(t, k.must("sending", "pause", "--reason", "moving house"), "moving house")
	eventually(t, func() bool {
		_, body := get(t, k.server.url+"/readyz")
		return body == `{"status":"ready","sending":"paused"}`
	}, "the server sees the pause")
	k.must("send", "--user", "alice", "--type", "order.shipped", "--title", "Hello")
	require.Len(t, k.deliveries(), 1)
	require.Equal(t, "pending", k.deliveries()[0].State)

	file := filepath.Join(k.dir, "backup")
	code, _, errs := k.command("backup", "--to", file)
	require.Zero(t, code, errs)
	require.Contains(t, errs, "key ring is NOT in it")
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	left, err := filepath.Glob(filepath.Join(k.dir, ".carillon-backup-*"))
	require.NoError(t, err)
	require.Empty(t, left)
	require.Regexp(t, `deliveries +1\n`, k.must("backup", "verify", file))
	require.Contains(t, k.must("sending", "resume"), "not paused")
	eventually(t, func() bool { return k.deliveries()[0].State == "sent" }, "the first server sends it")
	require.Zero(t, k.server.stop())

	// To the standard output it is a backup as well.
	code, out, errs := k.command("backup", "--to", "-")
	require.Zero(t, code, errs)
	piped := filepath.Join(k.dir, "piped")
	require.NoError(t, os.WriteFile(piped, []byte(out), 0o600))
	k.must("backup", "verify", piped)

	k.environ = append(k.environ, "CARILLON_DATABASE_URL="+target)
	require.Contains(t, k.must("restore", file), "carillon after-restore")
	code, _, errs = k.command("restore", file)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "not empty")

	k.at(k.serve())
	require.Contains(t, k.server.said(), "sending is paused")
	require.Equal(t, "pending", k.deliveries()[0].State)
	_, metrics := get(t, k.server.admin)
	require.Contains(t, metrics, "carillon_sending_paused 1\n")
	code, _, errs = k.command("sending", "resume")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "after-restore")
	code, out, errs = k.command("doctor")
	require.Contains(t, []int{exitWarnings, exitFaults}, code, "%s%s", out, errs) // the tests' PostgreSQL has fsync off
	require.Contains(t, out, "WARNING (sending): The database was restored")
	k.do("POST", "/v1/notifications", map[string]any{"to": map[string]any{"users": []string{"alice"}}, "type": "chat", "title": "Later"}, nil)
	table := k.must("after-restore")
	require.Regexp(t, `fcm +order\.shipped +1 +0 +0 +0 +0 +0 +0\n`, table)
	require.Regexp(t, `fcm +chat +1 +0 +0 +0 +0 +0 +0\n`, table)
	require.Contains(t, k.must("after-restore", "resume", "--younger-than", "1h"), "0 deliveries")
	eventually(t, func() bool {
		list := k.deliveries()
		return list[0].State == "sent" && list[1].State == "sent"
	}, "both are sent")
	code, _, errs = k.command("after-restore", "resume", "--all")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "not marked")
}

func TestAfterRestoreByOtherMeans(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	k.phone("alice", "phone")
	k.must("sending", "pause")
	eventually(t, func() bool { _, body := get(t, k.server.url+"/readyz"); return strings.Contains(body, "paused") }, "the pause is seen")
	k.must("send", "--user", "alice", "--title", "Hello")
	code, _, errs := k.command("after-restore", "begin")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "another server", "not under a running server")
	require.Zero(t, k.server.stop())
	require.Contains(t, k.must("after-restore", "begin"), "Sending is paused")
	require.Contains(t, k.must("after-restore", "resume", "--younger-than", "1ms", "--rest", "dropped"), "1 deliveries")
	require.Contains(t, k.must("sending", "status"), "not paused")
	k.at(k.serve())
	require.Equal(t, "dropped", k.deliveries()[0].State)
	require.Equal(t, "stale", k.deliveries()[0].Reason)
}

func TestBackupCommandsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	i := install(t)
	broken := filepath.Join(i.dir, "broken")
	require.NoError(t, os.WriteFile(broken, []byte("carillon-backup 1\nxx"), 0o600))
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"backup"}, exitUsage, "--to"},
		{[]string{"backup", "--to", filepath.Join(i.dir, "b")}, exitFailed, "there is no database"},
		{[]string{"backup", "verify", broken}, exitFailed, "damaged"},
		{[]string{"backup", "verify"}, exitUsage, "FILE"},
		{[]string{"restore", broken}, exitFailed, "damaged"},
		{[]string{"restore", filepath.Join(i.dir, "missing")}, exitFailed, "no such file"},
		{[]string{"after-restore", "resume"}, exitUsage, "--all"},
		{[]string{"after-restore", "resume", "--all", "--younger-than", "1h"}, exitUsage, "--all"},
		{[]string{"after-restore", "resume", "--younger-than", "yesterday"}, exitUsage, "30m"},
		{[]string{"after-restore", "resume", "--younger-than", "1h", "--rest", "sent"}, exitUsage, "dead or dropped"},
		{[]string{"after-restore", "resume", "--all", "--rest", "dead"}, exitUsage, "--younger-than"},
	} {
		code, _, errs := i.command(c.args...)
		require.Equal(t, c.code, code, "%v: %s", c.args, errs)
		require.Contains(t, errs, c.says, "%v", c.args)
	}
	require.NoFileExists(t, filepath.Join(i.dir, "b"))
}

func TestABackupReplacesAFileOnlyWhenItIsWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "backup")
	require.NoError(t, os.WriteFile(name, []byte("old"), 0o600))
	full := errors.New("the disk is full")
	err := replaceFile(name, func(w io.Writer) error {
		_, err := io.WriteString(w, "half of it")
		return errors.Join(err, full)
	})
	require.ErrorIs(t, err, full)
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, "old", string(b))
	require.NoError(t, replaceFile(name, func(w io.Writer) error { _, err := io.WriteString(w, "new"); return err }))
	b, err = os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, "new", string(b))
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, list, 1, "nothing else is left")
}

// TestWhoWasErasedGetsNothingFromABackup: the log is applied before anything is sent.
func TestWhoWasErasedGetsNothingFromABackup(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	k.phone("alice", "alices-phone")
	k.phone("bob", "bobs-phone")
	k.must("sending", "pause")
	eventually(t, func() bool { _, body := get(t, k.server.url+"/readyz"); return strings.Contains(body, "paused") }, "the pause is seen")
	k.must("send", "--user", "alice", "--title", "Hello")
	k.must("send", "--user", "bob", "--title", "Hello")
	file, log := filepath.Join(k.dir, "backup"), filepath.Join(k.dir, "carillon.db.erasures")
	k.must("backup", "--to", file)
	k.do("DELETE", "/v1/users/alice", nil, nil)
	require.FileExists(t, log)
	require.Zero(t, k.server.stop())

	k.environ = append(k.environ, "CARILLON_DATABASE_URL="+filepath.Join(k.dir, "restored.db"))
	k.must("restore", file)
	code, _, errs := k.command("after-restore", "resume", "--all", "--erasure-log", filepath.Join(k.dir, "missing"))
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "erasure log")
	require.Contains(t, k.must("sending", "status"), "is paused", "and nothing is resumed without it")
	require.Contains(t, k.must("after-restore", "resume", "--all", "--erasure-log", log), "1 users erased again")
	k.at(k.serve())
	eventually(t, func() bool {
		sent := 0
		for _, d := range k.deliveries() {
			require.NotEqual(t, "alice", d.User)
			if d.State == "sent" {
				require.Equal(t, "bob", d.User)
				sent++
			}
		}
		return sent == 1
	}, "bob gets his")
	_, metrics := get(t, k.server.admin)
	require.Contains(t, metrics, `carillon_attempts_total{channel="fcm",code="fcm.accepted",outcome="accepted"} 1`+"\n")
}
