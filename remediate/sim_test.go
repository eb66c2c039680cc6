package remediate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

// crashJournal is a memory journal that the process can die in: before,
// between and after the records of one Append.
type crashJournal struct {
	*MemoryJournal
	w *world
}

func (j crashJournal) Append(ctx context.Context, after uint64, recs ...Record) error {
	for i, r := range recs {
		if err := j.w.crash("append " + string(r.Kind)); err != nil {
			return err
		}
		if err := j.MemoryJournal.Append(ctx, after+uint64(i), r); err != nil {
			return err
		}
	}
	return j.w.crash("appended")
}

func (j crashJournal) Read(ctx context.Context, from uint64) iter.Seq2[Record, error] {
	return j.MemoryJournal.Read(ctx, from)
}

// sim drives the driver through virtual time, one effect after the other, and
// survives crashes.
type sim struct {
	t       testing.TB
	w       *world
	j       crashJournal
	e       engine
	now     time.Time
	d       *driver
	dead    bool
	log     func(format string, args ...any)
	perform *performer
	// check is called after each step.
	check func(d *driver)
}

func newSim(t testing.TB, w *world, o Options) *sim {
	t.Helper()
	o.Journal = NewMemoryJournal()
	// Coarse, for every look at the verifier is one more place to crash at.
	o.Timings.VerifyEvery = cmp.Or(o.Timings.VerifyEvery, 40*time.Second)
	o.Timings.ApprovalWithin = cmp.Or(o.Timings.ApprovalWithin, time.Minute)
	o.Timings.GuardWithin = cmp.Or(o.Timings.GuardWithin, 6*time.Minute)
	o.Verifier, o.Writer, o.Actor, o.Approver, o.Source, o.Notifier = w, w, w, w, w, w
	m, err := New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	s := &sim{t: t, w: w, e: m.d.engine, now: epoch, perform: m.perform, log: func(string, ...any) {}}
	s.j = crashJournal{NewMemoryJournal(), w}
	return s
}

// boot recovers from the journal, as a new process would.
func (s *sim) boot() {
	s.t.Helper()
	s.dead = false
	d, err := newDriver(context.Background(), s.e, s.j)
	if err != nil {
		s.t.Fatalf("recover: %v", err)
	}
	s.d = d
	s.dispatch(event{})
}

func (s *sim) dispatch(ev event) {
	if s.dead {
		return
	}
	ev.now = s.now
	recs, err := s.d.dispatch(context.Background(), ev)
	if errors.Is(err, errCrash) {
		s.dead = true
		return
	}
	if err != nil {
		s.t.Fatalf("dispatch: %v", err)
	}
	for _, r := range recs {
		id := r.Action
		if id == "" {
			id = r.Case
		}
		why := r.Why
		if r.Refusal != nil {
			why = r.Refusal.String()
		}
		if r.Approval != nil {
			why = r.Approval.String()
		}
		if r.Operation != nil && r.Kind == ActionPlanned {
			why = r.Operation.Summary
		}
		if why != "" {
			why = " (" + why + ")"
		}
		s.log("%6s  %s %s%s%s", "+"+short(s.now.Sub(epoch)), r.Kind, id, r.Scope, why)
	}
	if s.check != nil {
		s.check(s.d)
	}
}

// work performs what is wanted now, in order, until nothing is left but
// waiting, or the process dies.
func (s *sim) work() {
	for range 10_000 {
		tasks := s.d.tasks(s.now, 2)
		if len(tasks) == 0 || s.dead {
			return
		}
		for _, t := range tasks {
			if s.dead {
				return
			}
			if !s.d.begin(&t, s.now, func() {}) {
				continue
			}
			if t.effect.kind == doAct {
				probe := ""
				if t.probe {
					probe = ", probe first"
				}
				s.log("%6s  effect %s%s", "+"+short(s.now.Sub(epoch)), t.effect.key(), probe)
			}
			o := s.perform.perform(context.Background(), context.Background(), t.effect, t.probe)
			if errors.Is(o.err, errCrash) {
				s.dead = true
				return
			}
			s.dispatch(event{done: &o})
		}
	}
	s.t.Fatalf("effects without end at %s: %v", s.now, s.d.wanted)
}

// to lets time pass until a moment, stopping wherever something is due.
func (s *sim) to(end time.Time) {
	for !s.dead {
		s.work()
		next := s.d.next(s.now)
		if s.dead || next.IsZero() || next.After(end) {
			break
		}
		s.now = next
		s.dispatch(event{})
	}
	if !s.dead && end.After(s.now) {
		s.now = end
		s.dispatch(event{})
		s.work()
	}
}

func (s *sim) settled() bool { return !s.dead && len(s.d.state.live) == 0 }

func snapshot(t testing.TB, s *state) string {
	t.Helper()
	b, err := json.MarshalIndent(struct {
		Cases    map[string]*Case
		Order    []string
		Live     []string
		Pauses   map[string]Pause
		InFlight map[string]int
		Failures map[string]int
		Starts   int
		Flying   int
	}{s.cases, s.order, s.live, s.pauses, s.inFlight, s.failures, len(s.starts), s.flying}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// checkReplay holds the state to the fold over the journal.
func (s *sim) checkReplay() {
	s.t.Helper()
	again := newState()
	for r, err := range s.j.Read(context.Background(), 1) {
		if err == nil {
			err = again.apply(r)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	if d := gocmp.Diff(snapshot(s.t, s.d.state), snapshot(s.t, again)); d != "" {
		s.t.Errorf("replay differs (-live +replayed):\n%s", d)
	}
}

// story is one scenario for the crash tests.
type story struct {
	name  string
	opts  Options
	setup func(w *world)
	// steps happen at their times, each once per life at most; handles are
	// repeated by every life, as a host would.
	cases []storyCase
	also  []storyStep
	want  map[string]Status
}

type storyCase struct {
	id, service string
	class       rootcause.Class
}

type storyStep struct {
	at time.Duration
	ev event
}

func stories() []story {
	one := []storyCase{{"inc-1", "checkout", rootcause.RollBack}}
	custom := func(auto Autonomy, actions ...Action) Options {
		return Options{Playbooks: []Playbook{{Name: "p", Match: Match{Kind: IncidentTrigger}, Autonomy: auto, Actions: actions}}}
	}
	state, err := reconcile.NewState("r1", []reconcile.Resource{deployment("checkout", 2), deployment("cart", 4)})
	if err != nil {
		panic(err)
	}
	scale := Action{Type: SetField, Field: "spec.replicas", Factor: 1.5, Max: 10, Undo: true}
	grown, _ := incident("inc-1", "checkout", rootcause.RollBack)
	back, _ := incident("inc-1", "checkout", rootcause.RollBack)
	grown.Incident.Alerts = append(grown.Incident.Alerts, raised("cart", "errors", epoch.Add(10*time.Second)))
	back.Incident.Alerts = append(back.Incident.Alerts, raised("checkout", "latency", epoch.Add(10*time.Minute)))
	return []story{
		{name: "helps", cases: one, setup: func(w *world) { w.heals["inc-1.1"] = true }, want: map[string]Status{"inc-1": Resolved}},
		{name: "no effect", cases: one, want: map[string]Status{"inc-1": Escalated}},
		{name: "restart", cases: []storyCase{{"inc-1", "checkout", rootcause.Restart}},
			setup: func(w *world) { w.heals["inc-1.1"] = true }, want: map[string]Status{"inc-1": Resolved}},
		{name: "second alternative, first taken back", cases: one,
			opts:  custom(ActAndTell, scale, Action{Type: RevertCommit}),
			setup: func(w *world) { w.desired = state; w.heals["inc-1.2"] = true }, want: map[string]Status{"inc-1": Resolved}},
		{name: "undo fails", cases: one, opts: custom(Act, scale, Action{Type: RevertCommit}),
			setup: func(w *world) {
				w.desired = state
				no := errors.New("push refused")
				w.fail["write"] = []error{nil, no, no, no, no, no, no, no, no, no}
			}, want: map[string]Status{"inc-1": Escalated}},
		{name: "approved", cases: one, opts: custom(ActWithApproval, Action{Type: RevertCommit}),
			setup: func(w *world) { w.heals["inc-1.1"] = true }, want: map[string]Status{"inc-1": Resolved}},
		{name: "denied", cases: one, opts: custom(ActWithApproval, Action{Type: RevertCommit}),
			setup: func(w *world) {
				w.answers = func(r Request) (Approval, error) { return DenyAll("ada").Approve(context.Background(), r) }
			}, want: map[string]Status{"inc-1": Denied}},
		{name: "approver broken", cases: one, opts: custom(ActWithApproval, Action{Type: RevertCommit}),
			setup: func(w *world) {
				w.answers = func(Request) (Approval, error) { return Approval{}, errors.New("no route to people") }
			}, want: map[string]Status{"inc-1": Escalated}},
		{name: "answer for something else", cases: one, opts: custom(ActWithApproval, Action{Type: RevertCommit}),
			setup: func(w *world) {
				w.answers = func(Request) (Approval, error) { return Approval{Answer: Approved, Digest: "other"}, nil }
			}, want: map[string]Status{"inc-1": Escalated}},
		{name: "write fails in passing", cases: one,
			setup: func(w *world) {
				w.heals["inc-1.1"] = true
				w.fail["write"] = []error{errors.New("timeout"), errLost}
				w.fail["find"] = []error{nil, errors.New("timeout")}
			}, want: map[string]Status{"inc-1": Resolved}},
		{name: "write refused", cases: one,
			setup: func(w *world) {
				w.fail["write"] = slices.Repeat([]error{fmt.Errorf("conflict: %w", ErrTerminal)}, 9)
			}, want: map[string]Status{"inc-1": Escalated}},
		{name: "nobody can tell", cases: one,
			setup: func(w *world) {
				w.fail["write"] = slices.Repeat([]error{errLost}, 9)
				w.fail["find"] = slices.Repeat([]error{errors.New("timeout")}, 20)
			}, want: map[string]Status{"inc-1": Escalated}},
		{name: "observe", cases: one, opts: custom(Observe, Action{Type: RevertCommit}), want: map[string]Status{"inc-1": Observed}},
		{name: "nothing to revert", cases: []storyCase{{"inc-1", "checkout", rootcause.Escalate}},
			opts: custom(Act, Action{Type: RevertCommit}), want: map[string]Status{"inc-1": Escalated}},
		{name: "notifier fails", cases: []storyCase{{"inc-1", "checkout", rootcause.Escalate}},
			setup: func(w *world) { w.fail["notify"] = slices.Repeat([]error{errors.New("503")}, 3) },
			want:  map[string]Status{"inc-1": Escalated}},
		{name: "queue on one target", cases: []storyCase{
			{"inc-1", "checkout", rootcause.RollBack}, {"inc-2", "checkout", rootcause.Restart}, {"inc-3", "cart", rootcause.RollBack}},
			setup: func(w *world) { w.heals["inc-1.1"], w.heals["inc-2.1"], w.heals["inc-3.1"] = true, true, true },
			want:  map[string]Status{"inc-1": Resolved, "inc-2": Resolved, "inc-3": Resolved}},
		{name: "pause and resume", cases: one, setup: func(w *world) { w.heals["inc-1.1"] = true },
			also: []storyStep{
				{0, event{pause: &Pause{Scope: Everything, By: "ada", Why: "release day"}}},
				{10 * time.Minute, event{resume: &Pause{Scope: Everything, By: "ada"}}},
			}, want: map[string]Status{"inc-1": Resolved}},
		{name: "pause between two tries", cases: one,
			setup: func(w *world) {
				w.heals["inc-1.1"] = true
				w.fail["write"] = []error{errors.New("timeout"), errLost}
			},
			also: []storyStep{
				{time.Second, event{pause: &Pause{Scope: "checkout", By: "ada", Why: "release day"}}},
				{10 * time.Minute, event{resume: &Pause{Scope: "checkout", By: "ada"}}},
			}, want: map[string]Status{"inc-1": Resolved}},
		{name: "pause before an undo", cases: one, opts: custom(ActWithApproval, scale, Action{Type: RevertCommit}),
			setup: func(w *world) { w.desired = state; w.heals["inc-1.2"] = true },
			also: []storyStep{
				{2 * time.Minute, event{pause: &Pause{Scope: Everything, By: "ada", Why: "release day"}}},
				{20 * time.Minute, event{resume: &Pause{Scope: Everything, By: "ada"}}},
			}, want: map[string]Status{"inc-1": Resolved}},
		{name: "grows and comes back", cases: one,
			setup: func(w *world) { w.heals["inc-1.1"] = true },
			also: []storyStep{
				{10 * time.Second, event{handle: &handleEvent{trigger: grown}}},
				{10 * time.Minute, event{handle: &handleEvent{trigger: back}}},
			}, want: map[string]Status{"inc-1": Resolved}},
		{name: "held too long", cases: []storyCase{{"inc-1", "checkout", rootcause.RollBack}, {"inc-2", "cart", rootcause.RollBack}},
			opts: Options{Limits: Limits{MaxPerWindow: 1}, Timings: Timings{GuardWithin: 3 * time.Minute}},
			want: map[string]Status{"inc-1": Escalated, "inc-2": Escalated}},
	}
}

// play runs a story to its end over any number of lives and gives the number
// of places where it could have crashed.
func (st story) play(t testing.TB, boom func(n int, where string) bool) *sim {
	t.Helper()
	w := newWorld()
	if st.setup != nil {
		st.setup(w)
	}
	s := newSim(t, w, st.opts)
	n := 0
	w.boom = func(where string) error {
		n++
		if s.dead || boom(n, where) {
			s.dead = true
			return fmt.Errorf("%s: %w", where, errCrash)
		}
		return nil
	}
	s.check = func(d *driver) {
		l := s.e.limits
		if d.state.flying > l.MaxInFlight {
			t.Errorf("%s: %d actions in flight, at most %d", st.name, d.state.flying, l.MaxInFlight)
		}
		for target, k := range d.state.inFlight {
			if k > l.MaxInFlightPerTarget || k < 0 {
				t.Errorf("%s: %d actions in flight on %s, at most %d", st.name, k, target, l.MaxInFlightPerTarget)
			}
		}
		for i, a := range d.state.starts {
			for _, b := range d.state.starts[i+1:] {
				gap := b.at.Sub(a.at)
				if gap < l.MinInterval || slices.ContainsFunc(a.targets, func(t string) bool { return slices.Contains(b.targets, t) }) && gap < l.Cooldown {
					t.Errorf("%s: actions on %s and %s only %s apart", st.name, a.targets, b.targets, gap)
				}
			}
		}
	}
	acked := map[string]bool{}
	stepped := 0
	for life := 0; life < 200; life++ {
		s.boot()
		for _, sc := range st.cases {
			if s.dead {
				break
			}
			for id := range acked {
				if s.d.state.cases[id] == nil {
					t.Fatalf("case %s was acknowledged and is lost", id)
				}
			}
			// Steps of time 0 come before the first case.
			for stepped < len(st.also) && st.also[stepped].at == 0 && !s.dead {
				if s.dispatch(st.also[stepped].ev); !s.dead {
					stepped++
				}
			}
			trig, rep := incident(sc.id, sc.service, sc.class)
			if s.dispatch(event{handle: &handleEvent{trig, rep}}); !s.dead {
				acked[sc.id] = true
			}
		}
		for stepped < len(st.also) && !s.dead {
			s.to(epoch.Add(st.also[stepped].at))
			if s.dispatch(st.also[stepped].ev); !s.dead {
				stepped++
			}
		}
		if !s.dead {
			s.to(s.now.Add(24 * time.Hour))
		}
		if s.settled() {
			break
		}
		s.now = s.now.Add(3 * time.Second)
	}
	if !s.settled() {
		t.Fatalf("%s: stuck: %v", st.name, s.d.state.live)
	}
	for _, m := range []map[string]int{w.writes, w.done} {
		for id, k := range m {
			if k != 1 {
				t.Errorf("%s: action %s was done %d times", st.name, id, k)
			}
		}
	}
	for _, sc := range st.cases {
		if c := s.d.state.cases[sc.id]; c == nil || !c.Status.Final() {
			t.Errorf("%s: case %s is lost or open", st.name, sc.id)
		}
	}
	if len(s.d.state.inFlight) != 0 || s.d.state.flying != 0 {
		t.Errorf("%s: still in flight: %v", st.name, s.d.state.inFlight)
	}
	s.checkReplay()
	t.Logf("%s: %d crash points", st.name, n)
	return s
}

func TestStories(t *testing.T) {
	for _, st := range stories() {
		t.Run(st.name, func(t *testing.T) {
			s := st.play(t, func(int, string) bool { return false })
			got := map[string]Status{}
			for id, c := range s.d.state.cases {
				got[id] = c.Status
			}
			if d := gocmp.Diff(st.want, got); d != "" {
				t.Errorf("statuses (-want +got):\n%s\n%v", d, s.d.state.cases)
			}
		})
	}
}

// Guarantees 1 to 4: a crash before, after and between every record and every
// effect, in every story, leads to the same end with every action done once.
func TestCrashEverywhere(t *testing.T) {
	for _, st := range stories() {
		t.Run(st.name, func(t *testing.T) {
			points := 0
			st.play(t, func(n int, _ string) bool { points = n; return false })
			for at := 1; at <= points; at++ {
				s := st.play(silent{t}, func(n int, _ string) bool { return n == at })
				for id, want := range st.want {
					if got := s.d.state.cases[id].Status; got != want {
						t.Errorf("crash at %d: case %s is %s, want %s", at, id, got, want)
					}
				}
			}
		})
	}
}

// silent keeps the log of thousands of runs out of the way.
type silent struct{ testing.TB }

func (silent) Logf(string, ...any) {}

// Crashes, failures and lost answers at random, many of them in one run.
func TestCrashAtRandom(t *testing.T) {
	seeds := 300
	if testing.Short() {
		seeds = 100
	}
	all := stories()
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(uint64(seed), 7))
		st := all[rng.IntN(len(all))]
		inner := st.setup
		st.setup = func(w *world) {
			if inner != nil {
				inner(w)
			}
			for _, kind := range []string{"write", "do", "find", "done", "verify", "notify", "fetch"} {
				for range rng.IntN(6) {
					w.fail[kind] = append(w.fail[kind], []error{nil, errors.New("timeout"), errLost}[rng.IntN(3)])
				}
			}
		}
		left := rng.IntN(12)
		st.name = fmt.Sprintf("seed %d, %s", seed, st.name)
		st.play(silent{t}, func(int, string) bool {
			if left > 0 && rng.IntN(8) == 0 {
				left--
				return true
			}
			return false
		})
	}
}
