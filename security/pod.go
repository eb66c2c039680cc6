package security

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// pod is a pod or a workload's pod template, wherever its resource keeps it.
type pod struct {
	spec map[string]any
	meta map[string]any
	// specPath and metaPath are where they are in the resource.
	specPath, metaPath string
}

// podOf finds the pod in a resource. Beyond the kinds of Kubernetes it takes
// any kind with containers at spec.template.spec, as rollout and serverless
// controllers have, so that another kind is no way round a policy.
func podOf(r reconcile.Resource) (pod, bool) {
	var holder map[string]any
	var path string
	spec := object(r.Object, "spec")
	switch {
	case r.Key.Kind == "Pod" && r.Key.Group == "":
		if spec == nil {
			return pod{}, false
		}
		return pod{spec: spec, meta: object(r.Object, "metadata"), specPath: "spec", metaPath: "metadata"}, true
	case r.Key.Kind == "PodTemplate" && r.Key.Group == "":
		holder, path = object(r.Object, "template"), "template"
	case spec["jobTemplate"] != nil:
		holder, path = object(object(object(spec, "jobTemplate"), "spec"), "template"), "spec.jobTemplate.spec.template"
	default:
		holder, path = object(spec, "template"), "spec.template"
	}
	p := pod{spec: object(holder, "spec"), meta: object(holder, "metadata"), specPath: path + ".spec", metaPath: path + ".metadata"}
	return p, p.spec != nil && (list(p.spec, "containers") != nil || list(p.spec, "initContainers") != nil)
}

// at gives the path of a field of the pod's spec.
func (p *pod) at(fields ...string) string { return join(p.specPath, fields) }

func (p *pod) securityContext() map[string]any { return object(p.spec, "securityContext") }

// windows tells whether the pod says that it runs on Windows, where the
// Linux-only controls have no meaning.
func (p *pod) windows() bool { return str(object(p.spec, "os"), "name") == "windows" }

// userNamespace tells whether the pod has a user namespace of its own.
func (p *pod) userNamespace() bool {
	v, ok := p.spec["hostUsers"].(bool)
	return ok && !v
}

// container is one container of a pod.
type container struct {
	pod *pod
	m   map[string]any
	sc  map[string]any // securityContext
	in  string         // the list's field: "initContainers"
	i   int
}

// each calls f with the init, ordinary and ephemeral containers in turn.
func (p *pod) each(f func(c container)) {
	for _, in := range [...]string{"initContainers", "containers", "ephemeralContainers"} {
		for i, e := range list(p.spec, in) {
			if m, ok := e.(map[string]any); ok {
				f(container{p, m, object(m, "securityContext"), in, i})
			}
		}
	}
}

// path is the container's own, in the form that reconcile gives it.
func (c *container) path() string {
	return element(c.pod.at(c.in), list(c.pod.spec, c.in), c.i)
}

// at gives the path of a field of the container.
func (c *container) at(fields ...string) string { return join(c.path(), fields) }

// String names the container in messages.
func (c *container) String() string {
	kind := "container "
	switch c.in {
	case "initContainers":
		kind = "init container "
	case "ephemeralContainers":
		kind = "ephemeral container "
	}
	if name := str(c.m, "name"); name != "" {
		return kind + quote(name)
	}
	return kind + strconv.Itoa(c.i)
}

// element gives the path of one element of a list, by its key field where
// the list has one.
func element(path string, l []any, i int) string {
	if key := reconcile.ListKey(l); key != "" {
		m, _ := l[i].(map[string]any)
		return reconcile.JoinElement(path, key, fmt.Sprint(m[key]))
	}
	return reconcile.JoinIndex(path, i)
}

func join(path string, fields []string) string {
	for _, f := range fields {
		path = reconcile.JoinField(path, f)
	}
	return path
}

// The accessors below read objects of any shape: what is missing, null or of
// another type reads as the zero value.

func object(m map[string]any, field string) map[string]any {
	o, _ := m[field].(map[string]any)
	return o
}

func list(m map[string]any, field string) []any {
	l, _ := m[field].([]any)
	return l
}

func str(m map[string]any, field string) string {
	s, _ := m[field].(string)
	return s
}

func isTrue(m map[string]any, field string) bool {
	b, _ := m[field].(bool)
	return b
}

// number reads an integer; ok is false for all else.
func number(v any) (n int64, ok bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case int:
		return int64(v), true
	case float64:
		return int64(v), v == float64(int64(v))
	}
	return 0, false
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// quote prints a value from a manifest in a message: on one line, and short.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strconv.Quote(s)
}
