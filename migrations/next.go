//go:build nextschema

package migrations

import (
	"embed"
	"errors"
	"io/fs"
)

// A build with this tag stands for the next version: tests run it beside this
// one, on one database.

//go:embed next
var nextFiles embed.FS

// add adds the files of that version to those of a folder.
func add(name string, files fs.FS) fs.FS {
	next, err := fs.Sub(nextFiles, "next/"+name)
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return union{files, next}
}

type union [2]fs.FS

// Open implements fs.FS.
func (u union) Open(name string) (fs.File, error) {
	f, err := u[0].Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return u[1].Open(name)
	}
	return f, err
}

// ReadDir implements fs.ReadDirFS.
func (u union) ReadDir(name string) ([]fs.DirEntry, error) {
	a, errA := fs.ReadDir(u[0], name)
	b, errB := fs.ReadDir(u[1], name)
	return append(a, b...), errors.Join(errA, errB)
}
