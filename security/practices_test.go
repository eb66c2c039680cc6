package security

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func only(t testing.TB, id string) *Set {
	t.Helper()
	for _, r := range Default() {
		if r.ID == id {
			return newSet(t, Config{Rules: []Rule{r}})
		}
	}
	t.Fatalf("no rule %s", id)
	return nil
}

func TestImageTag(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for image, want := range map[string]string{
		"nginx":                                "has no tag, which means latest",
		"registry.example.org:5000/shop/web":   "has no tag, which means latest",
		"nginx:latest":                         `has the moving tag "latest"`,
		"nginx:LATEST":                         `has the moving tag "LATEST"`,
		"nginx:latest-arm64":                   `has the moving tag "latest-arm64"`,
		"nginx:stable-alpine":                  `has the moving tag "stable-alpine"`,
		"nginx:alpine":                         `has the moving tag "alpine"`,
		"shop/web:main":                        `has the moving tag "main"`,
		"shop/web:nightly":                     `has the moving tag "nightly"`,
		"nginx:":                               "has an empty tag",
		"nginx@sha256:abc":                     "has a malformed digest",
		"nginx@" + digest:                      "",
		"nginx:latest@" + digest:               "",
		"registry.example.org:5000/web:v1":     "",
		"nginx:1.27":                           "",
		"nginx:1.27-alpine":                    "",
		"nginx:nightly-20260101":               "",
		"shop/web:sha-4f1d9c2":                 "",
		"shop/web:edgeport-v2":                 "",
		"web:pinned":                           "",
		"registry.example.org/latest/web:v1.0": "",
	} {
		if got := mutableTag(image); got != want {
			t.Errorf("%s: got %q, want %q", image, got, want)
		}
	}
}

func TestPractices(t *testing.T) {
	const c = "spec.containers[name=a]"
	pod := func(container string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: a\n" + indent(container, 4) + "\n"
	}
	for _, tt := range []struct {
		name, rule, text string
		want             []string
	}{
		{"no image is somebody else's to fill in", "image-tag", pod(""), nil},
		{"image", "image-tag", pod("image: nginx"), []string{c + ".image"}},
		{"no limits", "memory-limit", pod(""), []string{c + ".resources.limits.memory"}},
		{"limit of another kind", "memory-limit", pod("resources: {limits: {cpu: 1}, requests: {memory: 1Gi}}"), []string{c + ".resources.limits.memory"}},
		{"zero is no limit", "memory-limit", pod("resources: {limits: {memory: 0Mi}}"), []string{c + ".resources.limits.memory"}},
		{"zero as a number is no limit", "memory-limit", pod("resources: {limits: {memory: 0}}"), []string{c + ".resources.limits.memory"}},
		{"limit", "memory-limit", pod("resources: {limits: {memory: 10Mi}}"), nil},
		{"limit as a number", "memory-limit", pod("resources: {limits: {memory: 1048576}}"), nil},
		{"limit of the pod", "memory-limit", pod("") + "  resources: {limits: {memory: 1Gi}}\n", nil},
		{"init containers count", "memory-limit", pod("resources: {limits: {memory: 10Mi}}") + "  initContainers: [{name: i}]\n", []string{"spec.initContainers[name=i].resources.limits.memory"}},
		{"ephemeral containers have no resources", "memory-limit", pod("resources: {limits: {memory: 10Mi}}") + "  ephemeralContainers: [{name: e}]\n", nil},
		{"cpu limit", "cpu-limit", pod("resources: {limits: {cpu: 500m}}"), nil},
		{"no cpu limit", "cpu-limit", pod(""), []string{c + ".resources.limits.cpu"}},
		{"no requests", "resource-requests", pod(""), []string{c + ".resources.requests.cpu", c + ".resources.requests.memory"}},
		{"limits stand for requests", "resource-requests", pod("resources: {limits: {cpu: 1, memory: 1Gi}}"), nil},
		{"token by default", "service-account-token", pod(""), []string{"spec.automountServiceAccountToken"}},
		{"no token", "service-account-token", pod("") + "  automountServiceAccountToken: false\n", nil},
		{"wildcard", "rbac-wildcard", "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r}\nrules:\n- {apiGroups: [''], resources: [pods], verbs: [get]}\n- {apiGroups: [apps], resources: ['*'], verbs: [get, '*']}\n", []string{"rules[1].resources[0]", "rules[1].verbs[1]"}},
		{"no rules", "rbac-wildcard", "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: r}\n", nil},
		{"cluster-admin", "rbac-cluster-admin", "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: r}\nroleRef: {kind: ClusterRole, name: cluster-admin}\n", []string{"roleRef.name"}},
		{"another role", "rbac-cluster-admin", "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: r}\nroleRef: {kind: Role, name: cluster-admin}\n", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := []string{}
			for _, p := range tt.want {
				want = append(want, tt.rule+" "+p)
			}
			if d := cmp.Diff(want, rulePaths(t, only(t, tt.rule), tt.text)); d != "" {
				t.Error(d)
			}
		})
	}
}
