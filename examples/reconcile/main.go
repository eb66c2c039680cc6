// Program reconcile wires the loop up as a host would: manifests from a
// directory, a target, a gate. It shows the plan, applies it, corrects what
// somebody changed by hand, and prunes what is no longer declared.
package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/manifest"
	"github.com/evenkeel-go/evenkeel/reconcile/memory"
)

//go:embed manifests
var manifests embed.FS

// directory is a Source: all YAML files of a directory but one.
type directory struct{ revision, without string }

func (d *directory) Fetch(context.Context) (*reconcile.State, error) {
	var all []reconcile.Resource
	files, err := fs.Glob(manifests, "manifests/*.yaml")
	for _, path := range files {
		if path == d.without {
			continue
		}
		data, readErr := manifests.ReadFile(path)
		resources, decodeErr := manifest.Decode(path, data)
		err = errors.Join(err, readErr, decodeErr)
		all = append(all, resources...)
	}
	if err != nil {
		return nil, err
	}
	return reconcile.NewState(d.revision, all)
}

// fixedTags is a Gate: it denies images whose tag moves.
type fixedTags func(image string) bool

func (moves fixedTags) Review(_ context.Context, p *reconcile.Plan) (reconcile.Verdict, error) {
	v := reconcile.Verdict{Gate: "fixed-tags"}
	for c := range p.Changes() {
		want, _ := p.Desired(c.Key)
		spec, _ := want.Object["spec"].(map[string]any)
		if image, _ := spec["image"].(string); moves(image) {
			v.Objections = append(v.Objections, reconcile.Objection{Decision: reconcile.Deny, Key: c.Key,
				Path: "spec.image", Origin: want.Locate("spec.image"), Message: image + " is another image tomorrow"})
		}
	}
	return v, nil
}

func run(ctx context.Context) error {
	source, target := &directory{revision: "v1"}, &memory.Target{}
	latest := fixedTags(func(image string) bool { return strings.HasSuffix(image, ":latest") })
	r, err := reconcile.New(reconcile.Options{Source: source, Actuator: target, Gates: []reconcile.Gate{latest}})
	if err != nil {
		return err
	}
	plan, err := r.Plan(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("First the plan, then exactly that plan:\n%s", plan)
	_, err = r.Apply(ctx, plan)

	cart := reconcile.Key{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "cart"}
	err = errors.Join(err, target.Edit(cart, func(o map[string]any) map[string]any {
		o["spec"].(map[string]any)["replicas"] = int64(9)
		return o
	}))
	plan, syncErr := r.Sync(ctx)
	fmt.Printf("\nSomebody scaled the cart by hand; the next round scales it back:\n%s", plan)

	source.revision, source.without = "v2", "manifests/extras.yaml"
	pruned, pruneErr := r.Sync(ctx)
	fmt.Printf("\nGit dropped a file; what only it declared is pruned:\n%s\nWhat runs now: %v\n", pruned, target.Keys())
	return errors.Join(err, syncErr, pruneErr)
}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
