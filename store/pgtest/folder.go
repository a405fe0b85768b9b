package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// guard waits until the test process is gone, however it went: its standard
// input is a pipe that only that process holds open. Then it ends the programs
// whose process ids stand in files of the folder, and what they started, and
// removes the folder.
const guard = `
trap '' HUP INT TERM
read -r _
end() {
	kill -s QUIT -- "$1" || return
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		kill -s 0 -- "$1" || return
		sleep 0.1
	done
	kill -s KILL -- "$1"
}
for file in "$1"/*.pid; do
	if [ -f "$file" ] && read -r pid <"$file"; then end "-$pid"; fi
done
for file in "$1"/*/postmaster.pid; do # one that has left its group
	if [ -f "$file" ] && read -r pid <"$file"; then end "$pid"; fi
done
umount -l "$1/disk" # even if a process is just ending
rm -rf "$1"
`

// folder is a temporary folder for programs and their data. Neither outlives the
// test process, even if that is killed.
type folder struct {
	path  string
	guard *exec.Cmd
	life  *os.File // the guard acts when it is closed
	owner *syscall.Credential
}

func newFolder() (*folder, error) {
	owner, err := unprivileged()
	if err != nil {
		return nil, err
	}
	path, err := os.MkdirTemp("", "carillon-pgtest-")
	if err != nil {
		return nil, err
	}
	f := &folder{path: path, owner: owner, guard: exec.Command("sh", "-c", guard, "guard", path)}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(path))
	}
	f.life = write
	f.guard.Stdin = read
	f.guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is not for it
	err = f.guard.Start()
	_ = read.Close()
	if err != nil {
		return nil, errors.Join(err, write.Close(), os.RemoveAll(path))
	}
	if err := f.own(path); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// testFolder is a folder that ends with a test.
func testFolder(t testing.TB) *folder {
	t.Helper()
	f, err := newFolder()
	if err != nil {
		t.Fatalf("make a folder: %v", err)
	}
	t.Cleanup(func() {
		if err := f.close(); err != nil {
			t.Errorf("end what runs in a folder: %v", err)
		}
	})
	return f
}

// close ends what runs in the folder and removes it.
func (f *folder) close() error {
	if err := f.life.Close(); err != nil {
		return err
	}
	_ = f.guard.Wait() // the status of its last command, which says nothing
	if _, err := os.Stat(f.path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s could not be removed", f.path)
	}
	return nil
}

// own gives a file to the user that the folder's programs run as.
func (f *folder) own(path string) error {
	if f.owner == nil {
		return nil
	}
	return os.Chown(path, int(f.owner.Uid), int(f.owner.Gid))
}

// command is a program that runs in the folder, knows nothing of the caller's
// environment, and writes to the log.
func (f *folder) command(program string, args ...string) (*exec.Cmd, error) {
	log, err := os.OpenFile(f.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = f.path
	cmd.Env = []string{"PATH=" + filepath.Dir(program) + ":/usr/bin:/bin", "HOME=" + f.path, "XDG_RUNTIME_DIR=" + f.path, "LC_ALL=C", "TZ=UTC",
		"PGUSER=" + superuser, "PG_REGRESS_SOCK_DIR=" + f.path} // for pg_autoctl: whom it is at its servers, and where their sockets are
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: f.owner}
	return cmd, nil
}

// run runs a program to its end.
func (f *folder) run(program string, args ...string) error {
	cmd, err := f.command(program, args...)
	if err != nil {
		return err
	}
	defer closeLog(cmd)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w; its log:\n%s", filepath.Base(program), err, f.tail())
	}
	return nil
}

// process is a program that runs.
type process struct {
	*os.Process
	exited chan struct{}
}

// start starts a program and tells the guard of it.
func (f *folder) start(name, program string, args ...string) (*process, error) {
	cmd, err := f.command(program, args...)
	if err != nil {
		return nil, err
	}
	defer closeLog(cmd)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{Process: cmd.Process, exited: make(chan struct{})}
	pid := filepath.Join(f.path, name+".pid")
	err = os.WriteFile(pid, []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600)
	go func() {
		_ = cmd.Wait() // how it ended stands in the log
		_ = os.Remove(pid)
		close(p.exited)
	}()
	return p, err
}

// end sends a signal and waits until the program is gone.
func (p *process) end(signal syscall.Signal) error {
	if err := p.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("process %d is still there %s after %s", p.Pid, patience, signal)
	}
}

// kill ends the program and all that it started, without a chance to do anything
// about it. Everything is stopped first, so that nothing is started meanwhile.
func (p *process) kill() error {
	var all []int
	var stop func(pid int)
	stop = func(pid int) {
		_ = syscall.Kill(pid, syscall.SIGSTOP) // it may have ended just now
		all = append(all, pid)
		for _, child := range children(pid) {
			stop(child)
		}
	}
	stop(p.Pid)
	for _, pid := range all {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err := p.end(syscall.SIGKILL); err != nil {
		return err
	}
	// The others have lost their parent; the system's first process buries them, and
	// until then they look alive to whoever comes next.
	return await("all processes are gone", nil, func(context.Context) error {
		for _, pid := range all {
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("process %d is still there", pid)
			}
		}
		return nil
	})
}

// children are the processes that a process has started.
func children(parent int) []int {
	var list []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is sound
	for _, stat := range stats {
		b, err := os.ReadFile(stat)
		if err != nil {
			continue // ended meanwhile
		}
		// pid (name) state parent ...; a name may contain anything.
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
			list = append(list, pid)
		}
	}
	return list
}

// await waits until a condition holds. It returns why it does not if that takes
// too long, and at once if a process that it depends on, if any, has exited.
func await(what string, p *process, holds func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var exited chan struct{}
	if p != nil {
		exited = p.exited
	}
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		err := holds(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("%s: process %d has exited", what, p.Pid)
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s: %w", what, patience, err)
		case <-time.After(pause):
		}
	}
}

func closeLog(cmd *exec.Cmd) {
	if log, ok := cmd.Stdout.(*os.File); ok {
		_ = log.Close()
	}
}

func (f *folder) log() string { return filepath.Join(f.path, "log") }

// tail is the end of the log, for errors.
func (f *folder) tail() string {
	b, err := os.ReadFile(f.log())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}

// unprivileged is whom programs run as that refuse to run as root; nil for
// the user that we are.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // what exec takes for no other user
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}

// freePort is a port that nobody listens on. It is below those that the system
// gives to outgoing connections, so that nobody takes it while its server is
// down for a moment, not even a client that dials it.
func freePort() (int, error) {
	const low, high, tries = 20000, 32000, 100
	for range tries {
		port := low + rand.IntN(high-low)
		l, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("no free port between %d and %d", low, high)
}

// missing skips a test whose component is not installed, or fails it if
// CARILLON_REQUIRE names the component.
func missing(t testing.TB, component string, err error) {
	t.Helper()
	if slices.Contains(strings.Fields(os.Getenv("CARILLON_REQUIRE")), component) {
		t.Fatalf("%s is required here: %v", component, err)
	}
	t.Skipf("%s IS MISSING, SO THIS TEST DID NOT RUN: %v", strings.ToUpper(component), err)
}
