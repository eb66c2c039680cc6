package memory_test

import (
	"context"
	"fmt"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/memory"
)

func Example() {
	ctx := context.Background()
	var git memory.Source
	var target memory.Target
	r, err := reconcile.New(reconcile.Options{Source: &git, Actuator: &target})
	if err != nil {
		fmt.Println(err)
		return
	}
	object := map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": "motd"},
		"data":     map[string]any{"text": "hello"},
	}
	k, err := reconcile.KeyOf(object)
	if err != nil {
		fmt.Println(err)
		return
	}
	state, err := reconcile.NewState("r1", []reconcile.Resource{{Key: k, Object: object}})
	if err != nil {
		fmt.Println(err)
		return
	}
	git.Set(state, nil)
	if _, err := r.Sync(ctx); err != nil {
		fmt.Println(err)
	}
	// Somebody deletes it; the next round brings it back.
	if err := target.Edit(k, func(map[string]any) map[string]any { return nil }); err != nil {
		fmt.Println(err)
	}
	if _, err := r.Sync(ctx); err != nil {
		fmt.Println(err)
	}
	for _, c := range target.Applied() {
		fmt.Println(c.Action, c.Key, c.Reason)
	}
	// Output:
	// Create ConfigMap/motd declared
	// Create ConfigMap/motd drift: deleted on the live side
}
