package security_test

import (
	"fmt"
	"os"
	"time"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/manifest"
	"github.com/evenkeel-go/evenkeel/security"
)

const web = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
spec:
  template:
    spec:
      hostNetwork: true
      containers:
        - name: web
          image: shop/web:latest
`

func Example() {
	resources, err := manifest.Decode("deploy/web.yaml", []byte(web))
	if err != nil {
		fmt.Println(err)
		return
	}
	state, err := reconcile.NewState("4f1d9c2a7b", resources)
	if err != nil {
		fmt.Println(err)
		return
	}
	set, err := security.NewSet(security.Config{
		Rules: append(security.Baseline(), security.Practices()[0]),
		Exceptions: []security.Exception{{
			Policy:   "pod-host-namespaces",
			Selector: security.Selector{Namespaces: []string{"shop"}, Names: []string{"web"}},
			Owner:    "team-shop",
			Reason:   "until the ingress moves",
			Expires:  time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC),
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range set.Evaluate(state) {
		fmt.Println(f)
	}
	// Output:
	// deploy/web.yaml:9:7: high pod-host-namespaces: Deployment.apps/shop/web: the pod shares the node's network namespace (excepted by team-shop until 2999-01-01)
	// deploy/web.yaml:12:11: high image-tag: Deployment.apps/shop/web: container "web": image "shop/web:latest" has the moving tag "latest"
}

// A policy of one's own is a function; on pods it is given the pod of every
// kind of workload.
func ExamplePolicy() {
	registry := security.Rule{Policy: security.Policy{
		ID: "image-registry", Title: "Foreign registry", Severity: security.High,
		Why: "Only images of our own registry have been scanned.",
		CheckPod: func(p *security.Pod) (vs []security.Violation) {
			for _, c := range p.Containers {
				if image, _ := c.Object["image"].(string); len(image) < 9 || image[:9] != "reg.shop/" {
					vs = append(vs, security.Violation{Path: c.At("image"), Message: c.String() + " has an image from elsewhere", Remedy: "push it to reg.shop"})
				}
			}
			return vs
		},
	}}
	set, err := security.NewSet(security.Config{Rules: []security.Rule{registry}})
	if err != nil {
		fmt.Println(err)
		return
	}
	resources, err := manifest.Decode("web.yaml", []byte(web))
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := security.WriteTable(os.Stdout, set.EvaluateResource(resources[0])); err != nil {
		fmt.Println(err)
	}
	// Output:
	// SEVERITY  RULE            PLACE           RESOURCE                  MESSAGE
	// high      image-registry  web.yaml:12:11  Deployment.apps/shop/web  container "web" has an image from elsewhere
	//
	// 1 finding: 1 high
}
