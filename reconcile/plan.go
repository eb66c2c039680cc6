package reconcile

import "time"

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

	desired *State // what the plan was made from, for Gates
}
