package reconcile

import (
	"fmt"
	"slices"
	"strings"
)

// Annotations that a manifest may carry for the reconciler.
const (
	// AnnotationDependsOn lists the keys, comma-separated, of resources that
	// must be applied first.
	AnnotationDependsOn = "evenkeel.dev/depends-on"
	// AnnotationCeded lists field paths, comma-separated, that the manifest
	// leaves to others: they are written when the resource is created and
	// never again, and never count as drift.
	AnnotationCeded = "evenkeel.dev/ceded"
	// AnnotationPrune set to "false" keeps a resource when Git no longer
	// declares it.
	AnnotationPrune = "evenkeel.dev/prune"
)

func annotation(object map[string]any, name string) string {
	meta, _ := object["metadata"].(map[string]any)
	all, _ := meta["annotations"].(map[string]any)
	s, _ := all[name].(string)
	return s
}

func splitList(s string) []string {
	var out []string
	for _, part := range strings.Split(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// phase is the place of a kind in the order of application: what others live
// in and refer to comes first.
func phase(k Key) int {
	switch k.Kind {
	case "Namespace":
		return 0
	case "CustomResourceDefinition":
		return 1
	case "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "PriorityClass", "ResourceQuota", "LimitRange":
		return 2
	case "ConfigMap", "Secret", "StorageClass", "PersistentVolume", "PersistentVolumeClaim", "NetworkPolicy":
		return 3
	case "Service":
		return 4
	case "Ingress", "HorizontalPodAutoscaler", "PodDisruptionBudget":
		return 6
	case "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "APIService":
		return 7
	default: // workloads and custom resources
		return 5
	}
}

// CycleError reports resources that depend on each other in a circle.
type CycleError struct {
	// Keys are the circle; the last depends on the first.
	Keys []Key
}

func (e *CycleError) Error() string {
	var b strings.Builder
	b.WriteString("reconcile: dependency cycle: ")
	for _, k := range e.Keys {
		b.WriteString(k.String())
		b.WriteString(" -> ")
	}
	if len(e.Keys) > 0 {
		b.WriteString(e.Keys[0].String())
	}
	return b.String()
}

// Is makes errors.Is(err, ErrInvalid) true.
func (e *CycleError) Is(target error) bool { return target == ErrInvalid }

// order puts changes into waves: creations and updates by phase and
// dependency, then deletions in the opposite order. deps are the keys that
// each resource must come after; DependsOn is filled with those of them that
// are changes of the plan, for deletions turned round: what others depend on
// goes after them.
func order(changes []Change, deps map[Key][]Key) ([][]Change, error) {
	var writes, deletes []Change
	for _, c := range changes {
		c.DependsOn = deps[c.Key]
		if c.Action == Delete {
			deletes = append(deletes, c)
		} else {
			writes = append(writes, c)
		}
	}
	up, err := levels(writes)
	if err != nil {
		return nil, err
	}
	down, err := levels(deletes)
	if err != nil {
		// What is no longer declared can be refused no more: a circle among
		// it must not stand in the way of everything else.
		for i := range deletes {
			deletes[i].DependsOn = nil
		}
		if down, err = levels(deletes); err != nil {
			return nil, err
		}
	}
	slices.Reverse(down)
	dependents := map[Key][]Key{}
	for _, wave := range down {
		for _, c := range wave {
			for _, k := range c.DependsOn {
				dependents[k] = append(dependents[k], c.Key)
			}
		}
	}
	for _, wave := range down {
		for i := range wave {
			wave[i].DependsOn = dependents[wave[i].Key]
			slices.SortFunc(wave[i].DependsOn, Key.Compare)
		}
	}
	return append(up, down...), nil
}

func levels(changes []Change) ([][]Change, error) {
	slices.SortFunc(changes, func(a, b Change) int { return a.Key.Compare(b.Key) })
	index := make(map[Key]int, len(changes))
	for i, c := range changes {
		index[c.Key] = i
	}
	// A level leaves room for a chain as long as all changes in each phase.
	span := len(changes) + 1
	level := make([]int, len(changes))
	state := make([]byte, len(changes)) // 0 new, 1 on the way, 2 done
	var path []Key
	var visit func(i int) error
	visit = func(i int) error {
		switch state[i] {
		case 2:
			return nil
		case 1:
			from := slices.Index(path, changes[i].Key)
			return &CycleError{Keys: slices.Clone(path[from:])}
		}
		state[i] = 1
		path = append(path, changes[i].Key)
		level[i] = phase(changes[i].Key) * span
		for _, k := range changes[i].DependsOn {
			j, ok := index[k]
			if !ok {
				continue
			}
			if err := visit(j); err != nil {
				return err
			}
			level[i] = max(level[i], level[j]+1)
		}
		path = path[:len(path)-1]
		state[i] = 2
		return nil
	}
	for i := range changes {
		if err := visit(i); err != nil {
			return nil, err
		}
	}
	byLevel := map[int][]Change{}
	for i, c := range changes {
		c.DependsOn = slices.DeleteFunc(slices.Clone(c.DependsOn), func(k Key) bool { _, ok := index[k]; return !ok })
		if len(c.DependsOn) == 0 {
			c.DependsOn = nil
		}
		byLevel[level[i]] = append(byLevel[level[i]], c)
	}
	var names []int
	for l := range byLevel {
		names = append(names, l)
	}
	slices.Sort(names)
	waves := make([][]Change, len(names))
	for i, l := range names {
		waves[i] = byLevel[l]
	}
	return waves, nil
}

// dependencies gives the keys that a declared resource must come after: those
// it names, its namespace, and the definition of its kind.
func dependencies(r Resource, crds map[crdKind]Key) ([]Key, error) {
	out, err := named(r)
	if err != nil {
		return nil, err
	}
	if r.Key.Namespace != "" {
		out = append(out, Key{Kind: "Namespace", Name: r.Key.Namespace})
	}
	if k, ok := crds[crdKind{r.Key.Group, r.Key.Kind}]; ok {
		out = append(out, k)
	}
	slices.SortFunc(out, Key.Compare)
	return slices.Compact(out), nil
}

// named gives the keys that a resource names in [AnnotationDependsOn].
func named(r Resource) ([]Key, error) {
	text := annotation(r.Object, AnnotationDependsOn)
	if text == "" {
		return nil, nil
	}
	var out []Key
	for _, s := range splitList(text) {
		k, err := ParseKey(s)
		if err != nil {
			o := r.Locate(JoinField("metadata.annotations", AnnotationDependsOn))
			return nil, fmt.Errorf("reconcile: %s: annotation %s of %s: %w", o, AnnotationDependsOn, r.Key, err)
		}
		out = append(out, k)
	}
	return out, nil
}

// findCycle refuses circles among what is declared, whether or not any of it
// has to change now. Every circle has a link that somebody named.
func findCycle(desired *State, crds map[crdKind]Key, starts []Key) error {
	done := map[Key]bool{} // false: on the way
	var path []Key
	var visit func(k Key) error
	visit = func(k Key) error {
		if finished, seen := done[k]; finished {
			return nil
		} else if seen {
			return &CycleError{Keys: slices.Clone(path[slices.Index(path, k):])}
		}
		r, ok := desired.Get(k)
		if !ok {
			return nil
		}
		deps, err := dependencies(r, crds)
		if err != nil {
			return err
		}
		done[k] = false
		path = append(path, k)
		for _, d := range deps {
			if err := visit(d); err != nil {
				return err
			}
		}
		path = path[:len(path)-1]
		done[k] = true
		return nil
	}
	for _, k := range starts {
		if err := visit(k); err != nil {
			return err
		}
	}
	return nil
}

type crdKind struct{ group, kind string }

// definedKinds finds the kinds that the desired state itself defines.
func definedKinds(desired *State) map[crdKind]Key {
	out := map[crdKind]Key{}
	for r := range desired.All() {
		if r.Key.Kind != "CustomResourceDefinition" {
			continue
		}
		if k, ok := defined(r.Object); ok {
			out[k] = r.Key
		}
	}
	return out
}

// defined gives the kind that a definition defines.
func defined(definition map[string]any) (k crdKind, ok bool) {
	spec, _ := definition["spec"].(map[string]any)
	k.group, _ = spec["group"].(string)
	names, _ := spec["names"].(map[string]any)
	k.kind, _ = names["kind"].(string)
	return k, k.kind != ""
}
