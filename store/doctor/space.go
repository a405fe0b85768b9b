package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/carillonhq/carillon/problem"
)

// Space is the room that a database takes, in bytes.
type Space struct {
	Files int64 // on disk: an SQLite file and its -wal, or all that PostgreSQL has of it
	Used  int64 // of that: pages of an SQLite file that hold something; of PostgreSQL all
	Spare int64 // pages of an SQLite file that hold nothing, which are used before it grows
	Free  int64 // on the volume of an SQLite file; -1: unknown, as it is of PostgreSQL's
}

// Room is what can still be written; -1: unknown.
func (s Space) Room() int64 {
	if s.Free < 0 {
		return -1
	}
	return s.Free + s.Spare
}

const selectPages = `SELECT (n.page_count-f.freelist_count)*p.page_size,f.freelist_count*p.page_size
 FROM pragma_page_count n, pragma_freelist_count f, pragma_page_size p`

// Space asks the file system and the head of the file, or PostgreSQL, which asks its file
// system: it costs the same however much there is.
func (s *Doctor) Space(ctx context.Context) (out Space, err error) {
	out.Free = -1
	path, ok := s.db.File()
	if !ok {
		err = s.db.Lists().QueryRowContext(ctx, "SELECT pg_database_size(current_database())").Scan(&out.Files)
		out.Used = out.Files
		return out, err
	}
	file, err := os.Stat(path)
	if err != nil { // the store has said that it is gone
		return out, errors.Join(problem.New(problem.Unavailable, "The file of the database cannot be looked at."), err)
	}
	out.Files = file.Size()
	if wal, err := os.Stat(path + "-wal"); err == nil {
		out.Files += wal.Size()
	}
	if err := s.db.Lists().QueryRowContext(ctx, selectPages).Scan(&out.Used, &out.Spare); err != nil {
		return out, err
	}
	out.Free, err = freeBytes(filepath.Dir(path))
	return out, err
}
