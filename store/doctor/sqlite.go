package doctor

import (
	"context"
	"database/sql"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/carillonhq/carillon/store/db"
)

// SQLiteFacts are about the file.
type SQLiteFacts struct {
	JournalMode string      // of the file
	Synchronous int         // that a server runs with: 2 is FULL
	Mode        fs.FileMode // rights
	Size        int64       // bytes, of the file and of its -wal
	WALSize     int64
	Free        int64    // bytes on its volume; -1: unknown
	Corrupt     []string // what integrity_check found; only asked for a deep look
}

func (s *Doctor) sqlite(ctx context.Context, path string, out *SQLiteFacts, deep bool) error {
	if err := s.db.Reads().QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&out.JournalMode); err != nil {
		return err
	}
	// Asked on a connection like the server's, but for what would change the file.
	like, err := db.OpenLikeServer(path)
	if err != nil {
		return err
	}
	defer func() { _ = like.Close() }()
	if err := like.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&out.Synchronous); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	out.Mode, out.Size = info.Mode().Perm(), info.Size()
	if wal, err := os.Stat(path + "-wal"); err == nil {
		out.WALSize = wal.Size()
	}
	if out.Free, err = freeBytes(filepath.Dir(path)); err != nil || !deep {
		return err
	}
	rows, err := like.QueryContext(ctx, "PRAGMA integrity_check")
	if err != nil {
		out.Corrupt = []string{err.Error()}
		return nil
	}
	found, err := db.Collect(rows, func(r *sql.Rows) (line string, err error) {
		err = r.Scan(&line)
		return line, err
	})
	if err != nil {
		found = append(found, err.Error())
	}
	if strings.Join(found, "\n") != "ok" {
		out.Corrupt = found
	}
	return nil
}
