package remediate

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

func declared(t testing.TB, w *world, replicas int64) {
	t.Helper()
	s, err := reconcile.NewState("r", []reconcile.Resource{deployment("checkout", replicas)})
	if err != nil {
		t.Fatal(err)
	}
	w.desired = s
}

// keeper keeps the requests that a world's writer got.
type keeper struct {
	*world
	got []reconcile.WriteRequest
}

func (k *keeper) Write(ctx context.Context, r reconcile.WriteRequest) (reconcile.Commit, error) {
	k.got = append(k.got, r)
	return k.world.Write(ctx, r)
}

// kinds gives the kinds of the records of a journal, in order.
func kinds(t testing.TB, j Journal) []RecordKind {
	t.Helper()
	var out []RecordKind
	for _, r := range readAll(t, j, 1) {
		out = append(out, r.Kind)
	}
	return out
}

func (s *sim) handle(id, service string, class rootcause.Class) {
	trig, rep := incident(id, service, class)
	s.dispatch(event{handle: &handleEvent{trig, rep}})
}

// untilActing does what is wanted until an intent stands in the journal, and
// does not begin it.
func (s *sim) untilActing(id string) {
	s.t.Helper()
	for range 50 {
		if s.d.state.cases[id].Status == Acting {
			return
		}
		for _, tk := range s.d.tasks(s.now, 2) {
			if tk.effect.kind == doAct {
				s.t.Fatal("the intent was missed")
			}
			if s.d.begin(&tk, s.now, func() {}) {
				o := s.perform.perform(context.Background(), context.Background(), tk.effect, tk.probe)
				s.dispatch(event{done: &o})
			}
		}
	}
	s.t.Fatal("nothing was intended")
}

// Guarantee 5: an intent that was paused, that a crash cut off, or that lay
// around, is not done as it stands hours later: what a person changed meanwhile
// counts, and an old approval is asked for again.
func TestStaleIntent(t *testing.T) {
	for name, interrupt := range map[string]func(s *sim){
		"pause": func(s *sim) {
			s.dispatch(event{pause: &Pause{Scope: Everything, By: "eve", Why: "looking"}})
			s.to(s.now.Add(10 * time.Hour))
			declared(s.t, s.w, 15)
			s.dispatch(event{resume: &Pause{Scope: Everything, By: "eve"}})
		},
		"pause and resume at once": func(s *sim) {
			s.dispatch(event{pause: &Pause{Scope: "checkout", By: "eve"}})
			declared(s.t, s.w, 15)
			s.dispatch(event{resume: &Pause{Scope: "checkout", By: "eve"}})
		},
		"crash": func(s *sim) {
			s.now = s.now.Add(10 * time.Hour)
			declared(s.t, s.w, 15)
			s.boot()
		},
		"nobody ran": func(s *sim) {
			s.now = s.now.Add(10 * time.Hour)
			declared(s.t, s.w, 15)
		},
		"failed try": func(s *sim) {
			s.w.fail["write"] = []error{errors.New("connection reset")}
			s.work()
			declared(s.t, s.w, 15)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			declared(t, w, 4)
			asked := 0
			w.answers = func(r Request) (Approval, error) {
				asked++
				return AutoApprove("ada").Approve(t.Context(), r)
			}
			s := newSim(t, w, Options{Playbooks: []Playbook{{Name: "up", Match: Match{Service: "*"}, Autonomy: ActWithApproval,
				Actions: []Action{{Type: SetField, Field: "spec.replicas", Factor: 1.5, Max: 20}}}}})
			k := &keeper{world: w}
			s.perform.writer = k
			s.boot()
			s.handle("inc-1", "checkout", rootcause.ScaleUp)
			s.untilActing("inc-1")
			interrupt(s)
			k.got = nil
			s.to(s.now.Add(5 * time.Second))
			if len(k.got) != 1 {
				t.Fatalf("%d writes\n%v", len(k.got), s.d.state.cases["inc-1"])
			}
			want := []reconcile.Edit{{Key: deployment("checkout", 0).Key, Path: "spec.replicas", Value: int64(20), Expect: int64(15)}}
			if d := gocmp.Diff(want, k.got[0].Edits); d != "" {
				t.Errorf("wrote (-want +got):\n%s", d)
			}
			if asked != 2 {
				t.Errorf("asked %d times, want 2: the operation is another one", asked)
			}
			if n := len(s.d.state.starts); n != 1 {
				t.Errorf("it counts %d times for the guards", n)
			}
			if d := gocmp.Diff(map[string]int{"checkout": 1, "Deployment.apps/shop/checkout": 1}, s.d.state.failures); d != "" {
				t.Error(d)
			}
			s.checkReplay()
		})
	}
}

// The same operation is asked for again too, when the approval is too old.
func TestStaleApproval(t *testing.T) {
	w := newWorld()
	asked := 0
	w.answers = func(r Request) (Approval, error) { asked++; return AutoApprove("ada").Approve(t.Context(), r) }
	s := newSim(t, w, Options{Playbooks: []Playbook{{Name: "p", Match: Match{Service: "*"}, Actions: []Action{{Type: RevertCommit}}}}})
	s.boot()
	s.handle("inc-1", "checkout", rootcause.RollBack)
	s.untilActing("inc-1")
	s.now = s.now.Add(10 * time.Hour)
	s.boot()
	s.to(s.now.Add(5 * time.Second))
	want := []RecordKind{CaseOpened, ActionPlanned, ApprovalAsked, ApprovalAnswered, ActionIntended,
		ActionReopened, ApprovalVoided, ApprovalAsked, ApprovalAnswered, ActionIntended, ActionDone}
	if d := gocmp.Diff(want, kinds(t, s.j)); d != "" || asked != 2 || w.writes["inc-1.1"] != 1 {
		t.Errorf("asked %d times, writes %v\n%s", asked, w.writes, d)
	}
}

// An action that waits out a pause is not done when the trouble went away
// meanwhile.
func TestPausedIntentNotNeeded(t *testing.T) {
	w := newWorld()
	s := newSim(t, w, Options{})
	s.boot()
	s.handle("inc-1", "checkout", rootcause.RollBack)
	s.untilActing("inc-1")
	s.dispatch(event{pause: &Pause{Scope: "checkout", By: "eve"}})
	w.over["inc-1"] = true
	w.fail["find"] = slices.Repeat([]error{errors.New("timeout")}, 8) // nothing runs out under a pause
	s.to(s.now.Add(10 * time.Hour))
	s.dispatch(event{resume: &Pause{Scope: "checkout", By: "eve"}})
	s.to(s.now.Add(time.Hour))
	if c := s.d.state.cases["inc-1"]; c.Status != Resolved || w.writes["inc-1.1"] != 0 {
		t.Errorf("writes %v\n%v", w.writes, c)
	}
}

// Guarantee 7: a pause holds whatever would change what is paused, whoever is
// blamed.
func TestPauseHoldsAllTouched(t *testing.T) {
	labelled := deployment("pay-v2", 4)
	labelled.Object["metadata"].(map[string]any)["labels"] = map[string]any{"app": "payment"}
	tests := []struct {
		name   string
		scope  string
		action Action
		touch  []string
		held   bool
	}{
		{"revert", "payment", Action{Type: RevertCommit}, []string{"checkout", "cart", "payment"}, true},
		{"revert, other", "web", Action{Type: RevertCommit}, []string{"checkout", "cart", "payment"}, false},
		{"blamed", "checkout", Action{Type: SetField, Key: labelled.Key, Field: "spec.replicas", Value: 7}, nil, true},
		{"by name", "pay-v2", Action{Type: SetField, Key: labelled.Key, Field: "spec.replicas", Value: 7}, nil, true},
		{"by label", "payment", Action{Type: SetField, Key: labelled.Key, Field: "spec.replicas", Value: 7},
			[]string{"checkout", "Deployment.apps/shop/pay-v2", "pay-v2", "payment"}, true},
		{"by key", "Deployment.apps/shop/pay-v2", Action{Type: SetField, Key: labelled.Key, Field: "spec.replicas", Value: 7}, nil, true},
		{"function", "payment", Action{Type: RunFunction, Name: "purge"}, []string{"checkout"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			var err error
			if w.desired, err = reconcile.NewState("r", []reconcile.Resource{labelled}); err != nil {
				t.Fatal(err)
			}
			s := newSim(t, w, Options{Playbooks: []Playbook{{Name: "p", Match: Match{Service: "*"}, Autonomy: Act, Actions: []Action{tt.action}}}})
			s.boot()
			s.dispatch(event{pause: &Pause{Scope: tt.scope, By: "eve", Why: "hands off"}})
			trig, rep := incident("inc-1", "checkout", rootcause.RollBack)
			rep.Change.Change.Services = []string{"payment", "checkout", "cart", "payment"}
			s.dispatch(event{handle: &handleEvent{trig, rep}})
			s.to(s.now.Add(10 * time.Second))
			c := s.d.state.cases["inc-1"]
			if held := w.writes["inc-1.1"]+w.done["inc-1.1"] == 0; held != tt.held {
				t.Errorf("held %v\n%v", held, c)
			}
			if d := gocmp.Diff(tt.touch, c.Attempts[0].Operation.Touches); tt.touch != nil && d != "" {
				t.Error(d)
			}
		})
	}
}

// Limits count an action for everything that it changes.
func TestLimitsCountAllTouched(t *testing.T) {
	w := newWorld()
	s := newSim(t, w, Options{Limits: Limits{MinInterval: -1}})
	s.boot()
	trig, rep := incident("inc-1", "checkout", rootcause.RollBack)
	rep.Change.Change.Services = []string{"checkout", "payment"}
	s.dispatch(event{handle: &handleEvent{trig, rep}})
	s.work()
	s.handle("inc-2", "payment", rootcause.RollBack)
	s.work()
	c := s.d.state.cases["inc-2"]
	if c.Status != Held || c.Held.Guard != GuardInFlight || w.writes["inc-2.1"] != 0 {
		t.Errorf("%v", c)
	}
	if d := gocmp.Diff(map[string]int{"checkout": 1, "payment": 1}, s.d.state.inFlight); d != "" || s.d.state.flying != 1 {
		t.Errorf("%d in flight\n%s", s.d.state.flying, d)
	}
}

func raised(service, metric string, at time.Time) anomaly.Alert {
	return anomaly.Alert{Series: anomaly.SeriesID{Service: service, Metric: metric}, Kind: anomaly.LevelShift, Onset: at, Raised: at, Value: 5}
}

// An incident that comes back after it was resolved is handled again, and in
// the end escalated.
func TestBackAfterResolved(t *testing.T) {
	w := newWorld()
	s := newSim(t, w, Options{Limits: Limits{MaxPerTarget: -1, Cooldown: -1}})
	s.boot()
	trig, rep := incident("inc-1", "checkout", rootcause.RollBack)
	inc := *trig.Incident
	for round := range 4 {
		w.over["inc-1"] = false
		s.dispatch(event{handle: &handleEvent{FromIncident(inc), rep}})
		s.to(s.now.Add(time.Minute))
		if round > 0 {
			if got := s.d.state.cases["inc-1"].Returns; got != round {
				t.Errorf("round %d: returned %d times", round, got)
			}
		}
		w.over["inc-1"] = true
		s.to(s.now.Add(5 * time.Minute))
		want := Resolved
		if round == 3 {
			want = Escalated
		}
		if c := s.d.state.cases["inc-1"]; c.Status != want {
			t.Fatalf("round %d: %v", round, c)
		}
		// What is known, and what is over, opens nothing.
		old := inc
		old.Alerts = append(slices.Clone(inc.Alerts), raised("checkout", "errors", s.now))
		old.Alerts[len(old.Alerts)-1].Cleared = s.now
		n := len(readAll(t, s.j, 1))
		s.dispatch(event{handle: &handleEvent{FromIncident(inc), rep}})
		s.dispatch(event{handle: &handleEvent{FromIncident(old), rep}})
		if got := len(readAll(t, s.j, 1)); got != n {
			t.Errorf("round %d: %d more records", round, got-n)
		}
		inc.Alerts = append(slices.Clone(inc.Alerts), raised("checkout", "latency", s.now))
	}
	if w.writes["inc-1.1"] != 1 || w.writes["inc-1.2"] != 1 || w.writes["inc-1.3"] != 1 || len(w.writes) != 3 {
		t.Errorf("writes %v", w.writes)
	}
	if got := w.notices["inc-1#3/Escalated"]; got != 1 {
		t.Errorf("notices %v", w.notices)
	}
	s.checkReplay()
	s.boot()
	if got := s.d.state.cases["inc-1"]; got.Status != Escalated || len(got.Trigger.Alerts()) != 4 {
		t.Errorf("after a restart: %v", got)
	}
}

// Alerts that join an incident after the hand-over are verified too, and the
// journal takes only what is new.
func TestIncidentGrows(t *testing.T) {
	w := newWorld()
	s := newSim(t, w, Options{})
	quiet := map[string]bool{}
	s.perform.verifier = VerifierFunc(func(_ context.Context, c Case) (bool, string, error) {
		for _, a := range c.Trigger.Alerts() {
			if !quiet[a.Series.Metric] {
				return false, a.Series.String() + " is unusual", nil
			}
		}
		return true, "all quiet", nil
	})
	s.boot()
	trig, rep := incident("inc-1", "checkout", rootcause.RollBack)
	s.dispatch(event{handle: &handleEvent{trig, rep}})
	quiet["latency"] = true
	s.to(s.now.Add(10 * time.Second))
	if c := s.d.state.cases["inc-1"]; c.Recovered.IsZero() {
		t.Fatalf("%v", c)
	}
	before := s.d.state.cases["inc-1"].clone()
	grown := *trig.Incident
	grown.Alerts = append(slices.Clone(grown.Alerts), raised("cart", "errors", s.now))
	grown.OnsetEarliest = epoch.Add(-time.Minute)
	for range 3 {
		s.dispatch(event{handle: &handleEvent{FromIncident(grown), nil}})
	}
	if len(before.Trigger.Alerts()) != 1 {
		t.Error("a snapshot changed")
	}
	s.to(s.now.Add(2 * time.Minute))
	c := s.d.state.cases["inc-1"]
	if c.Status != Verifying || len(c.Trigger.Alerts()) != 2 || c.Report == nil || !c.Trigger.Incident.OnsetEarliest.Equal(grown.OnsetEarliest) {
		t.Errorf("%v", c)
	}
	quiet["errors"] = true
	s.to(s.now.Add(2 * time.Minute))
	if c.Status != Resolved {
		t.Errorf("%v", c)
	}
	grew := 0
	for _, r := range readAll(t, s.j, 1) {
		if r.Kind == CaseGrew {
			if grew++; len(r.Trigger.Alerts()) != 1 {
				t.Errorf("%d alerts in the record", len(r.Trigger.Alerts()))
			}
		}
	}
	if grew != 1 {
		t.Errorf("grew %d times", grew)
	}
	s.checkReplay()
}

// A notifier that is down for a while gets every notice in the end, in order.
func TestNoticesAreKept(t *testing.T) {
	w := newWorld()
	s := newSim(t, w, Options{Limits: Limits{Cooldown: -1, MinInterval: -1}, Playbooks: []Playbook{{Name: "two", Match: Match{Service: "*"},
		Autonomy: ActAndTell, Actions: []Action{{Type: RunFunction, Name: "one"}, {Type: RunFunction, Name: "two"}}}}})
	var got []string
	down := true
	s.perform.notifier = NotifierFunc(func(_ context.Context, n Notice) error {
		if down {
			return errors.New("down")
		}
		got = append(got, n.ID+" "+string(n.Kind))
		return nil
	})
	s.boot()
	s.handle("inc-1", "checkout", rootcause.ScaleUp)
	s.to(s.now.Add(30 * time.Minute))
	s.boot() // what is due survives a restart
	down = false
	s.to(s.now.Add(30 * time.Minute))
	if d := gocmp.Diff([]string{"inc-1.1/Acted Acted", "inc-1.2/Acted Acted", "inc-1/Escalated Escalated"}, got); d != "" {
		t.Error(d)
	}
	if !s.settled() {
		t.Error("not settled")
	}
	s.checkReplay()
}

// A write that finds everything so already is done.
func TestNoChangeIsDone(t *testing.T) {
	w := newWorld()
	w.fail["write"] = []error{&reconcile.Error{Op: "write", Err: reconcile.ErrNoChange}}
	s := newSim(t, w, Options{})
	s.boot()
	s.handle("inc-1", "checkout", rootcause.RollBack)
	s.work()
	if c := s.d.state.cases["inc-1"]; c.Status != Verifying || len(c.Untold) != 0 {
		t.Fatalf("%v", c)
	}
	w.over["inc-1"] = true
	s.to(s.now.Add(2 * time.Minute))
	if c := s.d.state.cases["inc-1"]; c.Status != Resolved || c.Attempts[0].Outcome != Verified {
		t.Errorf("%v", c)
	}
}

// A value that another one wrote between plan and write is not written over:
// the writer refuses, and that is the end of the attempt.
func TestConflictEndsAttempt(t *testing.T) {
	w := newWorld()
	w.fail["write"] = []error{&reconcile.Error{Op: "write", Err: reconcile.ErrConflict}}
	s := newSim(t, w, Options{})
	s.boot()
	s.handle("inc-1", "checkout", rootcause.RollBack)
	s.to(s.now.Add(time.Minute))
	if c := s.d.state.cases["inc-1"]; c.Status != Escalated || c.Attempts[0].Outcome != Failed || c.Attempts[0].Tries != 0 {
		t.Errorf("%v", c)
	}
}
