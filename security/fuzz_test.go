package security

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// FuzzEvaluate holds that no object, of whatever shape, makes a built-in
// policy panic or change it, and that findings are the same each time, have a
// path that parses, and can be written.
func FuzzEvaluate(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"spec":null}`, `{"spec":{"containers":[null,1,"x",{}]}}`,
		`{"spec":{"containers":[{"name":"a","image":"x","env":[{"name":"TOKEN","value":"abc"},{"name":"U","value":"a://b:c@d"}],"ports":[{"hostPort":1}],"args":["eyJ.eyJ.x"]}],"hostPID":true,"volumes":[{"hostPath":{}},{"nfs":{}}]}}`,
		`{"spec":{"template":{"spec":{"initContainers":[{"securityContext":{"privileged":true,"capabilities":{"add":[1,"X"],"drop":["ALL"]},"seLinuxOptions":{"user":"x"},"procMount":"x","runAsUser":0}}]}}}}`,
		`{"spec":{"jobTemplate":{"spec":{"template":{"spec":{"containers":[{"livenessProbe":{"httpGet":{"host":"x"}},"lifecycle":{"preStop":{"tcpSocket":{"host":"x"}}}}]}}}}}}`,
		`{"data":{"password":"x","k":"-BEGIN PRIVATE KEY"},"stringData":{"a":1,"b":"x"}}`,
		`{"rules":[{"verbs":["*"]},{"resources":["*",1]}],"roleRef":{"kind":"ClusterRole","name":"cluster-admin"}}`,
		`{"metadata":{"annotations":{"container.apparmor.security.beta.kubernetes.io/]\"":"x"}},"spec":{"securityContext":{"sysctls":[{"name":"x"},2],"appArmorProfile":{}}}}`,
	} {
		f.Add([]byte(seed))
	}
	set := newSet(f, Config{})
	f.Fuzz(func(t *testing.T, data []byte) {
		var object map[string]any
		if json.Unmarshal(data, &object) != nil {
			return
		}
		for _, kind := range []reconcile.Key{
			{Kind: "Pod", Name: "x"}, {Group: "apps", Kind: "Deployment", Name: "x"}, {Kind: "ConfigMap", Name: "x"},
			{Kind: "Secret", Name: "x"}, {Group: "rbac.authorization.k8s.io", Kind: "Role", Name: "x"},
			{Group: "rbac.authorization.k8s.io", Kind: "RoleBinding", Name: "x"},
		} {
			r := reconcile.Resource{Key: kind, Object: object}
			before := reconcile.CloneObject(object)
			fs := set.EvaluateResource(r)
			if d := cmp.Diff(before, object); d != "" {
				t.Fatalf("the object was changed: %s", d)
			}
			if d := cmp.Diff(fs, set.EvaluateResource(r)); d != "" {
				t.Fatalf("another evaluation gives other findings: %s", d)
			}
			for _, f := range fs {
				if _, err := reconcile.ParsePath(f.Path); err != nil {
					t.Errorf("%s: %v", f, err)
				}
			}
			var b bytes.Buffer
			if err := WriteJSON(&b, fs); err != nil {
				t.Error(err)
			}
			if err := WriteTable(&b, fs); err != nil {
				t.Error(err)
			}
		}
	})
}
