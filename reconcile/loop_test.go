package reconcile_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/memory"
)

type object = map[string]any

func key(s string) reconcile.Key {
	k, err := reconcile.ParseKey(s)
	if err != nil {
		panic(err)
	}
	return k
}

// thing makes a resource with one spec field a pair.
func thing(k string, spec ...any) reconcile.Resource {
	id := key(k)
	meta := object{"name": id.Name}
	if id.Namespace != "" {
		meta["namespace"] = id.Namespace
	}
	o := object{"apiVersion": strings.TrimPrefix(id.Group+"/v1", "/"), "kind": id.Kind, "metadata": meta}
	fields := object{}
	for i := 0; i < len(spec); i += 2 {
		if name := spec[i].(string); name == "depends-on" {
			meta["annotations"] = object{reconcile.AnnotationDependsOn: spec[i+1]}
		} else {
			fields[name] = spec[i+1]
		}
	}
	o["spec"] = fields
	return reconcile.Resource{Key: id, Object: o}
}

func state(revision string, rs ...reconcile.Resource) *reconcile.State {
	s, err := reconcile.NewState(revision, rs)
	if err != nil {
		panic(err)
	}
	return s
}

func spec(t testing.TB, target *memory.Target, k string) object {
	t.Helper()
	s, err := target.Observe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	r, _ := s.Get(key(k))
	o, _ := r.Object["spec"].(object)
	return o
}

// leap is a clock that jumps to whatever is waited for.
type leap struct {
	mu  sync.Mutex
	now time.Time
}

func (c *leap) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }

func (c *leap) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	ch := make(chan time.Time, 1)
	ch <- c.now
	return ch
}

// manual is a clock that a test moves; waits tells of every wait.
type manual struct {
	mu    sync.Mutex
	now   time.Time
	timer map[chan time.Time]time.Time
	waits chan time.Duration
}

func newManual() *manual {
	return &manual{timer: map[chan time.Time]time.Time{}, waits: make(chan time.Duration, 1000)}
}

func (c *manual) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }

func (c *manual) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan time.Time, 1)
	c.timer[ch] = c.now.Add(d)
	c.waits <- d
	return ch
}

func (c *manual) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for ch, at := range c.timer {
		if !at.After(c.now) {
			ch <- c.now
			delete(c.timer, ch)
		}
	}
}

type gateFunc func(p *reconcile.Plan) (reconcile.Verdict, error)

func (f gateFunc) Review(_ context.Context, p *reconcile.Plan) (reconcile.Verdict, error) {
	return f(p)
}

// objectTo is a gate with one decision on some keys; "" is the whole plan.
func objectTo(d reconcile.Decision, keys ...string) gateFunc {
	return func(*reconcile.Plan) (reconcile.Verdict, error) {
		v := reconcile.Verdict{Gate: "test"}
		for _, k := range keys {
			o := reconcile.Objection{Decision: d, Message: "no"}
			if k != "" {
				o.Key = key(k)
			}
			v.Objections = append(v.Objections, o)
		}
		return v, nil
	}
}

func newReconciler(t testing.TB, opts reconcile.Options) *reconcile.Reconciler {
	t.Helper()
	if opts.Clock == nil {
		opts.Clock = &leap{}
	}
	r, err := reconcile.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustSync(t testing.TB, r *reconcile.Reconciler) *reconcile.Plan {
	t.Helper()
	p, err := r.Sync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func applied(target *memory.Target) (out []string) {
	for _, c := range target.Applied() {
		out = append(out, fmt.Sprint(c.Action, " ", c.Key))
	}
	return out
}

func TestOptions(t *testing.T) {
	src, target := &memory.Source{}, &memory.Target{}
	for name, o := range map[string]reconcile.Options{
		"Source": {Actuator: target}, "Actuator": {Source: src},
		"Interval":    {Source: src, Actuator: target, Interval: -1},
		"CallTimeout": {Source: src, Actuator: target, CallTimeout: -1},
		"Concurrency": {Source: src, Actuator: target, Concurrency: -1},
		"Gates":       {Source: src, Actuator: target, Gates: []reconcile.Gate{nil}},
		"Ceded":       {Source: src, Actuator: target, Ceded: []reconcile.Ceded{{Path: "a..b"}}},
		"Retry":       {Source: src, Actuator: target, Retry: reconcile.Retry{Attempts: -1}},
		"MaxDeletes":  {Source: src, Actuator: target, Brake: reconcile.Brake{MaxDeletes: -1}},
		"MaxShare":    {Source: src, Actuator: target, Brake: reconcile.Brake{MaxShare: 1.5}},
	} {
		if _, err := reconcile.New(o); !errors.Is(err, reconcile.ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSyncLife(t *testing.T) {
	src, target := &memory.Source{}, &memory.Target{}
	var events []string
	r := newReconciler(t, reconcile.Options{Source: src, Actuator: target, Observer: func(e reconcile.Event) {
		if e.Kind != reconcile.HealthChanged {
			events = append(events, strings.TrimSpace(string(e.Kind)+" "+e.Revision+" "+e.Error))
		}
	}})
	expect := func(what string, want ...string) {
		t.Helper()
		if d := cmp.Diff(want, events); d != "" {
			t.Errorf("%s: events (-want +got):\n%s", what, d)
		}
		events = nil
	}
	a, b := thing("Job/a", "n", int64(1)), thing("Job/b", "n", int64(1))
	src.Set(state("r1", a, b, thing("Job/c")), nil)
	mustSync(t, r)
	expect("first", "RevisionSeen r1", "Planned r1", "Applied r1", "Applied r1", "Applied r1")
	mustSync(t, r)
	mustSync(t, r)
	expect("settled, told once", "Synced r1")

	if err := target.Edit(a.Key, func(o object) object {
		o["spec"].(object)["n"] = int64(9)
		o["spec"].(object)["theirs"] = true
		return o
	}); err != nil {
		t.Fatal(err)
	}
	p := mustSync(t, r)
	for c := range p.Changes() {
		if c.Cause != reconcile.DriftDetected {
			t.Errorf("cause %s", c.Cause)
		}
	}
	mustSync(t, r)
	expect("drift", "Planned r1", "Applied r1", "Synced r1")
	if d := cmp.Diff(object{"n": int64(1), "theirs": true}, spec(t, target, "Job/a")); d != "" {
		t.Error(d)
	}

	src.Set(nil, errors.New("down"))
	if _, err := r.Sync(t.Context()); err == nil {
		t.Error("a failing source is no error")
	}
	src.Set(state("r1", a, b, thing("Job/c")), nil)
	mustSync(t, r)
	expect("recovery", "CycleFailed r1 reconcile: fetch desired state: down", "Synced r1")

	src.Set(state("r2"), nil)
	if _, err := r.Sync(t.Context()); !errors.Is(err, reconcile.ErrEmptySource) {
		t.Errorf("empty source: %v", err)
	}
	events = nil
	src.Set(state("r3", a, b), nil)
	mustSync(t, r)
	mustSync(t, r)
	expect("prune", "RevisionSeen r3", "Planned r3", "Applied r3", "Synced r3")
	if d := cmp.Diff([]reconcile.Key{a.Key, b.Key}, target.Keys()); d != "" {
		t.Error(d)
	}
}

func TestGates(t *testing.T) {
	v1 := []reconcile.Resource{thing("Job/a", "n", int64(1)), thing("Job/b", "n", int64(1), "depends-on", "Job/a"), thing("Job/c", "n", int64(1))}
	v2 := []reconcile.Resource{thing("Job/a", "n", int64(2)), thing("Job/b", "n", int64(2), "depends-on", "Job/a"), thing("Job/c", "n", int64(2))}
	drift := func(o object) object { o["spec"].(object)["n"] = int64(9); return o }
	n := func(a, b, c int64) [3]int64 { return [3]int64{a, b, c} }
	tests := []struct {
		name string
		gate gateFunc
		edit []string // keys that drift after v1
		want [3]int64
		held int
	}{
		{name: "allowed", gate: objectTo(reconcile.Warn, "Job/a"), want: n(2, 2, 2)},
		{name: "one denied, what depends on it held, the rest goes on", gate: objectTo(reconcile.Deny, "Job/a"), want: n(1, 1, 2), held: 2},
		{name: "a leaf denied", gate: objectTo(reconcile.Hold, "Job/c"), want: n(2, 2, 1), held: 1},
		{name: "a word nobody knows is no leave", gate: objectTo("perhaps", "Job/c"), want: n(2, 2, 1), held: 1},
		{name: "everything held", gate: objectTo(reconcile.Hold, ""), edit: []string{"Job/a"}, want: n(9, 1, 1), held: 3},
		{name: "gate fails", gate: func(*reconcile.Plan) (reconcile.Verdict, error) { return reconcile.Verdict{}, errors.New("down") }, want: n(1, 1, 1), held: 3},
		{
			// It denies what asks for 2, and reads that from the declaration.
			name: "drift of a denied resource is corrected to what was last accepted", edit: []string{"Job/a"}, want: n(1, 1, 2), held: 2,
			gate: func(p *reconcile.Plan) (reconcile.Verdict, error) {
				v := reconcile.Verdict{Gate: "policy"}
				want, _ := p.Desired(key("Job/a"))
				if got, _ := want.Object["spec"].(object); got["n"] == int64(2) {
					v.Objections = []reconcile.Objection{{Decision: reconcile.Deny, Key: want.Key, Message: "no twos"}}
				}
				return v, nil
			},
		},
		{name: "a hold on the key holds the correction, too", gate: objectTo(reconcile.Hold, "Job/a"), edit: []string{"Job/a"}, want: n(9, 1, 2), held: 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src, target, open := &memory.Source{}, &memory.Target{}, true
			store := &reconcile.MemoryStore{}
			r := newReconciler(t, reconcile.Options{Source: src, Actuator: target, Store: store, Gates: []reconcile.Gate{gateFunc(func(p *reconcile.Plan) (reconcile.Verdict, error) {
				if open {
					return reconcile.Verdict{Gate: "test"}, nil
				}
				return tt.gate(p)
			})}})
			src.Set(state("r1", v1...), nil)
			mustSync(t, r)
			mustSync(t, r)
			open = false
			for _, k := range tt.edit {
				if err := target.Edit(key(k), drift); err != nil {
					t.Fatal(err)
				}
			}
			src.Set(state("r2", v2...), nil)
			p := mustSync(t, r)
			if len(p.Held) != tt.held {
				t.Errorf("held %d, want %d:\n%s", len(p.Held), tt.held, p)
			}
			for range 3 { // it stays so
				mustSync(t, r)
			}
			var got [3]int64
			for i, k := range []string{"Job/a", "Job/b", "Job/c"} {
				got[i], _ = spec(t, target, k)["n"].(int64)
			}
			if got != tt.want {
				t.Errorf("got %v, want %v\n%s", got, tt.want, p)
			}
			// What was held is still what would be gone back to.
			inv, _ := store.Load(t.Context())
			for _, h := range p.Held {
				if was := inv.Items[h.Change.Key].Applied["spec"].(object)["n"]; was != int64(1) {
					t.Errorf("%s: %v is remembered as accepted", h.Change.Key, was)
				}
			}
			open = true
			mustSync(t, r)
			if q := mustSync(t, r); !q.Empty() || spec(t, target, "Job/a")["n"] != int64(2) {
				t.Errorf("when the gate lets go:\n%s", q)
			}
		})
	}
}

// noTwos denies what asks for 2.
func noTwos(p *reconcile.Plan) (reconcile.Verdict, error) {
	v := reconcile.Verdict{Gate: "policy"}
	for c := range p.Changes() {
		if s, _ := c.Desired["spec"].(object); s["n"] == int64(2) {
			v.Objections = append(v.Objections, reconcile.Objection{Decision: reconcile.Deny, Key: c.Key, Message: "no twos"})
		}
	}
	return v, nil
}

// What is denied does not become accepted by being made so by hand.
func TestDeniedAndMadeByHand(t *testing.T) {
	two := func(o object) object { o["spec"].(object)["n"] = int64(2); return o }
	src, target, store := &memory.Source{}, &memory.Target{}, &reconcile.MemoryStore{}
	r := newReconciler(t, reconcile.Options{Source: src, Actuator: target, Store: store, Gates: []reconcile.Gate{gateFunc(noTwos)}})
	a, b := thing("Job/a", "n", int64(1)), thing("Job/b", "n", int64(2))
	src.Set(state("r1", a), nil)
	mustSync(t, r)
	src.Set(state("r2", thing("Job/a", "n", int64(2)), b), nil)
	if p := mustSync(t, r); p.Len() != 0 || len(p.Held) != 2 {
		t.Errorf("%s", p)
	}
	_ = target.Edit(a.Key, two)
	_ = target.Edit(b.Key, func(object) object { return b.Object })
	for range 3 {
		if p := mustSync(t, r); len(p.Held) != 2 || p.Held[0].By != "policy" {
			t.Errorf("%s", p)
		}
	}
	if n := spec(t, target, "Job/a")["n"]; n != int64(1) {
		t.Errorf("n is %v", n)
	}
	inv, _ := store.Load(t.Context())
	if _, ours := inv.Items[b.Key]; ours || inv.Items[a.Key].Applied["spec"].(object)["n"] != int64(1) {
		t.Errorf("%v", inv.Items)
	}
	// Never accepted, so never pruned either.
	src.Set(state("r3", a), nil)
	mustSync(t, r)
	if d := cmp.Diff([]reconcile.Key{a.Key, b.Key}, target.Keys()); d != "" {
		t.Error(d)
	}
}

func TestApplyAsksGatesAgain(t *testing.T) {
	src, target := &memory.Source{}, &memory.Target{}
	verdict := objectTo(reconcile.Allow)
	r := newReconciler(t, reconcile.Options{Source: src, Actuator: target, Gates: []reconcile.Gate{
		gateFunc(func(p *reconcile.Plan) (reconcile.Verdict, error) { return verdict(p) }),
	}})
	plan := func() *reconcile.Plan {
		t.Helper()
		p, err := r.Plan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	src.Set(state("r1", thing("Job/a", "n", int64(1)), thing("Job/b", "n", int64(1))), nil)
	p := plan()
	for _, verdict = range []gateFunc{
		objectTo(reconcile.Hold, ""), objectTo(reconcile.Deny, "Job/b"),
		func(*reconcile.Plan) (reconcile.Verdict, error) { return reconcile.Verdict{}, errors.New("down") },
	} {
		if _, err := r.Apply(t.Context(), p); !errors.Is(err, reconcile.ErrStale) || len(target.Keys()) != 0 {
			t.Errorf("%v, %v", err, target.Keys())
		}
	}
	verdict = objectTo(reconcile.Warn, "Job/b")
	p.Waves[0][0].Desired = thing("Job/a", "n", int64(2)).Object
	if _, err := r.Apply(t.Context(), p); !errors.Is(err, reconcile.ErrInvalid) || len(target.Keys()) != 0 {
		t.Errorf("changed after the review: %v", err)
	}
	if _, err := r.Apply(t.Context(), plan()); err != nil {
		t.Error(err)
	}

	// The way back to what was last accepted is asked about, too.
	verdict = noTwos
	src.Set(state("r2", thing("Job/a", "n", int64(2)), thing("Job/b", "n", int64(1))), nil)
	_ = target.Edit(key("Job/a"), func(o object) object { o["spec"].(object)["n"] = int64(9); return o })
	if p = plan(); p.Len() != 1 || len(p.Held) != 1 {
		t.Fatalf("%s", p)
	}
	verdict = objectTo(reconcile.Hold, "")
	if _, err := r.Apply(t.Context(), p); !errors.Is(err, reconcile.ErrStale) {
		t.Errorf("%v", err)
	}
	verdict = noTwos
	if _, err := r.Apply(t.Context(), p); err != nil || spec(t, target, "Job/a")["n"] != int64(1) {
		t.Errorf("%v", err)
	}
}

// A plan that was approved as JSON writes the Secret that was approved.
func TestApplyComparesSecrets(t *testing.T) {
	src, target := &memory.Source{}, &memory.Target{}
	secret := func(v string) reconcile.Resource {
		r := thing("Secret/s")
		r.Object["stringData"] = object{"p": v}
		return r
	}
	r := newReconciler(t, reconcile.Options{Source: src, Actuator: target})
	src.Set(state("", secret("approved")), nil)
	p, err := r.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, _ := json.Marshal(p)
	var q, bare reconcile.Plan
	if err := errors.Join(json.Unmarshal(b, &q), json.Unmarshal([]byte(strings.Replace(string(b), `"digest"`, `"x"`, 1)), &bare)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Apply(t.Context(), &bare); !errors.Is(err, reconcile.ErrStale) {
		t.Errorf("without a digest: %v", err)
	}
	src.Set(state("", secret("other")), nil)
	if _, err := r.Apply(t.Context(), &q); !errors.Is(err, reconcile.ErrStale) || len(target.Keys()) > 0 {
		t.Errorf("swapped: %v", err)
	}
	src.Set(state("", secret("approved")), nil)
	if _, err := r.Apply(t.Context(), &q); err != nil {
		t.Error(err)
	}
}

func TestDryRun(t *testing.T) {
	src, target := &memory.Source{}, &memory.Target{}
	if _, err := reconcile.New(reconcile.Options{Source: src, Actuator: struct{ reconcile.Actuator }{target}, DryRun: true}); !errors.Is(err, reconcile.ErrInvalid) {
		t.Errorf("%v", err)
	}
	target.Fail = func(c reconcile.Change) error {
		if c.Key.Name == "b" {
			return errors.New("no such field")
		}
		return nil
	}
	r := newReconciler(t, reconcile.Options{Source: src, Actuator: target, DryRun: true})
	src.Set(state("r1", thing("Job/a"), thing("Job/b"), thing("Job/c", "depends-on", "Job/b")), nil)
	p, err := r.Sync(t.Context())
	if err != nil || len(p.Held) != 2 || p.Held[0].By != "dry-run" || p.Held[0].Reason != "no such field" || p.Held[1].By != "dry-run" {
		t.Errorf("%v\n%s", err, p)
	}
	if d := cmp.Diff([]string{"Create Job/a"}, applied(target)); d != "" {
		t.Error(d)
	}
}

// lingering is a target that takes deletions on and makes them later, and
// tells of a status all the time.
type lingering struct{ *memory.Target }

func (l lingering) Apply(ctx context.Context, c reconcile.Change) error {
	if c.Action == reconcile.Delete {
		return nil
	}
	return l.Target.Apply(ctx, c)
}

func TestDeletionTakenOn(t *testing.T) {
	src, target, store := &memory.Source{}, lingering{&memory.Target{}}, &reconcile.MemoryStore{}
	r := newReconciler(t, reconcile.Options{Source: src, Actuator: target, Store: store})
	src.Set(state("r1", thing("Job/a"), thing("Job/b")), nil)
	mustSync(t, r)
	src.Set(state("r2", thing("Job/a")), nil)
	ours := func() bool {
		inv, _ := store.Load(t.Context())
		_, ok := inv.Items[key("Job/b")]
		return ok
	}
	for range 2 {
		if mustSync(t, r); !ours() {
			t.Error("it shows still and is forgotten")
		}
	}
	_ = target.Edit(key("Job/b"), func(object) object { return nil })
	if p := mustSync(t, r); !p.Empty() || ours() {
		t.Errorf("it is gone and remembered:\n%s", p)
	}
}

// lateTerminal writes and fails for good, against the contract.
type lateTerminal struct{ *memory.Target }

func (l lateTerminal) Apply(ctx context.Context, c reconcile.Change) error {
	if err := l.Target.Apply(ctx, c); err != nil || c.Action == reconcile.Delete {
		return err
	}
	return reconcile.ErrTerminal
}

func TestWrittenInSpiteOfATerminalErrorIsPruned(t *testing.T) {
	src, target := &memory.Source{}, lateTerminal{&memory.Target{}}
	r := newReconciler(t, reconcile.Options{Source: src, Actuator: target})
	src.Set(state("r1", thing("Job/a"), thing("Job/b")), nil)
	if _, err := r.Sync(t.Context()); !errors.Is(err, reconcile.ErrTerminal) {
		t.Fatal(err)
	}
	src.Set(state("r2", thing("Job/a")), nil)
	mustSync(t, r)
	if d := cmp.Diff([]reconcile.Key{key("Job/a")}, target.Keys()); d != "" {
		t.Error(d)
	}
}

func TestGateHoldsADriftCorrection(t *testing.T) {
	src, target := &memory.Source{}, &memory.Target{}
	r := newReconciler(t, reconcile.Options{Source: src, Actuator: target, Gates: []reconcile.Gate{gateFunc(func(p *reconcile.Plan) (reconcile.Verdict, error) {
		v := reconcile.Verdict{Gate: "pause"}
		for c := range p.Changes() {
			if c.Action == reconcile.Update {
				v.Objections = append(v.Objections, reconcile.Objection{Decision: reconcile.Hold, Key: c.Key, Message: "paused"})
			}
		}
		return v, nil
	})}})
	src.Set(state("r1", thing("Job/a", "n", int64(1))), nil)
	mustSync(t, r)
	_ = target.Edit(key("Job/a"), func(o object) object { o["spec"].(object)["n"] = int64(9); return o })
	p := mustSync(t, r)
	if p.Len() != 0 || len(p.Held) != 1 || spec(t, target, "Job/a")["n"] != int64(9) {
		t.Errorf("%s", p)
	}
}

func TestApplyRefusesWhatMoved(t *testing.T) {
	src, target := &memory.Source{}, &memory.Target{}
	r := newReconciler(t, reconcile.Options{Source: src, Actuator: target, Target: "prod"})
	plan := func() *reconcile.Plan {
		t.Helper()
		p, err := r.Plan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	src.Set(state("", thing("Job/a", "n", int64(1)), thing("Secret/s", "n", int64(1))), nil)
	p := plan()
	if len(target.Keys()) != 0 {
		t.Error("Plan made something")
	}
	src.Set(state("r2", thing("Job/a", "n", int64(1))), nil)
	if _, err := r.Apply(t.Context(), p); !errors.Is(err, reconcile.ErrStale) {
		t.Errorf("another revision: %v", err)
	}
	src.Set(state("", thing("Job/a", "n", int64(2)), thing("Secret/s", "n", int64(1))), nil)
	if _, err := r.Apply(t.Context(), p); !errors.Is(err, reconcile.ErrStale) || !strings.Contains(err.Error(), "Job/a") {
		t.Errorf("no revision and another declaration: %v", err)
	}
	if _, err := r.Apply(t.Context(), nil); !errors.Is(err, reconcile.ErrInvalid) {
		t.Errorf("nil: %v", err)
	}
	if _, err := r.Apply(t.Context(), &reconcile.Plan{Target: "test"}); !errors.Is(err, reconcile.ErrInvalid) {
		t.Errorf("another target: %v", err)
	}

	// Through JSON: the same plan passes, a changed one does not.
	b, err := json.Marshal(plan())
	if err != nil {
		t.Fatal(err)
	}
	var read, forged reconcile.Plan
	if err := errors.Join(json.Unmarshal(b, &read), json.Unmarshal(b, &forged)); err != nil {
		t.Fatal(err)
	}
	forged.Waves[0][0].Action = reconcile.Delete
	if _, err := r.Apply(t.Context(), &forged); !errors.Is(err, reconcile.ErrStale) {
		t.Errorf("forged: %v", err)
	}
	if res, err := r.Apply(t.Context(), &read); err != nil || len(res.Outcomes) != 2 {
		t.Errorf("%v, %v", res, err)
	}

	// A live object that moved after planning is left as it is.
	src.Set(state("", thing("Job/a", "n", int64(3)), thing("Secret/s", "n", int64(1))), nil)
	p = plan()
	_ = target.Edit(key("Job/a"), func(o object) object { o["spec"].(object)["n"] = int64(7); return o })
	res, err := r.Apply(t.Context(), p)
	if !errors.Is(err, reconcile.ErrConflict) || res.Outcomes[0].Attempts != 1 || spec(t, target, "Job/a")["n"] != int64(7) {
		t.Errorf("%v", err)
	}
	if q := plan(); q.Len() != 1 {
		t.Errorf("%s", q)
	}
}

// What is dropped from a plan stays due.
func TestApplyPart(t *testing.T) {
	src, target := &memory.Source{}, &memory.Target{}
	r := newReconciler(t, reconcile.Options{Source: src, Actuator: target})
	src.Set(state("r1", thing("Job/a", "n", int64(1), "old", int64(7)), thing("Job/b", "n", int64(1)), thing("Job/c")), nil)
	mustSync(t, r)
	src.Set(state("r2", thing("Job/a", "n", int64(1)), thing("Job/b", "n", int64(2)), thing("Job/c")), nil)
	p, err := r.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.Waves = [][]reconcile.Change{slices.DeleteFunc(slices.Collect(p.Changes()), func(c reconcile.Change) bool { return c.Key.Name == "a" })}
	if res, err := r.Apply(t.Context(), p); err != nil || len(res.Outcomes) != 1 {
		t.Fatalf("%v, %v", res, err)
	}
	if q, err := r.Plan(t.Context()); err != nil || q.Len() != 1 || !strings.Contains(q.String(), "Job/a  changed: spec.old") {
		t.Errorf("%v\n%s", err, q)
	}
	mustSync(t, r)
	if d := cmp.Diff(object{"n": int64(1)}, spec(t, target, "Job/a")); d != "" {
		t.Error(d)
	}
}

func TestTerminalFailureIsNotRepeated(t *testing.T) {
	src, target := &memory.Source{}, &memory.Target{}
	tries := 0
	target.Fail = func(c reconcile.Change) error {
		if c.Key.Name == "a" && c.Desired["spec"].(object)["n"] == int64(1) {
			tries++
			return fmt.Errorf("no such image: %w", reconcile.ErrTerminal)
		}
		return nil
	}
	r := newReconciler(t, reconcile.Options{Source: src, Actuator: target})
	src.Set(state("r1", thing("Job/a", "n", int64(1)), thing("Job/b", "depends-on", "Job/a"), thing("Job/c")), nil)
	if _, err := r.Sync(t.Context()); !errors.Is(err, reconcile.ErrTerminal) || !errors.Is(err, reconcile.ErrHeld) {
		t.Errorf("%v", err)
	}
	for range 3 {
		if p := mustSync(t, r); p.Len() != 0 || len(p.Held) != 2 || p.Held[0].By != "failure" {
			t.Errorf("%s", p)
		}
	}
	// Nor when the live object moves and does not differ otherwise than before.
	_ = target.Edit(key("Job/a"), func(object) object { return thing("Job/a", "n", int64(0)).Object })
	for i := range 3 {
		_ = target.Edit(key("Job/a"), func(o object) object { o["status"] = object{"seen": int64(i)}; return o })
		if _, err := r.Sync(t.Context()); i == 0 != errors.Is(err, reconcile.ErrTerminal) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if tries != 2 {
		t.Errorf("%d tries", tries)
	}
	src.Set(state("r2", thing("Job/a", "n", int64(2)), thing("Job/b", "depends-on", "Job/a"), thing("Job/c")), nil)
	mustSync(t, r)
	if p := mustSync(t, r); !p.Empty() {
		t.Errorf("%s", p)
	}
}

func TestNoPruneAndBrakeThroughSync(t *testing.T) {
	src, target, store := &memory.Source{}, &memory.Target{}, &reconcile.MemoryStore{}
	src.Set(state("r1", thing("Job/a"), thing("Job/b"), thing("Job/c")), nil)
	mustSync(t, newReconciler(t, reconcile.Options{Source: src, Actuator: target, Store: store}))
	src.Set(state("r2", thing("Job/a")), nil)
	keep := newReconciler(t, reconcile.Options{Source: src, Actuator: target, Store: store, NoPrune: true})
	if p := mustSync(t, keep); !p.Empty() {
		t.Errorf("%s", p)
	}
	braked := newReconciler(t, reconcile.Options{Source: src, Actuator: target, Store: store})
	if p := mustSync(t, braked); p.Len() != 0 || len(p.Held) != 2 {
		t.Errorf("%s", p)
	}
	free := newReconciler(t, reconcile.Options{Source: src, Actuator: target, Store: store, Brake: reconcile.Brake{Off: true}})
	mustSync(t, free)
	if d := cmp.Diff([]reconcile.Key{key("Job/a")}, target.Keys()); d != "" {
		t.Error(d)
	}
}

func TestCreateConflictDoesNotTakeOver(t *testing.T) {
	src, target, store := &memory.Source{}, &memory.Target{}, &reconcile.MemoryStore{}
	// Somebody else creates the same object between plan and write.
	target.Fail = func(c reconcile.Change) error {
		if c.Key.Name == "a" && c.Action == reconcile.Create {
			return target.Edit(c.Key, func(object) object { return thing("Job/a", "n", int64(5)).Object })
		}
		return nil
	}
	r := newReconciler(t, reconcile.Options{Source: src, Actuator: target, Store: store, Brake: reconcile.Brake{Off: true}})
	src.Set(state("r1", thing("Job/a", "n", int64(1)), thing("Job/b")), nil)
	if _, err := r.Sync(t.Context()); !errors.Is(err, reconcile.ErrConflict) {
		t.Fatalf("%v", err)
	}
	// It is withdrawn before it was ever ours: theirs stays.
	src.Set(state("r2", thing("Job/b")), nil)
	mustSync(t, r)
	if spec(t, target, "Job/a")["n"] != int64(5) {
		t.Error("an object of somebody else was deleted")
	}
}

// seen lets a test wait for events of a Run without sleeping.
type seen chan reconcile.Event

func (s seen) wait(t *testing.T, kind reconcile.EventKind, revision string) reconcile.Event {
	t.Helper()
	for {
		select {
		case e := <-s:
			if e.Kind == kind && e.Revision == revision {
				return e
			}
		case <-t.Context().Done():
			t.Fatalf("no %s of %s", kind, revision)
		case <-time.After(20 * time.Second): // only when it fails
			t.Fatalf("no %s of %s", kind, revision)
		}
	}
}

// pass lets time pass until there is such an event.
func (s seen) pass(t *testing.T, clock *manual, kind reconcile.EventKind, revision string) reconcile.Event {
	t.Helper()
	late := time.After(20 * time.Second) // only when it fails
	for {
		select {
		case e := <-s:
			if e.Kind == kind && e.Revision == revision {
				return e
			}
		case d := <-clock.waits:
			clock.Advance(d)
		case <-late:
			t.Fatalf("no %s of %s", kind, revision)
		}
	}
}

// watched tells when a Watch has begun.
type watched struct {
	*memory.Target
	began chan struct{}
}

func (w watched) Watch(ctx context.Context, changed func(reconcile.Key)) error {
	close(w.began)
	return w.Target.Watch(ctx, changed)
}

func start(t *testing.T, opts reconcile.Options) (*reconcile.Reconciler, seen) {
	t.Helper()
	events := make(seen, 1000)
	opts.Observer = func(e reconcile.Event) { events <- e }
	r := newReconciler(t, opts)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	return r, events
}

func TestRun(t *testing.T) {
	src, target, clock := &memory.Source{}, watched{&memory.Target{}, make(chan struct{})}, newManual()
	src.Set(state("r1", thing("Job/a", "n", int64(1)), thing("Job/b")), nil)
	r, events := start(t, reconcile.Options{Source: src, Actuator: target, Clock: clock, Interval: time.Hour})
	events.wait(t, reconcile.Synced, "r1") // at once, no time passes
	<-target.began

	// Drift is seen through the watch, long before the interval. A watch may
	// miss what happens before it is set up, so drift is made until it tells.
	for wait := true; wait; {
		_ = target.Edit(key("Job/a"), func(o object) object { o["spec"].(object)["n"] = int64(9); return o })
		select {
		case e := <-events:
			wait = e.Kind != reconcile.Planned
		case <-time.After(10 * time.Millisecond):
		}
	}
	events.wait(t, reconcile.Synced, "r1")
	if n := spec(t, target.Target, "Job/a")["n"]; n != int64(1) {
		t.Errorf("n is %v", n)
	}

	src.Set(state("r2", thing("Job/a", "n", int64(2)), thing("Job/b")), nil)
	r.Trigger()
	events.wait(t, reconcile.Synced, "r2")
	if now := clock.Now(); !now.IsZero() {
		t.Errorf("it is %v", now)
	}

	// The interval brings the next revision without anybody's help.
	src.Set(state("r3", thing("Job/a", "n", int64(3)), thing("Job/b")), nil)
	for synced := false; !synced; {
		clock.Advance(time.Hour)
		select {
		case e := <-events:
			synced = e.Kind == reconcile.Synced && e.Revision == "r3"
		case <-clock.waits:
		}
	}
}

func TestRunSourceDownAndUp(t *testing.T) {
	src, target, clock := &memory.Source{}, &memory.Target{}, newManual()
	src.Set(nil, errors.New("down"))
	_, events := start(t, reconcile.Options{Source: src, Actuator: struct{ reconcile.Actuator }{target}, Clock: clock})
	// Pauses grow up to the interval's or the retry's limit.
	var pauses []time.Duration
	for range 12 {
		d := <-clock.waits
		pauses = append(pauses, d)
		clock.Advance(d)
	}
	if !slices.IsSorted(pauses[:3]) || pauses[0] > 200*time.Millisecond || slices.Max(pauses) > 10*time.Second || pauses[11] < 5*time.Second {
		t.Errorf("pauses %v", pauses)
	}
	events.wait(t, reconcile.CycleFailed, "")
	src.Set(state("r1", thing("Job/a")), nil)
	events.pass(t, clock, reconcile.Synced, "r1")
	if d := cmp.Diff([]string{"Create Job/a"}, applied(target)); d != "" {
		t.Error(d)
	}
}

// stubborn forgets what it was told: a fight with another writer.
type stubborn struct{ *memory.Target }

func (s stubborn) Apply(ctx context.Context, c reconcile.Change) error {
	if err := s.Target.Apply(ctx, c); err != nil {
		return err
	}
	return s.Edit(c.Key, func(o object) object { o["spec"].(object)["n"] = int64(9); return o })
}

func TestRunDoesNotStorm(t *testing.T) {
	src, target, clock := &memory.Source{}, stubborn{&memory.Target{}}, newManual()
	src.Set(state("r1", thing("Job/a", "n", int64(1))), nil)
	start(t, reconcile.Options{Source: src, Actuator: target, Clock: clock, Interval: time.Hour})
	last := 0
	for n := 0; n < 8; { // each further round waits for the clock
		d := <-clock.waits
		if d == time.Hour {
			continue // an application's look at the source
		}
		n++
		if n := len(target.Applied()); n > last+4 {
			t.Fatalf("%d writes since the last pause", n-last)
		} else {
			last = n
		}
		clock.Advance(d)
	}
}

// slow is a target whose attempts at some keys go on until their context ends
// or the test ends them.
type slow struct {
	*memory.Target
	began chan reconcile.Change
	end   chan error
}

func (s slow) Apply(ctx context.Context, c reconcile.Change) error {
	if f, _ := c.Desired["spec"].(object); f["slow"] != true {
		return s.Target.Apply(ctx, c)
	}
	select {
	case s.began <- c:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-s.end:
		return err
	}
}

// A rollout that never gets ready does not keep the revert waiting.
func TestRunOvertaken(t *testing.T) {
	good := state("r1", thing("Job/a", "n", int64(1)), thing("Job/b", "n", int64(1)))
	bad := state("r2", thing("Job/a", "n", int64(2), "slow", true), thing("Job/b", "n", int64(1)))
	fix := state("r3", thing("Job/a", "n", int64(3)), thing("Job/b", "n", int64(1)))
	begin := func(t *testing.T) (*memory.Source, slow, *manual, *reconcile.Reconciler, seen) {
		src, clock := &memory.Source{}, newManual()
		target := slow{&memory.Target{}, make(chan reconcile.Change), make(chan error)}
		src.Set(good, nil)
		r, events := start(t, reconcile.Options{Source: src, Actuator: target, Clock: clock, Interval: time.Hour})
		events.wait(t, reconcile.Synced, "r1")
		src.Set(bad, nil)
		r.Trigger()
		<-target.began
		return src, target, clock, r, events
	}
	check := func(t *testing.T, target slow, e reconcile.Event) {
		t.Helper()
		if !errors.Is(e.Err, reconcile.ErrStale) || !strings.Contains(e.Error, "the source is at revision r3 now") {
			t.Errorf("%v", e.Err)
		}
		if n := spec(t, target.Target, "Job/a")["n"]; n != int64(3) {
			t.Errorf("n is %v", n)
		}
	}
	t.Run("while it is tried", func(t *testing.T) {
		src, target, clock, r, events := begin(t)
		src.Set(fix, nil)
		r.Trigger()
		e := events.wait(t, reconcile.ApplyFailed, "r2")
		events.wait(t, reconcile.Synced, "r3")
		check(t, target, e)
		if now := clock.Now(); !now.IsZero() {
			t.Errorf("it took until %v", now)
		}
	})
	t.Run("seen at the interval", func(t *testing.T) {
		src, target, clock, _, events := begin(t)
		src.Set(fix, nil)
		for d := time.Duration(0); d != time.Hour; {
			d = <-clock.waits
		}
		clock.Advance(time.Hour)
		e := events.pass(t, clock, reconcile.ApplyFailed, "r2")
		events.pass(t, clock, reconcile.Synced, "r3")
		check(t, target, e)
	})
	t.Run("while it waits to be tried again", func(t *testing.T) {
		src, target, clock, r, events := begin(t)
		target.end <- errors.New("not ready")
		events.wait(t, reconcile.ApplyFailed, "r2")
		src.Set(fix, nil)
		r.Trigger()
		events.wait(t, reconcile.Synced, "r3")
		if now := clock.Now(); !now.IsZero() {
			t.Errorf("it took until %v", now)
		}
	})
	t.Run("what is still wanted is not cut off", func(t *testing.T) {
		src, target, _, r, events := begin(t)
		src.Set(state("r3", thing("Job/a", "n", int64(2), "slow", true), thing("Job/b", "n", int64(2))), nil)
		r.Trigger()
		target.end <- target.Target.Apply(t.Context(), reconcile.Change{Action: reconcile.Update, Key: key("Job/a"), Desired: thing("Job/a", "n", int64(2), "slow", true).Object})
		events.wait(t, reconcile.Synced, "r3")
		if n := spec(t, target.Target, "Job/b")["n"]; n != int64(2) {
			t.Errorf("n is %v", n)
		}
	})
	t.Run("a broken push overtakes nothing", func(t *testing.T) {
		src, target, _, r, events := begin(t)
		src.Set(nil, errors.New("line 3 is not YAML"))
		r.Trigger()
		target.end <- nil
		events.wait(t, reconcile.Applied, "r2")
	})
}

// Sync alone ends early, too, and says why.
func TestSyncOvertaken(t *testing.T) {
	src := &memory.Source{}
	target := slow{&memory.Target{}, make(chan reconcile.Change), make(chan error)}
	r := newReconciler(t, reconcile.Options{Source: src, Actuator: target, Clock: newManual()})
	src.Set(state("r1", thing("Job/a", "slow", true), thing("Job/b", "depends-on", "Job/a")), nil)
	ended := make(chan error)
	go func() {
		_, err := r.Sync(t.Context())
		ended <- err
	}()
	<-target.began
	src.Set(state("r2", thing("Job/b")), nil)
	r.Trigger()
	if err := <-ended; !errors.Is(err, reconcile.ErrStale) || !errors.Is(err, reconcile.ErrHeld) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	mustSync(t, r)
	if d := cmp.Diff([]string{"Create Job/b"}, applied(target.Target)); d != "" {
		t.Error(d)
	}
}

// A source that fails keeps nobody from correcting drift to what it declared
// last.
func TestDriftIsCorrectedWithoutSource(t *testing.T) {
	cycle := state("r2", thing("Job/a", "depends-on", "Job/b"), thing("Job/b", "depends-on", "Job/a"))
	for name, fail := range map[string]func(*memory.Source){
		"server down":   func(s *memory.Source) { s.Set(nil, errors.New("down")) },
		"empty":         func(s *memory.Source) { s.Set(state("r2"), nil) },
		"not plannable": func(s *memory.Source) { s.Set(cycle, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			src, target := &memory.Source{}, &memory.Target{}
			var events []string
			r := newReconciler(t, reconcile.Options{Source: src, Actuator: target, Observer: func(e reconcile.Event) {
				if e.Kind == reconcile.CycleFailed || e.Kind == reconcile.Synced {
					events = append(events, string(e.Kind))
				}
			}})
			src.Set(state("r1", thing("Job/a", "n", int64(1))), nil)
			mustSync(t, r)
			mustSync(t, r)
			fail(src)
			for range 3 {
				_ = target.Edit(key("Job/a"), func(o object) object { o["spec"].(object)["n"] = int64(9); return o })
				if p, err := r.Sync(t.Context()); err == nil || p.Len() != 1 || p.Revision != "r1" || spec(t, target, "Job/a")["n"] != int64(1) {
					t.Errorf("%v\n%s", err, p)
				}
			}
			if p, err := r.Sync(t.Context()); err == nil || !p.Empty() {
				t.Errorf("%v\n%s", err, p)
			}
			if _, err := r.Plan(t.Context()); err == nil {
				t.Error("a plan that somebody asks for is not for what was last declared")
			}
			src.Set(state("r3", thing("Job/a", "n", int64(1))), nil)
			mustSync(t, r)
			if d := cmp.Diff([]string{"Synced", "CycleFailed", "Synced"}, events); d != "" {
				t.Error(d)
			}
		})
	}
}

// hanging is a source and a target that do not answer.
type hanging struct {
	memory.Source
	memory.Target
	fetch, observe, review atomic.Bool
}

func (h *hanging) Fetch(ctx context.Context) (*reconcile.State, error) {
	if h.fetch.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h.Source.Fetch(ctx)
}

func (h *hanging) Observe(ctx context.Context) (*reconcile.State, error) {
	if h.observe.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h.Target.Observe(ctx)
}

func (h *hanging) Review(ctx context.Context, _ *reconcile.Plan) (reconcile.Verdict, error) {
	if h.review.Load() {
		<-ctx.Done()
		return reconcile.Verdict{}, ctx.Err()
	}
	return reconcile.Verdict{}, nil
}

func TestNothingHangs(t *testing.T) {
	h := &hanging{}
	r := newReconciler(t, reconcile.Options{Source: h, Actuator: h, Gates: []reconcile.Gate{h}, CallTimeout: time.Millisecond})
	h.Set(state("r1", thing("Job/a", "n", int64(1))), nil)
	sync := func() (*reconcile.Plan, error) {
		p, err := r.Sync(t.Context())
		if err != nil && (!errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer within 1ms")) {
			t.Errorf("%v", err)
		}
		return p, err
	}
	h.fetch.Store(true)
	if _, err := sync(); err == nil {
		t.Error("no error")
	}
	h.fetch.Store(false)
	for _, err := sync(); err != nil || len(h.Keys()) == 0; _, err = sync() {
	}
	h.fetch.Store(true)
	_ = h.Edit(key("Job/a"), func(object) object { return nil })
	if p, err := sync(); err == nil || p.Len() != 1 || len(h.Keys()) != 1 {
		t.Errorf("%v\n%s", err, p)
	}
	h.fetch.Store(false)
	h.observe.Store(true)
	if _, err := sync(); err == nil {
		t.Error("no error")
	}
	h.observe.Store(false)
	h.review.Store(true)
	h.Set(state("r2", thing("Job/a", "n", int64(2))), nil)
	if p, err := sync(); err != nil || len(p.Held) != 1 || !strings.Contains(p.Held[0].Reason, "no answer") {
		t.Errorf("%v\n%s", err, p)
	}
}

// Who waits for a turn waits as long as its context.
func TestWaitingForATurn(t *testing.T) {
	src := &memory.Source{}
	target := slow{&memory.Target{}, make(chan reconcile.Change), make(chan error)}
	r := newReconciler(t, reconcile.Options{Source: src, Actuator: target, Clock: newManual()})
	src.Set(state("r1", thing("Job/a", "slow", true)), nil)
	ended := make(chan error)
	go func() {
		_, err := r.Sync(t.Context())
		ended <- err
	}()
	<-target.began
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error)
	go func() { _, err := r.Plan(ctx); got <- err }()
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	target.end <- nil
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestHealthEvents(t *testing.T) {
	src, target := &memory.Source{}, &memory.Target{}
	var got []string
	r := newReconciler(t, reconcile.Options{Source: src, Actuator: target, Observer: func(e reconcile.Event) {
		if e.Kind == reconcile.HealthChanged {
			got = append(got, e.Key.String()+" "+e.Health.String())
		}
	}})
	src.Set(state("r1", thing("Deployment.apps/a", "replicas", int64(2))), nil)
	ready := func(n int64) {
		_ = target.Edit(key("Deployment.apps/a"), func(o object) object { o["status"] = object{"readyReplicas": n}; return o })
		mustSync(t, r)
	}
	mustSync(t, r)
	mustSync(t, r)
	ready(1)
	ready(2)
	ready(2)
	want := []string{"Deployment.apps/a Missing", "Deployment.apps/a Progressing: 0 of 2 replicas ready", "Deployment.apps/a Healthy"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func BenchmarkSyncUnchanged10k(b *testing.B) {
	src, target := &memory.Source{}, &memory.Target{}
	var rs []reconcile.Resource
	for i := range 10_000 {
		rs = append(rs, thing(fmt.Sprintf("Deployment.apps/shop/d%05d", i), "replicas", int64(3), "image", "x"))
	}
	src.Set(state("r1", rs...), nil)
	r, err := reconcile.New(reconcile.Options{Source: src, Actuator: target})
	if err != nil {
		b.Fatal(err)
	}
	mustSync(b, r)
	mustSync(b, r)
	run := func(name string, between func()) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				between()
				if p := mustSync(b, r); !p.Empty() {
					b.Fatal(p)
				}
			}
		})
	}
	run("same states", func() {})
	run("new desired state", func() { src.Set(state("r1", rs...), nil) })
}
