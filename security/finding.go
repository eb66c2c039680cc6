package security

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// Severity says how bad a finding is. The set is closed and ordered: compare
// with < and >=. The zero Severity is none, which no finding has.
type Severity uint8

// The severities, from mild to grave.
const (
	// Info is worth knowing.
	Info Severity = iota + 1
	// Low is hardening that most workloads can do without.
	Low
	// Medium weakens a defence that another one still backs.
	Medium
	// High gives an attacker, or a mistake, a way to harm other workloads.
	High
	// Critical gives away the node, the cluster or a credential.
	Critical
)

// String gives the name in lower case, and "" for the zero Severity.
func (s Severity) String() string {
	switch s {
	case 0:
		return ""
	case Info:
		return "info"
	case Low:
		return "low"
	case Medium:
		return "medium"
	case High:
		return "high"
	case Critical:
		return "critical"
	}
	return fmt.Sprintf("severity(%d)", uint8(s))
}

// ParseSeverity reads the name that [Severity.String] writes, in any case. An
// unknown name is an error that matches [reconcile.ErrInvalid].
func ParseSeverity(name string) (Severity, error) {
	for s := Info; s <= Critical; s++ {
		if strings.EqualFold(name, s.String()) {
			return s, nil
		}
	}
	return 0, fmt.Errorf("security: severity %q is none of info, low, medium, high, critical: %w", name, reconcile.ErrInvalid)
}

// MarshalText writes the name.
func (s Severity) MarshalText() ([]byte, error) {
	if s > Critical {
		return nil, fmt.Errorf("security: %s: %w", s, reconcile.ErrInvalid)
	}
	return []byte(s.String()), nil
}

// UnmarshalText is the inverse of MarshalText.
func (s *Severity) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*s = 0
		return nil
	}
	v, err := ParseSeverity(string(b))
	if err != nil {
		return err
	}
	*s = v
	return nil
}

// Mode says what a [Gate] makes of a policy's findings.
type Mode string

// The modes. The empty Mode is Enforce.
const (
	// Enforce refuses the change.
	Enforce Mode = "enforce"
	// Warn reports the finding and lets the change pass.
	Warn Mode = "warn"
	// Off does not evaluate the policy at all.
	Off Mode = "off"
)

// Policy is one rule as a Go value: what it is called, why it exists, and the
// function that checks one resource or pod.
type Policy struct {
	// ID is stable and unique within a [Set]: lower-case letters, digits and
	// dashes, starting with a letter.
	ID string
	// Title is a few words for a heading.
	Title string
	// Severity is that of every finding of the policy.
	Severity Severity
	// Why tells a person what can go wrong, in a sentence or two.
	Why string
	// Standard names the control that the policy implements, such as
	// "Pod Security Standards, baseline: Privileged Containers"; may be empty.
	Standard string
	// Check gives what is wrong with a resource, nil for nothing and for
	// resources that it does not concern. CheckPod is the same for policies
	// on pods: it is called with every Pod and with the pod template of every
	// workload. Exactly one of the two must be set.
	//
	// They must be pure functions, safe for concurrent use, must not change
	// what they are given, and must take objects of any shape: they come from
	// people. Messages must not quote secret values.
	Check    func(r reconcile.Resource) []Violation
	CheckPod func(p *Pod) []Violation
}

// Violation is what a [Policy] finds wrong in one place of a resource.
type Violation struct {
	// Path is the field (see [reconcile.Path]), also where the fault is that
	// it is missing; empty for the whole resource.
	Path string
	// Message is one line for a person.
	Message string
	// Remedy says in one line what to do instead.
	Remedy string
}

// Finding is one violation, in its place.
type Finding struct {
	// Rule is the policy's ID.
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	// Mode is [Enforce] or [Warn].
	Mode Mode `json:"mode"`
	// Key is the resource; zero for a finding about the policy set itself.
	Key reconcile.Key `json:"key,omitzero"`
	// Path is the field (see [reconcile.Path]).
	Path string `json:"path,omitempty"`
	// Origin is the file, line, column and commit of the field, or of the
	// nearest field around it that is declared; zero for live resources.
	Origin reconcile.Origin `json:"origin,omitzero"`
	// Message is one line for a person. It never holds a secret value.
	Message string `json:"message"`
	// Remedy is one line on what to do instead.
	Remedy string `json:"remedy,omitempty"`
	// Exception is the exception that covers the finding, nil for none. One
	// that has expired is kept here for the reader and has no effect.
	Exception *AppliedException `json:"exception,omitempty"`
}

// AppliedException is the part of an [Exception] that a finding shows.
type AppliedException struct {
	Owner   string    `json:"owner"`
	Reason  string    `json:"reason"`
	Expires time.Time `json:"expires"`
	// Expired is true when it no longer applies.
	Expired bool `json:"expired,omitempty"`
	// Origin is where the exception is declared, if that is known.
	Origin reconcile.Origin `json:"origin,omitzero"`
}

// Excepted tells whether an exception in force covers the finding.
func (f Finding) Excepted() bool { return f.Exception != nil && !f.Exception.Expired }

// Enforced tells whether a [Gate] refuses a change for the finding: its
// policy is enforced and no exception covers it.
func (f Finding) Enforced() bool { return f.Mode == Enforce && !f.Excepted() }

// String gives the finding as one line in the form that compilers use:
// "deploy/web.yaml:12:9: high pod-host-path: Deployment.apps/shop/web: message".
func (f Finding) String() string {
	var b strings.Builder
	if place := place(f.Origin); place != "" {
		b.WriteString(place)
		b.WriteString(": ")
	}
	b.WriteString(f.Severity.String())
	b.WriteByte(' ')
	b.WriteString(f.Rule)
	b.WriteString(": ")
	if f.Key != (reconcile.Key{}) {
		b.WriteString(f.Key.String())
		b.WriteString(": ")
	}
	b.WriteString(f.Message)
	b.WriteString(f.note())
	return printable(b.String())
}

// note says what there is to know of the finding's exception.
func (f Finding) note() string {
	switch {
	case f.Exception == nil:
		return ""
	case f.Exception.Expired:
		return " (the exception of " + f.Exception.Owner + " expired on " + day(f.Exception.Expires) + ")"
	default:
		return " (excepted by " + f.Exception.Owner + " until " + day(f.Exception.Expires) + ")"
	}
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// place is file:line:column without the revision.
func place(o reconcile.Origin) string {
	o.Revision = ""
	return o.String()
}

// Compare orders findings as a reader of the files meets them: by file, line
// and column, then by resource, field, rule and message.
func (f Finding) Compare(o Finding) int {
	return cmp.Or(
		strings.Compare(f.Origin.Repo, o.Origin.Repo),
		strings.Compare(f.Origin.Path, o.Origin.Path),
		cmp.Compare(f.Origin.Line, o.Origin.Line),
		cmp.Compare(f.Origin.Column, o.Origin.Column),
		f.Key.Compare(o.Key),
		strings.Compare(f.Path, o.Path),
		strings.Compare(f.Rule, o.Rule),
		strings.Compare(f.Message, o.Message),
	)
}

// normalise sorts findings and drops those that say the same thing of the
// same place again.
func normalise(fs []Finding) []Finding {
	slices.SortStableFunc(fs, Finding.Compare)
	return slices.CompactFunc(fs, func(a, b Finding) bool { return a.Compare(b) == 0 })
}
