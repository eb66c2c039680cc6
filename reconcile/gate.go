package reconcile

import "context"

// Decision is what a [Gate] says, from mild to strict.
type Decision string

// The decisions.
const (
	Allow Decision = "Allow"
	// Warn lets the change pass and says why a person should look.
	Warn Decision = "Warn"
	// Hold keeps the change back until the gate says otherwise.
	Hold Decision = "Hold"
	// Deny refuses the change as it stands in Git.
	Deny Decision = "Deny"
)

// Gate reviews a plan before it is applied: policy, approval, windows, risk.
// Review must not change the plan. A gate that returns an error holds the
// whole plan: no answer is never a yes. Implementations are safe for
// concurrent use.
type Gate interface {
	Review(ctx context.Context, p *Plan) (Verdict, error)
}

// Verdict is a gate's answer. The zero value with a Gate name allows.
type Verdict struct {
	// Gate is the gate's name: "security", "window".
	Gate string `json:"gate"`
	// Objections are what speaks against the plan; empty allows it.
	Objections []Objection `json:"objections,omitempty"`
}

// Objection is one reason of a [Gate] against one change, or against the
// whole plan.
type Objection struct {
	Decision Decision `json:"decision"`
	// Key is the change it is about; the zero Key is the whole plan. A
	// change that is held or denied holds what depends on it, while the rest
	// of the plan goes on, and its resource is kept as it was last accepted.
	Key Key `json:"key,omitzero"`
	// Rule is the stable id of the rule: "pod-privileged".
	Rule string `json:"rule,omitempty"`
	// Path is the field (see [Path]), if it is about one.
	Path string `json:"path,omitempty"`
	// Origin is the file and line to look at.
	Origin Origin `json:"origin,omitzero"`
	// Message is one line for a person.
	Message string `json:"message"`
}
