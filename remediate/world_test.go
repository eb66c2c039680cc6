package remediate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

var epoch = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

var errCrash = errors.New("crash")

// world is everything outside: a repository, a platform, a detector. It counts
// what was done to it, keeps it over crashes, and crashes where it is told to.
type world struct {
	mu      sync.Mutex
	commits []reconcile.Commit
	writes  map[string]int // effects per action id
	done    map[string]int
	desired *reconcile.State
	// heals tells which actions mend which case: "case 2" is the second action.
	heals map[string]bool
	over  map[string]bool // by case
	// fail gives the error of the next calls, per kind of call.
	fail    map[string][]error
	notices map[string]int
	answers func(Request) (Approval, error)
	boom    func(where string) error
}

func newWorld() *world {
	return &world{writes: map[string]int{}, done: map[string]int{}, heals: map[string]bool{},
		over: map[string]bool{}, fail: map[string][]error{}, notices: map[string]int{}}
}

func (w *world) crash(where string) error {
	if w.boom == nil {
		return nil
	}
	return w.boom(where)
}

func (w *world) next(kind string) error {
	if l := w.fail[kind]; len(l) > 0 {
		w.fail[kind] = l[1:]
		return l[0]
	}
	return nil
}

func (w *world) effect(id, caseID string) {
	if w.heals[id] {
		w.over[caseID] = true
	}
}

func caseOf(action string) string {
	for i := len(action) - 1; i >= 0; i-- {
		if action[i] == '.' {
			return action[:i]
		}
	}
	return action
}

func (w *world) Write(_ context.Context, r reconcile.WriteRequest) (reconcile.Commit, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.crash("before write"); err != nil {
		return reconcile.Commit{}, err
	}
	err := w.next("write")
	lost := errors.Is(err, errLost)
	if err != nil && !lost {
		return reconcile.Commit{}, err
	}
	w.writes[r.ID]++
	c := reconcile.Commit{Revision: fmt.Sprintf("c%039d", len(w.commits)+1), Message: r.Message,
		Trailers: append(r.Trailers, reconcile.Trailer{Key: reconcile.TrailerAction, Value: r.ID})}
	w.commits = append(w.commits, c)
	w.effect(r.ID, caseOf(r.ID))
	if err := w.crash("after write"); err != nil {
		return reconcile.Commit{}, err
	}
	if lost {
		return reconcile.Commit{}, err
	}
	return c, nil
}

// errLost is an effect that came about while its answer got lost.
var errLost = errors.New("answer lost")

func (w *world) Find(_ context.Context, key, value string) (reconcile.Commit, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.crash("find"); err != nil {
		return reconcile.Commit{}, false, err
	}
	if err := w.next("find"); err != nil {
		return reconcile.Commit{}, false, err
	}
	for i := len(w.commits) - 1; i >= 0; i-- {
		if w.commits[i].Trailer(key) == value {
			return w.commits[i], true, nil
		}
	}
	return reconcile.Commit{}, false, nil
}

func (w *world) Do(_ context.Context, a DirectAction) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.crash("before do"); err != nil {
		return err
	}
	err := w.next("do")
	lost := errors.Is(err, errLost)
	if err != nil && !lost {
		return err
	}
	w.done[a.ID]++
	w.effect(a.ID, caseOf(a.ID))
	if err := w.crash("after do"); err != nil {
		return err
	}
	return err
}

func (w *world) Done(_ context.Context, id string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.crash("done"); err != nil {
		return false, err
	}
	if err := w.next("done"); err != nil {
		return false, err
	}
	return w.done[id] > 0, nil
}

func (w *world) Recovered(_ context.Context, c Case) (bool, string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.crash("verify"); err != nil {
		return false, "", err
	}
	if err := w.next("verify"); err != nil {
		return false, "", err
	}
	if w.over[c.ID] {
		return true, "its series are as expected", nil
	}
	return false, "it is still unusual", nil
}

func (w *world) Notify(_ context.Context, n Notice) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.crash("notify"); err != nil {
		return err
	}
	if err := w.next("notify"); err != nil {
		return err
	}
	w.notices[n.ID]++
	return nil
}

func (w *world) Approve(ctx context.Context, r Request) (Approval, error) {
	w.mu.Lock()
	answers, err := w.answers, w.crash("approve")
	w.mu.Unlock()
	if err != nil {
		return Approval{}, err
	}
	if answers == nil {
		return AutoApprove("ada").Approve(ctx, r)
	}
	return answers(r)
}

func (w *world) Fetch(context.Context) (*reconcile.State, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.next("fetch"); err != nil {
		return nil, err
	}
	return w.desired, nil
}

func deployment(name string, replicas int64) reconcile.Resource {
	return reconcile.Resource{
		Key: reconcile.Key{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: name},
		Object: map[string]any{"apiVersion": "apps/v1", "kind": "Deployment",
			"metadata": map[string]any{"name": name, "namespace": "shop"},
			"spec":     map[string]any{"replicas": replicas}},
	}
}

// incident makes the incident and report of a service gone bad.
func incident(id, service string, class rootcause.Class) (Trigger, *rootcause.Report) {
	inc := anomaly.Incident{ID: id, OnsetEarliest: epoch, OnsetLatest: epoch, Opened: epoch, Alerts: []anomaly.Alert{{
		Series: anomaly.SeriesID{Service: service, Metric: "latency"}, Kind: anomaly.LevelShift,
		Onset: epoch, Raised: epoch, Value: 900, Expected: 80, Lower: 40, Upper: 160, Score: 7.5,
	}}}
	rep := &rootcause.Report{Onset: epoch, Class: class, Services: []rootcause.RankedService{{
		Service: service, Score: 9, Confidence: 0.8, Evidence: []string{"latency 80 to 900"},
	}}}
	switch class {
	case rootcause.RollBack:
		rep.Why = "latency of " + service + " shifted right after commit badbadbadb"
		rep.Change = &rootcause.RankedChange{Confidence: 0.9, Change: rootcause.Change{
			ID: "badbadbadbadbadbadbadbadbadbadbadbadbadb", Summary: "New pool", Services: []string{service}, Time: epoch}}
	case rootcause.Restart:
		rep.Why = "one instance of " + service + " went bad"
		rep.Services[0].Instance = service + "-1"
	case rootcause.ScaleUp:
		rep.Why = "demand on " + service + " outgrew its capacity"
	case rootcause.Escalate:
		rep.Why = "nothing stands out"
	}
	return FromIncident(inc), rep
}
