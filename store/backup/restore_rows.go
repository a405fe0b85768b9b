package backup

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/carillonhq/carillon/store/backup/archive"
	"github.com/carillonhq/carillon/store/db"
)

// rowWriter writes the rows of a backup into one table after the other.
type rowWriter interface {
	begin(ctx context.Context, conn *sql.Conn, t archive.Table) error
	write(ctx context.Context, conn *sql.Conn, t archive.Table, rows [][]any) error
	close()
}

// rowInserter inserts row by row, which is the quickest way inside of the process.
type rowInserter struct{ insert *sql.Stmt }

func (w *rowInserter) begin(ctx context.Context, conn *sql.Conn, t archive.Table) (err error) {
	w.close()
	//nolint:gosec // the names are those of the database itself: see sameNames
	insert := fmt.Sprintf("INSERT INTO %s (%s) VALUES (?%s)", identifiers([]string{t.Name}), identifiers(t.Columns), strings.Repeat(",?", len(t.Columns)-1))
	w.insert, err = conn.PrepareContext(ctx, insert)
	return err
}

func (w *rowInserter) write(ctx context.Context, _ *sql.Conn, _ archive.Table, rows [][]any) error {
	for _, r := range rows {
		if _, err := w.insert.ExecContext(ctx, r...); err != nil {
			return err
		}
	}
	return nil
}

func (w *rowInserter) close() {
	if w.insert != nil {
		_ = w.insert.Close()
	}
}

// rowCopier copies many rows in one go.
type rowCopier struct{}

func (rowCopier) begin(context.Context, *sql.Conn, archive.Table) error { return nil }
func (rowCopier) close()                                                {}

func (rowCopier) write(ctx context.Context, conn *sql.Conn, t archive.Table, rows [][]any) error {
	return db.CopyRows(ctx, conn, t.Name, t.Columns, rows)
}
