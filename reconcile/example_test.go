package reconcile_test

import (
	"context"
	"fmt"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/memory"
)

// noLatest refuses images without a fixed version.
type noLatest struct{}

func (noLatest) Review(_ context.Context, p *reconcile.Plan) (reconcile.Verdict, error) {
	v := reconcile.Verdict{Gate: "tags"}
	for c := range p.Changes() {
		want, _ := p.Desired(c.Key)
		if spec, _ := want.Object["spec"].(map[string]any); spec["image"] == "shop:latest" {
			v.Objections = append(v.Objections, reconcile.Objection{
				Decision: reconcile.Deny, Key: c.Key, Path: "spec.image", Origin: want.Locate("spec.image"), Message: "the tag moves",
			})
		}
	}
	return v, nil
}

func declare(name, image string, replicas int64) reconcile.Resource {
	object := map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": map[string]any{"namespace": "shop", "name": name},
		"spec":     map[string]any{"image": image, "replicas": replicas},
	}
	key, err := reconcile.KeyOf(object)
	if err != nil {
		panic(err)
	}
	return reconcile.Resource{Key: key, Object: object, Origin: reconcile.Origin{Path: "shop/" + name + ".yaml", Line: 1}}
}

func Example() {
	ctx := context.Background()
	var git memory.Source
	var target memory.Target
	r, err := reconcile.New(reconcile.Options{Source: &git, Actuator: &target, Gates: []reconcile.Gate{noLatest{}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	sync := func(revision string, resources ...reconcile.Resource) {
		state, err := reconcile.NewState(revision, resources)
		if err != nil {
			fmt.Println(err)
			return
		}
		git.Set(state, nil)
		plan, err := r.Sync(ctx)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Print(plan)
	}
	sync("r1", declare("cart", "shop:1.0", 2), declare("pay", "shop:1.0", 1))
	// Somebody scales by hand; and a commit breaks the rule.
	err = target.Edit(declare("cart", "", 0).Key, func(o map[string]any) map[string]any {
		o["spec"].(map[string]any)["replicas"] = int64(9)
		return o
	})
	if err != nil {
		fmt.Println(err)
	}
	sync("r2", declare("cart", "shop:1.0", 2), declare("pay", "shop:latest", 1))
	// Output:
	// plan r1: 2 create, 0 update, 0 delete, 0 unchanged
	//   + Deployment.apps/shop/cart  declared in shop/cart.yaml:1
	//   + Deployment.apps/shop/pay   declared in shop/pay.yaml:1
	// plan r2: 0 create, 1 update, 0 delete, 0 unchanged, 1 held
	//   ~ Deployment.apps/shop/cart  drift: spec.replicas
	//       spec.replicas: 9 -> 2  (shop/cart.yaml:1)
	//   ! Deployment.apps/shop/pay   held by tags: shop/pay.yaml:1: the tag moves
}

func ExampleDiff() {
	applied := map[string]any{"env": []any{map[string]any{"name": "A", "value": "1"}}, "paused": true}
	desired := map[string]any{"env": []any{map[string]any{"name": "A", "value": "2"}}}
	live := map[string]any{
		"env":    []any{map[string]any{"name": "INJECTED", "value": "x"}, map[string]any{"name": "A", "value": "1"}},
		"paused": true, "status": "fine",
	}
	for _, f := range reconcile.Diff(applied, desired, live) {
		fmt.Println(f)
	}
	// Output:
	// env[name=A].value: "1" -> "2"
	// paused: true -> (none)
}

func ExampleParsePath() {
	p, err := reconcile.ParsePath(`spec.containers[name=web].image`)
	if err != nil {
		fmt.Println(err)
		return
	}
	o := map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"name": "web", "image": "shop:1.0"}}}}
	image, ok := p.Get(o)
	fmt.Println(image, ok)
	// Output: shop:1.0 true
}
