// Command gitsource shows Git as the source of desired state and as the place
// where automation writes: it makes a repository, reads its state, commits one
// field, takes a bad release back, and prints what Git then says.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/gitsource"
)

const cart = `# The cart keeps what shoppers mean to buy.
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: shop}
spec:
  replicas: 2        # set by the forecast
  template: {spec: {containers: [{name: web, image: "%s"}]}}
`

func main() {
	tmp, err := os.MkdirTemp("", "evenkeel-gitsource-")
	if err == nil {
		err = errors.Join(run(context.Background(), tmp), os.RemoveAll(tmp))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, tmp string) error {
	dir := filepath.Join(tmp, "shop.git")
	release := func(message, image string) gitsource.CommitRequest {
		return gitsource.CommitRequest{
			Message: message, Author: gitsource.Author{Name: "Dana", Email: "dana@example.org"},
			Files: map[string][]byte{"prod/cart.yaml": fmt.Appendf(nil, cart, image)},
		}
	}
	_, err1 := gitsource.Init(ctx, dir, release("Run the cart", "cart:1"))
	repo, err2 := gitsource.Open(ctx, gitsource.Options{URL: dir, Paths: []string{"prod/**"}})
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	bad, err := repo.Commit(ctx, release("Release cart 2", "cart:2"))
	if err != nil {
		return err
	}
	key := reconcile.Key{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "cart"}
	five := []reconcile.Edit{{Key: key, Path: "spec.replicas", Value: int64(5)}}
	scale := reconcile.WriteRequest{ID: "scale-1", Message: "Scale cart to 5 for the evening", Edits: five}
	_, err1 = repo.Write(ctx, scale)
	_, err2 = repo.Write(ctx, scale) // asked twice, done once
	_, err3 := repo.Write(ctx, reconcile.WriteRequest{ID: "revert-1", Revert: bad.Revision})
	state, err4 := repo.Fetch(ctx)
	commits, err5 := repo.Log(ctx, gitsource.LogOptions{})
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "COMMIT\tAUTHOR\tACTION\tSUBJECT\tCHANGED")
	for _, c := range commits {
		changes, err := repo.Changes(ctx, c.Revision)
		if err != nil {
			return err
		}
		for _, ch := range changes {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s %s\n", reconcile.ShortRevision(c.Revision), c.Author,
				c.Trailer(reconcile.TrailerAction), c.Subject(), ch.Key, strings.Join(ch.Fields, " "))
		}
	}
	res, _ := state.Get(key)
	fmt.Fprintf(w, "\nreplicas are declared at %s\n", res.Locate("spec.replicas"))
	return w.Flush()
}
