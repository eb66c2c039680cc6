package remediate

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

func TestPlaybookValidate(t *testing.T) {
	match := Match{Kind: IncidentTrigger}
	act := func(a ...Action) Playbook { return Playbook{Name: "p", Match: match, Actions: a} }
	tests := []struct {
		name string
		p    Playbook
		want string // part of the error; "" is valid
	}{
		{"ok", act(Action{Type: RevertCommit}), ""},
		{"no name", Playbook{Match: match, Actions: []Action{{Type: Escalate}}}, "no Name"},
		{"name of two lines", Playbook{Name: "a\nb", Match: match, Actions: []Action{{Type: Escalate}}}, "one line"},
		{"empty match", Playbook{Name: "p", Actions: []Action{{Type: Escalate}}}, "match every case"},
		{"no actions", act(), "no Actions"},
		{"bad glob", Playbook{Name: "p", Match: Match{Service: "[a"}, Actions: []Action{{Type: Escalate}}}, "glob"},
		{"bad class", Playbook{Name: "p", Match: Match{Classes: []rootcause.Class{"Pray"}}, Actions: []Action{{Type: Escalate}}}, `class "Pray"`},
		{"bad confidence", Playbook{Name: "p", Match: Match{MinConfidence: math.NaN()}, Actions: []Action{{Type: Escalate}}}, "MinConfidence"},
		{"unknown type", act(Action{Type: "Pray"}), `action 1: type "Pray"`},
		{"unknown risk", act(Action{Type: Escalate, Risk: "Huge"}), "risk"},
		{"unknown autonomy", Playbook{Name: "p", Match: match, Autonomy: "Yolo", Actions: []Action{{Type: Escalate}}}, "autonomy"},
		{"after escalate", act(Action{Type: Escalate}, Action{Type: RevertCommit}), "after Escalate"},
		{"undo of a restart", act(Action{Type: RevertCommit}, Action{Type: RestartInstance, Undo: true}), "action 2: RestartInstance cannot be undone"},
		{"function without a name", act(Action{Type: RunFunction}), "Name"},
		{"field of a revert", act(Action{Type: RevertCommit, Field: "spec"}), "takes no"},
		{"no field", act(Action{Type: SetField, Value: 1}), "needs a Field"},
		{"bad path", act(Action{Type: SetField, Field: "a..b", Value: 1}), "field path"},
		{"no value", act(Action{Type: SetField, Field: "a"}), "exactly one"},
		{"two values", act(Action{Type: SetField, Field: "a", Value: 1, ValueFrom: "x"}), "exactly one"},
		{"list value", act(Action{Type: SetField, Field: "a", Value: []any{1}}), "not a string, bool or number"},
		{"infinite value", act(Action{Type: SetField, Field: "a", Value: math.Inf(1)}), "not finite"},
		{"big value", act(Action{Type: SetField, Field: "a", Value: int64(maxWhole + 1)}), "2^53"},
		{"factor below 1", act(Action{Type: SetField, Field: "a", Factor: 0.5, Max: 3}), "above 1"},
		{"factor without max", act(Action{Type: SetField, Field: "a", Factor: 2}), "needs a Max"},
		{"max without factor", act(Action{Type: SetField, Field: "a", Value: 1, Max: 3}), "without a Factor"},
		{"bad key", act(Action{Type: SetField, Field: "a", Value: 1, Key: reconcile.Key{Kind: "A", Name: "b/c"}}), "key"},
		{"negative verify", Playbook{Name: "p", Match: match, Actions: []Action{{Type: Escalate}}, Verify: Verify{Hold: -1}}, "negative"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.p.Validate()
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want one with %q", err, tt.want)
			}
		})
	}
	for _, p := range DefaultPlaybooks() {
		if err := p.Validate(); err != nil {
			t.Errorf("default: %v", err)
		}
	}
}

// on gives the targets of an operation on one service.
func on(service string) []string {
	op := Operation{Target: Target{Service: service}}
	return op.touches()
}

// Each guard says no at its limit and not before, and names itself.
func TestGuards(t *testing.T) {
	l, err := Limits{MaxInFlight: 2, MaxPerWindow: 4, MaxPerTarget: 2, Window: time.Hour}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	const ago = 50 * time.Minute
	tests := []struct {
		name   string
		set    func(s *state)
		target string
		want   string
	}{
		{"free", func(*state) {}, "a", ""},
		{"no target", func(*state) {}, "", GuardTarget},
		{"all paused", func(s *state) { s.pauses[Everything] = Pause{Scope: Everything} }, "a", GuardPause},
		{"paused", func(s *state) { s.pauses["a"] = Pause{Scope: "a"} }, "a", GuardPause},
		{"another paused", func(s *state) { s.pauses["b"] = Pause{Scope: "b"} }, "a", ""},
		{"one in flight elsewhere", func(s *state) { s.fly([]string{"b"}, 1) }, "a", ""},
		{"one in flight here", func(s *state) { s.fly([]string{"a"}, 1) }, "a", GuardInFlight},
		{"two in flight elsewhere", func(s *state) { s.fly([]string{"b"}, 1); s.fly([]string{"c"}, 1) }, "a", GuardInFlight},
		{"just began", func(s *state) { s.begin(epoch.Add(-time.Second), []string{"b"}, "") }, "a", GuardRate},
		{"began a while ago", func(s *state) { s.begin(epoch.Add(-5*time.Second), []string{"b"}, "") }, "a", ""},
		{"cooling", func(s *state) { s.begin(epoch.Add(-time.Minute), []string{"a"}, "") }, "a", GuardCooldown},
		{"cooled", func(s *state) { s.begin(epoch.Add(-2*time.Minute), []string{"a"}, "") }, "a", ""},
		{"target's budget", func(s *state) {
			s.begin(epoch.Add(-ago), []string{"a"}, "")
			s.begin(epoch.Add(-ago), []string{"a"}, "")
		}, "a", GuardBudget},
		{"target's old budget", func(s *state) {
			s.begin(epoch.Add(-time.Hour), []string{"a"}, "")
			s.begin(epoch.Add(-ago), []string{"a"}, "")
		}, "a", ""},
		{"budget", func(s *state) {
			for _, x := range []string{"b", "c", "d", "e"} {
				s.begin(epoch.Add(-ago), []string{x}, "")
			}
		}, "a", GuardBudget},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newState()
			tt.set(s)
			got := l.guard(s, on(tt.target), nil, epoch)
			name := ""
			if got != nil {
				name = got.Guard
				if got.Reason == "" {
					t.Error("no reason")
				}
				if !got.Until.IsZero() {
					if l.guard(s, on(tt.target), nil, got.Until.Add(-1)) == nil {
						t.Error("open before Until")
					}
					if r := l.guard(s, on(tt.target), nil, got.Until); r != nil && r.Guard == got.Guard {
						t.Errorf("not open at Until: %v", r)
					}
				}
			}
			if name != tt.want {
				t.Errorf("guard %q, want %q: %v", name, tt.want, got)
			}
		})
	}
	off, err := Limits{-1, -1, 0, -1, -1, -1, -1, -1, -1}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	s := newState()
	for range 100 {
		s.begin(epoch, []string{"a"}, "")
		s.fly([]string{"a"}, 1)
	}
	if r := off.guard(s, on("a"), nil, epoch); r != nil {
		t.Errorf("all off: %v", r)
	}
	for _, bad := range []Limits{{Window: -1}, {Window: 8 * 24 * time.Hour}, {Cooldown: time.Hour, MaxCooldown: time.Minute}} {
		if _, err := bad.withDefaults(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	var waits []time.Duration
	for n := 1; n <= 6; n++ {
		waits = append(waits, l.cooldown(n))
	}
	m := time.Minute
	if d := gocmp.Diff([]time.Duration{2 * m, 4 * m, 8 * m, 16 * m, 30 * m, 30 * m}, waits); d != "" {
		t.Errorf("back-off: %s", d)
	}
}

func TestTerminalApprover(t *testing.T) {
	r := Request{Case: Case{ID: "inc-1"}, ActionID: "inc-1.1", Summary: "revert \x1b[2Jx", Digest: "3F2cabc"}
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	defer outW.Close()
	clock := &manualClock{now: epoch}
	a := &TerminalApprover{In: inR, Out: outW, By: "ada", Timeout: time.Minute, Clock: clock}
	readPrompt := func() string {
		var b strings.Builder
		buf := make([]byte, 512)
		for !strings.Contains(b.String(), "refuses: ") {
			n, err := outR.Read(buf)
			if err != nil {
				return err.Error()
			}
			b.Write(buf[:n])
		}
		return b.String()
	}
	type result struct {
		a   Approval
		err error
	}
	ask := func(ctx context.Context) chan result {
		c := make(chan result, 1)
		go func() { ap, err := a.Approve(ctx, r); c <- result{ap, err} }()
		return c
	}
	for in, want := range map[string]Answer{"y 3F2c\n": Approved, " YES  3f2C \r\n": Approved, "n\n": NotApproved, "\n": NotApproved,
		"y\n": NotApproved, "yes\n": NotApproved, "3f2c\n": NotApproved, "y 3f2d\n": NotApproved, "yep 3f2c\n": NotApproved, "y 3f2c x\n": NotApproved} {
		c := ask(t.Context())
		if p := readPrompt(); strings.Contains(p, "\x1b") || !strings.Contains(p, "revert") || !strings.Contains(p, `type "y 3F2c" to approve`) {
			t.Errorf("prompt %q", p)
		}
		io.WriteString(inW, in)
		if got := <-c; got.err != nil || got.a.Answer != want || got.a.Digest != r.Digest || got.a.By != "ada" {
			t.Errorf("%q: %+v", in, got)
		}
	}
	// What comes too late is not the answer to the next question.
	ctx, cancel := context.WithCancel(t.Context())
	c := ask(ctx)
	readPrompt()
	cancel()
	go io.Copy(io.Discard, io.LimitReader(outR, int64(len("\nno longer needed\n"))))
	if got := <-c; !errors.Is(got.err, context.Canceled) {
		t.Errorf("cancelled: %+v", got)
	}
	io.WriteString(inW, "y 3f2c\n")
	io.WriteString(inW, "and more\n") // this write returns when the first line is taken in
	c = ask(t.Context())
	readPrompt()
	go io.Copy(io.Discard, outR)
	for done := false; !done; {
		select {
		case got := <-c:
			done = true
			if got.a.Answer == Approved {
				t.Errorf("a stale line approved: %+v", got)
			}
		default:
			clock.advance(time.Second)
		}
	}
	inW.Close()
	if got := <-ask(t.Context()); got.a.Answer != Expired {
		t.Errorf("after the end: %+v", got)
	}
	if _, err := (&TerminalApprover{}).Approve(t.Context(), r); !errors.Is(err, ErrInvalid) {
		t.Errorf("zero value: %v", err)
	}
	if _, err := a.Approve(t.Context(), Request{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("no digest: %v", err)
	}
}

// What was typed before the first question stood on the screen does not
// approve it, whenever the reader gets to see it.
func TestTerminalApproverTypeAhead(t *testing.T) {
	for range 20 {
		a := &TerminalApprover{In: strings.NewReader("y\nyes\ny\n"), Out: io.Discard}
		for range 3 {
			if ap, err := a.Approve(t.Context(), Request{Digest: "3f2cabc"}); err != nil || ap.Answer == Approved {
				t.Fatalf("%+v, %v", ap, err)
			}
		}
	}
}

// Guarantee 8: no active alert is no proof, as long as nothing was measured
// after the action by a detector that knows what is usual.
func TestVerifyAlerts(t *testing.T) {
	whole := anomaly.SeriesID{Service: "checkout", Metric: "latency"}
	one := anomaly.SeriesID{Service: "checkout", Metric: "memory", Instance: "checkout-1"}
	other := anomaly.SeriesID{Service: "checkout", Metric: "memory", Instance: "checkout-2"}
	done := epoch.Add(time.Minute)
	// A default detector is ready after a few values; begin and end bound them.
	feed := func(m *anomaly.Monitor, id anomaly.SeriesID, begin, end time.Time, v func(i int) float64) {
		for i := 0; begin.Before(end); i, begin = i+1, begin.Add(time.Second) {
			if _, err := m.Observe(begin, id, v(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	usual := func(i int) float64 { return 10 + float64(i%3) }
	long := epoch.Add(-10 * time.Minute)
	tests := []struct {
		name string
		ids  []anomaly.SeriesID
		feed func(m *anomaly.Monitor)
		over bool
		why  string
	}{
		{"fresh monitor", []anomaly.SeriesID{whole}, func(*anomaly.Monitor) {}, false, "checkout/latency has no values"},
		{"not observed since", []anomaly.SeriesID{whole}, func(m *anomaly.Monitor) { feed(m, whole, long, done, usual) }, false, "no value since"},
		{"observed since", []anomaly.SeriesID{whole}, func(m *anomaly.Monitor) { feed(m, whole, long, done.Add(2*time.Second), usual) }, true, "all 1 series"},
		{"newest value missing", []anomaly.SeriesID{whole}, func(m *anomaly.Monitor) {
			feed(m, whole, long, done.Add(2*time.Second), usual)
			feed(m, whole, done.Add(2*time.Second), done.Add(3*time.Second), func(int) float64 { return math.NaN() })
		}, false, "missing"},
		{"still learning", []anomaly.SeriesID{whole}, func(m *anomaly.Monitor) { feed(m, whole, done.Add(time.Second), done.Add(3*time.Second), usual) }, false, "being learned"},
		{"unusual", []anomaly.SeriesID{whole}, func(m *anomaly.Monitor) {
			feed(m, whole, long, done, usual)
			feed(m, whole, done, done.Add(20*time.Second), func(int) float64 { return 900 })
		}, false, "still unusual"},
		{"one of two", []anomaly.SeriesID{whole, one}, func(m *anomaly.Monitor) {
			feed(m, whole, long, done.Add(2*time.Second), usual)
			feed(m, one, long, done, usual)
		}, false, "checkout/checkout-1/memory has no value since"},
		{"instance gone, service heard", []anomaly.SeriesID{one}, func(m *anomaly.Monitor) {
			feed(m, one, long, done, usual)
			m.Forget(done, one)
			feed(m, other, done, done.Add(2*time.Second), usual)
		}, true, "gone"},
		{"instance gone, service silent", []anomaly.SeriesID{one}, func(m *anomaly.Monitor) {
			feed(m, other, long, done, usual)
			feed(m, anomaly.SeriesID{Service: "cart", Metric: "latency"}, done, done.Add(2*time.Second), usual)
		}, false, "nor has checkout"},
		{"service silent", []anomaly.SeriesID{whole}, func(m *anomaly.Monitor) {
			feed(m, anomaly.SeriesID{Service: "checkout", Metric: "other"}, done, done.Add(2*time.Second), usual)
		}, false, "has no values"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := anomaly.NewMonitor(anomaly.MonitorOptions{})
			if err != nil {
				t.Fatal(err)
			}
			tt.feed(m)
			c := Case{ID: "inc-1", Opened: epoch, Attempts: []Attempt{{Done: done}}, Trigger: Trigger{Incident: &anomaly.Incident{}}}
			for _, id := range append(tt.ids, tt.ids...) {
				c.Trigger.Incident.Alerts = append(c.Trigger.Incident.Alerts, anomaly.Alert{Series: id})
			}
			over, why, err := VerifyAlerts(m).Recovered(t.Context(), c)
			if err != nil || over != tt.over || !strings.Contains(why, tt.why) {
				t.Errorf("over %v, %q, %v; want %v, %q", over, why, err, tt.over, tt.why)
			}
		})
	}
	m, err := anomaly.NewMonitor(anomaly.MonitorOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := VerifyAlerts(m).Recovered(t.Context(), Case{ID: "Finding/1"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("no alerts: %v", err)
	}
}

// What was done last sets the time from which on measurements count.
func TestCaseActed(t *testing.T) {
	at := func(n int) time.Time { return epoch.Add(time.Duration(n) * time.Minute) }
	c := Case{Opened: at(0)}
	for i, set := range []func(){
		func() {},
		func() { c.Attempts = []Attempt{{Planned: at(9), Started: at(9), Done: at(1)}} },
		func() { c.Attempts[0].Undone = at(2) },
		func() { c.Reopened = at(3) },
		func() { c.Attempts = append(c.Attempts, Attempt{Done: at(4)}) },
	} {
		if set(); !c.Acted().Equal(at(i)) {
			t.Errorf("step %d: %s", i, c.Acted())
		}
	}
}

func TestLocateWorkload(t *testing.T) {
	labelled := deployment("cart-v2", 1)
	labelled.Object["metadata"].(map[string]any)["labels"] = map[string]any{"app": "cart"}
	other := deployment("checkout", 1)
	other.Key.Namespace = "test"
	state, err := reconcile.NewState("r", []reconcile.Resource{deployment("checkout", 2), other, labelled, deployment("web", 1)})
	if err != nil {
		t.Fatal(err)
	}
	for service, want := range map[string]string{"web": "Deployment.apps/shop/web", "cart": "Deployment.apps/shop/cart-v2", "checkout": "", "none": ""} {
		k, err := LocateWorkload(service, state)
		if want == "" {
			if !errors.Is(err, ErrTarget) {
				t.Errorf("%s: %v, %v", service, k, err)
			}
		} else if err != nil || k.String() != want {
			t.Errorf("%s: %v, %v", service, k, err)
		}
	}
}

func TestNewValue(t *testing.T) {
	up := Action{Factor: 1.5, Max: 10}
	tests := []struct {
		a    Action
		from any
		want any
	}{
		{up, int64(2), int64(3)}, {up, int64(3), int64(5)}, {up, int64(0), int64(1)}, {up, int64(8), int64(10)},
		{up, int64(10), nil}, {up, int64(-1), nil}, {up, "2", nil}, {up, nil, nil},
		{Action{Value: 3.0}, nil, int64(3)}, {Action{Value: "x"}, "y", "x"},
		{Action{ValueFrom: "image"}, "a", "shop:1"}, {Action{ValueFrom: "none"}, "a", nil},
	}
	c := &Case{Trigger: Trigger{Labels: map[string]string{"image": "shop:1"}}}
	for _, tt := range tests {
		got, err := tt.a.newValue(c, tt.from)
		if tt.want == nil {
			if !errors.Is(err, ErrTarget) {
				t.Errorf("%v of %v: %v, %v", tt.a, tt.from, got, err)
			}
		} else if err != nil || got != tt.want {
			t.Errorf("%v of %v = %v, %v, want %v", tt.a, tt.from, got, err, tt.want)
		}
	}
}

func TestHandleRefuses(t *testing.T) {
	w := newWorld()
	m, err := New(t.Context(), worldOptions(w, NewMemoryJournal(), &manualClock{now: epoch}))
	if err != nil {
		t.Fatal(err)
	}
	good, _ := incident("inc-1", "checkout", rootcause.RollBack)
	for name, tr := range map[string]Trigger{
		"zero": {}, "no id": {Kind: "Finding"}, "no incident": {Kind: IncidentTrigger, ID: "x"},
		"line break": {Kind: "Finding", ID: "a\nb"}, "not utf-8": {Kind: "Finding", ID: "a\xff"},
		"slash": {Kind: "a/b", ID: "x"}, "other id": {Kind: IncidentTrigger, ID: "x", Incident: good.Incident},
		"long": {Kind: "Finding", ID: strings.Repeat("x", 201)},
	} {
		if _, err := m.Handle(t.Context(), tr, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := m.Pause(t.Context(), "", "ada", ""); !errors.Is(err, ErrInvalid) {
		t.Errorf("empty scope: %v", err)
	}
	if err := m.Pause(t.Context(), Everything, "", ""); !errors.Is(err, ErrInvalid) {
		t.Errorf("nobody: %v", err)
	}
	// Numbers that JSON cannot hold do not lose the case.
	good.Incident.Alerts[0].Lower = math.NaN()
	_, rep := incident("inc-1", "checkout", rootcause.RollBack)
	rep.Services[0].Score = math.Inf(1)
	for range 2 {
		if id, err := m.Handle(t.Context(), good, rep); err != nil || id != "inc-1" {
			t.Errorf("Handle = %q, %v", id, err)
		}
	}
	if n := len(m.Cases()); n != 1 || !math.IsNaN(good.Incident.Alerts[0].Lower) {
		t.Errorf("%d cases; the caller's alert became %v", n, good.Incident.Alerts[0])
	}
	if _, err := m.Case("other"); !errors.Is(err, ErrUnknownCase) {
		t.Errorf("Case = %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	w := newWorld()
	ok := worldOptions(w, NewMemoryJournal(), nil)
	for name, change := range map[string]func(*Options){
		"Journal":       func(o *Options) { o.Journal = nil },
		"Verifier":      func(o *Options) { o.Verifier = nil },
		"Writer":        func(o *Options) { o.Writer = nil },
		"Actor":         func(o *Options) { o.Actor = nil },
		"Source":        func(o *Options) { o.Source = nil },
		"Approver":      func(o *Options) { o.Approver = nil; o.Playbooks[0].Autonomy = "" },
		"two with this": func(o *Options) { o.Playbooks = append(o.Playbooks, o.Playbooks[0]) },
		"Workers":       func(o *Options) { o.Workers = -1 },
		"VerifyEvery":   func(o *Options) { o.Timings.VerifyEvery = -1 },
	} {
		o := ok
		o.Playbooks = DefaultPlaybooks()
		change(&o)
		if _, err := New(t.Context(), o); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A case is stable JSON.
func TestCaseJSON(t *testing.T) {
	s := stories()[0].play(silent{t}, func(int, string) bool { return false })
	c := s.d.state.cases["inc-1"].clone()
	a, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var back Case
	if err := json.Unmarshal(a, &back); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(back)
	if err != nil || string(a) != string(b) {
		t.Errorf("%v\n%s\n%s", err, a, b)
	}
	for _, want := range []string{"New pool", "never tried", "roll-back: chosen", "confidence 0.80", "Verified"} {
		if !strings.Contains(c.Explain(), want) {
			t.Errorf("Explain lacks %q:\n%s", want, c.Explain())
		}
	}
}
