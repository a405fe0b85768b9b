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

	"github.com/carillonhq/carillon/jobs"
)

// These tests hold the lists of CONTRIBUTING.md to the code, as far as no test of
// the package that is concerned does.

// walk calls visit with every file of the repository whose name ends so, by its
// path from the root.
func walk(t *testing.T, suffix string, visit func(path string)) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && slices.Contains([]string{".git", "node_modules", "bin"}, d.Name()) {
			return fs.SkipDir
		}
		if err == nil && !d.IsDir() && strings.HasSuffix(name, suffix) {
			rel, _ := filepath.Rel(root, name)
			visit(filepath.ToSlash(rel))
		}
		return err
	}))
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return string(b)
}

// TestNamedFilesAndTestsExist: `message.go` is the name of a file somewhere, and
// `TestContract` that of a test. Paths with folders are TestPathsExist's.
func TestNamedFilesAndTestsExist(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	test := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	walk(t, "", func(path string) {
		known[filepath.Base(path)] = true
		if strings.HasSuffix(path, "_test.go") {
			for _, m := range test.FindAllStringSubmatch(read(t, path), -1) {
				known[m[1]] = true
			}
		}
	})
	named := regexp.MustCompile(`^(\w+\.(go|sql|js|yml)|Test[A-Z]\w*)$`)
	for _, p := range pages(t) {
		for _, code := range p.code {
			if named.MatchString(code) && !known[code] {
				t.Errorf("%s names %s, which does not exist", p.path, code)
			}
		}
	}
}

// TestMigrationsAreInPairs: both databases have the same schema, so a migration is
// two files of one name.
func TestMigrationsAreInPairs(t *testing.T) {
	t.Parallel()
	names := map[string][]string{}
	walk(t, ".sql", func(path string) {
		folder, name := filepath.Split(path)
		names[folder] = append(names[folder], name)
	})
	require.NotEmpty(t, names["migrations/sqlite/"])
	require.Equal(t, names["migrations/sqlite/"], names["migrations/postgres/"])
	for i, name := range names["migrations/sqlite/"] {
		require.Regexp(t, `^\d{5}_\w+\.sql$`, name)
		if i > 0 {
			require.Greater(t, name[:5], names["migrations/sqlite/"][i-1][:5], "two migrations have one number")
		}
	}
}

// TestJobKindsAreExplainedAndHandled: a kind that nobody takes the steps of would
// wait for ever.
func TestJobKindsAreExplainedAndHandled(t *testing.T) {
	t.Parallel()
	page := firstCells(t, filepath.Join("operations", "jobs.md"))
	for _, k := range jobs.Kinds() {
		require.Contains(t, page, k.String(), "docs/operations/jobs.md says of every kind what it does")
	}
	for _, s := range jobs.States() {
		require.Contains(t, page, s.String())
	}
	kind := regexp.MustCompile(`(?m)^\t([A-Z]\w+) +Kind = \d+$`).FindAllStringSubmatch(read(t, "jobs/jobs.go"), -1)
	require.Len(t, kind, len(jobs.Kinds()))
	handled := ""
	walk(t, ".go", func(path string) {
		if !strings.HasSuffix(path, "_test.go") {
			handled += strings.Join(regexp.MustCompile(`\.Handle\(jobs\.\w+,`).FindAllString(read(t, path), -1), "\n")
		}
	})
	for _, m := range kind {
		require.Contains(t, handled, ".Handle(jobs."+m[1]+",", "somebody takes the steps of every kind")
	}
}

// TestSettingsExist: `limits.queue` is a setting of the reference, which a test of
// cmd/carillon holds to the code. `retention.sent_ms` is a tenant's.
func TestSettingsExist(t *testing.T) {
	t.Parallel()
	known, sections := map[string]bool{}, map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_.]+)`<br>").FindAllStringSubmatch(read(t, "docs/configuration.md"), -1) {
		known[m[1]] = true
		section, _, _ := strings.Cut(m[1], ".")
		sections[section] = true
	}
	require.NotEmpty(t, known)
	form := regexp.MustCompile(`^([a-z_]+)\.[a-z_.]+$`)
	for _, p := range pages(t) {
		for _, code := range p.code {
			m := form.FindStringSubmatch(code)
			elsewhere := strings.HasSuffix(code, "_ms") || strings.HasSuffix(code, ".go")
			if m != nil && sections[m[1]] && !known[code] && !elsewhere {
				t.Errorf("%s names %s, which is no setting", p.path, code)
			}
		}
	}
}

// TestImplementedInterfacesExist: a comment "Claim implements delivery.ClaimStore."
// names the interface that has the method.
func TestImplementedInterfacesExist(t *testing.T) {
	t.Parallel()
	known := symbols(t)
	form := regexp.MustCompile(`(?m)^// (\w+) implements (\w+)\.(\w+)\b`)
	walk(t, ".go", func(path string) {
		for _, m := range form.FindAllStringSubmatch(read(t, path), -1) {
			if pkg := known[m[2]]; pkg != nil && !pkg[m[3]+"."+m[1]] {
				t.Errorf("%s says that %s implements %s.%s, which does not have it", path, m[1], m[2], m[3])
			}
		}
	})
}
