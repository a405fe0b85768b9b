//go:build nextschema

package migrations

import (
	"embed"
	"io/fs"
	"path"
	"testing/fstest"
)

// A build with this tag stands for the next version: tests run it beside this
// one, on one database.

//go:embed next
var nextFiles embed.FS

// add adds the files of that version to those of a folder.
func add(name string, files fs.FS) fs.FS {
	all := fstest.MapFS{}
	for _, from := range []fs.FS{files, must(fs.Sub(nextFiles, path.Join("next", name)))} {
		for _, f := range must(fs.ReadDir(from, ".")) {
			all[f.Name()] = &fstest.MapFile{Data: must(fs.ReadFile(from, f.Name()))}
		}
	}
	return all
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // the files are embedded
	}
	return v
}
