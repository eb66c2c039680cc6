package hygiene

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/evenkeel-go/evenkeel"

// root is the module's directory, as tests run in their package's own.
const root = "../.."

// pkg is what `go list -json` tells of a package.
type pkg struct {
	ImportPath, Name                   string
	Imports, Deps                      []string
	GoFiles, TestGoFiles, XTestGoFiles []string
	Module                             *struct {
		Path string
		Main bool
	}
}

// rel is the path within the module: "" for the root package.
func (p pkg) rel() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

// program tells packages that are run rather than imported, and may reach the
// clock, the terminal and every other package.
func program(rel string) bool {
	return under(rel, "examples") || under(rel, "internal/bench") || under(rel, "internal/localplatform")
}

// library tells packages that hosts import.
func library(rel string) bool {
	return rel != "" && !under(rel, "examples") && !under(rel, "internal")
}

func under(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func goTool(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out.Bytes()
}

// repo is what the rules look at: the module's own packages, nested modules
// left out, and all that they link.
type repo struct {
	own  []pkg
	deps map[string]pkg
}

func load(t *testing.T) repo {
	t.Helper()
	// Reading the directories makes a new file or package count for the cache
	// of test results, which does not see what the go tool reads.
	err := filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	r := repo{deps: map[string]pkg{}}
	dec := json.NewDecoder(bytes.NewReader(goTool(t, "list", "-e", "-deps",
		"-json=ImportPath,Name,Imports,Deps,GoFiles,TestGoFiles,XTestGoFiles,Module", "./...")))
	for {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		r.deps[p.ImportPath] = p
		if p.Module != nil && p.Module.Main {
			r.own = append(r.own, p)
		}
	}
	if len(r.own) == 0 {
		t.Fatal("go list gives no packages")
	}
	return r
}

// TestRules runs all rules on one reading of the repository.
func TestRules(t *testing.T) {
	r := load(t)
	for _, rule := range []struct {
		name string
		hold func(t *testing.T, r repo)
	}{
		{"imports follow the layers", importsFollowTheLayers},
		{"dependencies stay apart", dependenciesStayApart},
		{"few modules are linked", fewModules},
		{"packages have docs", packageDocs},
		{"packages have examples", packageExamples},
		{"time and chance are injected", timeAndChanceAreInjected},
		{"libraries are quiet", librariesAreQuiet},
		{"packages have no state", noPackageState},
	} {
		t.Run(rule.name, func(t *testing.T) { rule.hold(t, r) })
	}
}

// file is one parsed Go file.
type file struct {
	*ast.File
	fset *token.FileSet
	name string // relative to the module's directory
}

func (f file) at(n ast.Node) string {
	p := f.fset.Position(n.Pos())
	p.Filename = f.name
	return p.String()
}

// uses reports each use of a name of an imported package.
func (f file) uses(importPath string, report func(n ast.Node, name string)) {
	local := ""
	for _, i := range f.Imports {
		if strings.Trim(i.Path.Value, `"`) != importPath {
			continue
		}
		dir := strings.TrimSuffix(importPath, "/v2")
		local = dir[strings.LastIndexByte(dir, '/')+1:]
		if i.Name != nil {
			local = i.Name.Name
		}
	}
	if local == "" {
		return
	}
	ast.Inspect(f.File, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == local {
			report(sel, sel.Sel.Name)
		}
		return true
	})
}

// parse reads files of a package.
func parse(t *testing.T, p pkg, names ...[]string) []file {
	t.Helper()
	var fs []file
	for _, list := range names {
		for _, name := range list {
			path := filepath.Join(root, filepath.FromSlash(p.rel()), name)
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			fset := token.NewFileSet()
			af, err := parser.ParseFile(fset, path, src, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			fs = append(fs, file{af, fset, strings.TrimPrefix(p.rel()+"/"+name, "/")})
		}
	}
	return fs
}
