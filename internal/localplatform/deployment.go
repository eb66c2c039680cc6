package localplatform

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

// maxReplicas keeps a typing mistake from starting a thousand processes.
const maxReplicas = 40

// deployment is what a Deployment asks for.
type deployment struct {
	replicas int
	template any
	hash     string
	image    string
}

// parseDeployment reads what the platform uses of a Deployment. A field that
// it cannot use is [reconcile.ErrInvalid].
func parseDeployment(object map[string]any) (deployment, error) {
	d := deployment{replicas: 1}
	bad := func(path, why string) (deployment, error) {
		return deployment{}, fmt.Errorf("%s: %s: %w", path, why, reconcile.ErrInvalid)
	}
	spec, _ := object["spec"].(map[string]any)
	switch n := spec["replicas"].(type) {
	case nil:
	case int64:
		if n < 0 || n > maxReplicas {
			return bad("spec.replicas", fmt.Sprintf("%d is not between 0 and %d", n, maxReplicas))
		}
		d.replicas = int(n)
	default:
		return bad("spec.replicas", fmt.Sprintf("%v is not an integer", n))
	}
	d.template = spec["template"]
	c, err := container(d.template)
	if err != nil {
		return deployment{}, err
	}
	d.image, _ = c["image"].(string)
	if d.image == "" {
		return bad("spec.template.spec.containers[0].image", "missing")
	}
	if d.hash, err = hashOf(d.template); err != nil {
		return deployment{}, err
	}
	return d, nil
}

func container(template any) (map[string]any, error) {
	t, _ := template.(map[string]any)
	spec, _ := t["spec"].(map[string]any)
	list, _ := spec["containers"].([]any)
	if len(list) != 1 {
		return nil, fmt.Errorf("spec.template.spec.containers: %d containers, and the platform runs pods of one: %w", len(list), reconcile.ErrInvalid)
	}
	c, ok := list[0].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("spec.template.spec.containers[0]: not an object: %w", reconcile.ErrInvalid)
	}
	return c, nil
}

// environment gives what a container's env and envFrom say, and its memory
// limit. A ConfigMap that is not there is an error that may pass. The caller
// holds mu.
func (p *Platform) environment(namespace string, template any) ([]string, error) {
	c, err := container(template)
	if err != nil {
		return nil, err
	}
	configMap := func(name string) (map[string]any, error) {
		rec, ok := p.records[reconcile.Key{Kind: "ConfigMap", Namespace: namespace, Name: name}]
		if !ok {
			return nil, fmt.Errorf("ConfigMap %q: %w", name, reconcile.ErrNotFound)
		}
		data, _ := rec.object["data"].(map[string]any)
		return data, nil
	}
	env := map[string]string{}
	from, _ := c["envFrom"].([]any)
	for i, f := range from {
		f, _ := f.(map[string]any)
		ref, _ := f["configMapRef"].(map[string]any)
		name, _ := ref["name"].(string)
		if name == "" {
			return nil, fmt.Errorf("spec.template.spec.containers[0].envFrom[%d]: only configMapRef is known: %w", i, reconcile.ErrInvalid)
		}
		data, err := configMap(name)
		if err != nil {
			return nil, err
		}
		for k, v := range data {
			if s, ok := v.(string); ok {
				env[k] = s
			}
		}
	}
	list, _ := c["env"].([]any)
	for i, e := range list {
		e, _ := e.(map[string]any)
		name, _ := e["name"].(string)
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return nil, fmt.Errorf("spec.template.spec.containers[0].env[%d].name: %q: %w", i, name, reconcile.ErrInvalid)
		}
		value, _ := e["value"].(string)
		if src, ok := e["valueFrom"].(map[string]any); ok {
			ref, _ := src["configMapKeyRef"].(map[string]any)
			cm, _ := ref["name"].(string)
			data, err := configMap(cm)
			if err != nil {
				return nil, err
			}
			key, _ := ref["key"].(string)
			if value, ok = data[key].(string); !ok {
				return nil, fmt.Errorf("ConfigMap %q: key %q: %w", cm, key, reconcile.ErrNotFound)
			}
		}
		if strings.Contains(value, "\x00") {
			return nil, fmt.Errorf("spec.template.spec.containers[0].env[%d].value: a zero byte: %w", i, reconcile.ErrInvalid)
		}
		env[name] = value
	}
	res, _ := c["resources"].(map[string]any)
	limits, _ := res["limits"].(map[string]any)
	if s, ok := limits["memory"].(string); ok {
		mb, err := megabytes(s)
		if err != nil {
			return nil, fmt.Errorf("spec.template.spec.containers[0].resources.limits.memory: %w", err)
		}
		env["MEMORY_LIMIT_MB"] = strconv.Itoa(mb)
	}
	out := make([]string, 0, len(env))
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out, nil
}

// megabytes reads a quantity of memory, rounded up to whole units of 2^20.
func megabytes(s string) (int, error) {
	num := strings.TrimRight(s, "KMGikm")
	v, err := strconv.ParseFloat(num, 64)
	unit, ok := map[string]float64{"": 1, "k": 1e3, "K": 1e3, "Ki": 1 << 10, "M": 1e6, "Mi": 1 << 20, "G": 1e9, "Gi": 1 << 30}[s[len(num):]]
	if err != nil || !ok || !(v > 0 && v*unit < 1<<40) {
		return 0, fmt.Errorf("%q is not an amount of memory: %w", s, reconcile.ErrInvalid)
	}
	return int((v*unit + (1 << 20) - 1) / (1 << 20)), nil
}

// instances gives the service processes of a Deployment that are not being
// stopped, oldest first. The caller holds mu.
func (p *Platform) instances(key reconcile.Key) []*proc {
	var out []*proc
	for _, pr := range p.procs {
		e := pr.entry
		if e.Role == rundir.RoleService && e.Service == key.Name && e.Namespace == key.Namespace && !pr.stopping {
			out = append(out, pr)
		}
	}
	slices.SortFunc(out, func(a, b *proc) int {
		return cmp.Or(a.entry.Started.Compare(b.entry.Started), strings.Compare(a.entry.ID, b.entry.ID))
	})
	return out
}

// counted leaves out processes that stand in for one that is still there: a
// restart in progress is not a replica too many. The caller holds mu.
func (p *Platform) counted(key reconcile.Key) []*proc {
	return slices.DeleteFunc(p.instances(key), func(pr *proc) bool {
		old, ok := p.procs[pr.entry.Replaces]
		return ok && !old.stopping
	})
}

type status struct {
	desired, live, ready, updated int
	// shown and replicas are what the live object says runs.
	shown    string
	replicas int
}

// status compares a Deployment with its processes. The caller holds mu.
func (p *Platform) status(rec *record) status {
	d, err := parseDeployment(rec.object)
	if err != nil {
		return status{} // cannot happen: Apply does not store such an object
	}
	st := status{desired: d.replicas, shown: d.hash}
	old := 0
	for _, pr := range p.counted(rec.key) {
		st.live++
		if pr.ready {
			st.ready++
		}
		if pr.entry.Template == d.hash {
			st.updated++
			continue
		}
		if old == 0 {
			st.shown = pr.entry.Template
		}
		if pr.entry.Template == st.shown {
			old++
		}
	}
	st.replicas = st.live
	// Where two templates run, the object shows the older one, and a number
	// of replicas that is not the declared one: a half-made rollout must be
	// seen as a difference by whoever wants either template.
	if st.updated > 0 && old > 0 && st.live == d.replicas {
		st.replicas = old
	}
	return st
}

// derive gives the live object. The caller holds mu.
func (p *Platform) derive(rec *record) reconcile.Resource {
	r := reconcile.Resource{Key: rec.key, Object: rec.object, Version: strconv.FormatInt(rec.version, 10), Health: reconcile.Health{Status: reconcile.Healthy}}
	if !isDeployment(rec.key) {
		return r
	}
	st := p.status(rec)
	r.Version = fmt.Sprintf("%d.%d.%s", rec.version, st.replicas, st.shown)
	spec, _ := rec.object["spec"].(map[string]any)
	spec = maps.Clone(spec)
	spec["replicas"] = int64(st.replicas)
	if t, ok := rec.templates[st.shown]; ok {
		spec["template"] = t
	}
	r.Object = maps.Clone(rec.object)
	r.Object["spec"] = spec
	r.Object["status"] = map[string]any{
		"replicas": int64(st.live), "readyReplicas": int64(st.ready), "updatedReplicas": int64(st.updated),
	}
	r.Health = p.health(rec.key, st)
	return r
}

// health puts a Deployment's state into words. The caller holds mu.
func (p *Platform) health(key reconcile.Key, st status) reconcile.Health {
	counts := fmt.Sprintf("%d of %d replicas ready", st.ready, st.desired)
	if st.live > st.desired {
		counts += fmt.Sprintf(", %d too many", st.live-st.desired)
	}
	if st.updated < st.live {
		counts += fmt.Sprintf(", %d of an earlier template", st.live-st.updated)
	}
	if f, ok := p.failures[key]; ok {
		return reconcile.Health{Status: reconcile.Degraded, Reason: f.why + "; " + counts}
	}
	since, ok := p.unhealthy[key]
	switch {
	case st.ready >= st.desired && st.live == st.desired && st.updated == st.desired:
		return reconcile.Health{Status: reconcile.Healthy, Reason: counts}
	case ok && p.clock.Now().Sub(since) > p.opts.Grace:
		return reconcile.Health{Status: reconcile.Degraded, Reason: counts}
	default:
		return reconcile.Health{Status: reconcile.Progressing, Reason: counts}
	}
}

// checkImage is the pull: an image that the registry does not have cannot
// come to run by trying again.
func (p *Platform) checkImage(image string) error {
	_, err := shop.PullImage(string(p.dir), image)
	return err
}
