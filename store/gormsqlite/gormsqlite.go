// Package gormsqlite lets gorm write SQLite's SQL. It uses a pool that its
// caller has opened with whatever driver: gorm's own package for SQLite links
// one in C, and the program has one in Go already.
//
// It does what queries and changes need. It knows no types of columns, because
// migrations make the tables.
package gormsqlite

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"gorm.io/gorm"
	"gorm.io/gorm/callbacks"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"
	"gorm.io/gorm/schema"
)

// dialector implements gorm.Dialector.
type dialector struct{ pool gorm.ConnPool }

// New makes the dialector of a pool of connections to SQLite, 3.35 or newer,
// which is where RETURNING begins.
func New(pool gorm.ConnPool) gorm.Dialector { return dialector{pool} }

func (dialector) Name() string { return "sqlite" }

// Initialize gives gorm the pool, and the clauses that statements consist of. A
// pool that cannot connect is refused: it is the first to ask for a connection.
func (d dialector) Initialize(db *gorm.DB) error {
	var version string
	if err := d.pool.QueryRowContext(context.Background(), "SELECT sqlite_version()").Scan(&version); err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	db.ConnPool = d.pool
	callbacks.RegisterDefaultCallbacks(db, &callbacks.Config{
		CreateClauses: []string{"INSERT", "VALUES", "ON CONFLICT", "RETURNING"},
		UpdateClauses: []string{"UPDATE", "SET", "FROM", "WHERE", "RETURNING"},
		DeleteClauses: []string{"DELETE", "FROM", "WHERE", "RETURNING"},
		// The driver names the id of the last of several rows.
		LastInsertIDReversed: true,
	})
	db.ClauseBuilders["LIMIT"] = limit
	return nil
}

// limit writes numbers where gorm would write parameters, so that the planner
// sees them, and a LIMIT before an OFFSET, which SQLite does not know alone.
func limit(c clause.Clause, b clause.Builder) {
	l, ok := c.Expression.(clause.Limit)
	if !ok {
		c.Build(b)
		return
	}
	most := -1 // no limit
	if l.Limit != nil && *l.Limit >= 0 {
		most = *l.Limit
	}
	write := func(s string) { _, _ = b.WriteString(s) } // a builder of text never fails
	if most >= 0 || l.Offset > 0 {
		write("LIMIT " + strconv.Itoa(most))
	}
	if l.Offset > 0 {
		write(" OFFSET " + strconv.Itoa(l.Offset))
	}
}

// BindVarTo writes the place of a parameter.
func (dialector) BindVarTo(w clause.Writer, _ *gorm.Statement, _ any) { _ = w.WriteByte('?') }

// QuoteTo writes a name, or several with dots between. SQLite takes a name in
// double quotes that it does not find for a text, and one in backticks for an
// error.
func (dialector) QuoteTo(w clause.Writer, name string) {
	quoted := strings.ReplaceAll(strings.ReplaceAll(name, "`", "``"), ".", "`.`")
	_, _ = w.WriteString("`" + quoted + "`")
}

// DefaultValueOf stands for a value that one row of several leaves to the
// database. SQLite can do that for ids only: for anything else the statement is
// refused, because it has no DEFAULT among values.
func (dialector) DefaultValueOf(f *schema.Field) clause.Expression {
	if f.AutoIncrement {
		return clause.Expr{SQL: "NULL"}
	}
	return clause.Expr{SQL: "DEFAULT"}
}

// Explain shows a statement with its values, for a log that may have them.
func (dialector) Explain(sql string, vars ...any) string {
	return logger.ExplainSQL(sql, nil, `'`, vars...)
}

// Migrator is for gorm's migrations, which are not used.
func (dialector) Migrator(*gorm.DB) gorm.Migrator {
	panic("gormsqlite: there is no migrator; tables are made by the package migrations")
}

// DataTypeOf is for gorm's migrations too.
func (dialector) DataTypeOf(*schema.Field) string { return "" }
