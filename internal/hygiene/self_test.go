package hygiene

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
)

func source(t *testing.T, text string) file {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "x.go", text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return file{f, fset, "x.go"}
}

// TestConstant holds that the rule on variables tells state from constants.
func TestConstant(t *testing.T) {
	for text, want := range map[string]bool{
		`var ErrX = errors.New("x")`:                  true,
		`var errX, errY = errors.New("x"), f.New()`:   true,
		`var ErrX = fmt.Errorf("x: %w", errY)`:        true,
		`var _ I = T{}`:                               true,
		"//go:embed x\nvar data []byte":               true,
		"// table is read-only.\nvar table = []int{}": true,
		`var ErrX error`:                              false,
		`var ErrX = make()`:                           false,
		`var X = errors.New("x")`:                     false,
		`var table = []int{1}`:                        false,
		`var mu sync.Mutex`:                           false,
		"// a table\nvar table = map[string]int{}":    false,
	} {
		f := source(t, "package x\n"+text)
		d := f.Decls[0].(*ast.GenDecl)
		if got := constant(d, d.Specs[0].(*ast.ValueSpec)); got != want {
			t.Errorf("%s: got %v", text, got)
		}
	}
}

// TestUses holds that names of imported packages are found under any local
// name, and no others.
func TestUses(t *testing.T) {
	for text, want := range map[string]string{
		`import "time"; var x = time.Now()`:             "Now",
		`import clock "time"; var x = clock.Now()`:      "Now",
		`import "math/rand/v2"; var x = rand.N(3)`:      "N",
		`import "example.org/time"; var x = time.Now()`: "",
		`var x = time.Now()`:                            "",
	} {
		var got []string
		for _, path := range []string{"time", "math/rand/v2"} {
			source(t, "package x\n"+text).uses(path, func(_ ast.Node, name string) { got = append(got, name) })
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %v", text, got)
		}
	}
}
