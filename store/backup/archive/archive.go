// Package archive is the file of a backup: what every table of a database holds,
// in a form that belongs to no kind of database. It knows nothing of what the
// tables mean.
//
// The file is one line of text that names the format, and a zstd stream of
// records. A record is its length (4 octets, big endian), its kind (1 octet),
// and CBOR (RFC 8949): one header, then for every table its columns and its
// rows, and an end that counts the rows of every table and holds the SHA-256 of
// all that came before it. So a file that is cut off or damaged is told from a
// whole one, whatever was lost.
package archive

import (
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// magic is the first line of every file; the number is the format's version.
const (
	magicWord = "carillon-backup "
	Format    = 1
	magic     = magicWord + "1\n"
)

// Kinds of records.
const (
	kindHeader byte = 'H'
	kindTable  byte = 'T'
	kindRows   byte = 'R'
	kindEnd    byte = 'E'
)

const (
	batchRows  = 500
	batchBytes = 1 << 20
	// maxRecord bounds what a damaged length can make a reader ask for. A row is
	// never longer than the longest request body, 64 MiB, and what seals it.
	maxRecord = 128 << 20
)

// ErrDamaged says that a file is not what was written: cut off, changed, or no
// backup at all.
var ErrDamaged = errors.New("the backup is damaged or incomplete")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// Header says what a backup is of.
type Header struct {
	Version    string    // of the program that wrote it
	Schema     int64     // of the database: its newest migration
	Database   string    // where it was taken: sqlite or postgres
	CreatedAt  time.Time // when the file was begun
	SnapshotAt time.Time // what it holds was committed before
}

// Table is what a file says of a table before its rows.
type Table struct {
	Name    string   `cbor:"name"`
	Columns []string `cbor:"columns"`
}

// Count is how many rows of a table a file holds.
type Count struct {
	Table string `cbor:"table"`
	Rows  int64  `cbor:"rows"`
}

// Summary is what a whole file holds.
type Summary struct {
	Header Header
	Tables []Count
	Sum    string // SHA-256 of the content in hexadecimal
}

// Rows counts the rows of all tables.
func (s Summary) Rows() int64 {
	var n int64
	for _, t := range s.Tables {
		n += t.Rows
	}
	return n
}

type headerRecord struct {
	Version    string `cbor:"version"`
	Schema     int64  `cbor:"schema"`
	Database   string `cbor:"database"`
	CreatedAt  int64  `cbor:"created_at"` // unix milliseconds
	SnapshotAt int64  `cbor:"snapshot_at"`
}

type endRecord struct {
	Tables []Count `cbor:"tables"`
	SHA256 []byte  `cbor:"sha256"`
}

// decoding gives integers as int64, as databases do, and takes text as it is: a
// database may hold what is no UTF-8.
func decoding() (cbor.DecMode, error) {
	return cbor.DecOptions{IntDec: cbor.IntDecConvertSignedOrFail, UTF8: cbor.UTF8DecodeInvalid}.DecMode()
}
