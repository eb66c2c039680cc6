// Command security checks a directory of manifests against the default policy
// set, as a commit hook or a CI job would, and prints what it finds with file,
// line and column:
//
//	go run ./examples/security             # the sample manifests
//	go run ./examples/security -fail DIR   # exits 1 if an enforced policy is broken
package main

import (
	"embed"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/manifest"
	"github.com/evenkeel-go/evenkeel/security"
)

//go:embed manifests
var sample embed.FS

func main() {
	fail := flag.Bool("fail", false, "exit with 1 if an enforced policy is broken")
	flag.Parse()
	files, dir := fs.FS(sample), "the sample"
	if flag.NArg() > 0 {
		files, dir = os.DirFS(flag.Arg(0)), flag.Arg(0)
	}
	broken, err := check(files, os.Stdout)
	if err != nil {
		fmt.Fprintf(os.Stderr, "security: %s: %v\n", dir, err)
		os.Exit(2)
	}
	if broken && *fail {
		os.Exit(1)
	}
}

// check prints the findings on all manifests below a directory and tells
// whether one of them breaks an enforced policy.
func check(files fs.FS, out io.Writer) (broken bool, err error) {
	var resources []reconcile.Resource
	err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, path.Ext(name)) {
			return err
		}
		data, err := fs.ReadFile(files, name)
		if err == nil {
			var decoded []reconcile.Resource
			decoded, err = manifest.Decode(name, data)
			resources = append(resources, decoded...)
		}
		return err
	})
	if err != nil {
		return false, err
	}
	state, err := reconcile.NewState("", resources)
	if err != nil {
		return false, err
	}
	set, err := security.NewSet(security.Config{Exceptions: []security.Exception{{
		Policy:   "pod-host-path",
		Selector: security.Selector{Kinds: []string{"DaemonSet"}, Names: []string{"node-agent"}},
		Path:     "spec.template.spec.volumes[name=log]",
		Owner:    "team-platform", Reason: "reads the nodes' logs",
		Expires: time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC),
	}}})
	if err != nil {
		return false, err
	}
	findings := set.Evaluate(state)
	return slices.ContainsFunc(findings, security.Finding.Enforced), security.WriteTable(out, findings)
}
