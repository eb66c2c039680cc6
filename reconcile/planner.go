package reconcile

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Brake holds deletions that look like a mistake. The zero value is the
// default: a plan that would prune more than ten resources, or more than half
// of what is managed, prunes nothing until a person agrees.
type Brake struct {
	// MaxDeletes is the largest number of deletions in one plan; 0 means 10.
	MaxDeletes int
	// MaxShare is the largest share of the inventory, in (0, 1]; 0 means 0.5.
	MaxShare float64
	// Off lets every deletion pass.
	Off bool
}

func (b Brake) validate() error {
	if b.MaxDeletes < 0 {
		return fmt.Errorf("reconcile: Brake.MaxDeletes %d is negative: %w", b.MaxDeletes, ErrInvalid)
	}
	if !(b.MaxShare >= 0 && b.MaxShare <= 1) {
		return fmt.Errorf("reconcile: Brake.MaxShare %v is not in [0, 1]: %w", b.MaxShare, ErrInvalid)
	}
	return nil
}

// holds gives the reason to hold n deletions out of managed resources, or "".
func (b Brake) holds(n, managed int) string {
	if b.Off || n == 0 {
		return ""
	}
	most, share := cmp.Or(b.MaxDeletes, 10), cmp.Or(b.MaxShare, 0.5)
	if n > most {
		return fmt.Sprintf("%d deletions in one plan, more than %d", n, most)
	}
	if float64(n) > share*float64(managed) {
		return fmt.Sprintf("%d deletions of %d managed resources, more than %.0f%%", n, managed, share*100)
	}
	return ""
}

// Ceded is a rule that leaves a field to others than Git: an autoscaler, a
// controller, a person.
type Ceded struct {
	// Kind and Group of the resources; an empty Kind is every kind.
	Group, Kind string
	// Path is the field.
	Path string
}

// rules are what planning depends on besides the three states.
type rules struct {
	target string
	brake  Brake
	ceded  []Ceded
}

func (r rules) cededPaths(res Resource) ([]Path, error) {
	var out []Path
	for _, s := range splitList(annotation(res.Object, AnnotationCeded)) {
		p, err := ParsePath(s)
		if err != nil {
			o := res.Locate(JoinField("metadata.annotations", AnnotationCeded))
			return nil, fmt.Errorf("reconcile: %s: annotation %s of %s: %w", o, AnnotationCeded, res.Key, err)
		}
		out = append(out, p)
	}
	for _, c := range r.ceded {
		if c.Kind != "" && (c.Kind != res.Key.Kind || c.Group != res.Key.Group) {
			continue
		}
		p, err := ParsePath(c.Path)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// makePlan compares the three states. It is pure: equal inputs give equal
// plans. All errors of the desired state come together.
func makePlan(r rules, desired, live *State, inv *Inventory) (*Plan, error) {
	p := &Plan{Target: r.target, Revision: desired.Revision(), desired: desired}
	crds := definedKinds(desired)
	var changes []Change
	var problems []error
	for want := range desired.All() {
		deps, err := dependencies(want, crds)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		c, changed, err := r.change(want, live, inv)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if !changed {
			p.Unchanged++
			continue
		}
		c.DependsOn = deps
		changes = append(changes, c)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	prunes := r.prunes(desired, live, inv)
	if reason := r.brake.holds(len(prunes), len(inv.Items)); reason != "" {
		for _, c := range prunes {
			p.Held = append(p.Held, Held{Change: c, By: "mass-delete brake", Reason: reason})
		}
	} else {
		changes = append(changes, prunes...)
	}
	var err error
	p.Waves, err = order(changes)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// change gives what has to be done for one declared resource, if anything.
func (r rules) change(want Resource, live *State, inv *Inventory) (c Change, changed bool, err error) {
	ceded, err := r.cededPaths(want)
	if err != nil {
		return Change{}, false, err
	}
	item, managed := inv.Items[want.Key]
	c = Change{Key: want.Key, Desired: want.Object, Origin: want.Origin}
	have, exists := live.Get(want.Key)
	if !exists {
		c.Action = Create
		c.Cause = NewRevision
		c.Reason = "declared in " + want.Origin.String()
		if managed && !item.Pending && sameObject(item.Applied, want.Object) {
			c.Cause = DriftDetected
			c.Reason = "drift: deleted on the live side"
		}
		return c, true, nil
	}
	applied := item.Applied
	if len(ceded) > 0 {
		// A ceded field is taken out of what is compared and what is written.
		applied, c.Desired = CloneObject(applied), CloneObject(c.Desired)
		for _, p := range ceded {
			p.Delete(applied)
			p.Delete(c.Desired)
		}
	}
	c.Fields = Diff(applied, c.Desired, have.Object)
	if len(c.Fields) == 0 {
		return Change{}, false, nil
	}
	for i := range c.Fields {
		c.Fields[i].Origin = want.Locate(c.Fields[i].Path)
	}
	c.Action = Update
	c.LiveVersion = have.Version
	switch {
	case !managed:
		c.Cause = Adopted
		c.Reason = "exists already, now declared in " + want.Origin.String()
	case sameObject(item.Applied, want.Object):
		c.Cause = DriftDetected
		c.Reason = "drift: " + fieldNames(c.Fields)
	default:
		c.Cause = NewRevision
		c.Reason = "changed in " + want.Origin.String() + ": " + fieldNames(c.Fields)
	}
	maskSecret(c.Key, c.Fields)
	return c, true, nil
}

// sameObject tells whether two declarations ask for the same.
func sameObject(a, b map[string]any) bool {
	return a != nil && len(Diff(a, b, a)) == 0 && len(Diff(b, a, b)) == 0
}

func fieldNames(fields []FieldChange) string {
	const most = 3
	var names []string
	for i, f := range fields {
		if i == most {
			names = append(names, fmt.Sprintf("and %d more", len(fields)-most))
			break
		}
		names = append(names, f.Path)
	}
	return strings.Join(names, ", ")
}

// prunes gives the deletions of what is managed, still live, and no longer
// declared.
func (r rules) prunes(desired, live *State, inv *Inventory) []Change {
	var out []Change
	for k, item := range inv.Items {
		if _, ok := desired.Get(k); ok {
			continue
		}
		have, ok := live.Get(k)
		if !ok || annotation(have.Object, AnnotationPrune) == "false" {
			continue
		}
		reason := "no longer declared"
		if item.Origin.Path != "" {
			reason += "; was in " + item.Origin.String()
		}
		c := Change{Action: Delete, Key: k, LiveVersion: have.Version, Cause: Pruned, Reason: reason, Origin: item.Origin}
		if deps, err := dependencies(Resource{Key: k, Object: have.Object}, nil); err == nil {
			c.DependsOn = deps
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Change) int { return a.Key.Compare(b.Key) })
	return out
}
