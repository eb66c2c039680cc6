package remediate

import (
	"cmp"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

// Autonomy is how much a playbook may do without a person.
type Autonomy string

// The rungs, from least to most.
const (
	// Observe writes down what would be done, and does nothing.
	Observe Autonomy = "Observe"
	// ActWithApproval asks the [Approver] before each action. The default.
	ActWithApproval Autonomy = "ActWithApproval"
	// ActAndTell acts and notifies.
	ActAndTell Autonomy = "ActAndTell"
	// Act acts; the journal and the commit tell.
	Act Autonomy = "Act"
)

// Risk is how much an action can break.
type Risk string

// The risks.
const (
	Low    Risk = "Low"
	Medium Risk = "Medium"
	High   Risk = "High"
)

// ActionType is what an [Action] does.
type ActionType string

// The action types.
const (
	// RevertCommit takes back the change that the report blames, with a commit.
	RevertCommit ActionType = "RevertCommit"
	// SetField sets one field of the target's manifest, with a commit: scale
	// (spec.replicas) or pin (an image).
	SetField ActionType = "SetField"
	// RestartInstance has the [Actor] restart the one instance to blame.
	RestartInstance ActionType = "RestartInstance"
	// RunFunction has the [Actor] run the function that the action names.
	RunFunction ActionType = "RunFunction"
	// Escalate calls a person; no guard holds it.
	Escalate ActionType = "Escalate"
)

// Action is one thing that a playbook can do.
type Action struct {
	Type ActionType `json:"type"`
	// Name is the function's name for RunFunction, required there; otherwise
	// a title for people, which defaults to the type.
	Name string `json:"name,omitempty"`

	// Key is the resource whose field SetField sets; zero resolves the
	// service to blame with [Options.Locate].
	Key reconcile.Key `json:"key,omitzero"`
	// Field is the path (see [reconcile.Path]) that SetField sets.
	Field string `json:"field,omitempty"`
	// Exactly one of Value, ValueFrom and Factor says what to set it to.
	// Value is a string, bool, whole number or finite float64.
	Value any `json:"value,omitempty"`
	// ValueFrom is the trigger's label that holds the value, a string.
	ValueFrom string `json:"valueFrom,omitempty"`
	// Factor, above 1, multiplies the declared number and rounds up, to at
	// least one more and at most Max.
	Factor float64 `json:"factor,omitempty"`
	// Max bounds Factor, and is required with it.
	Max int64 `json:"max,omitempty"`

	// Risk is shown to approvers; empty is High for RunFunction, Medium for
	// commits and Low for a restart.
	Risk Risk `json:"risk,omitempty"`
	// Undo reverts the action's own commit when its effect is not verified.
	// For RevertCommit and SetField only.
	Undo bool `json:"undo,omitempty"`
}

// String names the action for people and for [TrackRecord]s.
func (a Action) String() string {
	switch {
	case a.Type == RunFunction:
		return "run " + a.Name
	case a.Name != "":
		return a.Name
	case a.Type == SetField && a.Factor > 0:
		return fmt.Sprintf("set %s x%g", a.Field, a.Factor)
	case a.Type == SetField:
		return "set " + a.Field
	case a.Type == RevertCommit:
		return "revert commit"
	case a.Type == RestartInstance:
		return "restart instance"
	case a.Type == Escalate:
		return "escalate"
	}
	return string(a.Type)
}

func (a Action) risk() Risk {
	if a.Risk != "" {
		return a.Risk
	}
	switch a.Type {
	case RunFunction:
		return High
	case RevertCommit, SetField:
		return Medium
	case RestartInstance, Escalate:
		return Low
	}
	return High
}

// writes tells whether the action is a commit.
func (a Action) writes() bool { return a.Type == RevertCommit || a.Type == SetField }

func (a Action) validate() error {
	field := a.Field != "" || a.Value != nil || a.ValueFrom != "" || a.Factor != 0 || a.Max != 0 || a.Key != (reconcile.Key{})
	switch a.Type {
	case SetField:
		if err := a.validateField(); err != nil {
			return err
		}
	case RunFunction:
		if a.Name == "" {
			return fmt.Errorf("RunFunction needs the function's Name: %w", ErrInvalid)
		}
		fallthrough
	case RevertCommit, RestartInstance, Escalate:
		if field {
			return fmt.Errorf("%s takes no Key, Field, Value, ValueFrom, Factor or Max: %w", a.Type, ErrInvalid)
		}
	default:
		return fmt.Errorf("type %q is not known: %w", a.Type, ErrInvalid)
	}
	switch a.Risk {
	case "", Low, Medium, High:
	default:
		return fmt.Errorf("risk %q is not known: %w", a.Risk, ErrInvalid)
	}
	if a.Undo && !a.writes() {
		return fmt.Errorf("%s cannot be undone by a revert: %w", a.Type, ErrInvalid)
	}
	return nil
}

func (a Action) validateField() error {
	if a.Field == "" {
		return fmt.Errorf("SetField needs a Field: %w", ErrInvalid)
	}
	if _, err := reconcile.ParsePath(a.Field); err != nil {
		return fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	if back, err := reconcile.ParseKey(a.Key.String()); a.Key != (reconcile.Key{}) && (err != nil || back != a.Key) {
		return fmt.Errorf("key %q is not the key of a resource: %w", a.Key, ErrInvalid)
	}
	n := 0
	if a.Value != nil {
		n++
		if _, err := scalar(a.Value); err != nil {
			return err
		}
	}
	if a.ValueFrom != "" {
		n++
	}
	if a.Factor != 0 {
		n++
		if !(a.Factor > 1) || math.IsInf(a.Factor, 0) {
			return fmt.Errorf("factor %g is not a finite number above 1: %w", a.Factor, ErrInvalid)
		}
		if a.Max <= 0 || a.Max > maxWhole {
			return fmt.Errorf("a Factor needs a Max in [1, 2^53], got %d: %w", a.Max, ErrInvalid)
		}
	}
	if n != 1 {
		return fmt.Errorf("SetField needs exactly one of Value, ValueFrom and Factor: %w", ErrInvalid)
	}
	if a.Factor == 0 && a.Max != 0 {
		return fmt.Errorf("a Max without a Factor: %w", ErrInvalid)
	}
	return nil
}

// maxWhole is the largest whole number that survives JSON's float64.
const maxWhole = 1 << 53

// scalar brings a field's value to the types of a manifest, such that a value
// that went through the journal's JSON equals one that did not.
func scalar(v any) (any, error) {
	switch v := v.(type) {
	case string, bool:
		return v, nil
	case int:
		return scalar(int64(v))
	case int32:
		return int64(v), nil
	case int64:
		if v > maxWhole || v < -maxWhole {
			return nil, fmt.Errorf("value %d is beyond 2^53: %w", v, ErrInvalid)
		}
		return v, nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("value %v is not finite: %w", v, ErrInvalid)
		}
		if v == math.Trunc(v) && math.Abs(v) <= maxWhole {
			return int64(v), nil
		}
		return v, nil
	}
	return nil, fmt.Errorf("value of type %T is not a string, bool or number: %w", v, ErrInvalid)
}

// Match says which cases a playbook is for. Every field that is set must
// match; a Match with nothing set is refused, because it would match all.
type Match struct {
	// Kind is the trigger's kind: [IncidentTrigger] or the host's own.
	Kind string `json:"kind,omitempty"`
	// Classes are the causes it is for; a case without a report has the
	// class [rootcause.Escalate].
	Classes []rootcause.Class `json:"classes,omitempty"`
	// Service is a glob (see [path.Match]) on the service to blame; "*" is
	// any named one, but no match for a case that names none.
	Service string `json:"service,omitempty"`
	// Labels must all be among the trigger's.
	Labels map[string]string `json:"labels,omitempty"`
	// MinConfidence, in [0, 1], is asked of the first-ranked service.
	MinConfidence float64 `json:"minConfidence,omitempty"`
}

// why tells why the case does not match, or "" where it does.
func (m Match) why(c *Case) string {
	if m.Kind != "" && m.Kind != c.Trigger.Kind {
		return fmt.Sprintf("trigger is %s, not %s", c.Trigger.Kind, m.Kind)
	}
	if class := c.class(); len(m.Classes) > 0 && !slices.Contains(m.Classes, class) {
		return fmt.Sprintf("class is %s", class)
	}
	if m.Service != "" {
		ok, err := path.Match(m.Service, c.Service)
		if err != nil || !ok || c.Service == "" {
			return fmt.Sprintf("service %q is not %s", c.Service, m.Service)
		}
	}
	for _, k := range sortedKeys(m.Labels) {
		if got := c.Trigger.Labels[k]; got != m.Labels[k] {
			return fmt.Sprintf("label %s is %q, not %q", k, got, m.Labels[k])
		}
	}
	if m.MinConfidence > 0 {
		if conf := c.confidence(); conf < m.MinConfidence {
			return fmt.Sprintf("confidence %.2f is below %.2f", conf, m.MinConfidence)
		}
	}
	return ""
}

// Verify is when an action counts as having worked: the [Verifier] says
// recovered within Within of the action's end, and goes on saying so for Hold.
// Zero fields take the defaults of [Timings].
type Verify struct {
	Within time.Duration `json:"within,omitempty"`
	Hold   time.Duration `json:"hold,omitempty"`
}

// Playbook is what to do about a kind of trouble. Its actions are
// alternatives, tried in order: the next one only when the one before could
// not be done or did not help. After the last one the case is escalated.
type Playbook struct {
	// Name is unique within a [Manager].
	Name     string   `json:"name"`
	Match    Match    `json:"match"`
	Actions  []Action `json:"actions"`
	Verify   Verify   `json:"verify,omitzero"`
	Autonomy Autonomy `json:"autonomy,omitempty"`
}

// Validate reports the first thing about the playbook that cannot work, as an
// [ErrInvalid] that names the playbook and the action, counted from 1.
func (p Playbook) Validate() error {
	bad := func(format string, args ...any) error { return invalid("playbook", p.Name, format, args...) }
	if p.Name == "" {
		return bad("it has no Name")
	}
	if !oneLine(p.Name) {
		return bad("its Name is not one line of printable text")
	}
	m := p.Match
	if m.Kind == "" && len(m.Classes) == 0 && m.Service == "" && len(m.Labels) == 0 && m.MinConfidence == 0 {
		return bad("an empty Match would match every case")
	}
	if _, err := path.Match(m.Service, ""); err != nil {
		return bad("service glob %q: %v", m.Service, err)
	}
	for _, class := range m.Classes {
		switch class {
		case rootcause.RollBack, rootcause.Restart, rootcause.ScaleUp, rootcause.Escalate:
		default:
			return bad("class %q is not known", class)
		}
	}
	if !(m.MinConfidence >= 0 && m.MinConfidence <= 1) {
		return bad("MinConfidence %g is not in [0, 1]", m.MinConfidence)
	}
	if len(p.Actions) == 0 {
		return bad("it has no Actions")
	}
	for i, a := range p.Actions {
		if err := a.validate(); err != nil {
			return &Error{Op: "playbook", Name: p.Name, Err: fmt.Errorf("action %d: %w", i+1, err)}
		}
		if a.Type == Escalate && i < len(p.Actions)-1 {
			return bad("action %d: nothing after Escalate is ever tried", i+1)
		}
	}
	if p.Verify.Within < 0 || p.Verify.Hold < 0 {
		return bad("Verify has a negative duration")
	}
	switch p.Autonomy {
	case "", Observe, ActWithApproval, ActAndTell, Act:
	default:
		return bad("autonomy %q is not known", p.Autonomy)
	}
	return nil
}

// DefaultPlaybooks gives the rule book to begin with: roll back what a change
// broke, restart an instance that went bad, scale up (by half, to at most 20
// replicas) where demand outgrew capacity, and escalate everything else.
func DefaultPlaybooks() []Playbook {
	return []Playbook{{
		Name:     "roll-back",
		Match:    Match{Kind: IncidentTrigger, Classes: []rootcause.Class{rootcause.RollBack}, Service: "*"},
		Actions:  []Action{{Type: RevertCommit}},
		Autonomy: ActAndTell,
	}, {
		Name:     "restart-instance",
		Match:    Match{Kind: IncidentTrigger, Classes: []rootcause.Class{rootcause.Restart}, Service: "*"},
		Actions:  []Action{{Type: RestartInstance}},
		Autonomy: ActAndTell,
	}, {
		Name:     "scale-up",
		Match:    Match{Kind: IncidentTrigger, Classes: []rootcause.Class{rootcause.ScaleUp}, Service: "*"},
		Actions:  []Action{{Type: SetField, Name: "scale up", Field: "spec.replicas", Factor: 1.5, Max: 20}},
		Autonomy: ActAndTell,
	}, {
		Name:     "escalate",
		Match:    Match{Kind: IncidentTrigger},
		Actions:  []Action{{Type: Escalate}},
		Autonomy: ActAndTell,
	}}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// oneLine tells whether s can stand in a trailer and a timeline.
func oneLine(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) < 0
}
