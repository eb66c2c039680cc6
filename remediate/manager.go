package remediate

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

// Event is what an observer sees: one record, and the case as it was after
// the step that made the record.
type Event struct {
	Record Record
	// Case is zero for Paused and Resumed.
	Case Case
}

// Options wire a [Manager] to its host.
type Options struct {
	// Journal and Verifier are required.
	Journal  Journal
	Verifier Verifier
	// Writer is required where a playbook commits, Actor where one acts
	// directly, Approver where one asks.
	Writer   Writer
	Actor    Actor
	Approver Approver
	// Source gives the desired state, for what SetField changes. Required
	// where a SetField has no Key or has a Factor.
	Source reconcile.Source
	// Notifier is told of escalations and, for [ActAndTell], of actions. With
	// none, the timeline alone tells.
	Notifier Notifier
	// Playbooks are tried in order; the first that matches is taken. nil is
	// [DefaultPlaybooks].
	Playbooks []Playbook
	// Limits and Timings have defaults, see there.
	Limits  Limits
	Timings Timings
	// Locate finds the resource of a service; nil is [LocateWorkload].
	Locate func(service string, s *reconcile.State) (reconcile.Key, error)
	// Workers bounds the calls under way to Writer, Actor, Verifier, Source
	// and Notifier together; default 4. Requests for approval come on top.
	Workers int
	// Clock is the machine's where nil, Logger discards.
	Clock  reconcile.Clock
	Logger *slog.Logger
	// Observer, if set, is called with every new event, in order and one at a
	// time, from whichever goroutine made it. It may call the Manager. Events
	// that a recovery reads from the journal are not shown again.
	Observer func(Event)
}

// Manager handles triggers from beginning to end. Make it with [New]; it is
// safe for concurrent use.
type Manager struct {
	clock    reconcile.Clock
	log      *slog.Logger
	observer func(Event)
	perform  *performer
	workers  int
	kick     chan struct{}

	mu       sync.Mutex
	d        *driver
	busy     int // workers at work
	active   bool
	queue    []Event
	draining bool
}

// New checks the options and recovers all cases from the journal. Errors:
// [ErrInvalid] names the option or playbook; [ErrCorrupt] for a journal that
// does not add up; otherwise what the journal returned.
func New(ctx context.Context, o Options) (*Manager, error) {
	if o.Journal == nil {
		return nil, invalid("options", "Journal", "it is required")
	}
	if o.Verifier == nil {
		return nil, invalid("options", "Verifier", "it is required: an action whose effect nobody checks is not a repair")
	}
	if o.Workers < 0 {
		return nil, invalid("options", "Workers", "%d is negative", o.Workers)
	}
	limits, err := o.Limits.withDefaults()
	if err != nil {
		return nil, err
	}
	timings, err := o.Timings.withDefaults()
	if err != nil {
		return nil, err
	}
	playbooks, err := checkPlaybooks(&o, timings)
	if err != nil {
		return nil, err
	}
	e := engine{limits: limits, timings: timings, playbooks: playbooks, tells: o.Notifier != nil}
	d, err := newDriver(ctx, e, o.Journal)
	if err != nil {
		return nil, err
	}
	m := &Manager{
		clock: o.Clock, log: o.Logger, observer: o.Observer, workers: cmp.Or(o.Workers, 4),
		kick: make(chan struct{}, 1), d: d,
		perform: &performer{writer: o.Writer, actor: o.Actor, approver: o.Approver, verifier: o.Verifier,
			notifier: o.Notifier, source: o.Source, locate: o.Locate, within: timings.EffectWithin},
	}
	if m.clock == nil {
		m.clock = reconcile.SystemClock{}
	}
	m.perform.clock = m.clock
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.perform.locate == nil {
		m.perform.locate = LocateWorkload
	}
	return m, nil
}

// checkPlaybooks gives the playbooks with defaults filled in.
func checkPlaybooks(o *Options, t Timings) ([]Playbook, error) {
	in := o.Playbooks
	if in == nil {
		in = DefaultPlaybooks()
	}
	out := make([]Playbook, 0, len(in))
	seen := map[string]bool{}
	for _, p := range in {
		if err := p.Validate(); err != nil {
			return nil, err
		}
		if seen[p.Name] {
			return nil, invalid("playbook", p.Name, "there are two with this name")
		}
		seen[p.Name] = true
		p.Autonomy = cmp.Or(p.Autonomy, ActWithApproval)
		p.Verify.Within = cmp.Or(p.Verify.Within, t.VerifyWithin)
		p.Verify.Hold = cmp.Or(p.Verify.Hold, t.VerifyHold)
		p.Actions = slices.Clone(p.Actions)
		asks := false
		for i := range p.Actions {
			a := &p.Actions[i]
			need := func(what string) error { return invalid("playbook", p.Name, "action %d needs an %s", i+1, what) }
			switch {
			case a.writes() && o.Writer == nil:
				return nil, need("Options.Writer")
			case (a.Type == RestartInstance || a.Type == RunFunction) && o.Actor == nil:
				return nil, need("Options.Actor")
			case a.Type == SetField && o.Source == nil && (a.Factor > 0 || a.Key == (reconcile.Key{})):
				return nil, need("Options.Source")
			}
			asks = asks || a.Type != Escalate
			if a.Value != nil {
				a.Value, _ = scalar(a.Value) // checked by Validate
			}
		}
		if asks && p.Autonomy == ActWithApproval && o.Approver == nil {
			return nil, invalid("playbook", p.Name, "%s needs an Options.Approver", ActWithApproval)
		}
		out = append(out, p)
	}
	return out, nil
}

// Handle opens a case for the trigger and gives its id, once it is in the
// journal; it does not wait for anything to be done. The report may be nil.
//
// For a trigger that was handled before it gives the same id. While its case
// goes on, alerts of further series that joined its incident are taken in: the
// verifier looks at them too. A case that was resolved is opened again by
// active alerts that it has not seen, of further series or raised anew: its
// playbook is chosen anew, with the new report where there is one, and begins
// again; what was done before counts for [Limits.MaxAttempts], so that an
// incident that keeps coming back is escalated. In every other case it does
// nothing: a person has it. A trigger without an incident needs a new id to be
// handled again.
//
// Errors: [ErrInvalid] for a trigger, or a report, that is ill-formed, has a
// time beyond the year 9999, or is longer than 4 MiB as JSON; otherwise the
// journal failed, after which the Manager does nothing more and has to be made
// anew.
func (m *Manager) Handle(ctx context.Context, t Trigger, report *rootcause.Report) (string, error) {
	if err := t.validate(); err != nil {
		return "", err
	}
	trigger := storableTrigger(t)
	b, err := encodeBounded(Record{Kind: CaseOpened, Case: t.caseID(), Trigger: &trigger, Report: storableReport(report)})
	if err != nil {
		return "", &Error{Op: "handle", Name: t.ID, Err: err}
	}
	// What is decided on is what a recovery would read.
	var r Record
	if err := r.decode(b); err != nil {
		return "", &Error{Op: "handle", Name: t.ID, Err: err}
	}
	h := &handleEvent{trigger: *r.Trigger, report: r.Report}
	if err := m.dispatch(ctx, event{handle: h}); err != nil {
		return "", err
	}
	return t.caseID(), nil
}

// Pause stops new actions that change a service or a resource (by its key as
// [reconcile.Key] prints it; see [Operation.Touches]), or on [Everything], from
// the moment it returns: what is being done right now ends, nothing else is
// begun, and cases wait without running out. What was intended and not begun is
// worked out anew after the pause. Pausing what is paused replaces who and why.
// Errors: [ErrInvalid] for an empty scope or by, or a text longer than 4096
// bytes; otherwise the journal's.
func (m *Manager) Pause(ctx context.Context, scope, by, why string) error {
	if err := checkScope("pause", scope, by, why); err != nil {
		return err
	}
	return m.dispatch(ctx, event{pause: &Pause{Scope: scope, By: by, Why: why}})
}

// Resume ends one pause. A scope that is not paused is no error.
func (m *Manager) Resume(ctx context.Context, scope, by, why string) error {
	if err := checkScope("resume", scope, by, why); err != nil {
		return err
	}
	return m.dispatch(ctx, event{resume: &Pause{Scope: scope, By: by, Why: why}})
}

func checkScope(op, scope, by, why string) error {
	for _, s := range []string{scope, by, why} {
		if len(s) > maxText {
			return invalid(op, clip(scope), "a text of %d bytes, at most %d", len(s), maxText)
		}
	}
	if scope == "" {
		return invalid(op, scope, "an empty scope is not everything; say %q", Everything)
	}
	if by == "" {
		return invalid(op, scope, "it needs to be known who asks")
	}
	return nil
}

// Pauses gives what is paused now, by scope.
func (m *Manager) Pauses() []Pause {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Pause
	for _, k := range sortedKeys(m.d.state.pauses) {
		out = append(out, m.d.state.pauses[k])
	}
	return out
}

// Cases gives snapshots of all cases, in the order in which they were opened.
func (m *Manager) Cases() []Case {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Case, 0, len(m.d.state.order))
	for _, id := range m.d.state.order {
		out = append(out, m.d.state.cases[id].clone())
	}
	return out
}

// Case gives a snapshot of one case, or [ErrUnknownCase].
func (m *Manager) Case(id string) (Case, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.d.caseByID(id)
}

// TrackRecord tells how an action did under a playbook for a class of cause,
// over the whole journal. action is as [Action.String] gives it.
func (m *Manager) TrackRecord(playbook, action string, class rootcause.Class) TrackRecord {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.d.state.track[trackKey{playbook: playbook, action: action, class: class}]
}

// Run does what the cases need until ctx ends, and returns ctx.Err() once
// every call that it made has returned; or [ErrRunning]; or the journal's
// error, after which the Manager has to be made anew. An action that was cut
// off is asked after by its probe at the next Run.
func (m *Manager) Run(ctx context.Context) error {
	m.mu.Lock()
	if m.active {
		m.mu.Unlock()
		return ErrRunning
	}
	m.active = true
	m.mu.Unlock()

	var wg sync.WaitGroup
	work, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		wg.Wait()
		m.mu.Lock()
		m.active, m.busy = false, 0
		clear(m.d.running)
		m.mu.Unlock()
	}()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := m.dispatch(work, event{}); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
		now := m.clock.Now()
		m.mu.Lock()
		m.d.expire(now)
		tasks := m.d.tasks(now, m.workers-m.busy)
		for _, t := range tasks {
			if t.effect.kind != doApprove {
				m.busy++
			}
		}
		next := m.d.next(now)
		m.mu.Unlock()
		for _, t := range tasks {
			wg.Go(func() { m.do(work, t) })
		}
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = m.clock.After(next.Sub(now))
		}
		select {
		case <-ctx.Done():
		case <-m.kick:
		case <-timer:
		}
	}
}

// do performs one task and folds in how it ended.
func (m *Manager) do(ctx context.Context, t task) {
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	begun := ctx.Err() == nil && m.d.begin(&t, m.clock.Now(), cancel)
	m.mu.Unlock()
	var o outcome
	if begun {
		m.log.Debug("remediate: begin", "effect", t.effect.key(), "probe", t.probe)
		o = m.perform.perform(work, ctx, t.effect, t.probe)
		if o.err != nil {
			m.log.Warn("remediate: failed", "effect", t.effect.key(), "err", o.err)
		}
	}
	m.mu.Lock()
	if t.effect.kind != doApprove {
		m.busy--
	}
	m.mu.Unlock()
	// An error while shutting down says nothing about the effect: it is left
	// open, and the next Run asks its probe. A success is kept all the same.
	if begun && (o.err == nil || ctx.Err() == nil) {
		// A journal that fails makes the next dispatch of Run fail too.
		_ = m.dispatch(context.WithoutCancel(ctx), event{done: &o})
	}
	m.wake()
}

func (m *Manager) wake() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// dispatch folds one event in and shows the observer what came of it.
func (m *Manager) dispatch(ctx context.Context, ev event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ev.now = m.clock.Now().UTC()
	m.mu.Lock()
	// Once decided, a step must reach the journal, or the Manager is lost.
	recs, err := m.d.dispatch(context.WithoutCancel(ctx), ev)
	for _, r := range recs {
		m.log.Info("remediate", "kind", string(r.Kind), "case", r.Case, "action", r.Action, "why", r.Why)
		if m.observer != nil {
			e := Event{Record: r}
			if c := m.d.state.cases[r.Case]; c != nil {
				e.Case = c.clone()
			}
			m.queue = append(m.queue, e)
		}
	}
	m.drain()
	m.mu.Unlock()
	if len(recs) > 0 {
		m.wake()
	}
	return err
}

// drain shows queued events in order; m.mu is held when it is called and when
// it returns, not while the observer runs. A dispatch out of the observer
// leaves its events to the loop that is under way.
func (m *Manager) drain() {
	if m.draining {
		return
	}
	m.draining = true
	for len(m.queue) > 0 {
		e := m.queue[0]
		m.queue = m.queue[1:]
		m.mu.Unlock()
		m.observer(e)
		m.mu.Lock()
	}
	m.draining = false
}
