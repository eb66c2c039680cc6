package security

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/memory"
)

var _ reconcile.Gate = Gate{}

const gated = `apiVersion: v1
kind: Pod
metadata: {name: bad, namespace: shop}
spec:
  hostPID: true
  automountServiceAccountToken: false
  containers:
  - name: a
    image: web:v1
    resources:
      limits: {memory: 64Mi, cpu: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: good, namespace: shop}
spec:
  automountServiceAccountToken: false
  containers:
  - name: a
    image: web:v1
    resources:
      limits: {memory: 64Mi, cpu: 1}
`

// plan makes a plan of a desired state over a target.
func plan(t *testing.T, target *memory.Target, rs []reconcile.Resource, gates ...reconcile.Gate) (*reconcile.Reconciler, *reconcile.Plan) {
	t.Helper()
	var source memory.Source
	source.Set(state(t, rs), nil)
	r, err := reconcile.New(reconcile.Options{Target: "test", Source: &source, Actuator: target, Gates: gates})
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Plan(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return r, p
}

func TestGateObjects(t *testing.T) {
	rs := decode(t, gated)
	var target memory.Target
	_, p := plan(t, &target, rs)
	bad := rs[0].Key
	pid := reconcile.Origin{Path: "test.yaml", Line: 5, Column: 3}
	deny := reconcile.Objection{Decision: reconcile.Deny, Key: bad, Rule: "pod-host-namespaces", Path: "spec.hostPID", Origin: pid,
		Message: "the pod shares the node's process namespace; remove hostPID"}
	warned := deny
	warned.Decision = reconcile.Warn
	expired := deny
	expired.Message = "the pod shares the node's process namespace (the exception of platform expired on 2026-05-03); remove hostPID"
	except := func(d time.Duration) []Exception {
		return []Exception{{Policy: "pod-host-namespaces", Selector: Selector{Names: []string{"bad"}}, Owner: "platform", Reason: "agent", Expires: now.Add(d)}}
	}
	off := Baseline()
	for i := range off {
		off[i].Mode = Warn
	}
	for _, tt := range []struct {
		name string
		gate Gate
		want []reconcile.Objection
	}{
		{"enforced", Gate{Set: newSet(t, Config{Rules: Baseline()})}, []reconcile.Objection{deny}},
		{"below the severity", Gate{Set: newSet(t, Config{Rules: Baseline()}), DenyAt: Critical}, []reconcile.Objection{warned}},
		{"at the severity", Gate{Set: newSet(t, Config{Rules: Baseline()}), DenyAt: High}, []reconcile.Objection{deny}},
		{"warn only", Gate{Set: newSet(t, Config{Rules: off})}, []reconcile.Objection{warned}},
		{"excepted", Gate{Set: newSet(t, Config{Rules: Baseline(), Exceptions: except(time.Hour)})}, nil},
		{"expired", Gate{Set: newSet(t, Config{Rules: Baseline(), Exceptions: except(-24 * time.Hour)})}, []reconcile.Objection{expired}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := tt.gate.Review(context.Background(), p)
			if err != nil {
				t.Fatal(err)
			}
			want := reconcile.Verdict{Gate: GateName, Objections: tt.want}
			if d := cmp.Diff(want, v); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestGateKeepsBadChangesOut runs the gate in the loop: what breaks policy is
// not applied, the rest of the same commit is.
func TestGateKeepsBadChangesOut(t *testing.T) {
	ctx := context.Background()
	rs := decode(t, gated)
	var target memory.Target
	r, p := plan(t, &target, rs, Gate{Set: newSet(t, Config{})})
	if _, err := r.Apply(ctx, p); err != nil && !errors.Is(err, reconcile.ErrHeld) {
		t.Fatal(err)
	}
	if d := cmp.Diff([]reconcile.Key{rs[1].Key}, target.Keys()); d != "" {
		t.Error(d)
	}
	if len(p.Held) != 1 || p.Held[0].By != GateName || p.Held[0].Change.Key != rs[0].Key {
		t.Errorf("held: %v", p.Held)
	}
}

func TestGateLetsDeletionsPass(t *testing.T) {
	rs := decode(t, gated)
	p := &reconcile.Plan{Waves: [][]reconcile.Change{{{Action: reconcile.Delete, Key: rs[0].Key, Desired: rs[0].Object}}}}
	v, err := Gate{Set: newSet(t, Config{})}.Review(context.Background(), p)
	if err != nil || len(v.Objections) > 0 {
		t.Errorf("got %v, %v", v, err)
	}
}

// TestGateReviewsWhatRuns holds that the change's own object counts, not the
// declared one, where the two differ.
func TestGateReviewsWhatRuns(t *testing.T) {
	rs := decode(t, gated)
	p := &reconcile.Plan{Waves: [][]reconcile.Change{{{Action: reconcile.Update, Key: rs[1].Key, Desired: rs[0].Object, Origin: rs[1].Origin}}}}
	v, err := Gate{Set: newSet(t, Config{Rules: Baseline()})}.Review(context.Background(), p)
	if err != nil || len(v.Objections) != 1 || v.Objections[0].Origin != rs[1].Origin {
		t.Errorf("got %v, %v", v, err)
	}
}

func TestGateWithoutAnAnswerIsAnError(t *testing.T) {
	rs := decode(t, gated)
	p := &reconcile.Plan{Waves: [][]reconcile.Change{{{Action: reconcile.Create, Key: rs[0].Key, Desired: rs[0].Object}}}}
	for _, g := range []Gate{{}, {Set: new(Set)}} {
		if _, err := g.Review(context.Background(), p); !errors.Is(err, reconcile.ErrInvalid) {
			t.Errorf("got %v", err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := (Gate{Set: newSet(t, Config{})}).Review(ctx, p); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
