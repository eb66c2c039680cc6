package hygiene

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// packageDocs holds that every package says what it is for, libraries in
// a doc.go of more than a sentence.
func packageDocs(t *testing.T, r repo) {
	for _, p := range r.own {
		var docs []string
		lines := 0
		for _, f := range parse(t, p, p.GoFiles) {
			if f.Doc != nil {
				docs = append(docs, f.name)
				lines += strings.Count(strings.TrimSpace(f.Doc.Text()), "\n") + 1
			}
		}
		rel := p.rel()
		if len(p.GoFiles) == 0 {
			t.Errorf("%s has only tests; give it a doc.go", rel)
			continue
		}
		least := 2
		if library(rel) || rel == "" {
			least = 8
			if !slices.Contains(docs, strings.TrimPrefix(rel+"/doc.go", "/")) {
				t.Errorf("%s has no package comment in a doc.go", p.ImportPath)
			}
		}
		if len(docs) > 1 {
			t.Errorf("%s has package comments in %v; one place is enough", p.ImportPath, docs)
		}
		if lines < least {
			t.Errorf("%s has a package comment of %d lines; say in at least %d what it is for", p.ImportPath, lines, least)
		}
		if under(rel, "examples") && p.Name != "main" && strings.Count(rel, "/") == 1 {
			t.Errorf("%s is package %s, not a program", rel, p.Name)
		}
	}
}

// packageExamples holds that every library package has an example
// that is run and compared.
func packageExamples(t *testing.T, r repo) {
	for _, p := range r.own {
		if !library(p.rel()) {
			continue
		}
		found := false
		for _, f := range parse(t, p, p.TestGoFiles, p.XTestGoFiles) {
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || !strings.HasPrefix(fn.Name.Name, "Example") {
					continue
				}
				for _, c := range f.Comments {
					text := strings.ToLower(strings.TrimSpace(c.Text()))
					if c.Pos() > fn.Pos() && c.End() < fn.End() && (strings.HasPrefix(text, "output:") || strings.HasPrefix(text, "unordered output:")) {
						found = true
					}
				}
			}
		}
		if !found {
			t.Errorf("%s has no example with an output", p.rel())
		}
	}
}

// timeAndChanceAreInjected holds that libraries take the time from a
// Clock, and chance from a seeded source.
func timeAndChanceAreInjected(t *testing.T, r repo) {
	clocks := []string{"reconcile/actuator.go"}
	// The pauses of writers that compete have to differ from process to
	// process, and change no result.
	jitter := []string{"reconcile/gitsource/lock.go", "reconcile/gitsource/write.go"}
	sources := []string{"New", "NewPCG", "NewChaCha8", "NewSource", "NewZipf", "Rand", "Source", "PCG", "ChaCha8", "Zipf", "Source64"}
	for _, p := range r.own {
		if program(p.rel()) {
			continue
		}
		for _, f := range parse(t, p, p.GoFiles) {
			f.uses("time", func(n ast.Node, name string) {
				if slices.Contains([]string{"Now", "Since", "Until", "Sleep", "Tick"}, name) && !slices.Contains(clocks, f.name) {
					t.Errorf("%s: time.%s; take the time from a Clock", f.at(n), name)
				}
			})
			for _, path := range []string{"math/rand", "math/rand/v2"} {
				f.uses(path, func(n ast.Node, name string) {
					if !slices.Contains(sources, name) && !slices.Contains(jitter, f.name) {
						t.Errorf("%s: rand.%s is not seeded; take a *rand.Rand", f.at(n), name)
					}
				})
			}
		}
	}
}

// librariesAreQuiet holds that libraries neither print nor log nor exit.
func librariesAreQuiet(t *testing.T, r repo) {
	forbidden := map[string][]string{
		"fmt":      {"Print", "Printf", "Println"},
		"os":       {"Stdout", "Stderr", "Exit"},
		"log/slog": {"Default", "Debug", "Info", "Warn", "Error", "Log", "SetDefault"},
	}
	for _, p := range r.own {
		if program(p.rel()) {
			continue
		}
		for _, f := range parse(t, p, p.GoFiles) {
			f.uses("log", func(n ast.Node, name string) {
				t.Errorf("%s: log.%s; a *slog.Logger comes from the host", f.at(n), name)
			})
			for path, names := range forbidden {
				f.uses(path, func(n ast.Node, name string) {
					if slices.Contains(names, name) {
						t.Errorf("%s: %s.%s in a library", f.at(n), path, name)
					}
				})
			}
		}
	}
}

// noPackageState holds that packages have no init functions and no
// variables that can change. A variable may be an error sentinel, an embedded
// file, an assertion that a type has an interface's methods, or a table whose
// comment says that it is read-only.
func noPackageState(t *testing.T, r repo) {
	for _, p := range r.own {
		for _, f := range parse(t, p, p.GoFiles) {
			for _, d := range f.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Recv == nil && d.Name.Name == "init" {
						t.Errorf("%s: an init function", f.at(d))
					}
				case *ast.GenDecl:
					if d.Tok != token.VAR || program(p.rel()) {
						continue
					}
					for _, s := range d.Specs {
						if v := s.(*ast.ValueSpec); !constant(d, v) {
							t.Errorf("%s: the package-level variable %s can change", f.at(v), v.Names[0].Name)
						}
					}
				}
			}
		}
	}
}

func constant(d *ast.GenDecl, v *ast.ValueSpec) bool {
	for _, c := range []*ast.CommentGroup{d.Doc, v.Doc, v.Comment} {
		if c == nil {
			continue
		}
		if strings.Contains(c.Text(), "read-only") {
			return true
		}
		for _, line := range c.List {
			if strings.HasPrefix(line.Text, "//go:embed ") {
				return true
			}
		}
	}
	for i, name := range v.Names {
		if name.Name == "_" {
			continue
		}
		if i >= len(v.Values) || !strings.HasPrefix(strings.ToLower(name.Name), "err") {
			return false
		}
		call, ok := v.Values[i].(*ast.CallExpr)
		if !ok {
			return false
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || sel.Sel.Name != "New" && sel.Sel.Name != "Errorf" {
			return false
		}
	}
	return true
}
