package db

import (
	"log/slog"
	"time"

	"github.com/carillonhq/carillon/ids"
)

// Options open a database.
type Options struct {
	// URL of the database: postgres:// and what follows, or the path of the
	// SQLite file, with or without sqlite: before it, which is created where it
	// is missing.
	URL     string
	KeyRing *KeyRing // seals secrets and payloads
	Log     *slog.Logger
	// Now is the time that due rows and leases are compared with. By default it is
	// the machine's on SQLite and the database's on PostgreSQL, so that nodes
	// whose clocks differ agree.
	Now func() time.Time
	// Machine is the machine's clock, which a test may set wrong.
	Machine func() time.Time
	IDs     *ids.Generator
	// Migrate brings the schema up to date; otherwise Open fails when it is not,
	// unless Unchecked.
	Migrate   bool
	Unchecked bool
	// QueueSize bounds the writes that wait; more are refused (accept) or wait
	// (finish). Default 4,096.
	QueueSize int
	// Connections bounds the connections to PostgreSQL. Default 16, least 8.
	Connections int
	// Bare is without migrating, checking the schema, or a writer; no key ring is
	// needed but for what is sealed.
	Bare bool
	// Peek is Bare, and nothing is created or changed, whatever state the database
	// is in.
	Peek bool
}
