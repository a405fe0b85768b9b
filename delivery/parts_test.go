package delivery_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPartsStaySmall: what grows beyond this is two parts.
func TestPartsStaySmall(t *testing.T) {
	t.Parallel()
	const (
		mostOfType      = 25
		mostOfInterface = 6 // of its own: what it embeds is counted there
	)
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	methods := map[string]int{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv != nil {
					methods[receiver(n.Recv.List[0].Type)]++
				}
			case *ast.TypeSpec:
				if i, ok := n.Type.(*ast.InterfaceType); ok {
					require.LessOrEqual(t, own(i), mostOfInterface, n.Name.Name)
				}
			}
			return true
		})
	}
	require.Contains(t, methods, "Engine")
	for name, count := range methods {
		require.LessOrEqual(t, count, mostOfType, name)
	}
}

// receiver is the name of a method's type.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	}
	return lastName(e)
}

// own counts the methods that an interface does not embed.
func own(i *ast.InterfaceType) (n int) {
	for _, m := range i.Methods.List {
		n += len(m.Names)
	}
	return n
}
