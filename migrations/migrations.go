// Package migrations holds the database schema as numbered SQL files, one
// folder per database with equal numbers. Files are only ever added: what has
// been released is never edited.
package migrations

import (
	"embed"
	"io/fs"
)

//go:embed sqlite/*.sql postgres/*.sql
var files embed.FS

// SQLite is the schema for SQLite.
func SQLite() fs.FS { return folder("sqlite") }

// Postgres is the schema for PostgreSQL.
func Postgres() fs.FS { return folder("postgres") }

func folder(name string) fs.FS {
	sub, err := fs.Sub(files, name)
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return add(name, sub)
}
