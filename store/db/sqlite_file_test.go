package db

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/problem"
)

// TestAFileThatIsTakenAwayIsNotWritten: the system would go on to write what nobody
// finds again.
func TestAFileThatIsTakenAwayIsNotWritten(t *testing.T) {
	t.Parallel()
	var path string
	d := openDB(t, func(o *Options) { path = o.URL })
	require.NoError(t, d.Join(t.Context(), Node{Name: "here"}))
	require.NoError(t, d.addTenant("before"))
	aside := path + ".aside"
	refused := func(why string) {
		t.Helper()
		err := d.addTenant("meanwhile")
		require.Equal(t, problem.Unavailable, problem.CodeOf(err), "%v", err)
		require.ErrorContains(t, err, "nothing was changed")
		require.ErrorContains(t, err, why)
		require.Eventually(t, func() bool { return !d.Alive() }, time.Minute, time.Millisecond, "nor is anything sent")
	}
	require.NoError(t, os.Rename(path, aside))
	refused("was removed or moved")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	refused("is not the one that this server has opened")
	require.NoError(t, os.Rename(aside, path))
	require.NoError(t, d.addTenant("after"))
	require.Eventually(t, d.Alive, time.Minute, time.Millisecond)
	var names string
	require.NoError(t, d.Reads().QueryRow("SELECT group_concat(name) FROM (SELECT name FROM tenants ORDER BY id)").Scan(&names))
	require.Equal(t, "before,after", names)
}

// TestNoNewDatabaseIsMadeBesideAnOldLog: what is in the log would be removed.
func TestNoNewDatabaseIsMadeBesideAnOldLog(t *testing.T) {
	t.Parallel()
	var o Options
	d := openDB(t, func(x *Options) { o = *x })
	require.NoError(t, d.Close())
	for name, take := range map[string]func(string) error{"removed": os.Remove, "emptied": func(p string) error { return os.Truncate(p, 0) }} {
		x := o
		x.URL = filepath.Join(t.TempDir(), "c.db")
		text, err := os.ReadFile(o.URL)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(x.URL, text, 0o600))
		require.NoError(t, os.WriteFile(x.URL+"-wal", []byte("what was accepted"), 0o600))
		require.NoError(t, take(x.URL))
		_, err = Open(t.Context(), x)
		require.ErrorContains(t, err, "-wal, and no database", name)
		left, err := os.ReadFile(x.URL + "-wal")
		require.NoError(t, err)
		require.Equal(t, "what was accepted", string(left))
		require.NoError(t, os.Remove(x.URL+"-wal"))
		again, err := Open(t.Context(), x)
		require.NoError(t, err, "without it a new one is made")
		require.NoError(t, again.Close())
	}
}

// TestADamagedFileSaysWhatToDo: not only that it is malformed.
func TestADamagedFileSaysWhatToDo(t *testing.T) {
	t.Parallel()
	var o Options
	d := openDB(t, func(x *Options) { o = *x })
	require.NoError(t, d.Close())
	text, err := os.ReadFile(o.URL)
	require.NoError(t, err)
	for i := 4096; i < len(text); i++ {
		text[i] = 0xa5
	}
	for name, content := range map[string][]byte{"damaged": text, "no database": []byte(strings.Repeat("not a database\n", 1000))} {
		x := o
		x.URL = filepath.Join(t.TempDir(), "c.db")
		require.NoError(t, os.WriteFile(x.URL, content, 0o600))
		_, err = Open(t.Context(), x)
		require.ErrorContains(t, err, "restore the newest backup", name)
		require.ErrorContains(t, err, "carillon doctor --deep", name)
	}
}

// TestTheLogShrinksAgain: once whoever kept it from being reset is gone.
func TestTheLogShrinksAgain(t *testing.T) {
	t.Parallel()
	var path string
	d := openDB(t, func(o *Options) { path = o.URL })
	size := func() int64 {
		f, err := os.Stat(path + "-wal")
		require.NoError(t, err)
		return f.Size()
	}
	ctx := context.Background()
	reader, err := d.Reads().BeginTx(ctx, nil)
	require.NoError(t, err)
	n := 0
	require.NoError(t, reader.QueryRow("SELECT count(*) FROM apps").Scan(&n))
	require.NoError(t, d.Do(ctx, 1, func(x *Tx) error { return x.Exec("CREATE TABLE big (b BLOB)") }))
	const limit = 64 << 20
	require.NoError(t, d.Do(ctx, 1, func(x *Tx) error { return x.Exec("INSERT INTO big VALUES (zeroblob(?))", limit+limit/8) }))
	require.Greater(t, size(), int64(limit))
	require.NoError(t, reader.Rollback())
	for i := range 10 { // a checkpoint, and a commit that begins the log anew
		require.NoError(t, d.Do(ctx, 1, func(x *Tx) error { return x.Exec("INSERT INTO big VALUES (?)", i) }))
	}
	require.LessOrEqual(t, size(), int64(limit))
}

// TestATroubleIsLoggedOnce: though what is small may succeed between what is not.
func TestATroubleIsLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var (
			text  strings.Builder
			log   = slog.New(slog.NewTextHandler(&text, nil))
			x     trouble
			lines = func() int { return strings.Count(text.String(), "\n") }
		)
		x.over(log)
		require.Zero(t, lines())
		for range 400 {
			x.met(log, problem.New(problem.Unavailable, "full"))
			x.over(log)
			time.Sleep(time.Second)
		}
		require.Equal(t, 1, lines())
		time.Sleep(settled)
		x.over(log)
		x.over(log)
		require.Equal(t, 2, lines())
		require.Contains(t, text.String(), "takes writes again")
		x.met(log, problem.New(problem.Unavailable, "full"))
		require.Equal(t, 3, lines(), "the next one")
	})
}
