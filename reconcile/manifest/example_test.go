package manifest_test

import (
	"fmt"
	"log"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/manifest"
)

func ExampleDecode() {
	resources, err := manifest.Decode("cart.yaml", []byte(`
kind: Deployment
apiVersion: apps/v1
metadata: {name: cart, namespace: shop}
spec:
  replicas: 3
`))
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range resources {
		fmt.Println(r.Key, "replicas at", r.Locate("spec.replicas"))
	}
	_, err = manifest.Decode("bad.yaml", []byte("kind: A\nmetadata: {name: a, name: b}\nsize: .inf\n"))
	fmt.Println(err)
	// Output:
	// Deployment.apps/shop/cart replicas at cart.yaml:6:3
	// bad.yaml:2:21: metadata.name: duplicate key, first at line 2
	// bad.yaml:3:7: size: .inf has no value in JSON
}

func ExampleEdit() {
	file := []byte(`kind: Deployment
apiVersion: apps/v1
metadata: {name: cart, namespace: shop}
spec:
  replicas: 3   # the forecast sets this
`)
	cart := reconcile.Key{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "cart"}
	file, err := manifest.Edit("cart.yaml", file, []reconcile.Edit{
		{Key: cart, Path: "spec.replicas", Value: int64(5)},
		{Key: cart, Path: "spec.strategy.type", Value: "Recreate"},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(file))
	// Output:
	// kind: Deployment
	// apiVersion: apps/v1
	// metadata: {name: cart, namespace: shop}
	// spec:
	//   replicas: 5   # the forecast sets this
	//   strategy:
	//     type: Recreate
}
