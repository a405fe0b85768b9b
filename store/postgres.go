package store

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
	"sync/atomic"
	"time"

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
	c, err := pgx.ParseConfig(o.URL)
	if err != nil {
		return nil, fmt.Errorf("the database URL cannot be read: %w", err) // pgx hides the password
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
	p := &postgres{url: o.URL, config: c, conns: max(n, leastConns)}
	if p.clock.machine = o.Machine; p.clock.machine == nil {
		p.clock.machine = time.Now
	}
	return p, nil
}

// CheckURL tells what is wrong with the URL of a PostgreSQL database, "" if
// nothing is. It never shows the password.
func CheckURL(raw string) string {
	if _, err := pgx.ParseConfig(raw); err != nil {
		return "is no URL of PostgreSQL; it is like postgres://user:password@host:5432/name"
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

func (p *postgres) writers() int { return max(2, p.conns/8) }

func (p *postgres) begin() string { return "BEGIN" + p.durable }

func (p *postgres) dialector(db *sql.DB) gorm.Dialector {
	return gormpostgres.New(gormpostgres.Config{Conn: db})
}

func (p *postgres) open(ctx context.Context, s *Store) error {
	if err := p.look(ctx); err != nil {
		return err
	}
	writers, lists := p.writers(), max(2, p.conns/4)
	s.writeDB = p.pool(answerWithin, writers+2) // one for the beat, one for the listener
	s.readDB = p.pool(answerWithin, p.conns-writers-2-lists)
	within := listWithin
	if s.opts.peek {
		within = 0 // whoever looks at everything has time
	}
	s.listDB = p.pool(within, lists)
	return nil
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
	err = rawConn(conn, func(c *pgx.Conn) error { p.pooled = int(c.PgConn().PID()) != pid; return nil })
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
	db := sql.OpenDB(connector{stdlib.GetConnector(*c)})
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

// connector opens connections that take the store's statements as they are
// written for SQLite.
type connector struct{ driver.Connector }

// Connect implements driver.Connector.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	pg, ok := conn.(*stdlib.Conn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the driver made a %T", conn), conn.Close())
	}
	return &pgConn{pg}, nil
}

type pgConn struct{ *stdlib.Conn }

// ExecContext implements driver.ExecerContext.
func (c *pgConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return c.Conn.ExecContext(ctx, rebind(query, len(args) > 0), args)
}

// QueryContext implements driver.QueryerContext.
func (c *pgConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return c.Conn.QueryContext(ctx, rebind(query, len(args) > 0), args)
}

// CheckNamedValue makes plain values of named types, as database/sql does for
// other drivers: this one would write a type with a String method as text.
func (c *pgConn) CheckNamedValue(v *driver.NamedValue) error {
	switch v.Value.(type) {
	case []int64, []int32, []int16, []string, [][]byte:
		return nil // arrays
	}
	plain, err := driver.DefaultParameterConverter.ConvertValue(v.Value)
	if err != nil {
		return err
	}
	switch x := plain.(type) {
	case bool: // flags are numbers, as on SQLite
		plain = int64(0)
		if x {
			plain = int64(1)
		}
	case string:
		plain = storable(x)
	}
	v.Value = plain
	return nil
}

// storable replaces what PostgreSQL takes in no text.
func storable(s string) string {
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// rawConn hands over the connection below database/sql.
func rawConn(conn *sql.Conn, use func(*pgx.Conn) error) error {
	return conn.Raw(func(c any) error {
		pg, ok := c.(*pgConn)
		if !ok {
			return fmt.Errorf("not a connection to PostgreSQL: %T", c)
		}
		return use(pg.Conn.Conn())
	})
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

// again knows a serialization failure, a deadlock and a lock that could not be had.
func (p *postgres) again(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains([]string{"40001", "40P01", "55P03"}, e.Code)
}

func (p *postgres) taken(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == "23505"
}

// serverClock tells the database's time without asking for it each time. It goes
// on by the machine's monotonic clock, so that nothing becomes due, or expires,
// because somebody sets the machine's time.
type serverClock struct {
	machine func() time.Time
	newest  atomic.Pointer[reading]
}

// reading is one moment by both clocks.
type reading struct {
	here, there time.Time
	trip        time.Duration // how long the question took that told so
}

func (c *serverClock) now() time.Time {
	r := c.newest.Load()
	if r == nil {
		return c.machine()
	}
	return r.there.Add(c.machine().Sub(r.here))
}

// staleClock is how long a quick answer is worth more than a slow, newer one.
const staleClock = 30 * time.Second

// set asks for the time. The answer is off by at most half of what the question took.
func (c *serverClock) set(ctx context.Context, db queryer) error {
	var micros int64
	sent := c.machine()
	if err := db.QueryRowContext(ctx, "SELECT (extract(epoch FROM clock_timestamp())*1000000)::bigint").Scan(&micros); err != nil {
		return err
	}
	c.heard(sent, c.machine(), time.UnixMicro(micros))
	return nil
}

func (c *serverClock) heard(sent, came, says time.Time) {
	x := &reading{there: says, trip: came.Sub(sent)}
	x.here = sent.Add(x.trip / 2)
	if best := c.newest.Load(); best != nil && came.Sub(best.here) <= staleClock && x.trip > 2*best.trip+time.Millisecond {
		return
	}
	c.newest.Store(x)
}
