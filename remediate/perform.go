package remediate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

// Writer makes commits on the branch that declares the desired state; the
// repository of reconcile/gitsource is one. It is safe for concurrent use.
type Writer interface {
	// Write makes one commit, or finds the one that it made before for the
	// same request id. An edit over another value than it expects is refused
	// with [reconcile.ErrConflict]; where all is so already the error is
	// [reconcile.ErrNoChange], which counts as done.
	Write(ctx context.Context, r reconcile.WriteRequest) (reconcile.Commit, error)
	// Find gives the newest commit with that trailer; false if there is none.
	Find(ctx context.Context, trailerKey, value string) (reconcile.Commit, bool, error)
}

// Actor does what is not a commit: restarts, functions. It is safe for
// concurrent use.
//
// An error that wraps [ErrTerminal] fails the action at once; any other is
// taken as passing and the action is tried again, after Done said no.
type Actor interface {
	// Do does the action and remembers its ID durably together with the
	// effect, as far as it can. A Do with an ID that was done does nothing.
	Do(ctx context.Context, a DirectAction) error
	// Done tells whether the action with that id was done. It is asked after
	// a crash and after a failed Do, and its answer decides.
	Done(ctx context.Context, id string) (bool, error)
}

// Verifier tells whether the trouble behind a case is over now, and why it
// says so, in one line. It should be the detector that raised the alarm, and
// look at nothing that was measured before [Case.Acted]. The case is a
// snapshot. It is safe for concurrent use; an error counts as "not over".
type Verifier interface {
	Recovered(ctx context.Context, c Case) (over bool, why string, err error)
}

// VerifierFunc makes a function a [Verifier].
type VerifierFunc func(ctx context.Context, c Case) (bool, string, error)

// Recovered calls f.
func (f VerifierFunc) Recovered(ctx context.Context, c Case) (bool, string, error) {
	return f(ctx, c)
}

// AlertSource is what [VerifyAlerts] asks; an [anomaly.Monitor] is one. It is
// safe for concurrent use.
type AlertSource interface {
	// Active gives the active alert of a series.
	Active(id anomaly.SeriesID) (anomaly.Alert, bool)
	// Latest gives the newest value of a series, false for a series that it
	// does not know (any more).
	Latest(id anomaly.SeriesID) (anomaly.Observation, bool)
	// Newest gives the time of the newest value of all series that match
	// selects, false for none.
	Newest(match anomaly.Match) (time.Time, bool)
}

var _ AlertSource = (*anomaly.Monitor)(nil)

// VerifyAlerts gives the [Verifier] for incidents. No active alert is not
// enough: a monitor that was restarted has none. The trouble is over when for
// every series of the case's alerts
//
//   - the source has no active alert, and its newest value is from after
//     [Case.Acted], is a number, and was judged by a detector that was ready; or
//   - the series is of one instance and the source does not know it (any more),
//     as after the instance was replaced, while some series of the same service
//     has a value from after [Case.Acted].
//
// A series of a whole service that the source does not know is never over: a
// service that reports nothing is not a repaired one. While a restarted monitor
// takes up its series one by one, an instance's may look gone until its first
// value: [Verify.Hold] should be longer than the time between two values.
//
// The source's times must be of the clock that [Options.Clock] gives. A case
// without alerts is an [ErrInvalid], since nothing would tell.
func VerifyAlerts(source AlertSource) Verifier {
	return VerifierFunc(func(_ context.Context, c Case) (bool, string, error) {
		alerts := c.Trigger.Alerts()
		if len(alerts) == 0 {
			return false, "", &Error{Op: "verify", Name: c.ID, Err: fmt.Errorf("the trigger has no alerts: %w", ErrInvalid)}
		}
		acted := c.Acted()
		gone := 0
		seen := make(map[anomaly.SeriesID]bool, len(alerts))
		for _, a := range alerts {
			id := a.Series
			if seen[id] {
				continue
			}
			seen[id] = true
			if now, ok := source.Active(id); ok && now.Active() {
				return false, fmt.Sprintf("%s is still unusual, score %.3g", id, now.Score), nil
			}
			last, ok := source.Latest(id)
			switch {
			case ok && !last.Time.After(acted):
				return false, fmt.Sprintf("%s has no value since %s", id, acted.UTC().Format(time.RFC3339)), nil
			case ok && math.IsNaN(last.Value):
				return false, fmt.Sprintf("the newest value of %s is missing", id), nil
			case ok && !last.Result.Ready:
				return false, fmt.Sprintf("what is usual for %s is still being learned", id), nil
			case ok:
				continue
			case id.Instance == "":
				return false, fmt.Sprintf("%s has no values", id), nil
			}
			if t, ok := source.Newest(anomaly.Match{Service: id.Service}); !ok || !t.After(acted) {
				return false, fmt.Sprintf("%s has no values, nor has %s since %s", id, id.Service, acted.UTC().Format(time.RFC3339)), nil
			}
			gone++
		}
		why := fmt.Sprintf("all %d series are as expected", len(seen)-gone)
		switch {
		case gone == len(seen):
			why = fmt.Sprintf("the instances behind all %d series are gone", gone)
		case gone > 0:
			why += fmt.Sprintf(", the instances behind %d more are gone", gone)
		}
		return true, why, nil
	})
}

// NoticeKind is what a [Notice] tells of.
type NoticeKind string

// The notices.
const (
	// NoticeActed: a playbook with [ActAndTell] did something.
	NoticeActed NoticeKind = "Acted"
	// NoticeEscalated: a person has to look.
	NoticeEscalated NoticeKind = "Escalated"
)

// DueNotice is a [Notice] that has not been delivered.
type DueNotice struct {
	ID   string     `json:"id"`
	Kind NoticeKind `json:"kind"`
}

// Notice is a message to people.
type Notice struct {
	// ID is stable and names the attempt that it is about: a notice that is
	// sent again has the same one, and no other notice has it.
	ID   string     `json:"id"`
	Kind NoticeKind `json:"kind"`
	// Case is a snapshot; its last timeline entries say what and why.
	Case Case `json:"case"`
}

// Notifier tells people. A notice is sent until Notify returns nil, so it may
// arrive more than once and is never lost; those of one case come in order. It
// is safe for concurrent use.
type Notifier interface {
	Notify(ctx context.Context, n Notice) error
}

// NotifierFunc makes a function a [Notifier].
type NotifierFunc func(ctx context.Context, n Notice) error

// Notify calls f.
func (f NotifierFunc) Notify(ctx context.Context, n Notice) error { return f(ctx, n) }

// actionResult is what came of an act.
type actionResult struct {
	commit  reconcile.Commit
	found   bool // the probe found it done
	undone  bool // it was only asked after, and has not been done
	already bool // there was nothing to change
	final   bool // the error will not go away
	unknown bool // whether it was done could not be found out
}

// performer does effects. It decides nothing.
type performer struct {
	writer   Writer
	actor    Actor
	approver Approver
	verifier Verifier
	notifier Notifier
	source   reconcile.Source
	locate   func(service string, s *reconcile.State) (reconcile.Key, error)
	clock    reconcile.Clock
	// within bounds the question after an action that failed.
	within time.Duration
}

// perform does one effect. probe says that the effect may have been begun
// before: then its probe is asked, and an action is not done. ctx is the
// effect's, which ends when it took too long; life is the whole run's.
func (p *performer) perform(ctx, life context.Context, e effect, probe bool) outcome {
	o := outcome{effect: e}
	switch e.kind {
	case doPrepare:
		o.op, o.err = p.prepare(ctx, &e.c, e.action, e.attempt)
		o.skip = errors.Is(o.err, ErrTarget) || errors.Is(o.err, ErrInvalid)
	case doApprove:
		if p.approver == nil {
			o.err = missing("Approver")
			break
		}
		at := e.c.attempt()
		o.answer, o.err = p.approver.Approve(ctx, Request{
			Case: e.c, ActionID: at.ID, Action: at.Action, Risk: at.Risk, Operation: at.Operation,
			Summary: at.Operation.Summary, Track: at.Track, Digest: at.Operation.Digest, Expires: e.expires,
		})
	case doAct:
		o.result, o.err = p.act(ctx, life, e, probe)
	case doVerify:
		o.ok, o.why, o.err = p.verifier.Recovered(ctx, e.c)
	case doNotify:
		if p.notifier != nil {
			o.err = p.notifier.Notify(ctx, Notice{ID: e.tell.ID, Kind: e.tell.Kind, Case: e.c})
		}
	}
	return o
}

// act does an action once. One that may have been begun before is only asked
// after: what it was decided on may be old. An undo is then done, since what it
// takes back stands. After a try that failed the probe is asked too, since an
// error does not say that nothing happened.
func (p *performer) act(ctx, life context.Context, e effect, probe bool) (actionResult, error) {
	var try func() (reconcile.Commit, error)
	var find func(context.Context) (reconcile.Commit, bool, error)
	at := e.c.attempt()
	// Options were checked against the playbooks; but a journal may hold
	// cases of playbooks that an earlier run had.
	if at.Operation.Direct != nil && p.actor == nil {
		return actionResult{unknown: probe, final: !probe}, missing("Actor")
	}
	if at.Operation.Direct == nil && p.writer == nil {
		return actionResult{unknown: probe, final: !probe}, missing("Writer")
	}
	if d := at.Operation.Direct; d != nil {
		try = func() (reconcile.Commit, error) { return reconcile.Commit{}, p.actor.Do(ctx, *d) }
		find = func(ctx context.Context) (reconcile.Commit, bool, error) {
			ok, err := p.actor.Done(ctx, d.ID)
			return reconcile.Commit{}, ok, err
		}
	} else {
		req := writeRequest(&e.c, at, e.undo)
		try = func() (reconcile.Commit, error) { return p.writer.Write(ctx, req) }
		find = func(ctx context.Context) (reconcile.Commit, bool, error) {
			return p.writer.Find(ctx, reconcile.TrailerAction, req.ID)
		}
	}
	if probe {
		commit, ok, err := find(ctx)
		switch {
		case err != nil:
			return actionResult{unknown: true}, fmt.Errorf("asking whether it was done: %w", err)
		case ok:
			return actionResult{commit: commit, found: true}, nil
		case !e.undo:
			return actionResult{undone: true}, nil
		}
	}
	commit, err := try()
	if err == nil {
		return actionResult{commit: commit}, nil
	}
	// When the try took too long its ctx is over; the question gets its own.
	ask, cancel := p.bounded(life)
	defer cancel()
	found, ok, perr := find(ask)
	switch {
	case perr != nil:
		return actionResult{unknown: true}, fmt.Errorf("%w; asking whether it was done: %w", err, perr)
	case ok:
		return actionResult{commit: found, found: true}, nil
	case errors.Is(err, reconcile.ErrNoChange):
		return actionResult{already: true}, nil
	}
	return actionResult{final: terminal(err)}, err
}

// bounded gives a ctx that ends after p.within; cancel ends it and what it
// needs.
func (p *performer) bounded(life context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(life)
	late := p.clock.After(p.within)
	go func() {
		select {
		case <-late:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

func missing(what string) error {
	return fmt.Errorf("Options has no %s: %w", what, ErrInvalid)
}

// terminal tells whether trying again is of no use. A conflict is one: a
// writer settles races by itself and reports what it cannot merge.
func terminal(err error) bool {
	for _, t := range []error{
		ErrTerminal, ErrInvalid, reconcile.ErrTerminal, reconcile.ErrConflict, reconcile.ErrInvalid, reconcile.ErrForbidden, reconcile.ErrNotFound,
	} {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

func noTarget(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrTarget)
}

// prepare works out what an action would do now. Errors that wrap ErrTarget
// or ErrInvalid say that there is nothing for it to do.
func (p *performer) prepare(ctx context.Context, c *Case, a Action, id string) (Operation, error) {
	op := Operation{Target: Target{Service: c.Service}}
	if c.Service == "" {
		return op, noTarget("no service is blamed")
	}
	switch a.Type {
	case RevertCommit:
		if c.Report == nil || c.Report.Change == nil || c.Report.Change.Change.ID == "" {
			return op, noTarget("no change is blamed")
		}
		ch := c.Report.Change.Change
		op.touch(slices.Clone(ch.Services)...)
		op.Revert = ch.ID
		op.Summary = fmt.Sprintf("revert %s %q for %s", reconcile.ShortRevision(ch.ID), clean(ch.Summary), c.Service)
	case SetField:
		if err := p.prepareField(ctx, c, a, &op); err != nil {
			return op, err
		}
	case RestartInstance:
		op.Target.Instance = c.instance()
		if op.Target.Instance == "" {
			return op, noTarget("no single instance of %s is blamed", c.Service)
		}
		op.Direct = &DirectAction{ID: id, Kind: "restart", Target: c.Service, Instance: op.Target.Instance}
		op.Summary = "restart " + op.Target.String()
	case RunFunction:
		op.Target.Instance = c.instance()
		op.Direct = &DirectAction{ID: id, Kind: a.Name, Target: c.Service, Instance: op.Target.Instance}
		op.Summary = fmt.Sprintf("run %s for %s", a.Name, op.Target)
	case Escalate:
		return op, fmt.Errorf("escalation is not prepared: %w", ErrInvalid)
	default:
		return op, fmt.Errorf("action type %q: %w", a.Type, ErrInvalid)
	}
	if op.Touches == nil {
		op.touch()
	}
	op.Digest = digest(c, a, id, op)
	// What the journal could not hold must not get that far.
	if _, err := encodeBounded(Record{Kind: ActionIntended, Case: c.ID, Action: id, Operation: &op}); err != nil {
		return op, fmt.Errorf("the operation cannot be journaled: %w", err)
	}
	return op, nil
}

// serviceLabels gives the services that a resource says it belongs to.
func serviceLabels(r reconcile.Resource) []string {
	meta, _ := r.Object["metadata"].(map[string]any)
	labels, _ := meta["labels"].(map[string]any)
	var out []string
	for _, k := range []string{"app.kubernetes.io/name", "app"} {
		if s, ok := labels[k].(string); ok {
			out = append(out, s)
		}
	}
	return out
}

func (p *performer) prepareField(ctx context.Context, c *Case, a Action, op *Operation) error {
	key := a.Key
	var desired *reconcile.State
	if p.source != nil {
		var err error
		if desired, err = p.source.Fetch(ctx); err != nil {
			return fmt.Errorf("fetching the desired state: %w", err)
		}
		if key == (reconcile.Key{}) {
			if key, err = p.locate(c.Service, desired); err != nil {
				return fmt.Errorf("%w: %w", err, ErrTarget)
			}
		}
	}
	if key == (reconcile.Key{}) {
		return noTarget("no Source to find the resource of %s in", c.Service)
	}
	if back, err := reconcile.ParseKey(key.String()); err != nil || back != key {
		return noTarget("%q is not the key of a resource", key)
	}
	fp, err := reconcile.ParsePath(a.Field)
	if err != nil {
		return err
	}
	touched := []string{key.Name, key.String()}
	var from any
	if desired != nil {
		res, ok := desired.Get(key)
		if !ok {
			return noTarget("%s is not declared", key)
		}
		touched = append(touched, serviceLabels(res)...)
		if v, ok := fp.Get(res.Object); ok {
			if from, err = scalar(v); err != nil {
				return noTarget("%s of %s is not a single value", a.Field, key)
			}
		}
	}
	to, err := a.newValue(c, from)
	if err != nil {
		return fmt.Errorf("%s of %s: %w", a.Field, key, err)
	}
	if desired != nil && from == to {
		return noTarget("%s of %s is %v already", a.Field, key, to)
	}
	op.Target.Key = key
	op.From = from
	op.Edit = &reconcile.Edit{Key: key, Path: a.Field, Value: to, Expect: from}
	op.touch(touched...)
	if from == nil {
		op.Summary = clean(fmt.Sprintf("set %s of %s to %v", a.Field, key, to))
	} else {
		op.Summary = clean(fmt.Sprintf("set %s of %s from %v to %v", a.Field, key, from, to))
	}
	return nil
}

// newValue works out the value to set; Factor was validated to be above 1 and
// Max to be in [1, 2^53].
func (a Action) newValue(c *Case, from any) (any, error) {
	switch {
	case a.ValueFrom != "":
		v := c.Trigger.Labels[a.ValueFrom]
		if v == "" {
			return nil, noTarget("the trigger has no label %q", a.ValueFrom)
		}
		return v, nil
	case a.Factor > 0:
		var n float64
		switch from := from.(type) {
		case int64:
			n = float64(from)
		case float64:
			n = from
		default:
			return nil, noTarget("it is %v, not a number to multiply", from)
		}
		if n < 0 {
			return nil, noTarget("it is %v, below 0", from)
		}
		to := math.Min(math.Max(math.Ceil(n*a.Factor), math.Floor(n)+1), float64(a.Max))
		if to <= n {
			return nil, noTarget("it is %v already, at most %d", from, a.Max)
		}
		return int64(to), nil
	}
	return scalar(a.Value)
}

// LocateWorkload finds the one workload of a service in a desired state: the
// Deployment, StatefulSet or DaemonSet with the service's name, else the one
// whose label app.kubernetes.io/name or app is the service. None or several
// is an [ErrTarget].
func LocateWorkload(service string, s *reconcile.State) (reconcile.Key, error) {
	var named, labelled []reconcile.Key
	for r := range s.All() {
		switch r.Key.Kind {
		case "Deployment", "StatefulSet", "DaemonSet":
		default:
			continue
		}
		if r.Key.Name == service {
			named = append(named, r.Key)
			continue
		}
		if slices.Contains(serviceLabels(r), service) {
			labelled = append(labelled, r.Key)
		}
	}
	found := named
	if len(found) == 0 {
		found = labelled
	}
	switch len(found) {
	case 0:
		return reconcile.Key{}, noTarget("no workload is declared for service %q", service)
	case 1:
		return found[0], nil
	}
	return reconcile.Key{}, noTarget("%d workloads are declared for service %q, among them %s and %s", len(found), service, found[0], found[1])
}

// digest binds what would be done to the case and the playbook.
func digest(c *Case, a Action, id string, op Operation) string {
	op.Digest = ""
	b, err := json.Marshal(struct {
		Case, Playbook, ID string
		Action             Action
		Operation          Operation
	}{c.ID, c.Playbook.Name, id, a, op})
	if err != nil {
		// Every value was checked to be a finite scalar; should one slip
		// through, nothing must match an approval.
		return "unbound " + id + ": " + err.Error()
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// writeRequest is the commit of an action, or of taking it back.
func writeRequest(c *Case, at *Attempt, undo bool) reconcile.WriteRequest {
	req := reconcile.WriteRequest{ID: at.ID}
	subject := at.Operation.Summary
	switch {
	case undo:
		req.ID += ".undo"
		req.Revert = at.Commit.Revision
		subject = "take back: " + subject
	case at.Operation.Edit != nil:
		req.Edits = []reconcile.Edit{*at.Operation.Edit}
	default:
		req.Revert = at.Operation.Revert
	}
	var b strings.Builder
	b.WriteString(upperFirst(clean(subject)))
	fmt.Fprintf(&b, "\n\n%s\n", clean(c.Trigger.String()))
	if undo {
		fmt.Fprintf(&b, "%s\n", clean(at.Error))
	} else if c.Report != nil && c.Report.Why != "" {
		fmt.Fprintf(&b, "%s\n", clean(c.Report.Why))
	}
	req.Message = b.String()
	add := func(key, value string) {
		if value = clean(value); value != "" {
			req.Trailers = append(req.Trailers, reconcile.Trailer{Key: key, Value: value})
		}
	}
	add("Incident-Id", c.ID)
	add("Playbook", c.Playbook.Name)
	add("Cause", c.Service)
	if at.Approval != nil && at.Approval.Answer == Approved {
		add("Approved-By", at.Approval.By)
	}
	add("Plan-Digest", at.Operation.Digest)
	return req
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// Timings are the durations of a [Manager]. 0 takes the default; a negative
// one is refused.
type Timings struct {
	// VerifyWithin and VerifyHold are for playbooks that do not say (see
	// [Verify]); defaults 5 min and 30s.
	VerifyWithin time.Duration
	VerifyHold   time.Duration
	// VerifyEvery is the time between two looks at the verifier; default 5s.
	VerifyEvery time.Duration
	// ApprovalWithin is how long a request for approval stands, and how long
	// an approval is good for; default 30 min.
	ApprovalWithin time.Duration
	// GuardWithin is how long a guard, pauses left out, may hold an action
	// before its case is escalated, and how long working out an action may go
	// on failing before it is skipped; default 30 min.
	GuardWithin time.Duration
	// EffectWithin bounds one call of the Writer, Actor, Verifier, Notifier or
	// Source; default 1 min.
	EffectWithin time.Duration
	// EffectTries is how often an action that fails in passing is tried, in
	// all; default 4.
	EffectTries int
	// RetryAfter is the wait before the second try; it doubles with each
	// further one, and is also the wait before any other failed call is made
	// again; default 2s.
	RetryAfter time.Duration
}

func (t Timings) withDefaults() (Timings, error) {
	for _, f := range []struct {
		name string
		v    *time.Duration
		def  time.Duration
	}{
		{"VerifyWithin", &t.VerifyWithin, 5 * time.Minute},
		{"VerifyHold", &t.VerifyHold, 30 * time.Second},
		{"VerifyEvery", &t.VerifyEvery, 5 * time.Second},
		{"ApprovalWithin", &t.ApprovalWithin, 30 * time.Minute},
		{"GuardWithin", &t.GuardWithin, 30 * time.Minute},
		{"EffectWithin", &t.EffectWithin, time.Minute},
		{"RetryAfter", &t.RetryAfter, 2 * time.Second},
	} {
		if *f.v < 0 {
			return t, invalid("timings", f.name, "%s is negative", *f.v)
		}
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	if t.EffectTries < 0 {
		return t, invalid("timings", "EffectTries", "%d is negative", t.EffectTries)
	}
	if t.EffectTries == 0 {
		t.EffectTries = 4
	}
	return t, nil
}
