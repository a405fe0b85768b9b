//go:build linux

package torture_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/store/pgtest"
)

// enough is how many disks are tried for one cut in which something is lost that
// was not synced.
const enough = 4

// TestPowerCut takes the power from the disk under the database, under load: what
// was answered with 202 is on it.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("-seed %d", s)
	rng := rand.New(rand.NewPCG(s, 1))
	r := newReport(*kind+" on a disk that loses its power", 1)
	defer func() { t.Logf("\n%s", r) }()
	var serial atomic.Int64
	end := time.Now().Add(*duration)
	for disks := 0; disks == 0 || time.Now().Before(end) || r.harsh == 0 && disks < enough; disks++ {
		t.Run("disk", func(t *testing.T) {
			d := newDisk(t, 192)
			a := newArena(t, d.database, 1, rng, r, &serial)
			cuts := 2
			if *duration > 0 {
				cuts = 20
			}
			var list []scenario
			for i := range cuts {
				list = append(list, cut(d, i+1))
			}
			over := end
			if *duration == 0 {
				over = time.Time{}
			}
			play(t, a, list, over)
		})
		if t.Failed() || r.cuts == 0 { // it was skipped
			return
		}
	}
	require.Positive(t, r.harsh, "whatever was not synced survived every cut: they were none")
}

// database makes a database on the disk.
func (d *disk) database(t *testing.T, _ string) database {
	t.Helper()
	if *kind == "sqlite" {
		return newSQLite(d.dir)
	}
	data := filepath.Join(d.dir, "data")
	require.NoError(t, os.Mkdir(data, 0o700))
	p := newPostgres(t, pgtest.Options{FSync: true, DataDir: data, Settings: map[string]string{"min_wal_size": "32MB", "max_wal_size": "64MB"}})
	d.sync(t) // the kit does not sync what it prepares
	return p
}

// cut takes the power from a disk under load.
func cut(d *disk, round int) scenario {
	return scenario{"power cut", func(a *arena) {
		node, c := a.fleet.nodes[0], canary{d.dir}
		l := a.load(nil)
		l.begin()
		a.wait(l, 10+a.rng.IntN(100))
		release := c.write(a.t, round)
		server := stand(a.t, node, a.fleet.db)
		image := d.copyImage(a.t)
		release()
		node.kill(a.t)
		l.end()
		if server != nil {
			require.NoError(a.t, server.Kill())
		}
		d.replace(a.t, image)
		a.report.cuts++
		if c.check(a.t, round) {
			a.report.harsh++
		}
		if server != nil {
			again(a.t, server)
		}
	}}
}

// stand stops every process that writes to the disk in the middle of what it
// does: the node, and the database server if there is one.
func stand(t testing.TB, n *node, db database) *pgtest.Server {
	t.Helper()
	n.mu.Lock()
	pid := n.cmd.Process.Pid
	n.mu.Unlock()
	stop(t, pid)
	p, ok := db.(*postgres)
	if !ok {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(p.data, "postmaster.pid"))
	require.NoError(t, err)
	first, _, _ := bytes.Cut(b, []byte("\n"))
	pid, err = strconv.Atoi(string(first))
	require.NoError(t, err)
	stop(t, pid) // so that it makes no more children
	for _, child := range children(t, pid) {
		stop(t, child)
	}
	return p.server
}

// stop stops a process, and returns when it stands still.
func stop(t testing.TB, pid int) {
	t.Helper()
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	require.Eventually(t, func() bool { state, _ := stat(pid); return state == "T" || state == "" || state == "Z" }, patience, time.Millisecond)
}

// children are the processes that a process has started.
func children(t testing.TB, pid int) (list []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err)
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if _, parent := stat(child); parent == pid {
			list = append(list, child)
		}
	}
	return list
}

// stat reads the state of a process and its parent; "" when there is none.
func stat(pid int) (state string, parent int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // the name before it may hold anything
	parent, _ = strconv.Atoi(fields[1])
	return fields[0], parent
}
