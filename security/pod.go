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
	// holder is the object that has the spec and the metadata.
	holder map[string]any
	// specPath and metaPath are where those are in the resource.
	specPath, metaPath string
}

// podOf finds the pod in a resource. Beyond the kinds of Kubernetes it takes
// any kind with containers at spec.template.spec, as rollout and serverless
// controllers have, so that another kind is no way round a policy.
//
// Each rule calls it anew, so it looks up as little as it can.
func podOf(r reconcile.Resource) (pod, bool) {
	switch {
	case r.Key.Kind == "Pod" && r.Key.Group == "":
		spec := object(r.Object, "spec")
		return pod{spec, r.Object, "spec", "metadata"}, spec != nil
	case r.Key.Kind == "PodTemplate" && r.Key.Group == "":
		holder := object(r.Object, "template")
		spec := object(holder, "spec")
		return pod{spec, holder, "template.spec", "template.metadata"}, spec != nil
	}
	spec := object(r.Object, "spec")
	if spec == nil {
		return pod{}, false
	}
	if holder := object(spec, "template"); holder != nil {
		p := pod{object(holder, "spec"), holder, "spec.template.spec", "spec.template.metadata"}
		return p, p.hasContainers()
	}
	if job := object(spec, "jobTemplate"); job != nil {
		holder := object(object(job, "spec"), "template")
		p := pod{object(holder, "spec"), holder, "spec.jobTemplate.spec.template.spec", "spec.jobTemplate.spec.template.metadata"}
		return p, p.hasContainers()
	}
	return pod{}, false
}

func (p *pod) hasContainers() bool {
	return list(p.spec, "containers") != nil || list(p.spec, "initContainers") != nil
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

// container is one container of a pod, and the walk over all of them:
//
//	for c := p.containers(); c.next(); {
//
// It is a cursor rather than a callback so that nothing has to be allocated.
type container struct {
	pod  *pod
	m    map[string]any
	sc   map[string]any // securityContext
	in   string         // the list's field: "initContainers"
	list []any
	i    int // index in list
	left int // lists still to come
}

// containers starts a walk over the init, ordinary and ephemeral containers.
func (p *pod) containers() container { return container{pod: p, left: 3} }

// next goes to the next container and tells whether there is one.
func (c *container) next() bool {
	for {
		for c.i++; c.i < len(c.list); c.i++ {
			if m, ok := c.list[c.i].(map[string]any); ok {
				c.m, c.sc = m, object(m, "securityContext")
				return true
			}
		}
		switch c.left {
		case 3:
			c.in = "initContainers"
		case 2:
			c.in = "containers"
		case 1:
			c.in = "ephemeralContainers"
		default:
			return false
		}
		c.list, c.i = list(c.pod.spec, c.in), -1
		c.left--
	}
}

// path is the container's own, in the form that reconcile gives it.
func (c *container) path() string {
	return element(c.pod.at(c.in), c.list, c.i)
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
