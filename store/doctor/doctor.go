// Package doctor looks whether a database is sound, and counts what it holds.
package doctor

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
	"github.com/carillonhq/carillon/tenants"
)

// Doctor looks at a database.
type Doctor struct {
	db        *db.DB
	registers *registers.Registers
}

// New makes the doctor of a database.
func New(d *db.DB, r *registers.Registers) *Doctor { return &Doctor{db: d, registers: r} }

// Diagnosis is what there is to know of the health of a database. It holds facts:
// what they mean is said elsewhere.
type Diagnosis struct {
	Database string // without its password
	Kind     string // sqlite or postgres
	Schema   db.SchemaFacts
	// KeyRing is why the key ring does not open what the database holds; nil: it
	// does, or there is nothing, or none was given.
	KeyRing error
	// OldKeys counts the tenants whose keys are sealed with an old key of the key ring,
	// and AESGCM those who seal with AES-GCM.
	OldKeys, AESGCM int
	// ClearURLs counts the endpoints whose URLs are not sealed, up to 10,000.
	ClearURLs int
	// Broken are the invariants that do not hold.
	Broken []Violation
	Depths Depths
	InHand InHand
	// DeadLately are the dead letters of the last day by what was said, the most frequent
	// first.
	DeadLately []DeadLetters
	Pause      delivery.Pause
	Nodes      []db.Node
	// Running tells whether a server runs: one that beats, or that holds the lock of
	// the file.
	Running bool
	// Credentials are those of all tenants, at most 10,000.
	Credentials []registers.NamedCredential
	// WaysBack are the versions that a rollback of a refused credential leads to; those
	// from which none does are left out.
	WaysBack map[ids.ID]int
	// WrongPairs counts, by tenant, browsers that were retired by another key's verdict.
	WrongPairs map[string]int
	BackupAt   time.Time // of the newest backup that is known of; zero: none is
	// ClockAhead is by how much the database's clock is ahead of this machine's.
	ClockAhead time.Duration
	Growth     Growth
	KeptFor    time.Duration // how long rows are kept by the configuration, which is not in the database
	SQLite     *SQLiteFacts
	Postgres   *PostgresFacts
	// Unknown are the looks that failed.
	Unknown []UnknownFact
}

// UnknownFact is something that could not be found out.
type UnknownFact struct {
	What string
	Err  error
}

// Examine looks at everything; deep: also at every page of an SQLite file, which
// takes as long as reading it. Peek is enough for it, and nothing is changed.
func (s *Doctor) Examine(ctx context.Context, deep bool) Diagnosis {
	d := Diagnosis{Database: s.db.Database(), Kind: s.db.Kind()}
	try := func(what string, look func() error) bool {
		err := look()
		if err != nil {
			d.Unknown = append(d.Unknown, UnknownFact{What: what, Err: err})
		}
		return err == nil
	}
	sizes := ""
	if path, ok := s.db.File(); ok {
		d.SQLite = &SQLiteFacts{Free: -1}
		try("the settings of SQLite", func() error { return s.sqlite(ctx, path, d.SQLite, deep) })
	} else {
		d.Postgres = &PostgresFacts{}
		try("the settings of PostgreSQL", func() error { return s.postgres(ctx, d.Postgres) })
		try("the database's clock", func() (err error) { d.ClockAhead, err = s.db.ClockAhead(ctx); return err })
	}
	if !try("the schema version", func() (err error) { d.Schema, err = s.db.Schema(ctx); return err }) || d.Schema.Have < d.Schema.Want {
		return d // what follows needs today's tables
	}
	try("who runs", func() (err error) {
		if d.Nodes, err = s.db.Nodes(ctx); err == nil {
			d.Running, err = s.db.ServerRuns(d.Nodes)
		}
		return err
	})
	if s.db.KeyRing() != nil {
		d.KeyRing = s.db.CheckKeyRing(ctx)
		try("the tenants' keys", func() error { return s.keysets(ctx, &d) })
	}
	try("the facts about the installation", func() error {
		all, err := registers.Facts(ctx, s.db.Reads())
		d.Pause, d.BackupAt, sizes = registers.PauseOf(all), all[registers.FactBackup].At, all[registers.FactSizes].Detail
		return err
	})
	try("how the database grows", func() (err error) { d.Growth, err = s.growth(ctx, sizes, s.db.Now()); return err })
	try("the endpoints", func() (err error) { d.ClearURLs, err = s.registers.ClearURLs(ctx); return err })
	try("the credentials", func() (err error) { d.Credentials, err = s.registers.AllCredentials(ctx); return err })
	try("the versions of credentials", func() error { return s.waysBack(ctx, &d) })
	try("the VAPID pairs", func() (err error) { d.WrongPairs, err = s.registers.WrongPairs(ctx); return err })
	try("the invariants", func() (err error) { d.Broken, err = s.Check(ctx, true); return err })
	try("the queue", func() (err error) { d.Depths, err = s.Depths(ctx); return err })
	try("the newest dead letters", func() (err error) { d.DeadLately, err = s.DeadLately(ctx); return err })
	try("what servers have in hand", func() (err error) { d.InHand, err = s.InHand(ctx); return err })
	return d
}

// mostRefused is of how many refused credentials the way back is looked for.
const mostRefused = 100

func (s *Doctor) waysBack(ctx context.Context, d *Diagnosis) error {
	d.WaysBack = map[ids.ID]int{}
	looked := 0
	for _, c := range d.Credentials {
		if looked == mostRefused {
			return nil
		}
		if c.Verification.State != tenants.Refused || !c.Doubted() {
			continue
		}
		looked++
		to, err := s.registers.WayBack(ctx, c.Tenant, c.ID)
		if err != nil {
			return err
		}
		if to > 0 {
			d.WaysBack[c.ID] = to
		}
	}
	return nil
}

func (s *Doctor) keysets(ctx context.Context, d *Diagnosis) error {
	k, err := s.registers.Keysets(ctx)
	d.AESGCM = k.AESGCM
	for _, x := range s.db.KeyRing().Keys() {
		if x.Role == db.RingOld {
			d.OldKeys += k.By[x.ID]
		}
	}
	return err
}
