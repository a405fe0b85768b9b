//go:build !nextschema

package migrations

import "io/fs"

// add adds nothing: see next.go for a build that does.
func add(_ string, files fs.FS) fs.FS { return files }
