package reconcile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"strings"
	"time"
)

// Action is what a [Change] does.
type Action string

// The actions.
const (
	Create Action = "Create"
	Update Action = "Update"
	Delete Action = "Delete"
)

// Cause is why a [Change] is in a plan.
type Cause string

// The causes.
const (
	// NewRevision: Git declares something new.
	NewRevision Cause = "NewRevision"
	// DriftDetected: Git did not change, the live object did.
	DriftDetected Cause = "DriftDetected"
	// Pruned: Git no longer declares what evenkeel once applied.
	Pruned Cause = "Pruned"
	// Adopted: the object existed before evenkeel first applied it.
	Adopted Cause = "Adopted"
)

// FieldChange is one difference between what is live and what is desired.
type FieldChange struct {
	// Path is the field (see [Path]).
	Path string `json:"path"`
	// From is the live value, nil where the field is missing; To the desired
	// one, nil where the field is removed. Values of Secrets are masked.
	From any `json:"from"`
	To   any `json:"to"`
	// Origin is the file and line that ask for it; for a removed field the
	// resource's.
	Origin Origin `json:"origin,omitzero"`
}

// Change is one step of a [Plan]: one resource created, updated or deleted.
type Change struct {
	Action Action `json:"action"`
	Key    Key    `json:"key"`
	// Desired is the whole object to write; nil for Delete. It must not be
	// changed.
	Desired map[string]any `json:"desired,omitempty"`
	// Fields are the differences, in path order; empty for Create and Delete.
	Fields []FieldChange `json:"fields,omitempty"`
	// LiveVersion is the live object's version when the plan was made: the
	// change's precondition. Empty where there was none.
	LiveVersion string `json:"liveVersion,omitempty"`
	Cause       Cause  `json:"cause"`
	// Reason is one line for a person.
	Reason string `json:"reason"`
	// Origin is where Git declares the resource, or last did.
	Origin Origin `json:"origin,omitzero"`
	// DependsOn are the keys of changes in earlier waves that must have
	// succeeded first.
	DependsOn []Key `json:"dependsOn,omitempty"`
}

// Held is a change that the plan leaves out, and why.
type Held struct {
	Change Change `json:"change"`
	// By is the brake or the gate that holds it: "mass-delete", "security".
	By string `json:"by"`
	// Reason is one line for a person.
	Reason string `json:"reason"`
}

// Plan is what [Reconciler.Apply] would do, as data: waves of changes, each
// with its differences and its reason. Plans are deterministic: equal inputs
// give equal plans, and equal plans have equal digests.
type Plan struct {
	// Target names what the plan is for.
	Target string `json:"target,omitempty"`
	// Revision is the desired state's.
	Revision string `json:"revision"`
	// Made is when the plan was made; it is not part of the digest.
	Made time.Time `json:"made"`
	// Waves are applied in order; the changes of one wave side by side.
	Waves [][]Change `json:"waves,omitempty"`
	// Held are changes that are due and not made.
	Held []Held `json:"held,omitempty"`
	// Verdicts are what the gates said of the plan.
	Verdicts []Verdict `json:"verdicts,omitempty"`
	// Unchanged is the number of resources that are as declared.
	Unchanged int `json:"unchanged"`

	desired *State           // what the plan was made from, for Gates
	live    *State           // as above, for recording what is as declared
	made    bool             // by Reconciler.Plan, not read from JSON
	deps    map[Key][]Key    // what each change's resource must come after
	kept    map[Key]struct{} // changes back to the last accepted declaration
	open    map[Key]struct{} // what was not as declared, whatever became of its change
	accepts []Change         // what is as declared and was not accepted yet, for Gates
	asked   [2]*Plan         // as it was shown to the gates: it, and the changes back
	planned map[Key]Change   // what the waves held when it was made
	digest  string           // as it was read from JSON
}

// planFields is a Plan without methods.
type planFields Plan

// MarshalJSON adds the digest, which tells more than the JSON, as that has no
// values of Secrets.
func (p Plan) MarshalJSON() ([]byte, error) {
	d := p.digest
	if d == "" {
		d = p.Digest()
	}
	return json.Marshal(struct {
		planFields
		Digest string `json:"digest"`
	}{planFields(p), d})
}

// UnmarshalJSON keeps the digest beside the plan, for [Reconciler.Apply] to
// compare.
func (p *Plan) UnmarshalJSON(data []byte) error {
	var v struct {
		planFields
		Digest string `json:"digest"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	*p = Plan(v.planFields)
	p.digest = v.Digest
	return nil
}

// Changes yields the plan's changes in order.
func (p *Plan) Changes() iter.Seq[Change] {
	return func(yield func(Change) bool) {
		for _, w := range p.Waves {
			for _, c := range w {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// Len is the number of changes, held ones not counted.
func (p *Plan) Len() int {
	n := 0
	for _, w := range p.Waves {
		n += len(w)
	}
	return n
}

// Empty tells whether there is nothing to do and nothing held.
func (p *Plan) Empty() bool { return p.Len() == 0 && len(p.Held) == 0 }

// Desired gives the declared resource behind a change, with the place of each
// of its fields. It knows nothing where the plan was read from JSON.
func (p *Plan) Desired(k Key) (Resource, bool) { return p.desired.Get(k) }

// Declared yields all resources of the desired state that the plan was made
// from, in key order.
func (p *Plan) Declared() iter.Seq[Resource] { return p.desired.All() }

// Digest identifies what the plan would do: target, revision and all changes
// with their preconditions, but neither when it was made nor what gates said.
// It is "sha256:" and 64 hex digits. A plan that was read from JSON has
// another one if it touches a Secret, whose values it does not have; the JSON
// gives the original's under "digest".
func (p *Plan) Digest() string {
	type bare Change // without the masking of Change.MarshalJSON
	waves := make([][]bare, len(p.Waves))
	for i, w := range p.Waves {
		waves[i] = make([]bare, len(w))
		for j, c := range w {
			waves[i][j] = bare(c)
		}
	}
	return digest(p.Target, p.Revision, waves)
}

// secret tells whether the plan writes values that its JSON does not show.
func (p *Plan) secret() bool {
	for c := range p.Changes() {
		if isSecret(c.Key) && c.Desired != nil {
			return true
		}
	}
	return false
}

// openDigest is the digest of what the plan's JSON shows.
func (p *Plan) openDigest() string {
	waves := make([][]Change, len(p.Waves)) // an empty list is not told from none
	for i, w := range p.Waves {
		waves[i] = append([]Change{}, w...)
	}
	return digest(p.Target, p.Revision, waves)
}

func digest(target, revision string, waves any) string {
	all := struct {
		Target, Revision string
		Waves            any
	}{target, revision, waves}
	h := sha256.New()
	if err := json.NewEncoder(h).Encode(all); err != nil {
		// An object with what JSON cannot say, such as NaN. fmt can, in a
		// stable order; a hash that leaves it out would take different plans
		// for the same.
		fmt.Fprintf(h, "%v", all)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

const masked = "(masked)"

// MarshalJSON leaves out the values of Secrets.
func (c Change) MarshalJSON() ([]byte, error) {
	type bare Change
	b := bare(c)
	if isSecret(c.Key) && c.Desired != nil {
		b.Desired = maps.Clone(c.Desired)
		for _, field := range []string{"data", "stringData"} {
			v, ok := b.Desired[field]
			if !ok {
				continue
			}
			if m, ok := v.(map[string]any); ok {
				m = maps.Clone(m)
				for k := range m {
					m[k] = masked
				}
				b.Desired[field] = m
			} else if v != nil {
				b.Desired[field] = masked
			}
		}
	}
	return json.Marshal(b)
}

// UnmarshalJSON reads whole numbers as int64, as objects have them.
func (c *Change) UnmarshalJSON(data []byte) error {
	type bare Change
	var b bare
	if err := decodeJSON(data, &b); err != nil {
		return err
	}
	b.Desired = plainObject(b.Desired)
	*c = Change(b)
	return nil
}

// UnmarshalJSON reads whole numbers as int64, as objects have them.
func (f *FieldChange) UnmarshalJSON(data []byte) error {
	type bare FieldChange
	var b bare
	if err := decodeJSON(data, &b); err != nil {
		return err
	}
	b.From, b.To = plain(b.From), plain(b.To)
	*f = FieldChange(b)
	return nil
}

func isSecret(k Key) bool { return k.Group == "" && k.Kind == "Secret" }

// maskSecret hides the values of a Secret's differences.
func maskSecret(k Key, fields []FieldChange) {
	if !isSecret(k) {
		return
	}
	for i, f := range fields {
		p, err := ParsePath(f.Path)
		if err == nil && len(p) > 0 && p[0].Field != "data" && p[0].Field != "stringData" {
			continue
		}
		if f.From != nil {
			fields[i].From = masked
		}
		if f.To != nil {
			fields[i].To = masked
		}
	}
}

// String gives the plan for people: one line a change, with its differences
// below it.
//
//	plan 3f2c1e0d9a: 1 create, 1 update, 0 delete, 12 unchanged
//	  + Deployment.apps/shop/cart     declared in shop/cart.yaml:1:1 at 3f2c1e0d9a
//	  ~ Deployment.apps/shop/payment  drift: spec.replicas
//	      spec.replicas: 2 -> 3  (shop/payment.yaml:9)
func (p *Plan) String() string {
	if p == nil {
		return "no plan\n"
	}
	var b strings.Builder
	count := map[Action]int{}
	width := 0
	for c := range p.Changes() {
		count[c.Action]++
		width = max(width, len(c.Key.String()))
	}
	for _, h := range p.Held {
		width = max(width, len(h.Change.Key.String()))
	}
	fmt.Fprintf(&b, "plan %s: %d create, %d update, %d delete, %d unchanged", ShortRevision(p.Revision),
		count[Create], count[Update], count[Delete], p.Unchanged)
	if len(p.Held) > 0 {
		fmt.Fprintf(&b, ", %d held", len(p.Held))
	}
	b.WriteByte('\n')
	for c := range p.Changes() {
		fmt.Fprintf(&b, "  %s %-*s  %s\n", c.Action.sign(), width, c.Key, c.Reason)
		for _, f := range c.Fields {
			fmt.Fprintf(&b, "      %s\n", f)
		}
	}
	for _, h := range p.Held {
		fmt.Fprintf(&b, "  ! %-*s  held by %s: %s\n", width, h.Change.Key, h.By, h.Reason)
	}
	return b.String()
}

func (a Action) sign() string {
	switch a {
	case Create:
		return "+"
	case Update:
		return "~"
	default:
		return "-"
	}
}

// String gives "path: from -> to", with the place that asks for it.
func (f FieldChange) String() string {
	s := fmt.Sprintf("%s: %s -> %s", f.Path, show(f.From), show(f.To))
	if f.Origin.Path != "" {
		s += fmt.Sprintf("  (%s:%d)", f.Origin.Path, f.Origin.Line)
	}
	return s
}

func show(v any) string {
	if v == nil {
		return "(none)"
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	const most = 80
	if r := []rune(string(b)); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return string(b)
}
