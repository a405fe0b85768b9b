//go:build linux

package torture_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// disk is a file system that can lose its power. It lies on a loop device, whose
// image file is what a disk's platter would be: what the file system has only in
// memory is not in it. A power cut mounts a copy of the image, taken while the
// programs stand still, at the same place.
type disk struct {
	dir   string // where it is mounted
	image string
	loop  string // the device, "" when it is not mounted
}

// diskName begins the names of the folders of disks; the process id follows.
const diskName = "carillon-disk-"

// newDisk makes a disk and mounts it, or skips the test, loudly.
func newDisk(t testing.TB, mebibytes int64) *disk {
	t.Helper()
	sweep()
	work, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", diskName, os.Getpid())) //nolint:usetesting // sweep finds it by its name, and the database server is another user
	require.NoError(t, err)
	d := &disk{dir: filepath.Join(work, "disk"), image: filepath.Join(work, "image")}
	t.Cleanup(func() {
		if err := errors.Join(d.unmount(), os.RemoveAll(work)); err != nil {
			t.Errorf("remove the disk: %v", err)
		}
	})
	require.NoError(t, errors.Join(os.Chmod(work, 0o755), os.Mkdir(d.dir, 0o755))) // the database server is another user
	f, err := os.Create(d.image)
	require.NoError(t, err)
	require.NoError(t, errors.Join(f.Truncate(mebibytes<<20), f.Close()))
	// Without the lazy parts nothing but the test writes to it later.
	err = run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", d.image)
	if err == nil {
		err = d.mount()
	}
	if err != nil {
		require.False(t, slices.Contains(strings.Fields(os.Getenv("CARILLON_REQUIRE")), "loop"), "loop devices are required here: %v", err)
		t.Skipf("A DISK THAT LOSES ITS POWER CANNOT BE MADE HERE, SO THIS TEST DID NOT RUN (it needs root, loop devices and ext4): %v", err)
	}
	return d
}

// sweep removes the disks of test processes that were killed.
func sweep() {
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), diskName+"*")) // the pattern is sound
	for _, work := range left {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(work), diskName), "-")
		if _, err := os.Stat(filepath.Join("/proc", pid)); errors.Is(err, fs.ErrNotExist) {
			_ = run("umount", filepath.Join(work, "disk"))
			_ = os.RemoveAll(work)
		}
	}
}

// mount mounts the image. The file system writes nothing by itself for longer
// than a round takes: only what is synced gets into the image. The loop device
// goes with the mount.
func (d *disk) mount() error {
	if err := run("mount", "-t", "ext4", "-o", "loop,commit=300", d.image, d.dir); err != nil {
		return err
	}
	out, err := exec.Command("findmnt", "--noheadings", "--output", "SOURCE", d.dir).Output()
	d.loop = strings.TrimSpace(string(out))
	return err
}

func (d *disk) unmount() error {
	if d.loop == "" {
		return nil
	}
	err := run("umount", d.dir)
	for range 50 { // who was killed may still be letting go
		if err == nil {
			d.loop = ""
			break
		}
		time.Sleep(100 * time.Millisecond)
		err = run("umount", d.dir)
	}
	return err
}

// sync writes everything.
func (d *disk) sync(t testing.TB) {
	t.Helper()
	f, err := os.Open(d.dir)
	require.NoError(t, err)
	require.NoError(t, errors.Join(unix.Syncfs(int(f.Fd())), f.Close()))
}

// writes counts what the device was asked to write.
func (d *disk) writes(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(d.loop), "stat"))
	require.NoError(t, err)
	fields := strings.Fields(string(b))
	require.Greater(t, len(fields), 8)
	return strings.Join([]string{fields[4], fields[6], fields[8]}, " ") // written, sectors written, in flight
}

// copyImage copies the image as it is at one instant. Everything that writes has
// been stopped; the file system itself may still be at it, so the copy counts
// only if nothing was written while it was made.
func (d *disk) copyImage(t testing.TB) (to string) {
	t.Helper()
	const tries = 20
	to = d.image + ".cut"
	for range tries {
		before := d.writes(t)
		require.NoError(t, run("cp", "--sparse=always", d.image, to))
		if d.writes(t) == before && strings.HasSuffix(before, " 0") {
			return to
		}
	}
	t.Fatal("the disk is written to while everything stands still")
	return ""
}

// replace puts a copy in the place of the disk.
func (d *disk) replace(t testing.TB, with string) {
	t.Helper()
	require.NoError(t, d.unmount())
	require.NoError(t, os.Rename(with, d.image))
	require.NoError(t, d.mount())
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// canary tells whether a power cut was one: it writes a file that nobody syncs,
// and rows to two databases, of which one does not sync its commits.
type canary struct{ dir string }

func (c canary) write(t testing.TB, round int) (release func()) {
	t.Helper()
	require.NoError(t, os.WriteFile(c.file(round), []byte("here"), 0o600))
	var open []*sql.DB
	for _, mode := range []string{"OFF", "FULL"} {
		db := c.open(t, mode)
		_, err := db.ExecContext(context.Background(), "CREATE TABLE IF NOT EXISTS rounds (n INTEGER)")
		require.NoError(t, err)
		_, err = db.ExecContext(context.Background(), "INSERT INTO rounds VALUES (?)", round)
		require.NoError(t, err)
		open = append(open, db)
	}
	return func() { // not before the cut: it writes a checkpoint, which syncs
		for _, db := range open {
			require.NoError(t, db.Close())
		}
	}
}

// file is another one each time: ext4 syncs a file that replaces its own content.
func (c canary) file(round int) string { return filepath.Join(c.dir, fmt.Sprintf("canary-%d", round)) }

func (c canary) open(t testing.TB, mode string) *sql.DB {
	t.Helper()
	path := filepath.Join(c.dir, "canary-"+mode+".db")
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous("+mode+")")
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	return db
}

// check looks for what a power cut leaves: the row that was synced must be there.
// It tells whether what was not synced is gone. Where it is not, the kernel was
// short of memory and wrote it of its own accord: then the cut was a mild one.
func (c canary) check(t testing.TB, round int) (harsh bool) {
	t.Helper()
	b, err := os.ReadFile(c.file(round))
	require.True(t, err == nil || errors.Is(err, fs.ErrNotExist), "%v", err)
	require.True(t, c.has(t, "FULL", round), "a commit that was synced did not survive")
	return len(b) == 0 && !c.has(t, "OFF", round)
}

func (c canary) has(t testing.TB, mode string, round int) bool {
	t.Helper()
	db := c.open(t, mode)
	defer func() { _ = db.Close() }()
	n := 0
	err := db.QueryRowContext(context.Background(), "SELECT count(*) FROM rounds WHERE n=?", round).Scan(&n)
	return err == nil && n > 0
}
