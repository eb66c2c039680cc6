package security

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// RuleExpiredException is the rule of the findings that report exceptions
// past their end.
const RuleExpiredException = "exception-expired"

// Rule is a policy as a [Set] applies it. Policies are values: to change the
// severity of a built-in one, set its field.
type Rule struct {
	Policy
	// Mode says what a [Gate] makes of findings; empty is [Enforce].
	Mode Mode
	// Scope limits the rule to resources that one of the selectors matches;
	// nil applies it to all.
	Scope []Selector
	// Exclude takes resources out that one of the selectors matches.
	Exclude []Selector
}

// Selector picks resources. All fields that are set must match. A Selector
// that is empty, or made of nothing but stars, is refused wherever one is
// taken: it is never a way to say "all".
type Selector struct {
	// Kinds are the kinds that match, such as "Deployment", without a group;
	// empty is any kind.
	Kinds []string `json:"kinds,omitempty"`
	// Namespaces and Names are patterns as of [path.Match], of which one must
	// match; empty is any. Resources that have no namespace have "".
	Namespaces []string `json:"namespaces,omitempty"`
	Names      []string `json:"names,omitempty"`
	// Labels must all be in metadata.labels, with these values.
	Labels map[string]string `json:"labels,omitempty"`
}

// Exception takes the findings of one policy on some resources out of force,
// for a time. The findings are still reported, with the exception.
type Exception struct {
	// Policy is the ID of the policy; required, and one of the set's.
	Policy string `json:"policy"`
	// Selector picks the resources; it must narrow them down by namespace,
	// name or label, a kind alone is refused.
	Selector Selector `json:"selector"`
	// Path limits the exception to findings on this field and the fields
	// below it, such as "spec.template.spec.containers[name=agent]"; empty is
	// any field.
	Path string `json:"path,omitempty"`
	// Owner is the person or team that answers for it; required.
	Owner string `json:"owner"`
	// Reason says why; required.
	Reason string `json:"reason"`
	// Expires is the first moment at which it no longer applies; required.
	// What needs no end is no exception: use [Rule.Exclude].
	Expires time.Time `json:"expires"`
	// Origin is where it is declared, if that is known.
	Origin reconcile.Origin `json:"origin,omitzero"`
}

// Config says what a [Set] is made of. The zero Config gives the [Default]
// rules without exceptions.
type Config struct {
	// Rules are the policies to apply; empty is [Default].
	Rules []Rule
	// Exceptions are matched in order; the first in force wins.
	Exceptions []Exception
	// Clock tells when exceptions expire; nil is [reconcile.SystemClock].
	Clock reconcile.Clock
}

// Set is a checked set of policies with their modes, scopes and exceptions.
// It is immutable and safe for concurrent use. [NewSet] makes one; the zero
// Set finds nothing, and a [Gate] refuses to review with it.
type Set struct {
	rules      []Rule
	exceptions []exception
	clock      reconcile.Clock
}

type exception struct {
	Exception
	path reconcile.Path
}

// NewSet checks a configuration and makes a Set of it. It reports all faults
// at once, each naming the rule or the exception; the error matches
// [reconcile.ErrInvalid].
func NewSet(c Config) (*Set, error) {
	s := &Set{clock: c.Clock}
	if s.clock == nil {
		s.clock = reconcile.SystemClock{}
	}
	rules := c.Rules
	if len(rules) == 0 {
		rules = Default()
	}
	var errs []error
	known := map[string]bool{}
	for i, r := range rules {
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("security: rule %d (%q): %s: %w", i, r.ID, fmt.Sprintf(format, args...), reconcile.ErrInvalid))
		}
		switch {
		case !validID(r.ID):
			bad("an id is lower-case letters, digits and dashes, starting with a letter")
		case r.ID == RuleExpiredException:
			bad("the id is reserved")
		case known[r.ID]:
			bad("the id is there twice")
		}
		known[r.ID] = true
		if (r.Check == nil) == (r.CheckPod == nil) {
			bad("needs one of Check and CheckPod")
		}
		if r.Severity < Info || r.Severity > Critical {
			bad("severity %d is none of the known ones", r.Severity)
		}
		switch r.Mode {
		case "":
			r.Mode = Enforce
		case Enforce, Warn, Off:
		default:
			bad("mode %q is none of enforce, warn, off", r.Mode)
		}
		for j, sel := range r.Scope {
			if err := sel.validate(); err != nil {
				bad("scope %d: %v", j, err)
			}
		}
		for j, sel := range r.Exclude {
			if err := sel.validate(); err != nil {
				bad("exclude %d: %v", j, err)
			}
		}
		if r.Mode != Off {
			r.Scope, r.Exclude = slices.Clone(r.Scope), slices.Clone(r.Exclude)
			s.rules = append(s.rules, r)
		}
	}
	for i, e := range c.Exceptions {
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("security: exception %d (policy %q): %s: %w", i, e.Policy, fmt.Sprintf(format, args...), reconcile.ErrInvalid))
		}
		if !known[e.Policy] {
			bad("the set has no such policy")
		}
		if err := e.Selector.validate(); err != nil {
			bad("selector: %v", err)
		} else if len(e.Selector.Namespaces) == 0 && len(e.Selector.Names) == 0 && len(e.Selector.Labels) == 0 {
			bad("selector: a kind alone is too wide, add namespaces, names or labels")
		}
		if strings.TrimSpace(e.Owner) == "" {
			bad("has no owner")
		}
		if strings.TrimSpace(e.Reason) == "" {
			bad("has no reason")
		}
		if e.Expires.IsZero() {
			bad("has no expiry")
		}
		p, err := reconcile.ParsePath(e.Path)
		if err != nil {
			bad("path: %v", err)
		}
		s.exceptions = append(s.exceptions, exception{e, p})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

// Rules gives the rules that are not off, in their order.
func (s *Set) Rules() []Rule { return slices.Clone(s.rules) }

// Evaluate checks all resources of a state, and the exceptions' expiry. The
// findings are sorted (see [Finding.Compare]), without repetitions, and never
// nil. Excepted ones are among them: see [Finding.Excepted].
func (s *Set) Evaluate(state *reconcile.State) []Finding {
	now := s.now()
	fs := []Finding{}
	for r := range state.All() {
		fs = s.evaluate(fs, r, now)
	}
	for _, e := range s.exceptions {
		if now.Before(e.Expires) {
			continue
		}
		fs = append(fs, Finding{
			Rule: RuleExpiredException, Severity: Medium, Mode: Warn, Origin: e.Origin,
			Message: fmt.Sprintf("the exception from %s of %s expired on %s and no longer applies: %s", e.Policy, e.Owner, day(e.Expires), e.Reason),
			Remedy:  "mend what it covers and remove the exception, or renew it with a reason",
		})
	}
	return normalise(fs)
}

// EvaluateResource checks one resource. The findings are sorted and without
// repetitions; nil means that nothing was found.
func (s *Set) EvaluateResource(r reconcile.Resource) []Finding {
	return normalise(s.evaluate(nil, r, s.now()))
}

func (s *Set) now() time.Time {
	if s.clock == nil {
		return time.Time{} // the zero Set, which has nothing that expires
	}
	return s.clock.Now()
}

func (s *Set) evaluate(fs []Finding, r reconcile.Resource, now time.Time) []Finding {
	pod := podOf(r)
	for i := range s.rules {
		rule := &s.rules[i]
		if rule.CheckPod != nil && pod == nil || !rule.applies(r) {
			continue
		}
		var vs []Violation
		if rule.CheckPod != nil {
			vs = rule.CheckPod(pod)
		} else {
			vs = rule.Check(r)
		}
		for _, v := range vs {
			fs = append(fs, Finding{
				Rule: rule.ID, Severity: rule.Severity, Mode: rule.Mode, Key: r.Key,
				Path: v.Path, Origin: r.Locate(v.Path), Message: v.Message, Remedy: v.Remedy,
				Exception: s.except(rule.ID, v.Path, r, now),
			})
		}
	}
	return fs
}

// except finds the first exception in force, else the first expired one.
func (s *Set) except(rule, field string, r reconcile.Resource, now time.Time) *AppliedException {
	var expired *AppliedException
	for _, e := range s.exceptions {
		if e.Policy != rule || !e.Selector.matches(r) || !e.covers(field) {
			continue
		}
		a := &AppliedException{Owner: e.Owner, Reason: e.Reason, Expires: e.Expires, Expired: !now.Before(e.Expires), Origin: e.Origin}
		if !a.Expired {
			return a
		}
		if expired == nil {
			expired = a
		}
	}
	return expired
}

// covers tells whether field is the exception's path or below it.
func (e *exception) covers(field string) bool {
	if len(e.path) == 0 {
		return true
	}
	p, err := reconcile.ParsePath(field)
	return err == nil && len(p) >= len(e.path) && slices.Equal(p[:len(e.path)], e.path)
}

func (r *Rule) applies(res reconcile.Resource) bool {
	for i := range r.Exclude {
		if r.Exclude[i].matches(res) {
			return false
		}
	}
	for i := range r.Scope {
		if r.Scope[i].matches(res) {
			return true
		}
	}
	return len(r.Scope) == 0
}

func (s *Selector) matches(r reconcile.Resource) bool {
	if len(s.Kinds) > 0 && !slices.Contains(s.Kinds, r.Key.Kind) ||
		!anyMatches(s.Namespaces, r.Key.Namespace) || !anyMatches(s.Names, r.Key.Name) {
		return false
	}
	if len(s.Labels) == 0 {
		return true
	}
	labels := object(object(r.Object, "metadata"), "labels")
	for k, v := range s.Labels {
		if have, ok := labels[k].(string); !ok || have != v {
			return false
		}
	}
	return true
}

func anyMatches(patterns []string, s string) bool {
	for _, p := range patterns {
		if ok, err := path.Match(p, s); ok && err == nil {
			return true
		}
	}
	return len(patterns) == 0
}

// validate refuses a selector that selects everything, and bad patterns.
func (s *Selector) validate() error {
	narrows := len(s.Labels) > 0
	for _, list := range [][]string{s.Kinds, s.Namespaces, s.Names} {
		all := len(list) == 0
		for _, p := range list {
			if _, err := path.Match(p, ""); err != nil {
				return fmt.Errorf("pattern %q: %w", p, err)
			}
			if p == "" {
				return errors.New("an empty pattern")
			}
			if strings.Trim(p, "*") == "" {
				all = true
			}
		}
		narrows = narrows || !all
	}
	for k := range s.Labels {
		if k == "" {
			return errors.New("an empty label name")
		}
	}
	if !narrows {
		return errors.New("is empty or selects everything; say what it is for")
	}
	return nil
}

func validID(id string) bool {
	for i := range len(id) {
		c := id[i]
		if !(c >= 'a' && c <= 'z' || i > 0 && (c >= '0' && c <= '9' || c == '-')) {
			return false
		}
	}
	return id != ""
}
