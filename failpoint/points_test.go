package failpoint_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/failpoint"
)

// TestTableIsTheSource: every point of the table is hit at one place of the
// program, every place names a point of the table, and the same with times.
func TestTableIsTheSource(t *testing.T) {
	t.Parallel()
	hits, times := map[string]int{}, map[string]int{}
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != ".." && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"failpoint", "node_modules", "tools"}, d.Name())):
			return fs.SkipDir
		case !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err == nil {
			ast.Inspect(file, func(n ast.Node) bool {
				collect(t, n, hits, times)
				return true
			})
		}
		return err
	})
	require.NoError(t, err)
	for _, name := range failpoint.Names() {
		require.Equal(t, 1, hits[name], "how often the source has Hit(%q); one name is one place", name)
		delete(hits, name)
	}
	require.Empty(t, hits, "points that the table does not have")
	for _, name := range failpoint.Times() {
		require.Equal(t, 1, times[name], "how often the source has Duration(%q)", name)
		delete(times, name)
	}
	require.Empty(t, times, "times that the list does not have")
}

func collect(t *testing.T, n ast.Node, hits, times map[string]int) {
	t.Helper()
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return
	}
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return
	}
	from, ok := f.X.(*ast.Ident)
	if !ok || from.Name != "failpoint" || f.Sel.Name != "Hit" && f.Sel.Name != "Duration" {
		return
	}
	text, ok := call.Args[0].(*ast.BasicLit)
	require.True(t, ok, "the name of a fail point is written out where it stands")
	name, err := strconv.Unquote(text.Value)
	require.NoError(t, err)
	if f.Sel.Name == "Hit" {
		hits[name]++
	} else {
		times[name]++
	}
}

func TestPointsAreExplained(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, p := range failpoint.Points() {
		require.Regexp(t, `^[a-z]+\.[a-z]+$`, p.Name)
		require.NotEmpty(t, p.Means, p.Name)
		require.False(t, seen[p.Name], p.Name)
		seen[p.Name] = true
	}
}
