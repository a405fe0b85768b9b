package pgtest

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"
)

// PgBouncer puts a connection pooler in front of the server of a database, in
// transaction mode, in which every transaction may run on another connection to
// the server. It returns the database's URL by way of the pooler. Settings are
// the pooler's own except where it could not run otherwise.
func PgBouncer(t testing.TB, database string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/pgbouncer")
	}
	if err != nil {
		missing(t, "pgbouncer", fmt.Errorf("%w; on Debian: apt-get install pgbouncer", err))
	}
	f := testFolder(t)
	through, err := bounce(f, program, database)
	if err != nil {
		t.Fatalf("start PgBouncer: %v", err)
	}
	return through
}

func bounce(f *folder, program, database string) (string, error) {
	to, err := pgx.ParseConfig(database)
	if err != nil {
		return "", err
	}
	port, err := freePort()
	if err != nil {
		return "", err
	}
	config := fmt.Sprintf(`[databases]
* = host=%s port=%d
[pgbouncer]
listen_addr = %s
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = transaction
`, to.Host, to.Port, loopback, port, filepath.Join(f.path, "users"))
	files := map[string]string{"pgbouncer.ini": config, "users": fmt.Sprintf("%q %q\n", to.User, to.Password)}
	for name, content := range files {
		path := filepath.Join(f.path, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return "", err
		}
		if err := f.own(path); err != nil {
			return "", err
		}
	}
	p, err := f.start("pgbouncer", program, filepath.Join(f.path, "pgbouncer.ini"))
	if err != nil {
		return "", err
	}
	u, err := url.Parse(database)
	if err != nil {
		return "", err
	}
	u.Host = net.JoinHostPort(loopback, strconv.Itoa(port))
	if err := await("PgBouncer answers", p, pings(u.String())); err != nil {
		return "", fmt.Errorf("%w; its log:\n%s", err, f.tail())
	}
	return u.String(), nil
}
