package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Options say what a [Reconciler] works with. Source and Actuator are
// required; the zero value of everything else is a sound default.
type Options struct {
	// Target names what is reconciled, for plans and events.
	Target string
	// Source tells what should run, Actuator makes it so.
	Source   Source
	Actuator Actuator
	// Gates review every plan, in order; all must agree.
	Gates []Gate
	// Store keeps the inventory of what is managed; nil means memory, which
	// forgets across restarts: then nothing that vanished from Git meanwhile
	// is pruned.
	Store Store
	// Interval is the longest time between two looks at the source and at
	// the live state; 0 means 30 s.
	Interval time.Duration
	// CallTimeout is the longest time that one call of Source.Fetch,
	// Actuator.Observe, DryRun or a Gate's Review may take, on the machine's clock; the
	// call's context ends then. 0 means 30 s. Actuator.Apply has no such limit:
	// the Actuator knows how long a change may take.
	CallTimeout time.Duration
	// Concurrency is how many changes are made at once; 0 means 8.
	Concurrency int
	// Retry says how failing changes are tried again.
	Retry Retry
	// Brake holds mass deletions.
	Brake Brake
	// NoPrune leaves what Git no longer declares.
	NoPrune bool
	// AllowEmpty accepts a source that declares nothing.
	AllowEmpty bool
	// Ceded are fields that are left to others.
	Ceded []Ceded
	// DryRun checks the changes of each plan on the target, which must be a
	// [DryRunner], before the gates are asked. A change that fails is held,
	// and what depends on it; so is one that needs what the same plan creates,
	// until that is there. Deletions are checked, too.
	DryRun bool
	// Observer, if set, is told of everything that happens, from one
	// goroutine at a time. It must not block and must not call the
	// Reconciler.
	Observer func(Event)
	// Clock is time; nil means the machine's.
	Clock Clock
	// Logger gets warnings that have no other way out; nil means none.
	Logger *slog.Logger
}

func (o *Options) validate() error {
	bad := func(what string) error { return fmt.Errorf("reconcile: Options.%s: %w", what, ErrInvalid) }
	switch {
	case o.Source == nil:
		return bad("Source is nil")
	case o.Actuator == nil:
		return bad("Actuator is nil")
	case o.Interval < 0:
		return bad(fmt.Sprintf("Interval %v is negative", o.Interval))
	case o.CallTimeout < 0:
		return bad(fmt.Sprintf("CallTimeout %v is negative", o.CallTimeout))
	case o.Concurrency < 0:
		return bad(fmt.Sprintf("Concurrency %d is negative", o.Concurrency))
	case slices.Contains(o.Gates, nil):
		return bad("Gates has a nil Gate")
	}
	if _, ok := o.Actuator.(DryRunner); o.DryRun && !ok {
		return bad(fmt.Sprintf("DryRun is set and Actuator %T is no DryRunner", o.Actuator))
	}
	for i, c := range o.Ceded {
		if c.Kind == "" && c.Group != "" {
			return bad(fmt.Sprintf("Ceded[%d] has a Group and no Kind", i))
		}
		if p, err := ParsePath(c.Path); err != nil || len(p) == 0 {
			return bad(fmt.Sprintf("Ceded[%d].Path %q is not a field path", i, c.Path))
		}
	}
	if err := o.Retry.validate(); err != nil {
		return err
	}
	if err := o.Brake.validate(); err != nil {
		return err
	}
	o.Interval = cmp.Or(o.Interval, 30*time.Second)
	o.CallTimeout = cmp.Or(o.CallTimeout, 30*time.Second)
	o.Concurrency = cmp.Or(o.Concurrency, 8)
	if o.Store == nil {
		o.Store = &MemoryStore{}
	}
	if o.Clock == nil {
		o.Clock = SystemClock{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// EventKind is what an [Event] tells of.
type EventKind string

// The event kinds.
const (
	// RevisionSeen: the source gave a revision that is new to this process.
	RevisionSeen EventKind = "RevisionSeen"
	// Planned: a plan with changes or held changes is about to be applied.
	// The same set of held changes is reported once.
	Planned EventKind = "Planned"
	// Applied and ApplyFailed: one attempt at one change ended.
	Applied     EventKind = "Applied"
	ApplyFailed EventKind = "ApplyFailed"
	// Synced: everything is as declared, after it was not, or was not known
	// to be.
	Synced EventKind = "Synced"
	// HealthChanged: the health of a declared resource is another one.
	HealthChanged EventKind = "HealthChanged"
	// CycleFailed: a round could not do all of its work: the source, the live
	// state, a plan or the store failed. It is tried again. Where only the
	// source fails and the round goes on with what it declared last, the same
	// failure is reported once.
	CycleFailed EventKind = "CycleFailed"
)

// Event is something that happened in a [Reconciler].
type Event struct {
	Time     time.Time `json:"time"`
	Kind     EventKind `json:"kind"`
	Revision string    `json:"revision,omitempty"`
	// Plan is set for Planned.
	Plan *Plan `json:"plan,omitempty"`
	// Change is set for Applied and ApplyFailed.
	Change *Change `json:"change,omitempty"`
	// Key and Health are set for HealthChanged.
	Key    Key    `json:"key,omitzero"`
	Health Health `json:"health,omitzero"`
	// Err is set for the failures, Error is its text.
	Err   error  `json:"-"`
	Error string `json:"error,omitempty"`
}

// Reconciler makes a target equal to a source. Its methods are safe for
// concurrent use; plans are made and applied one at a time.
type Reconciler struct {
	opts   Options
	rules  rules
	poke   chan struct{} // somebody asks for a round
	look   chan struct{} // the same, for an application that is under way
	stir   chan struct{} // the target moved
	turn   chan struct{} // holds an element while a round is under way
	events sync.Mutex    // one event at a time

	// What was reported last, so that only changes are; of the round.
	started  bool
	revision string
	health   map[Key]Health
	dirty    bool
	held     string
	failure  string // the source's, where rounds go on without it

	// What rounds remember of each other.
	inv      *Inventory       // as the Store has it; nil when that is not known
	accepted *State           // the last desired state that could be planned
	gaveUp   map[Key]hopeless // changes that failed for good
	calm     calm             // the last round that had nothing to do
}

// enter waits for its turn: one round at a time.
func (r *Reconciler) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Reconciler) leave() { <-r.turn }

// call bounds one call of the outside world.
func (r *Reconciler) call(ctx context.Context, do func(ctx context.Context) error) error {
	late := fmt.Errorf("no answer within %v: %w", r.opts.CallTimeout, context.DeadlineExceeded)
	inner, cancel := context.WithTimeoutCause(ctx, r.opts.CallTimeout, late)
	defer cancel()
	err := do(inner)
	if err != nil && ctx.Err() == nil && inner.Err() != nil && errors.Is(err, inner.Err()) {
		return late
	}
	return err
}

// fetch gives the desired state.
func (r *Reconciler) fetch(ctx context.Context) (s *State, err error) {
	err = r.call(ctx, func(ctx context.Context) error {
		s, err = r.opts.Source.Fetch(ctx)
		return err
	})
	if err == nil && s.Len() == 0 && !r.opts.AllowEmpty {
		err = fmt.Errorf("revision %q: %w", s.Revision(), ErrEmptySource)
	}
	if err != nil {
		return nil, &Error{Op: "fetch desired state", Err: err}
	}
	return s, nil
}

// observe gives the live state.
func (r *Reconciler) observe(ctx context.Context) (s *State, err error) {
	err = r.call(ctx, func(ctx context.Context) error {
		s, err = r.opts.Actuator.Observe(ctx)
		return err
	})
	if err != nil {
		return nil, &Error{Op: "observe live state", Err: err}
	}
	return s, nil
}

// hopeless is a change that failed with an error that only other input can
// help.
type hopeless struct {
	input string // digest
	err   error
}

// calm is what a plan without changes was made from.
type calm struct {
	plan *Plan
	inv  *Inventory
}

// of tells whether p was made from the same states.
func (c calm) of(p *Plan) bool {
	return c.plan != nil && c.plan.desired == p.desired && c.plan.live == p.live
}

// New makes a Reconciler; it does nothing until it is asked to. Bad options
// give an error that matches [ErrInvalid] and names the field.
func New(opts Options) (*Reconciler, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	r := &Reconciler{
		opts:   opts,
		rules:  rules{target: opts.Target, brake: opts.Brake},
		poke:   make(chan struct{}, 1),
		look:   make(chan struct{}, 1),
		stir:   make(chan struct{}, 1),
		turn:   make(chan struct{}, 1),
		health: map[Key]Health{},
		gaveUp: map[Key]hopeless{},
	}
	for _, c := range opts.Ceded {
		p, err := ParsePath(c.Path)
		if err != nil {
			return nil, err
		}
		r.rules.ceded = append(r.rules.ceded, cededRule{c, p})
	}
	return r, nil
}

// Trigger asks a running [Reconciler.Run] for a round now, and an application
// that is under way to look whether the source has a newer revision. It never
// blocks; several triggers before the round are one.
func (r *Reconciler) Trigger() {
	nudge(r.look)
	nudge(r.poke)
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Plan compares the source with the live state and gives what Apply would
// do, after all gates have reviewed it. It changes nothing on the target.
func (r *Reconciler) Plan(ctx context.Context) (*Plan, error) {
	if err := r.enter(ctx); err != nil {
		return nil, err
	}
	defer r.leave()
	inv, err := r.load(ctx)
	if err != nil {
		return nil, err
	}
	return r.fresh(ctx, inv)
}

// fresh makes a plan from what the source and the target say now.
func (r *Reconciler) fresh(ctx context.Context, inv *Inventory) (*Plan, error) {
	desired, err := r.fetch(ctx)
	if err != nil {
		return nil, err
	}
	live, err := r.observe(ctx)
	if err != nil {
		return nil, err
	}
	return r.plan(ctx, desired, live, inv, nil)
}

// load reads the inventory from the store.
func (r *Reconciler) load(ctx context.Context) (*Inventory, error) {
	r.inv = nil
	v, err := r.opts.Store.Load(ctx)
	if err != nil {
		return nil, err
	}
	if v == nil {
		v = v.Clone()
	}
	r.inv = v
	return v, nil
}

// save writes the inventory to the store. What the store holds after a
// failure is not known, so it is read again then.
func (r *Reconciler) save(ctx context.Context, v *Inventory) error {
	r.inv = nil
	if err := r.opts.Store.Save(ctx, v); err != nil {
		return err
	}
	r.inv = v
	return nil
}

// plan makes a plan and has it reviewed. Changes whose input is in gaveUp are
// held.
func (r *Reconciler) plan(ctx context.Context, desired, live *State, inv *Inventory, gaveUp map[Key]hopeless) (*Plan, error) {
	if r.calm.inv == inv && r.calm.of(&Plan{desired: desired, live: live}) {
		p := *r.calm.plan
		p.Made = r.opts.Clock.Now()
		return &p, nil
	}
	base := inv.Clone()
	if r.opts.NoPrune {
		maps.DeleteFunc(base.Items, func(k Key, _ Item) bool { _, ok := desired.Get(k); return !ok })
	}
	p, err := makePlan(r.rules, desired, live, base)
	if err != nil {
		return nil, &Error{Op: "plan revision " + ShortRevision(desired.Revision()), Err: unplannable{err}}
	}
	r.accepted = desired
	p.live, p.made = live, true
	p.Made = r.opts.Clock.Now()
	if len(gaveUp) > 0 {
		blocked := map[Key]Held{}
		for c := range p.Changes() {
			if h, ok := gaveUp[c.Key]; ok && h.input == inputOf(c, live) {
				blocked[c.Key] = Held{By: "failure", Reason: "failed for good, tried again when its input changes: " + h.err.Error()}
			} else if ok {
				delete(gaveUp, c.Key)
			}
		}
		maps.DeleteFunc(gaveUp, func(k Key, _ hopeless) bool { _, due := blocked[k]; return !due && !held(p, k) })
		if _, err := p.hold(blocked, nil); err != nil {
			return nil, err
		}
	}
	if err := r.dryRun(ctx, p); err != nil {
		return nil, err
	}
	if err := r.review(ctx, p, inv); err != nil {
		return nil, err
	}
	p.planned = map[Key]Change{}
	for c := range p.Changes() {
		p.planned[c.Key] = c
	}
	return p, nil
}

// unplannable is an error of the declarations: another live state or another
// try does not help.
type unplannable struct{ error }

func (e unplannable) Unwrap() error { return e.error }

func held(p *Plan, k Key) bool {
	return slices.ContainsFunc(p.Held, func(h Held) bool { return h.Change.Key == k })
}

// inputOf identifies what a change depends on. The live version is none of
// it, as it moves with every word of a status.
func inputOf(c Change, live *State) string {
	input := []any{c.Desired, c.Fields}
	if have, ok := live.Get(c.Key); ok && c.Action == Delete {
		// What stands against a deletion is in what somebody asked for.
		o := maps.Clone(have.Object)
		delete(o, "status")
		meta, _ := o["metadata"].(map[string]any)
		o["metadata"] = []any{meta["labels"], meta["annotations"], meta["finalizers"]}
		input = append(input, o)
	}
	return digest(string(c.Action), c.Key.String(), input)
}

// dryRun holds the changes that the target would refuse.
func (r *Reconciler) dryRun(ctx context.Context, p *Plan) error {
	d, ok := r.opts.Actuator.(DryRunner)
	if !ok || !r.opts.DryRun || p.Len() == 0 {
		return nil
	}
	changes := slices.Collect(p.Changes())
	errs := make([]error, len(changes))
	var g errgroup.Group
	g.SetLimit(r.opts.Concurrency)
	for i, c := range changes {
		g.Go(func() error {
			errs[i] = r.call(ctx, func(ctx context.Context) error { return d.DryRun(ctx, c) })
			return nil
		})
	}
	_ = g.Wait() // each has its own error
	if ctx.Err() != nil {
		return ctx.Err()
	}
	blocked := map[Key]Held{}
	for i, err := range errs {
		if err != nil {
			blocked[changes[i].Key] = Held{By: "dry-run", Reason: err.Error()}
		}
	}
	_, err := p.hold(blocked, nil)
	return err
}

// review asks the gates and moves what they object to from the plan's waves
// to its held changes. They are shown what is as declared and was not accepted
// yet, too, as changes without a difference: else what they denied would be
// taken for accepted as soon as somebody made it so by hand.
func (r *Reconciler) review(ctx context.Context, p *Plan, inv *Inventory) (err error) {
	if p.Len()+len(p.accepts) == 0 || len(r.opts.Gates) == 0 {
		return nil
	}
	if len(p.accepts) > 0 {
		if p.Waves, err = order(append(slices.Collect(p.Changes()), p.accepts...), p.deps); err != nil {
			return err
		}
	}
	shown := *p
	p.asked[0] = &shown
	verdicts, blocked, whole, err := r.ask(ctx, &shown)
	if err != nil {
		return err
	}
	p.Verdicts = verdicts
	moved, err := p.hold(blocked, whole)
	if err != nil {
		return err
	}
	if len(p.accepts) > 0 {
		silent := map[Key]struct{}{}
		for _, c := range p.accepts {
			silent[c.Key] = struct{}{}
		}
		rest := slices.DeleteFunc(slices.Collect(p.Changes()), func(c Change) bool { _, ok := silent[c.Key]; return ok })
		if p.Waves, err = order(rest, p.deps); err != nil {
			return err
		}
		for _, c := range moved {
			p.open[c.Key] = struct{}{}
		}
	}
	if whole != nil {
		return nil
	}
	return r.keepAccepted(ctx, p, moved, inv)
}

// again asks the gates once more about a plan that was made before: what they
// hold by now is stale.
func (r *Reconciler) again(ctx context.Context, p *Plan) error {
	for i, shown := range p.asked {
		if shown == nil {
			continue
		}
		_, blocked, whole, err := r.ask(ctx, shown)
		if err != nil {
			return err
		}
		due := slices.Collect(p.Changes())
		if i == 0 {
			for _, c := range p.accepts {
				if _, open := p.open[c.Key]; !open {
					due = append(due, c)
				}
			}
		}
		for _, c := range due {
			if _, kept := p.kept[c.Key]; kept != (i == 1) {
				continue
			}
			h, bad := blocked[c.Key]
			if whole != nil {
				h, bad = *whole, true
			}
			if bad {
				return &Error{Op: "apply", Key: c.Key, Err: fmt.Errorf("%s holds it by now: %s: %w", h.By, h.Reason, ErrStale)}
			}
		}
	}
	return nil
}

// ask gives what the gates say: their verdicts, the keys that they hold, and
// the hold on everything if there is one.
func (r *Reconciler) ask(ctx context.Context, p *Plan) (verdicts []Verdict, blocked map[Key]Held, whole *Held, err error) {
	blocked = map[Key]Held{}
	for _, g := range r.opts.Gates {
		var v Verdict
		err := r.call(ctx, func(ctx context.Context) (err error) {
			v, err = g.Review(ctx, p)
			return err
		})
		v.Gate = cmp.Or(v.Gate, fmt.Sprintf("%T", g))
		if err != nil {
			if ctx.Err() != nil {
				return nil, nil, nil, ctx.Err()
			}
			v.Objections = append(slices.Clone(v.Objections), Objection{Decision: Hold, Message: "gate failed: " + err.Error()})
		}
		verdicts = append(verdicts, v)
		for _, o := range v.Objections {
			if o.Decision == Allow || o.Decision == Warn {
				continue // every other word, known or not, is no leave
			}
			h := Held{By: v.Gate, Reason: o.Message}
			if o.Origin.Path != "" {
				h.Reason = o.Origin.String() + ": " + o.Message
			}
			if o.Key == (Key{}) {
				if whole == nil {
					whole = &h
				}
			} else if _, ok := blocked[o.Key]; !ok {
				blocked[o.Key] = h
			}
		}
	}
	return verdicts, blocked, whole, nil
}

// keepAccepted adds the changes that keep held resources as they were last
// accepted. The gates are asked about these, too, in a plan of their own: a
// window that is closed and a pause hold every write, and a policy may have
// become stricter than what it once let pass.
func (r *Reconciler) keepAccepted(ctx context.Context, p *Plan, moved []Change, inv *Inventory) error {
	accepted := map[Key]Resource{}
	deps := map[Key][]Key{}
	var back []Change
	for _, c := range moved {
		item, ok := inv.Items[c.Key]
		want, declared := p.desired.Get(c.Key)
		if !ok || !declared || item.Applied == nil || sameObject(item.Applied, want.Object) {
			continue // nothing else was ever accepted
		}
		last := Resource{Key: c.Key, Object: item.Applied, Origin: item.Origin}
		accepted[c.Key] = last
		fix, changed, err := r.rules.change(last, p.live, inv)
		if err != nil || !changed {
			continue
		}
		fix.Reason = "kept as last accepted: " + cmp.Or(fieldNames(fix.Fields), "it is missing")
		fix.Cause = DriftDetected
		back = append(back, fix)
		if k := (Key{Kind: "Namespace", Name: c.Key.Namespace}); k.Name != "" {
			deps[c.Key] = []Key{k}
		}
	}
	if len(back) == 0 {
		return nil
	}
	var list []Resource
	for res := range p.desired.All() {
		if last, ok := accepted[res.Key]; ok {
			res = last
		}
		list = append(list, res)
	}
	desired, err := NewState(p.Revision, list)
	if err != nil {
		return err
	}
	q := &Plan{Target: p.Target, Revision: p.Revision, Made: p.Made, desired: desired, live: p.live, deps: deps}
	if q.Waves, err = order(back, deps); err != nil {
		return err
	}
	if err := r.dryRun(ctx, q); err != nil {
		return err
	}
	shown := *q
	p.asked[1] = &shown
	_, blocked, whole, err := r.ask(ctx, &shown)
	if err != nil {
		return err
	}
	if _, err := q.hold(blocked, whole); err != nil {
		return err
	}
	all := slices.Collect(p.Changes())
	p.kept = map[Key]struct{}{}
	for c := range q.Changes() {
		p.kept[c.Key] = struct{}{}
		p.deps[c.Key] = deps[c.Key]
		all = append(all, c)
	}
	p.Waves, err = order(all, p.deps)
	return err
}

// Apply carries out a plan that [Reconciler.Plan] made, or a part of it: waves
// and changes may be left out, and stay due. It is refused with [ErrStale] if
// the source has moved since, or a gate, which is asked again, has become
// stricter; a live object that has moved fails its own change with
// [ErrConflict]. A change that the plan did not hold when it was made is
// refused with [ErrInvalid]. A plan that was read from JSON is made once more,
// gates included, and refused with [ErrStale] unless both ask for the same, the
// values of Secrets included. A newer revision ends it early, as with Sync. The error is the Result's, or tells why nothing
// could be done at all, with a nil Result.
func (r *Reconciler) Apply(ctx context.Context, p *Plan) (*Result, error) {
	if p == nil {
		return nil, fmt.Errorf("reconcile: apply: plan is nil: %w", ErrInvalid)
	}
	if err := r.enter(ctx); err != nil {
		return nil, err
	}
	defer r.leave()
	if p.Target != r.opts.Target {
		return nil, fmt.Errorf("reconcile: apply: plan is for target %q, not %q: %w", p.Target, r.opts.Target, ErrInvalid)
	}
	inv, err := r.load(ctx)
	if err != nil {
		return nil, err
	}
	if p.made {
		err = r.current(ctx, p)
	} else {
		p, err = r.remade(ctx, p, inv)
	}
	if err != nil {
		return nil, err
	}
	res, err := r.apply(ctx, p, inv)
	r.Trigger() // a running loop looks at the outcome
	return res, err
}

// remade gives the plan that p, which was read from JSON, stands for.
func (r *Reconciler) remade(ctx context.Context, p *Plan, inv *Inventory) (*Plan, error) {
	again, err := r.fresh(ctx, inv)
	if err != nil {
		return nil, err
	}
	if again.openDigest() != p.openDigest() || again.Digest() != p.digest && again.secret() {
		return nil, fmt.Errorf("reconcile: apply: plan for revision %s, made anew, asks for something else: %w",
			ShortRevision(p.Revision), ErrStale)
	}
	return again, nil
}

// current makes sure that the source still declares what the plan is for.
func (r *Reconciler) current(ctx context.Context, p *Plan) error {
	desired, err := r.fetch(ctx)
	if err != nil {
		return err
	}
	if desired.Revision() != p.Revision {
		return fmt.Errorf("reconcile: apply: plan is for revision %s, source is at %s: %w",
			ShortRevision(p.Revision), ShortRevision(desired.Revision()), ErrStale)
	}
	// Revisions are opaque and may be missing, so what counts is looked at.
	for c := range p.Changes() {
		if was, ok := p.planned[c.Key]; !ok || !reflect.DeepEqual(was, c) {
			return &Error{Op: "apply", Key: c.Key, Err: fmt.Errorf("the plan did not hold this change when it was made: %w", ErrInvalid)}
		}
		was, planned := p.desired.Get(c.Key)
		is, declared := desired.Get(c.Key)
		if planned != declared || declared && !same(was.Object, is.Object) {
			return &Error{Op: "apply", Key: c.Key, Err: fmt.Errorf("its declaration has changed since the plan was made: %w", ErrStale)}
		}
	}
	return r.again(ctx, p)
}

// overtaken looks whether the source has something newer than the plan.
func (r *Reconciler) overtaken(ctx context.Context, p *Plan) *overtaken {
	desired, err := r.fetch(ctx)
	if err != nil || desired == p.desired {
		return nil // a failure is the next round's
	}
	obsolete := func(c Change) bool {
		was, declared := p.desired.Get(c.Key)
		is, still := desired.Get(c.Key)
		return declared != still || declared && !same(was.Object, is.Object)
	}
	if desired.Revision() == p.Revision && !slices.ContainsFunc(slices.Collect(p.Changes()), obsolete) {
		return nil
	}
	if _, err := makePlan(r.rules, desired, p.live, (*Inventory)(nil).Clone()); err != nil {
		return nil // what cannot be planned takes nobody's place
	}
	return &overtaken{fmt.Errorf("the source is at revision %s now: %w", ShortRevision(desired.Revision()), ErrStale), obsolete}
}

func (r *Reconciler) apply(ctx context.Context, p *Plan, inv *Inventory) (*Result, error) {
	r.dirty = true
	next, changed := settle(p, inv)
	if !changed {
		next = inv.Clone()
	}
	// Write ahead: what may come to exist is remembered before it does, be it
	// a resource or a field.
	before := map[Key]Item{}
	for c := range p.Changes() {
		want, ok := p.desired.Get(c.Key)
		_, kept := p.kept[c.Key]
		item, known := next.Items[c.Key]
		switch {
		case c.Action == Delete || !ok:
		case !known && c.Action == Update: // existed before, and is not pruned should this fail
		case known && (kept || !item.Pending && same(item.Applied, want.Object)):
		default:
			before[c.Key] = item
			item.Pending, item.Writing = true, want.Object
			if !known {
				item.Origin = want.Origin
			}
			next.Items[c.Key] = item
			changed = true
		}
	}
	if changed {
		if err := r.save(ctx, next); err != nil {
			return nil, err
		}
		next = next.Clone() // the store may hold on to the other
	}
	lookout := &lookout{r.look, r.opts.Interval, func(ctx context.Context) *overtaken { return r.overtaken(ctx, p) }}
	res := driveApply(ctx, p, r.opts.Actuator, r.opts.Retry, r.opts.Concurrency, r.opts.Clock, lookout, func(o Outcome) {
		kind := Applied
		if o.Err != nil {
			kind = ApplyFailed
		}
		r.emit(Event{Kind: kind, Revision: p.Revision, Change: &o.Change, Err: o.Err})
	})
	changed = false
	for _, o := range res.Outcomes {
		k := o.Change.Key
		_, kept := p.kept[k]
		want, declared := p.desired.Get(k)
		item, known := next.Items[k]
		switch {
		case o.Err != nil:
			if hopelessError(o.Err) {
				r.gaveUp[k] = hopeless{inputOf(o.Change, p.live), o.Err}
			}
			// What certainly was not written is taken back. Of final errors only
			// a conflict does: it says that somebody else was there, while
			// believing the others wrongly would leave an orphan.
			if old, ahead := before[k]; ahead && (o.Attempts == 0 || o.Attempts == 1 && errors.Is(o.Err, ErrConflict)) {
				changed = true
				if old.Applied == nil && !old.Pending {
					delete(next.Items, k)
				} else {
					next.Items[k] = old
				}
			}
			continue
		case o.Change.Action == Delete:
			// It leaves the inventory when it does not show any more.
		case declared && !kept: // a change back leaves the inventory as it is
			// What was asked for, ceded fields included, is the next base.
			if !known || !recorded(item, want) {
				next.Items[k] = Item{Applied: want.Object, Origin: want.Origin}
				changed = true
			}
		}
		delete(r.gaveUp, k)
	}
	if changed {
		// The outcome is recorded even when the caller has just gone away.
		if err := r.save(context.WithoutCancel(ctx), next); err != nil {
			return res, errors.Join(res.Err(), err)
		}
	}
	return res, res.Err()
}

// recorded tells whether an item says what a declaration does.
func recorded(item Item, want Resource) bool {
	a, b := item.Origin, want.Origin
	a.Revision, b.Revision = "", "" // or every commit would rewrite everything
	return !item.Pending && a == b && same(item.Applied, want.Object)
}

// settle gives an inventory in which what is as declared is recorded, and
// what is neither declared nor live is forgotten, and whether that is another
// one than inv.
func settle(p *Plan, inv *Inventory) (next *Inventory, changed bool) {
	next = inv
	edit := func() *Inventory {
		if !changed {
			next, changed = inv.Clone(), true
		}
		return next
	}
	for want := range p.desired.All() {
		// What the plan's waves hold now does not tell: a part of a plan may
		// be applied.
		if len(p.open) > 0 {
			if _, ok := p.open[want.Key]; ok {
				continue
			}
		}
		if item, ok := inv.Items[want.Key]; !ok || !recorded(item, want) {
			edit().Items[want.Key] = Item{Applied: want.Object, Origin: want.Origin}
		}
	}
	for k := range inv.Items {
		if _, declared := p.desired.Get(k); declared {
			continue
		}
		if _, exists := p.live.Get(k); !exists {
			delete(edit().Items, k)
		}
	}
	return next, changed
}

// Run keeps the target as declared until ctx ends, and returns ctx's error.
// It looks at once, at each [Reconciler.Trigger], when a [Watcher] tells of a
// live change, again after it changed something, and at the latest every
// Options.Interval. A round that fails is reported to the Observer and tried
// again after a pause that grows as Options.Retry says; so does the pause
// between rounds that each find something to change, lest a fight with
// another writer becomes a storm.
func (r *Reconciler) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if w, ok := r.opts.Actuator.(Watcher); ok {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		wg.Go(func() { r.watch(ctx, w) })
	}
	if err := r.enter(ctx); err != nil {
		return err
	}
	r.inv = nil // another process may have had its turn
	r.leave()
	// quick is how many rounds in a row may be restless, that is find
	// something to change or fail, before live changes have to wait.
	const quick = 3
	pause := func(n int) time.Duration {
		return r.opts.Retry.pause(Key{Kind: "Cycle", Name: r.opts.Target}, n)
	}
	fetch, failing := true, 0
	for restless := 0; ctx.Err() == nil; {
		o, err := r.sync(ctx, fetch)
		if o.source == nil {
			failing = 0
		} else if fetch {
			failing++
		}
		fetch = true
		if o.res != nil && o.res.overtaken {
			continue // what came is new, so this is no fight
		}
		wait, stir := r.opts.Interval, r.stir
		if err == nil && o.plan.Len() == 0 {
			restless = 0
		} else {
			restless++
			switch {
			case restless > quick:
				wait, stir = min(wait, pause(restless-quick)), nil
			case err != nil:
				wait = min(wait, pause(restless))
			default:
				fetch = failing == 0
				continue // look at what was done
			}
		}
		if failing > 0 {
			wait = min(wait, pause(failing))
		}
		select {
		case <-ctx.Done():
		case <-r.poke:
		case <-stir:
			// A source that is down is asked at its own pace, lest what it
			// takes to fail stands in the way of what moved.
			fetch = failing == 0
		case <-r.opts.Clock.After(wait):
		}
	}
	return ctx.Err()
}

// watch keeps a watch going until ctx ends.
func (r *Reconciler) watch(ctx context.Context, w Watcher) {
	for n := 1; ctx.Err() == nil; n++ {
		err := w.Watch(ctx, func(Key) { n = 1; nudge(r.stir) })
		if ctx.Err() != nil {
			return
		}
		r.opts.Logger.Warn("watch ended, live changes are seen at the interval until it is back", "target", r.opts.Target, "error", err)
		select {
		case <-ctx.Done():
		case <-r.opts.Clock.After(r.opts.Retry.pause(Key{Kind: "Watch", Name: r.opts.Target}, n)):
			nudge(r.stir)
		}
	}
}

// Sync is one round of [Reconciler.Run]: plan and apply. It gives the plan
// that it applied; the error tells what could not be done. Where the source
// fails, or declares what cannot be planned, Sync goes on with what it declared
// last, and gives that plan and the source's error. An application that a newer
// revision overtakes ends early with [ErrStale]: what waits is not begun, what
// failed is not tried again, and what is being applied and is declared
// otherwise by now is cut off. Rounds keep the inventory in memory and read it
// from the Store at the first one, at the start of Run, and after a failed save.
func (r *Reconciler) Sync(ctx context.Context) (*Plan, error) {
	o, err := r.sync(ctx, true)
	if o.source == nil || err == nil {
		err = cmp.Or(err, o.source)
	} else {
		err = errors.Join(o.source, err)
	}
	return o.plan, err
}

// outcome is what a round came to.
type outcome struct {
	plan   *Plan
	res    *Result // nil where nothing was applied
	source error   // the source's failure, in spite of which the round went on
}

func (r *Reconciler) sync(ctx context.Context, fetch bool) (outcome, error) {
	if err := r.enter(ctx); err != nil {
		return outcome{}, err
	}
	defer r.leave()
	o, err := r.round(ctx, fetch)
	if err != nil && ctx.Err() == nil && (o.res == nil || r.inv == nil) {
		r.dirty = true
		r.emit(Event{Kind: CycleFailed, Revision: r.revision, Err: err})
	}
	return o, err
}

// next makes the plan of a round. Without fetch, or where the source fails,
// it is for what the source declared last, and the failure is given beside it.
func (r *Reconciler) next(ctx context.Context, fetch bool, inv *Inventory) (p *Plan, source, err error) {
	desired := r.accepted
	if fetch || desired == nil {
		select { // a Trigger until now is answered by this
		case <-r.look:
		default:
		}
		desired, source = r.fetch(ctx)
		if source != nil {
			if ctx.Err() != nil || r.accepted == nil {
				return nil, nil, source
			}
			desired = r.accepted
		}
	}
	live, err := r.observe(ctx)
	if err != nil {
		return nil, source, err
	}
	p, err = r.plan(ctx, desired, live, inv, r.gaveUp)
	if bad := (unplannable{}); errors.As(err, &bad) && r.accepted != nil && desired != r.accepted {
		source = err
		p, err = r.plan(ctx, r.accepted, live, inv, r.gaveUp)
	}
	return p, source, err
}

func (r *Reconciler) round(ctx context.Context, fetch bool) (o outcome, err error) {
	inv := r.inv
	if inv == nil {
		if inv, err = r.load(ctx); err != nil {
			return o, err
		}
	}
	p, source, err := r.next(ctx, fetch, inv)
	o.source = source
	if fetch || source != nil {
		failure := ""
		if source != nil {
			failure = source.Error()
		}
		if failure != r.failure {
			r.dirty = true
		}
		if failure != "" && failure != r.failure {
			r.emit(Event{Kind: CycleFailed, Revision: r.revision, Err: source})
		}
		r.failure = failure
	}
	if err != nil {
		return o, err
	}
	o.plan = p
	if p.Revision != r.revision || !r.started {
		r.revision, r.started = p.Revision, true
		r.dirty = true
		r.emit(Event{Kind: RevisionSeen, Revision: p.Revision})
	}
	r.reportHealth(ctx, p)
	held := heldNames(p)
	if p.Len() > 0 || held != r.held {
		if !p.Empty() {
			r.emit(Event{Kind: Planned, Revision: p.Revision, Plan: p})
		}
		r.held = held
		r.dirty = true
	}
	if p.Len() > 0 {
		o.res, err = r.apply(ctx, p, inv)
		return o, err
	}
	if !r.calm.of(p) || inv != r.calm.inv {
		if next, changed := settle(p, inv); changed {
			if err := r.save(ctx, next); err != nil {
				return o, err
			}
			inv = next
		}
	}
	if p.Empty() {
		r.calm = calm{p, inv}
		if r.dirty && r.failure == "" {
			r.dirty = false
			r.emit(Event{Kind: Synced, Revision: p.Revision})
		}
	}
	return o, nil
}

func heldNames(p *Plan) string {
	s := ""
	for _, h := range p.Held {
		s += fmt.Sprintf("%s %s %s %s\n", h.Change.Action, h.Change.Key, h.By, h.Reason)
	}
	return s
}

func (r *Reconciler) reportHealth(ctx context.Context, p *Plan) {
	checker, _ := r.opts.Actuator.(HealthChecker)
	if checker == nil && r.calm.of(p) {
		return // as reported
	}
	for want := range p.desired.All() {
		h := Health{Status: Missing}
		if have, ok := p.live.Get(want.Key); ok {
			h = have.Health
			if checker != nil {
				h = checker.CheckHealth(ctx, have)
			} else if h.Status == Unknown {
				h = CheckHealth(have.Object)
			}
		}
		last, known := r.health[want.Key]
		if known && last == h {
			continue
		}
		r.health[want.Key] = h
		if last.Status != h.Status {
			r.emit(Event{Kind: HealthChanged, Revision: p.Revision, Key: want.Key, Health: h})
		}
	}
	if len(r.health) > p.desired.Len() {
		maps.DeleteFunc(r.health, func(k Key, _ Health) bool { _, ok := p.desired.Get(k); return !ok })
	}
}

func (r *Reconciler) emit(e Event) {
	if e.Err != nil {
		e.Error = e.Err.Error()
	}
	e.Time = r.opts.Clock.Now()
	if r.opts.Observer == nil {
		return
	}
	r.events.Lock()
	defer r.events.Unlock()
	r.opts.Observer(e)
}
