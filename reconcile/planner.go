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
	// The deletion of a Namespace or a CustomResourceDefinition counts with
	// every live resource that goes down with it.
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
	ceded  []cededRule
}

type cededRule struct {
	Ceded
	path Path
}

func (r rules) cededPaths(res Resource) ([]Path, error) {
	var out []Path
	if text := annotation(res.Object, AnnotationCeded); text != "" {
		for _, s := range splitList(text) {
			p, err := ParsePath(s)
			if err != nil {
				o := res.Locate(JoinField("metadata.annotations", AnnotationCeded))
				return nil, fmt.Errorf("reconcile: %s: annotation %s of %s: %w", o, AnnotationCeded, res.Key, err)
			}
			out = append(out, p)
		}
	}
	for _, c := range r.ceded {
		if c.Kind == "" || c.Kind == res.Key.Kind && c.Group == res.Key.Group {
			out = append(out, c.path)
		}
	}
	return out, nil
}

// makePlan compares the three states. It is pure: equal inputs give equal
// plans. All errors of the desired state come together.
func makePlan(r rules, desired, live *State, inv *Inventory) (*Plan, error) {
	p := &Plan{Target: r.target, Revision: desired.Revision(), desired: desired, deps: map[Key][]Key{}, open: map[Key]struct{}{}}
	crds := definedKinds(desired)
	var changes []Change
	var problems []error
	var naming []Key
	blocked := map[Key]Held{}
	for want := range desired.All() {
		names, err := named(want)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if len(names) > 0 {
			naming = append(naming, want.Key)
		}
		c, changed, err := r.change(want, live, inv)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if !changed {
			p.Unchanged++
			item, managed := inv.Items[want.Key]
			if !same(item.Applied, want.Object) && !sameObject(item.Applied, want.Object) {
				have, _ := live.Get(want.Key)
				c := Change{Action: Update, Key: want.Key, Desired: want.Object, LiveVersion: have.Version, Cause: NewRevision,
					Reason: "is so already, now declared" + in(want.Origin), Origin: want.Origin}
				if !managed {
					c.Cause = Adopted
				}
				// named has accepted all that dependencies could refuse.
				p.deps[c.Key], _ = dependencies(want, crds)
				p.accepts = append(p.accepts, c)
			}
			continue
		}
		// named has accepted all that dependencies could refuse.
		p.deps[c.Key], _ = dependencies(want, crds)
		p.open[c.Key] = struct{}{}
		changes = append(changes, c)
		if have, ok := live.Get(c.Key); ok && terminating(have) {
			blocked[c.Key] = Held{By: "terminating", Reason: "it is being deleted; it is created again when it is gone"}
			continue
		}
		for _, k := range names {
			_, declared := desired.Get(k)
			if _, exists := live.Get(k); !declared && !exists {
				blocked[c.Key] = Held{By: "depends-on", Reason: "it depends on " + k.String() + ", which neither is declared nor exists"}
				break
			}
		}
	}
	if len(problems) == 0 {
		if err := findCycle(desired, crds, naming); err != nil {
			problems = append(problems, err)
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	prunes, managed := r.prunes(p, live, inv)
	fresh := 0
	gone := map[Key]struct{}{}
	for _, c := range prunes {
		if have, ok := live.Get(c.Key); ok && terminating(have) {
			blocked[c.Key] = Held{By: "terminating", Reason: "its deletion has been asked for; it is not gone yet"}
		} else {
			fresh++
			gone[c.Key] = struct{}{}
		}
	}
	fresh += inside(gone, live, inv)
	if reason := r.brake.holds(fresh, managed); reason != "" {
		for _, c := range prunes {
			if _, ok := blocked[c.Key]; !ok {
				blocked[c.Key] = Held{By: "mass-delete", Reason: reason}
			}
		}
	}
	var err error
	if p.Waves, err = order(append(changes, prunes...), p.deps); err != nil {
		return nil, err
	}
	if len(blocked) > 0 {
		if _, err := p.hold(blocked, nil); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// hold moves the changes that are in blocked, and those that depend on them,
// from the plan's waves to its held ones; with whole, all of them. It gives
// what it moved.
func (p *Plan) hold(blocked map[Key]Held, whole *Held) ([]Change, error) {
	var keep, moved []Change
	held := map[Key]string{}
	for c := range p.Changes() {
		h, bad := blocked[c.Key]
		if !bad && whole != nil {
			h, bad = *whole, true
		}
		if !bad {
			for _, k := range c.DependsOn {
				// Waves come in dependency order, so what c depends on has
				// been looked at already.
				if by, ok := held[k]; ok {
					h, bad = Held{By: by, Reason: "it depends on " + k.String() + ", which is held"}, true
					break
				}
			}
		}
		if !bad {
			keep = append(keep, c)
			continue
		}
		held[c.Key] = h.By
		h.Change = c
		p.Held = append(p.Held, h)
		moved = append(moved, c)
	}
	if len(moved) == 0 {
		return nil, nil
	}
	var err error
	p.Waves, err = order(keep, p.deps)
	return moved, err
}

// inside counts what goes down with deleted namespaces and definitions: the
// live resources in and of them, managed or not, but for those that are
// deleted themselves.
func inside(gone map[Key]struct{}, live *State, inv *Inventory) int {
	namespaces, kinds := map[string]struct{}{}, map[crdKind]struct{}{}
	for k := range gone {
		switch k.Kind {
		case "Namespace":
			namespaces[k.Name] = struct{}{}
		case "CustomResourceDefinition":
			have, _ := live.Get(k)
			for _, object := range []map[string]any{have.Object, inv.Items[k].base()} {
				if d, ok := defined(object); ok {
					kinds[d] = struct{}{}
				}
			}
		}
	}
	if len(namespaces)+len(kinds) == 0 {
		return 0
	}
	n := 0
	for r := range live.All() {
		_, in := namespaces[r.Key.Namespace]
		_, of := kinds[crdKind{r.Key.Group, r.Key.Kind}]
		_, itself := gone[r.Key]
		if (in || of) && !itself {
			n++
		}
	}
	return n
}

func terminating(r Resource) bool {
	if r.Health.Status == Terminating {
		return true
	}
	meta, _ := r.Object["metadata"].(map[string]any)
	return meta["deletionTimestamp"] != nil
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
		c.Reason = "declared" + in(want.Origin)
		if managed && !item.Pending && sameObject(item.Applied, want.Object) {
			c.Cause = DriftDetected
			c.Reason = "drift: deleted on the live side"
		}
		return c, true, nil
	}
	applied := item.base()
	c.Fields = Diff(applied, c.Desired, have.Object)
	if len(c.Fields) > 0 && len(ceded) > 0 {
		// A ceded field is taken out of what is compared and what is written.
		applied, c.Desired = CloneObject(applied), CloneObject(c.Desired)
		for _, p := range ceded {
			p.Delete(applied)
			p.Delete(c.Desired)
		}
		c.Fields = Diff(applied, c.Desired, have.Object)
	}
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
		c.Reason = "exists already, now declared" + in(want.Origin)
	case !item.Pending && sameObject(item.Applied, want.Object):
		c.Cause = DriftDetected
		c.Reason = "drift: " + fieldNames(c.Fields)
	default:
		c.Cause = NewRevision
		c.Reason = "changed" + in(want.Origin) + ": " + fieldNames(c.Fields)
	}
	maskSecret(c.Key, c.Fields)
	return c, true, nil
}

// in gives " in " and the place, where it is known.
func in(o Origin) string {
	if s := o.String(); s != "" {
		return " in " + s
	}
	return ""
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
// declared, in key order, and how many resources are managed: declared or
// live ones of the inventory.
func (r rules) prunes(p *Plan, live *State, inv *Inventory) (out []Change, managed int) {
	for k, item := range inv.Items {
		if _, ok := p.desired.Get(k); ok {
			managed++
			continue
		}
		have, ok := live.Get(k)
		if !ok {
			continue
		}
		managed++
		if annotation(have.Object, AnnotationPrune) == "false" || annotation(item.base(), AnnotationPrune) == "false" {
			continue
		}
		reason := "no longer declared"
		if item.Origin.Path != "" {
			reason += "; was in " + item.Origin.String()
		}
		out = append(out, Change{Action: Delete, Key: k, LiveVersion: have.Version, Cause: Pruned, Reason: reason, Origin: item.Origin})
	}
	slices.SortFunc(out, func(a, b Change) int { return a.Key.Compare(b.Key) })
	for _, c := range out {
		last := Resource{Key: c.Key, Object: inv.Items[c.Key].base()}
		if last.Object == nil {
			have, _ := live.Get(c.Key)
			last.Object = have.Object
		}
		if deps, err := dependencies(last, nil); err == nil {
			p.deps[c.Key] = deps
		}
	}
	return out, managed
}
