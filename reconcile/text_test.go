package reconcile

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParsePath(t *testing.T) {
	tests := []struct {
		in   string
		want Path // nil with a non-empty in: an error
	}{
		{"spec.replicas", Path{{Field: "spec", Index: -1}, {Field: "replicas", Index: -1}}},
		{"containers[name=web].image", Path{{Field: "containers", Index: -1}, {Key: "name", Value: "web", Index: -1}, {Field: "image", Index: -1}}},
		{"args[2]", Path{{Field: "args", Index: -1}, {Index: 2}}},
		{`annotations["example.org/owner"].x`, Path{{Field: "annotations", Index: -1}, {Field: "example.org/owner", Index: -1}, {Field: "x", Index: -1}}},
		{`["a]b"]`, Path{{Field: "a]b", Index: -1}}},
		{`l[name="a]b"]`, Path{{Field: "l", Index: -1}, {Key: "name", Value: "a]b", Index: -1}}},
		{`l[name=a=b]`, Path{{Field: "l", Index: -1}, {Key: "name", Value: "a=b", Index: -1}}},
		{`l[name=""]`, Path{{Field: "l", Index: -1}, {Key: "name", Value: "", Index: -1}}},
		{`[""]`, Path{{Field: "", Index: -1}}},
		{"[0][1]", Path{{Index: 0}, {Index: 1}}},
		{".", nil}, {"a.", nil}, {".a", nil}, {"a..b", nil}, {"a b", nil}, {"a[", nil}, {"a[]", nil}, {"a[-1]", nil}, {"a[x]", nil},
		{"a[=x]", nil}, {`a["x]`, nil}, {`a["x"`, nil}, {`a[k="x]`, nil}, {`a[0]b`, nil}, {"a]", nil}, {"é", nil},
	}
	for _, tt := range tests {
		got, err := ParsePath(tt.in)
		if tt.want == nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("ParsePath(%q) = %v, %v, want an error", tt.in, got, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("ParsePath(%q): %v", tt.in, err)
			continue
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("ParsePath(%q) (-want +got):\n%s", tt.in, d)
		}
		if got.String() != tt.in {
			t.Errorf("%q prints as %q", tt.in, got)
		}
	}
}

func TestPathGetSetDelete(t *testing.T) {
	start := func() object {
		return object{"spec": object{"replicas": int64(1), "args": list{"a", "b"}, "ports": list{object{"port": int64(80)}}, "containers": list{object{"name": "web", "image": "x"}}}}
	}
	type step struct {
		path string
		set  any // nil: delete
		want object
	}
	for _, s := range []step{
		{"spec.replicas", int64(2), object{"spec": object{"replicas": int64(2), "args": list{"a", "b"}, "ports": list{object{"port": int64(80)}}, "containers": list{object{"name": "web", "image": "x"}}}}},
		{"spec.args[2]", "c", object{"spec": object{"replicas": int64(1), "args": list{"a", "b", "c"}, "ports": list{object{"port": int64(80)}}, "containers": list{object{"name": "web", "image": "x"}}}}},
		{"spec.ports[port=81].name", "x", object{"spec": object{"replicas": int64(1), "args": list{"a", "b"}, "ports": list{object{"port": int64(80)}, object{"port": int64(81), "name": "x"}}, "containers": list{object{"name": "web", "image": "x"}}}}},
		{"spec.containers[name=web].image", nil, object{"spec": object{"replicas": int64(1), "args": list{"a", "b"}, "ports": list{object{"port": int64(80)}}, "containers": list{object{"name": "web"}}}}},
		{"spec.args[0]", nil, object{"spec": object{"replicas": int64(1), "args": list{"b"}, "ports": list{object{"port": int64(80)}}, "containers": list{object{"name": "web", "image": "x"}}}}},
	} {
		o, p := start(), mustPath(t, s.path)
		if s.set == nil {
			if !p.Delete(o) || p.Delete(o) && s.path != "spec.args[0]" {
				t.Errorf("Delete(%s) does not tell what it did", s.path)
			}
			if s.path == "spec.args[0]" {
				o = start()
				p.Delete(o)
			}
		} else {
			if err := p.Set(o, s.set); err != nil {
				t.Errorf("Set(%s): %v", s.path, err)
			}
			if got, ok := p.Get(o); !ok || got != s.set {
				t.Errorf("Get(%s) = %v, %v after Set", s.path, got, ok)
			}
		}
		if d := cmp.Diff(s.want, o); d != "" {
			t.Errorf("%s (-want +got):\n%s", s.path, d)
		}
	}
	for _, bad := range []string{"", "spec.replicas.x", "spec[0]", "spec.args.x", "spec.args[5]"} {
		o := start()
		if err := mustPath(t, bad).Set(o, "x"); !errors.Is(err, ErrInvalid) {
			t.Errorf("Set(%q) = %v, want ErrInvalid", bad, err)
		}
		if d := cmp.Diff(start(), o); d != "" {
			t.Errorf("a failed Set(%q) changed (-want +got):\n%s", bad, d)
		}
		if mustPath(t, bad).Delete(o) {
			t.Errorf("Delete(%q) found something", bad)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"", "a.b", `a["x.y"][0]`, `l[name=web].image`, `l[k="]"]`, "a[", `["`, "[01]", "[+1]", `[k="\x00"]`, `["\xff"]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePath(s)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%v", err)
			}
			return
		}
		again, err := ParsePath(p.String())
		if err != nil || !cmp.Equal(p, again) {
			t.Fatalf("%q: %#v prints as %q, which reads as %#v, %v", s, p, p, again, err)
		}
		if len(p) == 0 {
			return
		}
		parentPath(s)
		o := object{}
		if p.Set(o, "v") == nil {
			if v, ok := p.Get(o); ok && p[len(p)-1].Key == "" && v != "v" {
				t.Fatalf("%q: Get gives %v after Set", s, v)
			}
			p.Delete(o)
		}
	})
}

func TestParseKey(t *testing.T) {
	for in, want := range map[string]Key{
		"Deployment.apps/shop/cart":    {Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "cart"},
		"Namespace/shop":               {Kind: "Namespace", Name: "shop"},
		"Service/shop/cart":            {Kind: "Service", Namespace: "shop", Name: "cart"},
		"Thing.a.example.org/x.y":      {Group: "a.example.org", Kind: "Thing", Name: "x.y"},
		"ClusterRole.rbac/system:node": {Group: "rbac", Kind: "ClusterRole", Name: "system:node"},
	} {
		got, err := ParseKey(in)
		if err != nil || got != want || got.String() != in {
			t.Errorf("ParseKey(%q) = %#v, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "/", "a", "a/", "/a", "a//b", "a/b/c/d", "./x", ".g/x", "A./x", "A/b c", "A/b\n"} {
		if k, err := ParseKey(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseKey(%q) = %v, %v, want ErrInvalid", bad, k, err)
		}
	}
	var all struct{ Zero, Full Key }
	all.Full = Key{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "cart"}
	b, err := json.Marshal(all)
	if err != nil || string(b) != `{"Zero":"","Full":"Deployment.apps/shop/cart"}` {
		t.Errorf("%s, %v", b, err)
	}
	back := all
	back.Full, back.Zero = Key{}, all.Full
	if err := json.Unmarshal(b, &back); err != nil || back != all {
		t.Errorf("%+v, %v", back, err)
	}
}

func FuzzParseKey(f *testing.F) {
	for _, s := range []string{"Deployment.apps/shop/cart", "Namespace/shop", "A.b.c/d", "/", "a//b", "é/é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParseKey(s)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%v", err)
			}
			return
		}
		if k.String() != s {
			t.Fatalf("%q reads as %#v, which prints as %q", s, k, k)
		}
	})
}

func TestKeyOf(t *testing.T) {
	good := object{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": object{"name": "cart", "namespace": "shop"}}
	if k, err := KeyOf(good); err != nil || k.String() != "Deployment.apps/shop/cart" {
		t.Errorf("%v, %v", k, err)
	}
	for name, bad := range map[string]object{
		"nil": nil, "no kind": {"metadata": object{"name": "x"}}, "no name": {"kind": "X"}, "name is a number": {"kind": "X", "metadata": object{"name": int64(1)}},
		"slash": {"kind": "X", "metadata": object{"name": "a/b"}}, "dot in kind": {"kind": "X.y", "metadata": object{"name": "a"}},
	} {
		if k, err := KeyOf(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, %v, want ErrInvalid", name, k, err)
		}
	}
}

func TestNewStateRefusesTwins(t *testing.T) {
	r := func(path string, line int) Resource {
		return Resource{Key: Key{Kind: "ConfigMap", Name: "a"}, Origin: Origin{Path: path, Line: line}}
	}
	_, err := NewState("1", []Resource{r("a.yaml", 1), r("b.yaml", 7)})
	var conflict *ConflictError
	if !errors.As(err, &conflict) || !errors.Is(err, ErrInvalid) || conflict.First.Line != 1 || conflict.Second.Line != 7 {
		t.Errorf("%v", err)
	}
	if got, want := err.Error(), "reconcile: ConfigMap/a is declared twice: a.yaml:1 and b.yaml:7"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestLocate(t *testing.T) {
	r := Resource{Origin: Origin{Path: "a.yaml", Line: 1, Column: 1}, Fields: map[string]Position{"spec": {2, 1}, "spec.containers[name=web]": {4, 5}}}
	for path, line := range map[string]int{"spec": 2, "spec.replicas": 2, "spec.containers[name=web].image": 4, "spec.containers[name=db].image": 2, "metadata.name": 1, "": 1, "..": 1} {
		if o := r.Locate(path); o.Line != line {
			t.Errorf("Locate(%q) = %v, want line %d", path, o, line)
		}
	}
}

func TestCheckHealth(t *testing.T) {
	cond := func(pairs ...string) object {
		var l list
		for i := 0; i < len(pairs); i += 2 {
			l = append(l, object{"type": pairs[i], "status": pairs[i+1], "message": "why"})
		}
		return object{"conditions": l}
	}
	for _, tt := range []struct {
		name string
		in   object
		want Health
	}{
		{"nothing known", object{"kind": "ConfigMap"}, Health{Status: Healthy}},
		{"nil", nil, Health{Status: Healthy}},
		{"deleted", object{"metadata": object{"deletionTimestamp": "x"}}, Health{Terminating, "deletion requested"}},
		{"not observed", object{"metadata": object{"generation": int64(2)}, "status": object{"observedGeneration": int64(1)}}, Health{Progressing, "newest specification not observed yet"}},
		{"ready", object{"kind": "Deployment", "spec": object{"replicas": int64(2)}, "status": object{"readyReplicas": int64(2)}}, Health{Status: Healthy}},
		{"partly", object{"kind": "Deployment", "spec": object{"replicas": int64(2)}, "status": object{"readyReplicas": int64(1)}}, Health{Progressing, "1 of 2 replicas ready"}},
		{"job done", object{"kind": "Job", "status": cond("Complete", "True")}, Health{Healthy, "why"}},
		{"job failed", object{"kind": "Job", "status": cond("Failed", "True")}, Health{Degraded, "why"}},
		{"job runs", object{"kind": "Job"}, Health{Progressing, "not complete"}},
		{"pod pends", object{"kind": "Pod"}, Health{Progressing, "pending"}},
		{"pod failed", object{"kind": "Pod", "status": object{"phase": "Failed"}}, Health{Degraded, "failed"}},
		{"stalled", object{"kind": "Thing", "status": cond("Ready", "False", "Stalled", "True")}, Health{Degraded, "why"}},
		{"not ready", object{"kind": "Thing", "status": cond("Ready", "False")}, Health{Progressing, "why"}},
		{"ready thing", object{"kind": "Thing", "status": cond("Ready", "True")}, Health{Status: Healthy}},
	} {
		if d := cmp.Diff(tt.want, CheckHealth(tt.in)); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
}
