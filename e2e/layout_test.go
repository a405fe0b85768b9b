package e2e_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	root   = ".."
	module = "github.com/carillonhq/carillon"
)

// row says what a package may import of ours, and why that is enough.
type row struct {
	level   int      // a package imports only lower levels
	imports []string // of ours, and no others
	test    bool     // only tests may import it
	why     string
}

// table is the import table of docs/architecture.md. A new package must be added
// here; docs/adr/0005 says how to find its level, and TestTheDocsHaveTheTable where
// the docs name it.
func table() map[string]row {
	base := []string{"problem", "ids"}
	with := func(more ...string) []string { return append(slices.Clone(base), more...) }
	channel := with("channels", "channels/egress")
	return map[string]row{
		"problem":              {level: 0, why: "what a caller may see of a failure; everything else speaks it"},
		"ids":                  {level: 0, why: "every row has one"},
		"text":                 {level: 0, why: "the form of texts and of users' ids is one, wherever they come in"},
		"failpoint":            {level: 0, why: "tests stop the program at a named instant; in a usual build it does nothing"},
		"migrations":           {level: 0, why: "SQL files"},
		"clients/js":           {level: 0, why: "files for browsers"},
		"store/backup/archive": {level: 0, why: "the file of a backup: it belongs to no kind of database and knows no table"},
		"store/gormsqlite":     {level: 0, why: "how gorm writes SQL for SQLite: it knows no table"},

		"channels":        {level: 1, imports: base, why: "the contract of all channels, so it knows none of them"},
		"quota":           {level: 1, imports: base, why: "a bound of what is stored, whatever that is"},
		"jobs":            {level: 1, imports: base, why: "durable background work of whatever kind; whoever has some registers its steps"},
		"webhooks":        {level: 1, imports: with("text"), why: "receivers import it to verify: it must stay small"},
		"channels/egress": {level: 1, imports: []string{"problem"}, why: "outgoing HTTP, whoever sends"},

		"channels/fcm":         {level: 2, imports: channel, why: "a channel knows no other, no tenant and no database"},
		"channels/apns":        {level: 2, imports: channel, why: "as fcm"},
		"channels/webpush":     {level: 2, imports: channel, why: "as fcm"},
		"channels/webhook":     {level: 2, imports: append(slices.Clone(channel), "webhooks"), why: "as fcm; it signs as webhooks says"},
		"channels/channeltest": {level: 2, imports: with("channels"), test: true, why: "the contract that all channels pass"},
		"devices":              {level: 2, imports: with("channels", "text"), why: "a registry of addresses"},
		"devices/lists":        {level: 0, why: "files that others have exported: what a device may be is not its business"},
		"tenants":              {level: 2, imports: with("channels", "text"), why: "a registry of tenants, keys and credentials"},
		"simulator":            {level: 2, imports: with("webhooks"), why: "the providers' side: it may not share the channels' mistakes"},

		"delivery": {level: 3, imports: with("channels", "devices", "failpoint", "jobs", "tenants", "text", "webhooks"),
			why: "the engine: it knows channels by their contract and the database by its own interface"},

		"store/db": {level: 1, imports: with("migrations", "store/gormsqlite"), why: "the kernel: transactions, locks, sealing and nodes; it knows no table of the queue"},
		"store/registers": {level: 4, imports: with("channels", "delivery", "devices", "jobs", "store/db", "tenants", "webhooks"),
			why: "implements the interfaces of the registers; holds are the queue's, which hands them over"},
		"store/queue": {level: 5, imports: with("channels", "delivery", "devices", "failpoint", "jobs", "store/db", "store/registers", "tenants", "webhooks"),
			why: "implements the engine's interfaces; users, jobs and targets are kept by the registers"},
		"store/erasure": {level: 6, imports: with("delivery", "jobs", "store/db", "store/queue", "store/registers", "tenants"),
			why: "reaches into all tables that say something of people"},
		"store/backup": {level: 6, imports: with("channels", "delivery", "store/backup/archive", "store/db", "store/queue", "store/registers"),
			why: "copies all tables, and ends what was under way when the copy was made"},
		"store/doctor": {level: 5, imports: []string{"channels", "delivery", "ids", "problem", "store/db", "store/registers", "tenants"}, why: "looks at everything and changes nothing"},
		"store": {level: 7, imports: with("delivery", "devices", "jobs", "store/backup", "store/db", "store/doctor", "store/erasure", "store/queue",
			"store/registers", "tenants", "webhooks"), why: "opens the database and composes the packages below it; nothing else"},
		"api": {level: 4, imports: with("channels", "clients/js", "delivery", "devices", "devices/lists", "jobs", "quota", "tenants", "webhooks"),
			why: "the only package that knows HTTP as a server; it never sees the database or a concrete channel"},

		"store/storetest": {level: 4, imports: with("channels", "delivery", "devices", "jobs", "tenants", "webhooks"), test: true,
			why: "the contract that every database passes"},

		"store/pgtest": {level: 0, test: true, why: "PostgreSQL for tests: it knows servers and databases, and nothing of what is in them"},

		"cmd/carillon/demo": {level: 3, imports: []string{"clients/js", "simulator"},
			why: "what `carillon demo` shows: it plays the providers, is given a server, and knows that by its API alone"},
		"cmd/carillon/bench": {level: 3, imports: []string{"simulator"},
			why: "what `carillon bench` measures: it plays the providers, and runs the program as others do, by its commands and its API"},
		"cmd/carillon": {level: 8, why: "wires all of it; the only reader of files, flags and the environment"},
		"e2e/firefox":  {level: 8, test: true, why: "remote control of a browser"},
		"e2e/toxic":    {level: 0, test: true, why: "faults of a network, whatever speaks over it"},
	}
}

// wiring may import everything that is not for tests. What lies below it may not:
// the demo and the benchmark are handed what they need.
const wiring = "cmd/carillon"

// owners says which package alone, with the packages inside of it, may import a
// library outside of tests: all paths that begin with the key. "" is none.
func owners() map[string]string {
	return map[string]string{
		"gorm.io/":                           "store",
		"database/sql":                       "store",
		"modernc.org/sqlite":                 "store/db",
		"github.com/pressly/goose/":          "store",
		"github.com/tink-crypto/":            "store/db",
		"github.com/klauspost/compress":      "store/backup/archive",
		"github.com/fxamacker/cbor":          "store/backup/archive",
		"github.com/gin-gonic/":              "api",
		"github.com/danielgtaylor/huma/":     "api",
		"firebase.google.com/go/":            "channels/fcm",
		"github.com/sideshow/apns2":          "channels/apns",
		"github.com/SherClockHolmes/webpush": "channels/webpush",
		"code.dny.dev/ssrf":                  "channels/egress",
		"github.com/knadh/koanf/":            wiring,
		"github.com/spf13/":                  wiring,
		"github.com/standard-webhooks/":      "", // the second opinion on signatures
		"github.com/stretchr/testify/":       "",
		"net/http/httptest":                  "",
		"testing":                            "",
	}
}

// source is a Go file that is no test.
type source struct {
	pkg, path string // both from the root
	file      *ast.File
}

func (s source) imports() []string {
	list := make([]string, len(s.file.Imports))
	for i, spec := range s.file.Imports {
		list[i], _ = strconv.Unquote(spec.Path.Value)
	}
	return list
}

// sources parses every Go file of the module that is no test.
func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			hidden := name != root && (strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_"))
			if hidden || slices.Contains([]string{"testdata", "node_modules", "tools", "bin"}, d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		rel = filepath.ToSlash(rel)
		out = append(out, source{pkg: path.Dir(rel), path: rel, file: file})
		return err
	})
	require.NoError(t, err)
	require.NotEmpty(t, out)
	return out
}

func TestTableIsInOrder(t *testing.T) {
	t.Parallel()
	rows := table()
	for pkg, r := range rows {
		require.NotEmpty(t, r.why, pkg)
		for _, below := range r.imports {
			lower, known := rows[below]
			require.True(t, known, "%s may import %s, which is not in the table", pkg, below)
			require.Less(t, lower.level, r.level, "%s may import %s, which is not below it", pkg, below)
			require.False(t, lower.test, "%s may import %s, which is for tests", pkg, below)
		}
	}
}

// TestTheDocsHaveTheTable: docs/architecture.md says what every package owns, and
// CONTRIBUTING.md lists those of each level that are not for tests.
func TestTheDocsHaveTheTable(t *testing.T) {
	t.Parallel()
	architecture, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	require.NoError(t, err)
	contributing, err := os.ReadFile(filepath.Join(root, "CONTRIBUTING.md"))
	require.NoError(t, err)
	listed := map[string]int{}
	for _, line := range regexp.MustCompile(`(?m)^\| (\d) \| .*$`).FindAllStringSubmatch(string(contributing), -1) {
		for _, span := range regexp.MustCompile("`([a-z/]+)`").FindAllStringSubmatch(line[0], -1) {
			listed[span[1]], err = strconv.Atoi(line[1])
			require.NoError(t, err)
		}
	}
	levels := map[string]int{}
	for pkg, r := range table() {
		require.Contains(t, string(architecture), "`"+pkg+"`", "docs/architecture.md does not say what %s owns", pkg)
		if !r.test {
			levels[pkg] = r.level
		}
	}
	require.Equal(t, levels, listed, "the levels in CONTRIBUTING.md")
}

func TestImportsKeepToTheTable(t *testing.T) {
	t.Parallel()
	rows := table()
	seen := map[string]bool{}
	for _, s := range sources(t) {
		seen[s.pkg] = true
		r, known := rows[s.pkg]
		if !known {
			t.Errorf("%s: package %s is not in the import table; add it with its level and its reason", s.path, s.pkg)
			continue
		}
		for _, imported := range s.imports() {
			ours, ok := strings.CutPrefix(imported, module+"/")
			switch {
			case !ok:
			case rows[ours].test:
				t.Errorf("%s imports %s, which is for tests", s.path, ours)
			case s.pkg != wiring && !slices.Contains(r.imports, ours):
				t.Errorf("%s imports %s; %s may import only %v, because: %s", s.path, ours, s.pkg, r.imports, r.why)
			}
		}
	}
	for pkg := range rows {
		require.True(t, seen[pkg], "the import table has %s, which does not exist", pkg)
	}
}

func TestLibrariesStayWithTheirOwners(t *testing.T) {
	t.Parallel()
	rows, libraries := table(), owners()
	for _, s := range sources(t) {
		for _, imported := range s.imports() {
			for library, owner := range libraries {
				inside := owner != "" && (s.pkg == owner || strings.HasPrefix(s.pkg, owner+"/"))
				if strings.HasPrefix(imported, library) && !inside && !rows[s.pkg].test {
					t.Errorf("%s imports %s, which only %q may", s.path, imported, owner)
				}
			}
		}
	}
}

// TestOnlyTheCommandReadsTheEnvironment: whoever embeds a package decides what
// it is told, and a test need not set variables.
func TestOnlyTheCommandReadsTheEnvironment(t *testing.T) {
	t.Parallel()
	reads := []string{"Getenv", "LookupEnv", "Environ", "ExpandEnv"}
	rows := table()
	for _, s := range sources(t) {
		if s.pkg == wiring || rows[s.pkg].test {
			continue
		}
		for _, spec := range s.file.Imports {
			if spec.Path.Value == `"os"` && spec.Name != nil {
				t.Errorf("%s imports os under another name, which hides what it reads", s.path)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if call, ok := n.(*ast.SelectorExpr); ok {
				if from, ok := call.X.(*ast.Ident); ok && from.Name == "os" && slices.Contains(reads, call.Sel.Name) {
					t.Errorf("%s reads the environment with os.%s; take an option instead", s.path, call.Sel.Name)
				}
			}
			return true
		})
	}
}

func TestNoInitFunctions(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == "init" && f.Recv == nil {
				t.Errorf("%s has an init function: its effects are seen by no caller", s.path)
			}
		}
	}
}

// TestTheImageHasEveryPackage: .dockerignore lists what gets into the image.
func TestTheImageHasEveryPackage(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	require.NoError(t, err)
	listed := strings.Split(string(b), "\n")
	for pkg, r := range table() {
		folder, _, _ := strings.Cut(pkg, "/")
		if !r.test {
			require.Contains(t, listed, "!"+folder, "package %s would be missing in the image", pkg)
		}
	}
}

// TestTheImageShowsItsMetrics: a loopback address within a container is nobody's.
func TestTheImageShowsItsMetrics(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	require.NoError(t, err)
	for _, s := range []string{"CARILLON_LISTEN=:8080", "CARILLON_ADMIN_LISTEN=:8081", "EXPOSE 8080 8081"} {
		require.Contains(t, string(b), s)
	}
}

// TestRaceDetectorIsOn holds continuous integration to what it asks for.
func TestRaceDetectorIsOn(t *testing.T) {
	t.Parallel()
	info, ok := debug.ReadBuildInfo()
	require.True(t, ok)
	race := slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
	if strings.Contains(os.Getenv("CARILLON_REQUIRE"), "race") {
		require.True(t, race, "CARILLON_REQUIRE asks for the race detector; run go test -race")
	}
	t.Logf("race detector: %v", race)
}
