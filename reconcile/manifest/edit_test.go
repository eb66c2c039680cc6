package manifest

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

const deployment = `# The cart of the shop.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: cart   # keep
  namespace: shop
  labels: {app: cart, tier: "web"}
spec:
  replicas: 3  # by hand
  template:
    spec:
      containers:
      - name: cart
        image: 'shop/cart:1.4'
        args: [serve, "--port=80"]
      # the sidecar
      - name: proxy
        image: "proxy:2"
        env:
        - name: LEVEL
          value: info
  strategy:
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cart, namespace: shop}
data:
  conf: |
    a=1
    b=2
  motd: hello
    world
`

func key(t testing.TB, s string) reconcile.Key {
	t.Helper()
	k, err := reconcile.ParseKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestEdit(t *testing.T) {
	const dep, cm = "Deployment.apps/shop/cart", "ConfigMap/shop/cart"
	for _, tc := range []struct {
		name, key, path string
		value           any
		remove          bool
		old, new        string // the one replacement in the text
	}{
		{"number", dep, "spec.replicas", int64(5), false, "replicas: 3  #", "replicas: 5  #"},
		{"whole float is an integer", dep, "spec.replicas", 5.0, false, "replicas: 3  #", "replicas: 5  #"},
		{"single quotes stay", dep, "spec.template.spec.containers[name=cart].image", "shop/cart:1.5", false, "'shop/cart:1.4'", "'shop/cart:1.5'"},
		{"double quotes stay", dep, "spec.template.spec.containers[name=proxy].image", "proxy:3", false, `"proxy:2"`, `"proxy:3"`},
		{"by index", dep, "spec.template.spec.containers[1].image", "proxy:3", false, `"proxy:2"`, `"proxy:3"`},
		{"plain stays plain", dep, "spec.template.spec.containers[name=proxy].env[name=LEVEL].value", "debug", false, "value: info", "value: debug"},
		{"quoted where it must be", dep, "spec.template.spec.containers[name=proxy].env[name=LEVEL].value", "true", false, "value: info", `value: "true"`},
		{"flow map value", dep, "metadata.labels.app", "basket", false, "app: cart,", "app: basket,"},
		{"flow map insert", dep, "metadata.labels.team", "a b", false, `tier: "web"}`, `tier: "web", team: a b}`},
		{"flow list element", dep, "spec.template.spec.containers[name=cart].args[1]", "--port=81", false, `"--port=80"`, `"--port=81"`},
		{"flow list append", dep, "spec.template.spec.containers[name=cart].args[2]", "-v", false, `"--port=80"]`, `"--port=80", "-v"]`},
		{"empty value", dep, "spec.strategy", "x", false, "strategy:\n", "strategy: x\n"},
		{"map under an empty value", dep, "spec.strategy.type", "Recreate", false, "strategy:\n", "strategy:\n    type: Recreate\n"},
		{"insert scalar", dep, "spec.paused", true, false, "strategy:\n", "strategy:\n  paused: true\n"},
		{"insert maps", dep, `metadata.annotations["example.org/by"]`, "evenkeel", false, `tier: "web"}` + "\n", `tier: "web"}` + "\n  annotations:\n    example.org/by: evenkeel\n"},
		{"insert in a list's map", dep, "spec.template.spec.containers[name=cart].resources.limits.cpu", "2", false, `"--port=80"]` + "\n", `"--port=80"]` + "\n        resources:\n          limits:\n            cpu: \"2\"\n"},
		{"append to a keyed list", dep, "spec.template.spec.containers[name=proxy].env[name=PORT].value", "80", false, "value: info\n", "value: info\n        - name: PORT\n          value: \"80\"\n"},
		{"block scalar stays", cm, "data.conf", "a=2\nb=2\n", false, "|\n    a=1\n    b=2\n", "|\n    a=2\n    b=2\n"},
		{"folded plain", cm, "data.motd", "hi", false, "hello\n    world", "hi"},
		{"insert after folded plain", cm, "data.x", "y z", false, "hello\n    world", "hello\n    world\n  x: y z"},
		{"root insert", cm, "immutable", true, false, "hello\n    world", "hello\n    world\nimmutable: true"},
		{"remove line", dep, "spec.replicas", nil, true, "  replicas: 3  # by hand\n", ""},
		{"remove from flow", dep, "metadata.labels.app", nil, true, "app: cart, ", ""},
		{"remove last of flow", dep, "metadata.labels.tier", nil, true, `, tier: "web"`, ""},
		{"remove empty", dep, "spec.strategy", nil, true, "  strategy:\n", ""},
		{"remove block", cm, "data.conf", nil, true, "  conf: |\n    a=1\n    b=2\n", ""},
		{"remove element", dep, "spec.template.spec.containers[name=proxy]", nil, true, "      - name: proxy\n        image: \"proxy:2\"\n        env:\n        - name: LEVEL\n          value: info\n", ""},
		{"remove after the dash", dep, "spec.template.spec.containers[name=cart].name", nil, true, "- name: cart\n        image", "- image"},
		{"remove only element", dep, "spec.template.spec.containers[name=proxy].env[name=LEVEL]", nil, true, "env:\n        - name: LEVEL\n          value: info", "env: []"},
		{"remove what is not there", dep, "spec.minReadySeconds", nil, true, "", ""},
		{"map for a scalar", dep, "spec.replicas", map[string]any{"min": int64(1)}, false, "replicas: 3  #", "replicas:\n    min: 1  #"},
		{"scalar for a map", dep, "spec.template.spec.containers[name=proxy].env", "none", false, "env:\n        - name: LEVEL\n          value: info", "env: none"},
		{"null", dep, "spec.replicas", nil, false, "replicas: 3  #", "replicas: null  #"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, eol := range []string{"\n", "\r\n"} {
				for _, bom := range []string{"", "\ufeff"} {
					conv := func(s string) string { return strings.ReplaceAll(s, "\n", eol) }
					in := bom + conv(deployment)
					want := strings.Replace(in, conv(tc.old), conv(tc.new), 1)
					got, err := Edit("a.yaml", []byte(in), []reconcile.Edit{{Key: key(t, tc.key), Path: tc.path, Value: tc.value, Remove: tc.remove}})
					if err != nil {
						t.Fatal(err)
					}
					if d := cmp.Diff(want, string(got)); d != "" {
						t.Fatalf("eol %q bom %q (-want +got):\n%s", eol, bom, d)
					}
				}
			}
		})
	}
}

func TestEditRefuses(t *testing.T) {
	const anchored = `apiVersion: v1
kind: ConfigMap
metadata: {name: a}
base: &base
  x: 1
  w: &n 2
use: *base
more:
  <<: *base
  z: 3
other: *n
`
	for _, tc := range []struct {
		name, text, key, path string
		value                 any
		remove                bool
		want                  error
	}{
		{"not declared", deployment, "Service/shop/cart", "spec.type", "x", false, reconcile.ErrNotFound},
		{"bad path", deployment, "ConfigMap/shop/cart", "a..b", "x", false, reconcile.ErrInvalid},
		{"empty path", deployment, "ConfigMap/shop/cart", "", "x", false, reconcile.ErrInvalid},
		{"bad value", deployment, "ConfigMap/shop/cart", "data.x", struct{}{}, false, reconcile.ErrInvalid},
		{"wrong shape", deployment, "ConfigMap/shop/cart", "data.motd.x", "x", false, reconcile.ErrInvalid},
		{"past the end", deployment, "Deployment.apps/shop/cart", "spec.template.spec.containers[9].image", "x", false, reconcile.ErrInvalid},
		{"broken file", "a: [", "ConfigMap/shop/cart", "x", "x", false, reconcile.ErrInvalid},
		{"twice", deployment + "---\n" + deployment, "ConfigMap/shop/cart", "data.x", "x", false, reconcile.ErrInvalid},
		{"shared anchor", anchored, "ConfigMap/a", "base.x", int64(2), false, ErrNotEditable},
		{"shared scalar", anchored, "ConfigMap/a", "base.w", int64(3), false, ErrNotEditable},
		{"inside alias", anchored, "ConfigMap/a", "use.x", int64(2), false, ErrNotEditable},
		{"merged", anchored, "ConfigMap/a", "more.x", nil, true, ErrNotEditable},
		{"name", "kind: A\nmetadata: {name: b}\n", "A/b", "metadata.name", nil, true, ErrNotEditable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Edit("a.yaml", []byte(tc.text), []reconcile.Edit{{Key: key(t, tc.key), Path: tc.path, Value: tc.value, Remove: tc.remove}})
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
		})
	}
	t.Run("alias replaced", func(t *testing.T) {
		got, err := Set("a.yaml", []byte(anchored), key(t, "ConfigMap/a"), "other", int64(7))
		if err != nil || string(got) != strings.Replace(anchored, "other: *n", "other: 7", 1) {
			t.Fatalf("%v\n%s", err, got)
		}
	})
	t.Run("merge overridden", func(t *testing.T) {
		got, err := Set("a.yaml", []byte(anchored), key(t, "ConfigMap/a"), "more.x", int64(7))
		if err != nil || string(got) != strings.Replace(anchored, "z: 3\n", "z: 3\n  x: 7\n", 1) {
			t.Fatalf("%v\n%s", err, got)
		}
	})
}

func TestEditJSON(t *testing.T) {
	const pretty = "{\n\t\"kind\": \"A\",\n\t\"metadata\": {\"name\": \"b\"},\n\t\"spec\": {\n\t\t\"replicas\": 1,\n\t\t\"list\": [1, 2]\n\t}\n}\n"
	for _, tc := range []struct {
		path     string
		value    any
		remove   bool
		old, new string
	}{
		{"spec.replicas", int64(2), false, `"replicas": 1`, `"replicas": 2`},
		{"spec.paused", true, false, `[1, 2]`, "[1, 2],\n\t\t\"paused\": true"},
		{"metadata.labels.a", "<b>", false, `"name": "b"}`, `"name": "b", "labels": {"a":"<b>"}}`},
		{"spec.list[2]", 2.5, false, `[1, 2]`, `[1, 2, 2.5]`},
		{"spec.list[0]", nil, true, `[1, 2]`, `[2]`},
		{"spec.list", nil, true, ",\n\t\t\"list\": [1, 2]", ""},
		{"spec.replicas", "x\u2028\x01", false, `"replicas": 1`, `"replicas": "x\u2028\u0001"`},
	} {
		got, err := Edit("a.JSON", []byte(pretty), []reconcile.Edit{{Key: reconcile.Key{Kind: "A", Name: "b"}, Path: tc.path, Value: tc.value, Remove: tc.remove}})
		if err != nil {
			t.Errorf("%s: %v", tc.path, err)
			continue
		}
		if d := cmp.Diff(strings.Replace(pretty, tc.old, tc.new, 1), string(got)); d != "" {
			t.Errorf("%s (-want +got):\n%s", tc.path, d)
		}
	}
}
