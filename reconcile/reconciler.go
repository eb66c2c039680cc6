package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
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
	case o.Concurrency < 0:
		return bad(fmt.Sprintf("Concurrency %d is negative", o.Concurrency))
	case slices.Contains(o.Gates, nil):
		return bad("Gates has a nil Gate")
	}
	for i, c := range o.Ceded {
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
	// Synced: everything is as declared, after it was not.
	Synced EventKind = "Synced"
	// HealthChanged: the health of a declared resource is another one.
	HealthChanged EventKind = "HealthChanged"
	// CycleFailed: a round ended early: the source, the live state, a plan
	// or the store failed. It is tried again.
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
	poke   chan struct{}
	mu     sync.Mutex // one round at a time
	events sync.Mutex // one event at a time

	// What was reported last, so that only changes are; guarded by mu.
	revision string
	health   map[Key]Health
	dirty    bool
	held     string
}

// New makes a Reconciler; it does nothing until it is asked to. Bad options
// give an error that matches [ErrInvalid] and names the field.
func New(opts Options) (*Reconciler, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	return &Reconciler{
		opts:   opts,
		rules:  rules{target: opts.Target, brake: opts.Brake, ceded: opts.Ceded},
		poke:   make(chan struct{}, 1),
		health: map[Key]Health{},
	}, nil
}

// Trigger asks a running [Reconciler.Run] for a round now. It never blocks;
// several triggers before the round are one.
func (r *Reconciler) Trigger() {
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// Plan compares the source with the live state and gives what Apply would
// do, after all gates have reviewed it. It changes nothing on the target.
func (r *Reconciler) Plan(ctx context.Context) (*Plan, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, _, err := r.plan(ctx)
	return p, err
}

// snapshot is what a plan was made from.
type snapshot struct {
	desired, live *State
	inv           *Inventory
}

func (r *Reconciler) plan(ctx context.Context) (*Plan, *snapshot, error) {
	desired, err := r.opts.Source.Fetch(ctx)
	if err != nil {
		return nil, nil, &Error{Op: "fetch desired state", Err: err}
	}
	if desired.Len() == 0 && !r.opts.AllowEmpty {
		return nil, nil, &Error{Op: "fetch desired state", Err: fmt.Errorf("revision %s: %w", desired.Revision(), ErrEmptySource)}
	}
	live, err := r.opts.Actuator.Observe(ctx)
	if err != nil {
		return nil, nil, &Error{Op: "observe live state", Err: err}
	}
	inv, err := r.opts.Store.Load(ctx)
	if err != nil {
		return nil, nil, err
	}
	base := inv
	if r.opts.NoPrune {
		base = inv.Clone()
		for k := range base.Items {
			if _, ok := desired.Get(k); !ok {
				delete(base.Items, k)
			}
		}
	}
	p, err := makePlan(r.rules, desired, live, base)
	if err != nil {
		return nil, nil, &Error{Op: "plan revision " + ShortRevision(desired.Revision()), Err: err}
	}
	p.Made = r.opts.Clock.Now()
	if err := r.review(ctx, p, live, inv); err != nil {
		return nil, nil, err
	}
	return p, &snapshot{desired: desired, live: live, inv: inv}, nil
}

// review asks the gates and moves what they object to from the plan's waves
// to its held changes.
func (r *Reconciler) review(ctx context.Context, p *Plan, live *State, inv *Inventory) error {
	if p.Len() == 0 || len(r.opts.Gates) == 0 {
		return nil
	}
	blocked := map[Key]Held{}
	var whole *Held
	for _, g := range r.opts.Gates {
		v, err := g.Review(ctx, p)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			v.Gate = cmp.Or(v.Gate, fmt.Sprintf("%T", g))
			v.Objections = append(v.Objections, Objection{Decision: Hold, Message: "gate failed: " + err.Error()})
		}
		p.Verdicts = append(p.Verdicts, v)
		for _, o := range v.Objections {
			if o.Decision != Hold && o.Decision != Deny {
				continue
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
	if whole == nil && len(blocked) == 0 {
		return nil
	}
	var keep []Change
	for c := range p.Changes() {
		h, bad := blocked[c.Key]
		if !bad && whole != nil {
			h, bad = *whole, true
		}
		if !bad {
			for _, k := range c.DependsOn {
				// Waves come in dependency order, so what c depends on has
				// been looked at already.
				if _, ok := blocked[k]; ok {
					h, bad = Held{By: blocked[k].By, Reason: "it depends on " + k.String() + ", which is held"}, true
					break
				}
			}
		}
		if !bad {
			keep = append(keep, c)
			continue
		}
		blocked[c.Key] = h
		h.Change = c
		p.Held = append(p.Held, h)
		if whole != nil {
			continue
		}
		// The resource is kept as it was last accepted.
		if item, ok := inv.Items[c.Key]; ok && item.Applied != nil && c.Action != Delete {
			last := Resource{Key: c.Key, Object: item.Applied, Origin: item.Origin}
			back, changed, err := r.rules.change(last, live, inv)
			if err == nil && changed {
				keep = append(keep, back)
			}
		}
	}
	var err error
	p.Waves, err = order(keep)
	return err
}

// Apply carries out a plan that [Reconciler.Plan] made. It is refused with
// [ErrStale] if the source has moved to another revision since; a live object
// that has moved fails its own change with [ErrConflict]. The error is the
// Result's, or tells why nothing could be done at all, with a nil Result.
func (r *Reconciler) Apply(ctx context.Context, p *Plan) (*Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	desired, err := r.opts.Source.Fetch(ctx)
	if err != nil {
		return nil, &Error{Op: "fetch desired state", Err: err}
	}
	if desired.Revision() != p.Revision {
		return nil, fmt.Errorf("reconcile: apply: plan is for revision %s, source is at %s: %w",
			ShortRevision(p.Revision), ShortRevision(desired.Revision()), ErrStale)
	}
	inv, err := r.opts.Store.Load(ctx)
	if err != nil {
		return nil, err
	}
	return r.apply(ctx, p, desired, inv)
}

func (r *Reconciler) apply(ctx context.Context, p *Plan, desired *State, inv *Inventory) (*Result, error) {
	inv = inv.Clone()
	// Write ahead: what may come to exist is remembered before it does.
	ahead := false
	for c := range p.Changes() {
		if _, ok := inv.Items[c.Key]; !ok && c.Action != Delete {
			inv.Items[c.Key] = Item{Origin: c.Origin, Pending: true}
			ahead = true
		}
	}
	if ahead {
		if err := r.opts.Store.Save(ctx, inv); err != nil {
			return nil, err
		}
	}
	res := driveApply(ctx, p, r.opts.Actuator, r.opts.Retry, r.opts.Concurrency, r.opts.Clock, func(o Outcome) {
		kind := Applied
		if o.Err != nil {
			kind = ApplyFailed
		}
		r.emit(Event{Kind: kind, Revision: p.Revision, Change: &o.Change, Err: o.Err})
	})
	for _, o := range res.Outcomes {
		if o.Err != nil {
			continue
		}
		if o.Change.Action == Delete {
			delete(inv.Items, o.Change.Key)
			continue
		}
		// What was asked for, ceded fields included, is the next base. A
		// change back to the last accepted declaration leaves that in place.
		if want, ok := desired.Get(o.Change.Key); ok && o.Change.Origin == want.Origin {
			inv.Items[o.Change.Key] = Item{Applied: want.Object, Origin: want.Origin}
		}
	}
	// The outcome is recorded even when the caller has just gone away.
	if err := r.opts.Store.Save(context.WithoutCancel(ctx), inv); err != nil {
		return res, errors.Join(res.Err(), err)
	}
	return res, res.Err()
}

// settle records in the inventory what is as declared already, and forgets
// what is neither declared nor live.
func (r *Reconciler) settle(ctx context.Context, p *Plan, s *snapshot) error {
	open := map[Key]bool{}
	for c := range p.Changes() {
		open[c.Key] = true
	}
	for _, h := range p.Held {
		open[h.Change.Key] = true
	}
	var next *Inventory
	edit := func() *Inventory {
		if next == nil {
			next = s.inv.Clone()
		}
		return next
	}
	for want := range s.desired.All() {
		item, ok := s.inv.Items[want.Key]
		if open[want.Key] || ok && !item.Pending && item.Origin == want.Origin {
			continue
		}
		edit().Items[want.Key] = Item{Applied: want.Object, Origin: want.Origin}
	}
	for k := range s.inv.Items {
		_, declared := s.desired.Get(k)
		_, exists := s.live.Get(k)
		if !declared && !exists {
			delete(edit().Items, k)
		}
	}
	if next == nil {
		return nil
	}
	if err := r.opts.Store.Save(ctx, next); err != nil {
		return err
	}
	s.inv = next
	return nil
}

// Run keeps the target as declared until ctx ends, and returns ctx's error.
// It looks at once, at each [Reconciler.Trigger], when a [Watcher] tells of a
// live change, and at the latest every Options.Interval. A round that fails
// is reported to the Observer and tried again.
func (r *Reconciler) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if w, ok := r.opts.Actuator.(Watcher); ok {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		wg.Go(func() { r.watch(ctx, w) })
	}
	for failures := 0; ; {
		_, err := r.Sync(ctx)
		wait := r.opts.Interval
		if err != nil && ctx.Err() == nil {
			failures++
			wait = min(wait, r.opts.Retry.pause(Key{Kind: "Cycle", Name: r.opts.Target}, failures))
		} else {
			failures = 0
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.poke:
		case <-r.opts.Clock.After(wait):
		}
	}
}

// watch keeps a watch going until ctx ends.
func (r *Reconciler) watch(ctx context.Context, w Watcher) {
	for n := 1; ctx.Err() == nil; n++ {
		err := w.Watch(ctx, func(Key) { r.Trigger() })
		if ctx.Err() != nil {
			return
		}
		r.opts.Logger.Warn("watch ended, live changes are seen at the interval until it is back", "target", r.opts.Target, "error", err)
		select {
		case <-ctx.Done():
		case <-r.opts.Clock.After(r.opts.Retry.pause(Key{Kind: "Watch", Name: r.opts.Target}, n)):
			r.Trigger()
		}
	}
}

// Sync is one round of [Reconciler.Run]: plan and apply. It gives the plan
// that it applied; the error tells what could not be done.
func (r *Reconciler) Sync(ctx context.Context) (*Plan, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := r.round(ctx)
	if err != nil && ctx.Err() == nil {
		r.emit(Event{Kind: CycleFailed, Err: err})
	}
	return p, err
}

func (r *Reconciler) round(ctx context.Context) (*Plan, error) {
	p, s, err := r.plan(ctx)
	if err != nil {
		return nil, err
	}
	if p.Revision != r.revision {
		r.revision = p.Revision
		r.dirty = true
		r.emit(Event{Kind: RevisionSeen, Revision: p.Revision})
	}
	r.reportHealth(ctx, s)
	if err := r.settle(ctx, p, s); err != nil {
		return p, err
	}
	held := heldNames(p)
	if p.Len() > 0 || held != r.held {
		if !p.Empty() {
			r.emit(Event{Kind: Planned, Revision: p.Revision, Plan: p})
		}
		r.held = held
		r.dirty = true
	}
	if p.Len() > 0 {
		_, err := r.apply(ctx, p, s.desired, s.inv)
		// What was applied is looked at once more, soon.
		r.Trigger()
		return p, err
	}
	if r.dirty && p.Empty() {
		r.dirty = false
		r.emit(Event{Kind: Synced, Revision: p.Revision})
	}
	return p, nil
}

func heldNames(p *Plan) string {
	s := ""
	for _, h := range p.Held {
		s += fmt.Sprintf("%s %s %s %s\n", h.Change.Action, h.Change.Key, h.By, h.Reason)
	}
	return s
}

func (r *Reconciler) reportHealth(ctx context.Context, s *snapshot) {
	checker, _ := r.opts.Actuator.(HealthChecker)
	seen := make(map[Key]Health, s.desired.Len())
	for want := range s.desired.All() {
		h := Health{Status: Missing}
		if have, ok := s.live.Get(want.Key); ok {
			h = have.Health
			if checker != nil {
				h = checker.CheckHealth(ctx, have)
			} else if h.Status == Unknown {
				h = CheckHealth(have.Object)
			}
		}
		seen[want.Key] = h
		if r.health[want.Key].Status != h.Status {
			r.emit(Event{Kind: HealthChanged, Revision: s.desired.Revision(), Key: want.Key, Health: h})
		}
	}
	r.health = seen
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
