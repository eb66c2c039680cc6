package security

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// Pod is a pod or a workload's pod template, wherever its resource keeps it:
// a view for policies, to read and not to change, for the time of one check
// and from one goroutine. It is shaped as it was written, so any field can be
// missing or of another type.
type Pod struct {
	// Spec is the pod's spec; Metadata its, or its template's, metadata, nil
	// for none.
	Spec, Metadata map[string]any
	// SecurityContext is the one of the spec, nil for none.
	SecurityContext map[string]any
	// Containers are the init, ordinary and ephemeral containers, in this
	// order.
	Containers []*Container

	specPath, metaPath string
}

// Container is one container of a [Pod].
type Container struct {
	// Object is the container as it was written.
	Object map[string]any
	// SecurityContext is the container's, nil for none.
	SecurityContext map[string]any
	// List is the field that holds it: "initContainers", "containers" or
	// "ephemeralContainers".
	List string

	pod  *Pod
	in   []any // the list
	i    int
	path string // once asked for
}

// podOf finds the pod in a resource, nil for none. Beyond the kinds of
// Kubernetes it takes any kind with containers at spec.template.spec, as
// rollout and serverless controllers have, so that another kind is no way
// round a policy.
func podOf(r reconcile.Resource) *Pod {
	spec := object(r.Object, "spec")
	switch {
	case r.Key.Kind == "Pod" && r.Key.Group == "":
		return newPod(r.Object, "spec", "metadata")
	case r.Key.Kind == "PodTemplate" && r.Key.Group == "":
		return newPod(object(r.Object, "template"), "template.spec", "template.metadata")
	case spec == nil:
		return nil
	}
	// The API server drops fields that a kind does not have: a template in a
	// CronJob must not hide its jobTemplate.
	if r.Key.Kind != "CronJob" {
		if p := newPod(object(spec, "template"), "spec.template.spec", "spec.template.metadata"); p != nil && len(p.Containers) > 0 {
			return p
		}
	}
	job := object(object(spec, "jobTemplate"), "spec")
	p := newPod(object(job, "template"), "spec.jobTemplate.spec.template.spec", "spec.jobTemplate.spec.template.metadata")
	if p == nil || len(p.Containers) == 0 {
		return nil
	}
	return p
}

// newPod makes the view of the object that holds a pod's spec, nil where it
// has none.
func newPod(holder map[string]any, specPath, metaPath string) *Pod {
	spec := object(holder, "spec")
	if spec == nil {
		return nil
	}
	lists := [...]struct {
		name string
		in   []any
	}{
		{"initContainers", list(spec, "initContainers")},
		{"containers", list(spec, "containers")},
		{"ephemeralContainers", list(spec, "ephemeralContainers")},
	}
	n := len(lists[0].in) + len(lists[1].in) + len(lists[2].in)
	p := &Pod{
		Spec: spec, Metadata: object(holder, "metadata"), SecurityContext: object(spec, "securityContext"),
		Containers: make([]*Container, 0, n), specPath: specPath, metaPath: metaPath,
	}
	all := make([]Container, 0, n)
	for _, l := range lists {
		for i, e := range l.in {
			if m, ok := e.(map[string]any); ok {
				all = append(all, Container{Object: m, SecurityContext: object(m, "securityContext"), List: l.name, pod: p, in: l.in, i: i})
				p.Containers = append(p.Containers, &all[len(all)-1])
			}
		}
	}
	return p
}

// At gives the path of a field of the pod's spec within its resource, for
// [Violation.Path]: At("volumes") is "spec.template.spec.volumes" in a
// Deployment.
func (p *Pod) At(fields ...string) string { return join(p.specPath, fields) }

// windows tells whether the pod says that it runs on Windows, where the
// Linux-only controls have no meaning.
func (p *Pod) windows() bool { return str(object(p.Spec, "os"), "name") == "windows" }

// userNamespace tells whether the pod has a user namespace of its own.
func (p *Pod) userNamespace() bool {
	v, ok := p.Spec["hostUsers"].(bool)
	return ok && !v
}

// At gives the path of a field of the container within its resource, for
// [Violation.Path]: At("image") is "spec.containers[name=web].image" in a Pod.
func (c *Container) At(fields ...string) string {
	if c.path == "" {
		c.path = element(c.pod.At(c.List), c.in, c.i)
	}
	return join(c.path, fields)
}

// String names the container for messages: `init container "prepare"`.
func (c *Container) String() string {
	kind := "container "
	switch c.List {
	case "initContainers":
		kind = "init container "
	case "ephemeralContainers":
		kind = "ephemeral container "
	}
	if name := str(c.Object, "name"); name != "" {
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
