package gitsource_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/gitsource"
)

func Example() {
	ctx := context.Background()
	tmp, err := os.MkdirTemp("", "gitsource")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	dir := filepath.Join(tmp, "shop.git")
	if _, err := gitsource.Init(ctx, dir, gitsource.CommitRequest{
		Message: "Run the cart",
		Files: map[string][]byte{
			"prod/cart.yaml": []byte("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: cart}\nspec:\n  replicas: 2 # by forecast\n"),
		},
	}); err != nil {
		log.Fatal(err)
	}
	repo, err := gitsource.Open(ctx, gitsource.Options{URL: dir, Paths: []string{"prod"}})
	if err != nil {
		log.Fatal(err)
	}
	cart := reconcile.Key{Group: "apps", Kind: "Deployment", Name: "cart"}
	commit, err := repo.Write(ctx, reconcile.WriteRequest{
		ID:      "scale-7",
		Message: "Scale the cart to 5",
		Edits:   []reconcile.Edit{{Key: cart, Path: "spec.replicas", Value: int64(5)}},
	})
	if err != nil {
		log.Fatal(err)
	}
	state, err := repo.Fetch(ctx)
	if err != nil {
		log.Fatal(err)
	}
	res, _ := state.Get(cart)
	at := res.Locate("spec.replicas")
	fmt.Println(commit.Subject(), commit.Trailers, commit.Keys)
	fmt.Println(res.Object["spec"], at.Path, at.Line, state.Revision() == commit.Revision)
	// Output:
	// Scale the cart to 5 [{Action-Id scale-7}] [Deployment.apps/cart]
	// map[replicas:5] prod/cart.yaml 5 true
}
