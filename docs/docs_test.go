// Package docs_test holds the documentation to what the code says: what a page
// names must exist.
package docs_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
)

const (
	root   = ".."
	module = "github.com/carillonhq/carillon"
)

// page is a Markdown file: its lines outside of fenced blocks, and its code.
type page struct {
	path  string // from the root
	prose []string
	code  []string // spans in backticks, and the lines of fenced blocks
}

var span = regexp.MustCompile("`([^`]+)`")

// pages reads every Markdown file of the repository that people read.
func pages(t *testing.T) []page {
	t.Helper()
	paths := []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"}
	require.NoError(t, filepath.WalkDir(filepath.Join(root, "docs"), func(name string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(name, ".md") {
			rel, _ := filepath.Rel(root, name)
			paths = append(paths, filepath.ToSlash(rel))
		}
		return err
	}))
	out := make([]page, len(paths))
	for i, path := range paths {
		b, err := os.ReadFile(filepath.Join(root, path))
		require.NoError(t, err)
		out[i].path = path
		fenced := false
		for line := range strings.Lines(string(b)) {
			line = strings.TrimRight(line, "\n")
			switch {
			case strings.HasPrefix(strings.TrimSpace(line), "```"):
				fenced = !fenced
			case fenced:
				out[i].code = append(out[i].code, strings.TrimSpace(line))
			default:
				out[i].prose = append(out[i].prose, line)
				for _, m := range span.FindAllStringSubmatch(line, -1) {
					out[i].code = append(out[i].code, m[1])
				}
			}
		}
		require.False(t, fenced, "%s: a fenced block is not closed", path)
	}
	return out
}

var (
	pathForm  = regexp.MustCompile(`^(\./)?[\w.-]+(/[\w.*-]+)+/?$`)
	routeForm = regexp.MustCompile(`^(?:(GET|PUT|POST|PATCH|DELETE) )?(/v1/[\w{}/-]+)`)
)

// TestPathsExist: a path in backticks is one of the repository, unless it is a
// media type, a range of addresses or somebody else's package.
func TestPathsExist(t *testing.T) {
	t.Parallel()
	modules, err := os.ReadFile(filepath.Join(root, "go.mod"))
	require.NoError(t, err)
	for _, p := range pages(t) {
		for _, code := range p.code {
			if ours, ok := strings.CutPrefix(code, module+"/"); ok {
				code = ours
			}
			first, _, _ := strings.Cut(strings.TrimPrefix(code, "./"), "/")
			switch {
			case !pathForm.MatchString(code):
			case slices.Contains([]string{"application", "text"}, first):
			case strings.ContainsAny(first, ".0123456789") && !strings.HasPrefix(first, "."):
			case strings.Contains(string(modules), "/"+code), isStandard(code):
			default:
				found, err := filepath.Glob(filepath.Join(root, code))
				require.NoError(t, err)
				if beside, _ := filepath.Glob(filepath.Join(root, filepath.Dir(p.path), code)); len(found)+len(beside) == 0 {
					t.Errorf("%s names %s, which does not exist", p.path, code)
				}
			}
		}
	}
}

// isStandard tells whether a path is a package of the standard library.
func isStandard(path string) bool {
	_, err := os.Stat(filepath.Join(build.Default.GOROOT, "src", path))
	return err == nil
}

// document is what the tests read of docs/openapi.json.
type document struct {
	OpenAPI string `json:"openapi"`
	Paths   map[string]map[string]json.RawMessage
}

func openAPI(t *testing.T) document {
	t.Helper()
	b, err := os.ReadFile("openapi.json")
	require.NoError(t, err)
	var d document
	require.NoError(t, json.Unmarshal(b, &d))
	return d
}

func TestOpenAPIIsThere(t *testing.T) {
	t.Parallel()
	d := openAPI(t)
	require.Equal(t, "3.1.0", d.OpenAPI)
	require.NotEmpty(t, d.Paths)
}

// TestRoutesExist: a route in backticks, with or without its method, is one of
// the API's. What stands in the place of a parameter may be anything.
func TestRoutesExist(t *testing.T) {
	t.Parallel()
	parameter := regexp.MustCompile(`\\\{[^}]+\\\}`)
	known := map[*regexp.Regexp]map[string]json.RawMessage{}
	for path, methods := range openAPI(t).Paths {
		known[regexp.MustCompile("^"+parameter.ReplaceAllString(regexp.QuoteMeta(path), "[^/]+")+"$")] = methods
	}
	exists := func(method, path string) bool {
		for form, methods := range known {
			if form.MatchString(path) && (method == "" || methods[strings.ToLower(method)] != nil) {
				return true
			}
		}
		return false
	}
	for _, p := range pages(t) {
		for _, code := range p.code {
			if m := routeForm.FindStringSubmatch(code); m != nil && !exists(m[1], strings.TrimSuffix(m[2], "/")) {
				t.Errorf("%s names %s, which is not a route of the API", p.path, m[0])
			}
		}
	}
}

// symbols are the names of each package of the module by its name: Name, and
// Type.Member for methods and fields.
func symbols(t *testing.T) map[string]map[string]bool {
	t.Helper()
	out := map[string]map[string]bool{}
	for _, pattern := range []string{"*", "*/*", "*/*/*"} {
		files, err := filepath.Glob(filepath.Join(root, pattern, "*.go"))
		require.NoError(t, err)
		for _, name := range files {
			if !strings.HasSuffix(name, "_test.go") {
				pkg, names := declared(t, name)
				if out[pkg] == nil {
					out[pkg] = map[string]bool{}
				}
				maps.Copy(out[pkg], names)
			}
		}
	}
	return out
}

// declared are the names that a Go file declares, and the name of its package.
func declared(t *testing.T, path string) (pkg string, names map[string]bool) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	names = map[string]bool{}
	for _, d := range f.Decls {
		addNames(names, d)
	}
	return f.Name.Name, names
}

func addNames(names map[string]bool, d ast.Decl) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			names[d.Name.Name] = true
			return
		}
		of := d.Recv.List[0].Type
		if star, ok := of.(*ast.StarExpr); ok {
			of = star.X
		}
		if id, ok := of.(*ast.Ident); ok {
			names[id.Name+"."+d.Name.Name] = true
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.ValueSpec:
				for _, n := range s.Names {
					names[n.Name] = true
				}
			case *ast.TypeSpec:
				names[s.Name.Name] = true
				addMembers(names, s)
			}
		}
	}
}

func addMembers(names map[string]bool, s *ast.TypeSpec) {
	var list *ast.FieldList
	switch of := s.Type.(type) {
	case *ast.StructType:
		list = of.Fields
	case *ast.InterfaceType:
		list = of.Methods
	default:
		return
	}
	for _, f := range list.List {
		for _, n := range f.Names {
			names[s.Name.Name+"."+n.Name] = true
		}
	}
}

var symbolForm = regexp.MustCompile(`^(\w+)\.([A-Z]\w*(?:\.[A-Z]\w*)?)(?:\(.*\))?$`)

// TestSymbolsExist: `delivery.Next` is something that package delivery exports.
func TestSymbolsExist(t *testing.T) {
	t.Parallel()
	known := symbols(t)
	for _, p := range pages(t) {
		for _, code := range p.code {
			m := symbolForm.FindStringSubmatch(code)
			if m == nil || known[m[1]] == nil {
				continue
			}
			if !known[m[1]][m[2]] {
				t.Errorf("%s names %s, which package %s does not have", p.path, code, m[1])
			}
		}
	}
}

var makeForm = regexp.MustCompile(`(?:^|&& )make ([a-z]+)`)

func TestMakeTargetsExist(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	for _, p := range pages(t) {
		for _, code := range p.code {
			for _, m := range makeForm.FindAllStringSubmatch(code, -1) {
				if !strings.Contains(string(b), "\n"+m[1]+":") {
					t.Errorf("%s names make %s, which is not a target", p.path, m[1])
				}
			}
		}
	}
}

var (
	link     = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`^#{1,6} +(.*?) *$`)
	notASlug = regexp.MustCompile(`[^\p{L}\p{N}\p{M} _-]`)
)

// anchors are what GitHub makes of a page's headings.
func anchors(t *testing.T, path string) []string {
	t.Helper()
	var out []string
	seen := map[string]int{}
	for _, p := range pages(t) {
		if p.path != path {
			continue
		}
		for _, line := range p.prose {
			m := heading.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			text := link.ReplaceAllStringFunc(m[1], func(s string) string { return s[1:strings.Index(s, "]")] })
			slug := strings.ReplaceAll(notASlug.ReplaceAllString(strings.ToLower(text), ""), " ", "-")
			if n := seen[slug]; n > 0 {
				out = append(out, fmt.Sprintf("%s-%d", slug, n))
			} else {
				out = append(out, slug)
			}
			seen[slug]++
		}
	}
	return out
}

func TestLinksResolve(t *testing.T) {
	t.Parallel()
	for _, p := range pages(t) {
		for _, line := range p.prose {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				u, err := url.Parse(m[1])
				require.NoError(t, err, p.path)
				if u.Scheme != "" {
					continue
				}
				target := p.path
				if u.Path != "" {
					target = filepath.ToSlash(filepath.Join(filepath.Dir(p.path), u.Path))
				}
				_, err = os.Stat(filepath.Join(root, target))
				if err != nil {
					t.Errorf("%s links to %s, which does not exist", p.path, m[1])
				} else if u.Fragment != "" && !slices.Contains(anchors(t, target), u.Fragment) {
					t.Errorf("%s links to %s, which has no such heading", p.path, m[1])
				}
			}
		}
	}
}

// TestEveryPageIsLinked: a page that nothing leads to is not read.
func TestEveryPageIsLinked(t *testing.T) {
	t.Parallel()
	linked := map[string]bool{"README.md": true}
	all := pages(t)
	for _, p := range all {
		for _, line := range p.prose {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				path, _, _ := strings.Cut(m[1], "#")
				linked[filepath.ToSlash(filepath.Join(filepath.Dir(p.path), path))] = true
			}
		}
	}
	for _, p := range all {
		require.True(t, linked[p.path], "no page links to %s", p.path)
	}
}

// code reads a page and returns the first cell of its table rows that is in backticks.
func firstCells(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	var out []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` ").FindAllStringSubmatch(string(b), -1) {
		out = append(out, m[1])
	}
	return out
}

func TestEveryChannelHasItsPage(t *testing.T) {
	t.Parallel()
	var want []string
	for _, k := range channels.Kinds() {
		want = append(want, k.String()+".md")
	}
	entries, err := os.ReadDir("channels")
	require.NoError(t, err)
	var have []string
	for _, e := range entries {
		have = append(have, e.Name())
	}
	require.ElementsMatch(t, want, have)
}

// TestStatesAndReasonsAreExplained: the page has a row for every name that the
// API may show, and for no other.
func TestStatesAndReasonsAreExplained(t *testing.T) {
	t.Parallel()
	var want []string
	for _, s := range delivery.States() {
		want = append(want, s.String())
	}
	for n := 1; n < 256; n++ {
		if name := delivery.Reason(n).String(); !strings.Contains(name, "(") {
			want = append(want, name)
		}
		if name := delivery.SkipReason(n).String(); !strings.Contains(name, "(") {
			want = append(want, name)
		}
		if name := channels.Outcome(n).String(); !strings.Contains(name, "(") {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	require.ElementsMatch(t, slices.Compact(want), compact(firstCells(t, "delivery-states.md")))
}

func compact(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// TestProblemCodesAreExplained reads the codes from their source.
func TestProblemCodesAreExplained(t *testing.T) {
	t.Parallel()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "problem", "problem.go"), nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	var want []string
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if of, ok := spec.Type.(*ast.Ident); ok && of.Name == "Code" {
			want = append(want, strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`))
		}
		return true
	})
	require.NotEmpty(t, want)
	require.ElementsMatch(t, want, firstCells(t, "errors.md"))
}

// TestNothingIsLeftForLater looks for the marks of unfinished work.
func TestNothingIsLeftForLater(t *testing.T) {
	t.Parallel()
	marks := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME)\b`)
	kinds := []string{".go", ".md", ".js", ".css", ".html", ".sql", ".yml", ".mod"}
	require.NoError(t, filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "node_modules", "bin"}, d.Name()):
			return fs.SkipDir
		case d.IsDir() || (!slices.Contains(kinds, filepath.Ext(name)) && d.Name() != "Makefile"):
			return nil
		}
		b, err := os.ReadFile(name)
		if found := marks.Find(b); found != nil {
			t.Errorf("%s still says %s", name, found)
		}
		return err
	}))
}
