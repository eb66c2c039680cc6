package hygiene

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// layer is one line of the table: a package, what it may import of this
// module, and which other modules it may use directly. The small shared parts
// in internal/ are open to all.
type layer struct {
	pkg     string
	imports []string
	modules []string
}

const (
	gonum      = "gonum.org/v1/gonum"
	prometheus = "github.com/prometheus"
	goGit      = "github.com/go-git"
	yaml       = "go.yaml.in/yaml/v4"
	xsync      = "golang.org/x/sync"
	xcrypto    = "golang.org/x/crypto"
	openpgp    = "github.com/ProtonMail/go-crypto"
)

// layers is the table of packages in the design. Packages that it names and
// that are not there yet are no fault.
func layers() []layer {
	return []layer{
		{"", nil, nil},
		{"remediate", []string{"anomaly", "anomaly/rootcause", "reconcile", "forecast"}, nil},
		{"remediate/console", []string{"remediate", "reconcile", "anomaly", "forecast"}, nil},
		{"security", []string{"reconcile"}, nil},
		{"security/vuln", []string{"security"}, nil},
		{"security/secrets", []string{"security"}, nil},
		{"security/activity", []string{"security", "anomaly"}, nil},
		{"security/signing", []string{"security"}, []string{xcrypto, openpgp}},
		{"reconcile/rollout", []string{"reconcile", "anomaly"}, nil},
		{"reconcile/risk", []string{"reconcile"}, nil},
		{"anomaly/evaluate", []string{"anomaly"}, []string{gonum}},
		{"anomaly/rootcause", []string{"anomaly", "forecast"}, []string{gonum}},
		{"anomaly", []string{"forecast"}, []string{gonum}},
		{"forecast/scaling", []string{"forecast"}, []string{gonum}},
		{"forecast/prometheus", []string{"forecast"}, []string{prometheus}},
		{"forecast", nil, []string{gonum}},
		{"reconcile/gitsource", []string{"reconcile", "reconcile/manifest"}, []string{goGit, xsync}},
		{"reconcile/files", []string{"reconcile", "reconcile/manifest"}, nil},
		{"reconcile/manifest", []string{"reconcile"}, []string{yaml}},
		{"reconcile/memory", []string{"reconcile"}, nil},
		{"reconcile/rest", []string{"reconcile"}, nil},
		{"reconcile/reconciletest", []string{"reconcile"}, nil},
		{"reconcile", nil, []string{xsync}},
	}
}

// shared tells the small parts in internal/ that every package may import and
// that import nothing of the module but one another.
func shared(rel string) bool { return under(rel, "internal") && !program(rel) }

func TestLayersHaveNoCycle(t *testing.T) {
	imports := map[string][]string{}
	for _, l := range layers() {
		if _, twice := imports[l.pkg]; twice {
			t.Errorf("%s is in the table twice", l.pkg)
		}
		imports[l.pkg] = l.imports
	}
	done := map[string]bool{}
	var visit func(p string, way []string)
	visit = func(p string, way []string) {
		if slices.Contains(way, p) {
			t.Fatalf("the table has a cycle: %s", strings.Join(append(way, p), " -> "))
		}
		if done[p] {
			return
		}
		for _, q := range imports[p] {
			if _, known := imports[q]; !known {
				t.Errorf("%s may import %s, which is not in the table", p, q)
			}
			visit(q, append(slices.Clone(way), p))
		}
		done[p] = true
	}
	for _, l := range layers() {
		visit(l.pkg, nil)
	}
}

func importsFollowTheLayers(t *testing.T, r repo) {
	table := map[string]layer{}
	for _, l := range layers() {
		table[l.pkg] = l
	}
	for _, p := range r.own {
		rel := p.rel()
		l, known := table[rel]
		if !known && !shared(rel) && !program(rel) {
			t.Errorf("package %s is not in the table of layers: add it to the design and here", rel)
			continue
		}
		if program(rel) {
			continue
		}
		for _, i := range p.Imports {
			first, _, _ := strings.Cut(i, "/")
			switch target, own := strings.CutPrefix(i, module+"/"); {
			case own && shared(target):
			case own:
				if !slices.Contains(l.imports, target) {
					t.Errorf("%s imports %s; it may import only %v", rel, target, l.imports)
				}
			case i == module:
				t.Errorf("%s imports the root package, which is documentation", rel)
			case strings.Contains(first, "."):
				if !slices.ContainsFunc(l.modules, func(m string) bool { return under(i, m) }) {
					t.Errorf("%s imports %s; of other modules it may use only %v", rel, i, l.modules)
				}
			}
		}
	}
}

// dependenciesStayApart holds what a host links that takes some packages only.
func dependenciesStayApart(t *testing.T, r repo) {
	kubernetes := []string{"k8s.io", "sigs.k8s.io"}
	for _, tt := range []struct {
		dir       string
		below     bool // with the packages below it
		forbidden []string
	}{
		{"forecast", false, []string{goGit, module + "/reconcile", "net/http"}},
		{"anomaly", false, []string{goGit, module + "/reconcile", "net/http"}},
		{"reconcile", false, []string{gonum, goGit, yaml, module + "/forecast", "net/http"}},
		{"reconcile", true, []string{gonum}},
		{"", true, kubernetes},
	} {
		for _, p := range r.own {
			if p.rel() != tt.dir && !(tt.below && (tt.dir == "" || under(p.rel(), tt.dir))) {
				continue
			}
			for _, d := range p.Deps {
				if slices.ContainsFunc(tt.forbidden, func(f string) bool { return under(d, f) }) {
					t.Errorf("%s links %s", p.ImportPath, d)
				}
			}
		}
	}
}

// fewModules holds how many other modules a host takes on that uses all
// libraries of this one.
func fewModules(t *testing.T, r repo) {
	const most = 25
	for _, dir := range []string{"reconcile", ""} {
		modules := map[string]bool{}
		for _, p := range r.own {
			if !library(p.rel()) || dir != "" && !under(p.rel(), dir) {
				continue
			}
			for _, d := range p.Deps {
				if m := r.deps[d].Module; m != nil && !m.Main {
					modules[m.Path] = true
				}
			}
		}
		names := slices.Sorted(maps.Keys(modules))
		t.Logf("the libraries of %q link %d other modules", dir, len(names))
		if len(names) > most {
			t.Errorf("the libraries of %q link %d other modules, more than %d: %v", dir, len(names), most, names)
		}
	}
}
