package security

import (
	"context"
	"fmt"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// Gate is a [reconcile.Gate] that holds a plan to a policy set before it is
// applied. It is safe for concurrent use.
type Gate struct {
	// Set is what the plan is held to; required.
	Set *Set
	// DenyAt is the least severity at which a finding of an enforced policy
	// refuses the change; below it is a warning. Zero refuses at every
	// severity, so that the policies' modes alone decide.
	DenyAt Severity
}

// GateName is the name under which a [Gate] gives its verdicts.
const GateName = "security"

// Review evaluates what the plan would create and update; deletions pass, as
// taking away what runs breaks no policy. Each finding becomes an objection
// with the file, line and column of the field: [reconcile.Deny] where the
// policy is enforced, [reconcile.Warn] otherwise, none where an exception in
// force covers it. It is an error, which holds the plan, if the Gate has no
// Set or ctx has ended.
func (g Gate) Review(ctx context.Context, p *reconcile.Plan) (reconcile.Verdict, error) {
	v := reconcile.Verdict{Gate: GateName}
	if g.Set == nil || g.Set.clock == nil {
		return v, fmt.Errorf("security: gate: no policy set to review with: %w", reconcile.ErrInvalid)
	}
	now := g.Set.now()
	var fs []Finding
	for _, wave := range p.Waves {
		for _, c := range wave {
			if c.Action == reconcile.Delete {
				continue
			}
			if err := ctx.Err(); err != nil {
				return v, fmt.Errorf("security: gate: %w", err)
			}
			fs = g.Set.evaluate(fs, planned(p, c), now)
		}
	}
	for _, f := range normalise(fs) {
		if f.Excepted() {
			continue
		}
		d := reconcile.Warn
		if f.Enforced() && f.Severity >= g.DenyAt {
			d = reconcile.Deny
		}
		msg := f.Message + f.note()
		if f.Remedy != "" {
			msg += "; " + f.Remedy
		}
		v.Objections = append(v.Objections, reconcile.Objection{
			Decision: d, Key: f.Key, Rule: f.Rule, Path: f.Path, Origin: f.Origin, Message: msg,
		})
	}
	return v, nil
}

// planned gives the resource as the change would write it. The object is the
// change's own, as that is what will run; the declared resource adds where
// its fields stand.
func planned(p *reconcile.Plan, c reconcile.Change) reconcile.Resource {
	r, ok := p.Desired(c.Key)
	if !ok {
		r = reconcile.Resource{Key: c.Key, Origin: c.Origin}
	}
	if c.Desired != nil {
		r.Object = c.Desired
	}
	return r
}
