package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	gormpostgres "gorm.io/driver/postgres"
	"gorm.io/gorm"
)

// postgres is a database that any number of nodes share.
type postgres struct {
	url    string
	config *pgx.ConnConfig
	conns  int
	// pooled: a pooler such as PgBouncer sits between. In transaction mode it
	// hands every transaction to another session, so nothing may be kept in one:
	// no prepared statement, no LISTEN, no session lock.
	pooled bool
	// durable is said at the start of each transaction where the database's own
	// setting would acknowledge a commit that a power cut can take back.
	durable string
	clock   serverClock
	peek    bool // whoever looks at everything has time
}

// The least version; the test suite runs on 15.
const (
	leastPostgres  = 13_00_00
	leastConns     = 8
	defaultConns   = 16
	answerWithin   = 15 * time.Second // a statement of the engine
	listWithin     = 2 * time.Minute  // a list that a person asked for
	connectWithin  = 5 * time.Second
	reconnectPause = 50 * time.Millisecond
)

func newPostgres(o Options) (*postgres, error) {
	if why := CheckURL(o.URL); why != "" {
		return nil, errors.New("the database URL " + why)
	}
	c, err := pgx.ParseConfig(o.URL)
	if err != nil {
		return nil, errors.New("the database URL cannot be read")
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectWithin
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "carillon"
	}
	n := o.Connections
	if n == 0 {
		n = defaultConns
	}
	p := &postgres{url: o.URL, config: c, conns: max(n, leastConns), peek: o.Peek}
	if p.clock.machine = o.Machine; p.clock.machine == nil {
		p.clock.machine = time.Now
	}
	return p, nil
}

// CheckURL tells what is wrong with the URL of a PostgreSQL database, "" if
// nothing is. It shows nothing of the URL. A password with an @ of its own would end
// there, and its rest be the name of a host, which errors show.
func CheckURL(raw string) string {
	c, err := pgx.ParseConfig(raw)
	if err != nil || !IsPostgres(raw) {
		return "is no URL of PostgreSQL; it is like postgres://user:password@host:5432/name"
	}
	_, rest, _ := strings.Cut(raw, "://")
	rest, _, _ = strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	odd := strings.Count(authority, "@") > 1 || strings.Contains(path+c.Host, "@") ||
		slices.ContainsFunc(c.Fallbacks, func(f *pgconn.FallbackConfig) bool { return strings.Contains(f.Host, "@") })
	if odd {
		return "has an @ that does not end the password; in a user, a password or a name write it as %40"
	}
	return ""
}

// RedactURL hides the password in the URL of a database; other text it leaves.
func RedactURL(raw string) string {
	if !IsPostgres(raw) {
		return raw
	}
	if u, err := url.Parse(raw); err == nil {
		q := u.Query()
		for _, secret := range []string{"password", "sslpassword"} {
			if q.Has(secret) {
				q.Set(secret, "xxxxx")
				u.RawQuery = q.Encode()
			}
		}
		return u.Redacted()
	}
	scheme, rest, _ := strings.Cut(raw, "://") // several hosts are no URL to package url
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		user, _, _ := strings.Cut(rest[:at], ":")
		rest = user + ":xxxxx" + rest[at:]
	}
	return scheme + "://" + rest
}

func (p *postgres) String() string {
	at := func(host string, port uint16) string {
		if port == 5432 {
			return host
		}
		return net.JoinHostPort(host, strconv.Itoa(int(port)))
	}
	hosts := []string{at(p.config.Host, p.config.Port)}
	for _, f := range p.config.Fallbacks { // one without TLS for each host, and the other hosts
		if h := at(f.Host, f.Port); !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	return "postgres://" + strings.Join(hosts, ",") + "/" + p.config.Database
}

func (p *postgres) kind() string   { return Postgres }
func (p *postgres) shared() bool   { return true }
func (p *postgres) writers() int   { return max(2, p.conns/8) }
func (p *postgres) prepares() bool { return false }
func (p *postgres) begin() string  { return "BEGIN" + p.durable }

// Nodes know of each other, so none has to be the only one.
func (p *postgres) lockEngine() (*flock.Flock, error) { return nil, nil } //nolint:nilnil // there is no lock, and nothing has failed

func (p *postgres) serverRuns(nodes []Node, now time.Time) (bool, error) {
	return slices.ContainsFunc(nodes, func(n Node) bool { return n.Role != RoleCommand && !n.Dead(now) }), nil
}

// Rows that are removed leave the disk with VACUUM, whatever is asked for here.
func (p *postgres) overwriting(context.Context, *sql.Conn, bool) error { return nil }
func (p *postgres) flush(context.Context, *sql.DB) (bool, error)       { return true, nil }

func (p *postgres) copying() (pool *sql.DB, snapshot string, err error) {
	return p.pool(0, 1), "BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ", nil
}

func (p *postgres) readClock(ctx context.Context, q Queryer) error { return p.clock.set(ctx, q) }
func (p *postgres) now() time.Time                                 { return p.clock.now() }

// clockAhead asks a few times, and believes the quickest answer.
func (p *postgres) clockAhead(ctx context.Context, q Queryer) (time.Duration, error) {
	c := serverClock{machine: p.clock.machine}
	for range 3 {
		if err := c.set(ctx, q); err != nil {
			return 0, err
		}
	}
	best := c.newest.Load()
	return best.there.Sub(best.here), nil
}

func (p *postgres) dialector(db *sql.DB) gorm.Dialector {
	return gormpostgres.New(gormpostgres.Config{Conn: db})
}

func (p *postgres) open(ctx context.Context) (writes, reads, lists *sql.DB, err error) {
	if err := p.look(ctx); err != nil {
		return nil, nil, nil, err
	}
	writers, listers := p.writers(), max(2, p.conns/4)
	writes = p.pool(answerWithin, writers+2) // one for the beat, one for the listener
	reads = p.pool(answerWithin, p.conns-writers-2-listers)
	within := listWithin
	if p.peek {
		within = 0 // whoever looks at everything has time
	}
	return writes, reads, p.pool(within, listers), nil
}

// look asks the server what must be known before the pools are opened.
func (p *postgres) look(ctx context.Context) error {
	own := p.config.DefaultQueryExecMode
	p.config.DefaultQueryExecMode = pgx.QueryExecModeExec // as long as there may be a pooler
	db := p.pool(answerWithin, 1)
	p.config.DefaultQueryExecMode = own
	defer func() { _ = db.Close() }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connect to the database; see the setting database.url: %w", err)
	}
	defer func() { _ = conn.Close() }()
	var (
		version, pid int
		commit       string
	)
	if err := conn.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int, current_setting('synchronous_commit'), pg_backend_pid()`).
		Scan(&version, &commit, &pid); err != nil {
		return fmt.Errorf("ask the database for its version: %w", err)
	}
	if version < leastPostgres {
		return fmt.Errorf("the database is PostgreSQL %d; %d or newer is needed", version/10_000, leastPostgres/10_000)
	}
	if commit == "off" {
		p.durable = "; SET LOCAL synchronous_commit TO on"
	}
	// A pooler answers with a process id of its own making.
	err = withPgx(conn, func(c *pgx.Conn) error { p.pooled = int(c.PgConn().PID()) != pid; return nil })
	if p.pooled {
		p.config.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	return err
}

// pool opens a pool whose connections give up on a server that says nothing for
// so long; 0: they never do.
func (p *postgres) pool(within time.Duration, most int) *sql.DB {
	c := p.config.Copy()
	dial := c.DialFunc
	c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil || within == 0 {
			return conn, err
		}
		return &impatientConn{Conn: conn, within: within}, nil
	}
	db := sql.OpenDB(connector{stdlib.GetConnector(*c), p})
	db.SetMaxOpenConns(most)
	db.SetMaxIdleConns(most)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return db
}

// impatientConn ends a connection on which an answer is awaited for too long, as
// when the network swallows what is sent. That is cheaper than a deadline for
// each statement.
type impatientConn struct {
	net.Conn
	within time.Duration
}

func (c *impatientConn) Write(b []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.within)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// unable tells whether the connection or the server failed: connection lost
// (08), out of disk, memory or connections (53), shut down (57), input or output
// error (58), damaged (XX), or a standby that takes no writes (25006).
func (p *postgres) unable(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code == "25006" || slices.Contains([]string{"08", "53", "57", "58", "XX"}, e.Code[:2])
	}
	_, network := errors.AsType[net.Error](err)
	_, connect := errors.AsType[*pgconn.ConnectError](err)
	return network || connect || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || pgconn.SafeToRetry(err) ||
		errors.Is(err, errLostConnection)
}

// undone: the server has answered, and its session goes on.
func (p *postgres) undone(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Severity == "ERROR"
}

func (p *postgres) explain(err error) error { return err }
func (p *postgres) lost() error             { return nil }

// again knows a serialization failure, a deadlock and a lock that could not be had.
func (p *postgres) again(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains([]string{"40001", "40P01", "55P03"}, e.Code)
}

func (p *postgres) raced(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == "23505"
}

// whole: PostgreSQL answers the COMMIT of a transaction in which a statement
// failed with a rollback, and no error.
func (p *postgres) whole(conn *sql.Conn) error {
	return withPgx(conn, func(c *pgx.Conn) error {
		if status := c.PgConn().TxStatus(); status != 'T' {
			return fmt.Errorf("the transaction is in the state %q", status)
		}
		return nil
	})
}

func (p *postgres) afterRollback(failed, reason error) (unusable, worth bool) {
	return failed != nil || p.unable(reason), false
}
