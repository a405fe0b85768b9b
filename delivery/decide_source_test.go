package delivery_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// mayDecide lists what may make a Transition beside delivery/decide*.go: paths
// from the root of the module that begin with an entry.
var mayDecide = []string{
	"store/storetest/", // the contract of the databases plays the engine
}

// TestOnlyDecisionsMakeTransitions: what becomes of a delivery is decided in one
// place, so no other source makes a Transition or changes one.
func TestOnlyDecisionsMakeTransitions(t *testing.T) {
	t.Parallel()
	const root = ".."
	makers := deciders(t)
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			hidden := name != root && (strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_"))
			if hidden || slices.Contains([]string{"testdata", "node_modules", "bin"}, d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		rel, err := filepath.Rel(root, name)
		rel = filepath.ToSlash(rel)
		decides := path.Dir(rel) == "delivery" && strings.HasPrefix(path.Base(rel), "decide")
		allowed := slices.ContainsFunc(mayDecide, func(p string) bool { return strings.HasPrefix(rel, p) })
		if err != nil || !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") || decides || allowed {
			return err
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, where := range decisions(file, makers) {
			t.Errorf("%s decides what becomes of a delivery; let a function of delivery/decide*.go do it", files.Position(where))
		}
		return nil
	})
	require.NoError(t, err)
}

// TestDecisionsAreFound shows what the test above sees.
func TestDecisionsAreFound(t *testing.T) {
	t.Parallel()
	makers := deciders(t)
	for body, found := range map[string]int{
		`_ = Transition{State: Dead}`:                           1,
		`_ = delivery.Transition{State: 6}`:                     1,
		`_ = &delivery.Transition{State: 6}`:                    1,
		`_ = []delivery.Transition{{State: 6}, {}}`:             1,
		`_ = map[int]*Transition{1: {State: 6}}`:                1,
		`f(Finish{Transition: delivery.Transition{Spent: 1}})`:  1,
		`f.Transition.State = 6`:                                1,
		`x.f.Transition.Spent++`:                                1,
		`n := f.Transition; n.State, n.DueAt = 1, at`:           2,
		`n := &res.Written; n.State = 1`:                        1,
		`r, n := &f.Row, f.Transition; r.State, n.State = 1, 1`: 1,
		`var n delivery.Transition; n.Spent += 1`:               1,
		`n.State = 1; arg.State = 1`:                            1,
		`n, err := delivery.Amend(a, b); n.State = 1`:           1,

		`return Transition{}, delivery.Transition{}`:     0,
		`f.Transition = delivery.Amend(f.Transition, g)`: 0,
		`row.State = delivery.Sending`:                   0,
		`n := f.Row; n.State = 1`:                        0,
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "x.go",
			"package x\nfunc f(arg delivery.Transition) { "+body+" }", parser.SkipObjectResolution)
		require.NoError(t, err, body)
		require.Len(t, decisions(file, makers), found, body)
	}
}

// deciders lists the functions of decide*.go whose first result is a Transition.
func deciders(t *testing.T) (makers []string) {
	t.Helper()
	names, err := filepath.Glob("decide*.go")
	require.NoError(t, err)
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if ok && f.Recv == nil && f.Type.Results != nil && isTransition(f.Type.Results.List[0].Type) {
				makers = append(makers, f.Name.Name)
			}
		}
	}
	require.Contains(t, makers, "Next")
	return makers
}

// decisions lists where a file makes a Transition with fields, or changes one, as
// far as its syntax tells.
func decisions(file *ast.File, makers []string) (found []token.Pos) {
	for _, d := range file.Decls {
		names := map[string]bool{} // of values in this function that are Transitions
		ast.Inspect(d, func(n ast.Node) bool { nameTransitions(names, makers, n); return true })
		ast.Inspect(d, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				found = append(found, literals(n)...)
			case *ast.AssignStmt:
				for _, to := range n.Lhs {
					if changes(names, to) {
						found = append(found, to.Pos())
					}
				}
			case *ast.IncDecStmt:
				if changes(names, n.X) {
					found = append(found, n.Pos())
				}
			}
			return true
		})
	}
	return found
}

// nameTransitions notes the names that a node gives to Transitions.
func nameTransitions(names map[string]bool, makers []string, n ast.Node) {
	switch n := n.(type) {
	case *ast.Field: // a parameter or a result
		for _, name := range n.Names {
			names[name.Name] = names[name.Name] || isTransition(n.Type)
		}
	case *ast.ValueSpec:
		for _, name := range n.Names {
			names[name.Name] = names[name.Name] || isTransition(n.Type)
		}
	case *ast.AssignStmt:
		for i, to := range n.Lhs {
			name, ok := to.(*ast.Ident)
			if !ok {
				continue
			}
			from := n.Rhs[min(i, len(n.Rhs)-1)]
			if call, ok := from.(*ast.CallExpr); ok && i == 0 {
				names[name.Name] = names[name.Name] || slices.Contains(makers, lastName(call.Fun))
			} else if len(n.Rhs) == len(n.Lhs) {
				names[name.Name] = names[name.Name] || holdsTransition(from)
			}
		}
	}
}

func literals(c *ast.CompositeLit) (found []token.Pos) {
	if isTransition(c.Type) && len(c.Elts) > 0 {
		return []token.Pos{c.Pos()}
	}
	var of ast.Expr
	switch t := c.Type.(type) {
	case *ast.ArrayType:
		of = t.Elt
	case *ast.MapType:
		of = t.Value
	}
	if !isTransition(of) {
		return nil
	}
	for _, e := range c.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			e = kv.Value
		}
		if lit, ok := e.(*ast.CompositeLit); ok && lit.Type == nil && len(lit.Elts) > 0 {
			found = append(found, lit.Pos())
		}
	}
	return found
}

// changes tells whether an expression is a field of a Transition.
func changes(names map[string]bool, to ast.Expr) bool {
	field, ok := to.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	if name, ok := field.X.(*ast.Ident); ok {
		return names[name.Name]
	}
	return holdsTransition(field.X)
}

func holdsTransition(e ast.Expr) bool {
	if u, ok := e.(*ast.UnaryExpr); ok {
		e = u.X
	}
	if lit, ok := e.(*ast.CompositeLit); ok {
		return isTransition(lit.Type)
	}
	s, ok := e.(*ast.SelectorExpr)
	return ok && (s.Sel.Name == "Transition" || s.Sel.Name == "Written")
}

func isTransition(t ast.Expr) bool {
	if p, ok := t.(*ast.StarExpr); ok {
		t = p.X
	}
	return t != nil && lastName(t) == "Transition"
}

func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return fmt.Sprintf("%T", e)
}
