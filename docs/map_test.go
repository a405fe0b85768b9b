package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// mapped lists the Go files, but for tests, of the packages that docs/map.md has a
// section for: delivery, and store with all below it but what only tests use.
func mapped(t *testing.T) map[string][]string {
	t.Helper()
	files := map[string][]string{}
	for _, top := range []string{"delivery", "store"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, top), func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && slices.Contains([]string{"storetest", "pgtest", "testdata"}, d.Name()) {
				return fs.SkipDir
			}
			if strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
				folder, _ := filepath.Rel(root, filepath.Dir(name))
				folder = filepath.ToSlash(folder)
				files[folder] = append(files[folder], d.Name())
			}
			return nil
		}))
	}
	return files
}

// TestMapHasEveryFile: the map has a line for every file, and for no other.
func TestMapHasEveryFile(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("map.md")
	require.NoError(t, err)
	section, line := regexp.MustCompile("^## `([a-z/]+)`$"), regexp.MustCompile("^\\| `(\\w+\\.go)` \\| .+ \\|$")
	lines, folder := map[string][]string{}, ""
	for text := range strings.Lines(string(b)) {
		text = strings.TrimSpace(text)
		if m := section.FindStringSubmatch(text); m != nil {
			folder = m[1]
		} else if m := line.FindStringSubmatch(text); m != nil {
			lines[folder] = append(lines[folder], m[1])
		}
	}
	files := mapped(t)
	for folder := range lines {
		require.Contains(t, files, folder, "docs/map.md has a section for what is no package")
	}
	for folder, names := range files {
		for _, name := range names {
			if !slices.Contains(lines[folder], name) {
				t.Errorf("%s/%s is not in docs/map.md: say in a line of its section what it holds", folder, name)
			}
		}
		for i, name := range lines[folder] {
			if !slices.Contains(names, name) || slices.Contains(lines[folder][:i], name) {
				t.Errorf("docs/map.md has %s/%s, which does not exist or has a line already", folder, name)
			}
		}
	}
}

var placeForm = regexp.MustCompile("`(\\w+)\\.([\\w.]+)` in \\[([\\w./]+/[\\w.]+)\\]\\(([^)]+)\\)")

// TestSymbolsAreInTheirFiles: where a page says "`package.Symbol` in [file](link)",
// the file declares it, exported or not.
func TestSymbolsAreInTheirFiles(t *testing.T) {
	t.Parallel()
	found := 0
	for _, p := range pages(t) {
		for _, m := range placeForm.FindAllStringSubmatch(strings.Join(p.prose, "\n"), -1) {
			found++
			pkg, symbol, path := m[1], m[2], m[3]
			require.Equal(t, path, filepath.ToSlash(filepath.Join(filepath.Dir(p.path), m[4])), "%s: the link leads elsewhere", p.path)
			file := filepath.Join(root, path)
			if !strings.HasSuffix(path, ".go") {
				b, err := os.ReadFile(file)
				require.NoError(t, err)
				require.Contains(t, string(b), symbol+"(", "%s: %s", p.path, m[0])
				continue
			}
			name, names := declared(t, file)
			if name != pkg || !names[symbol] {
				t.Errorf("%s says that %s.%s is in %s, which does not declare it", p.path, pkg, symbol, path)
			}
		}
	}
	require.Greater(t, found, 20, "docs/map.md says where things are")
}
