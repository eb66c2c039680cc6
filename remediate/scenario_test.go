package remediate

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

var update = flag.Bool("update", false, "rewrite testdata")

// TestScenarios runs testdata/scenarios/*.txt. A line that begins with ">" is
// a step; the lines under it, up to the next step, are what came of it: the
// records and the effects, with the time since the beginning. -update rewrites
// them. The steps:
//
//	playbook NAME CLASS AUTONOMY ACTION...   revert, scale, restart, run:NAME, escalate; "+undo" appended
//	limit NAME VALUE                         a field of Limits
//	handle ID SERVICE CLASS
//	wait DURATION
//	heal CASE | sicken CASE                  what the verifier says
//	fail KIND MESSAGE                        the next call: write, find, do, done, verify, notify, fetch
//	answer approve|deny|silent
//	replicas SERVICE N                       what is declared
//	pause SCOPE | resume SCOPE
//	crash                                    a new process reads the journal
//	show CASE                                the timeline
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScenario(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := gocmp.Diff(string(want), got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func runScenario(t *testing.T, text string) string {
	var out strings.Builder
	var opts Options
	var s *sim
	w := newWorld()
	replicas := map[string]int64{"checkout": 2, "cart": 4}
	declare := func() {
		var res []reconcile.Resource
		for _, name := range sortedKeys(replicas) {
			res = append(res, deployment(name, replicas[name]))
		}
		state, err := reconcile.NewState("r", res)
		if err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		w.desired = state
		w.mu.Unlock()
	}
	declare()
	begin := func() {
		if s == nil {
			s = newSim(t, w, opts)
			s.log = func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
			s.boot()
		}
	}
	in := bufio.NewScanner(strings.NewReader(text))
	for in.Scan() {
		line := in.Text()
		if strings.HasPrefix(line, "#") || line == "" {
			out.WriteString(line + "\n")
		}
		step, ok := strings.CutPrefix(line, "> ")
		if !ok {
			continue
		}
		out.WriteString(line + "\n")
		f := strings.Fields(step)
		arg := func(i int) string {
			if i >= len(f) {
				t.Fatalf("%q: too few words", line)
			}
			return f[i]
		}
		switch f[0] {
		case "playbook":
			p := Playbook{Name: arg(1), Match: Match{Classes: []rootcause.Class{rootcause.Class(arg(2))}}, Autonomy: Autonomy(arg(3))}
			for _, a := range f[4:] {
				p.Actions = append(p.Actions, scenarioAction(t, a))
			}
			opts.Playbooks = append(opts.Playbooks, p)
			continue
		case "limit":
			scenarioLimit(t, &opts.Limits, arg(1), arg(2))
			continue
		}
		begin()
		switch f[0] {
		case "handle":
			trig, rep := incident(arg(1), arg(2), rootcause.Class(arg(3)))
			s.dispatch(event{handle: &handleEvent{trig, rep}})
			s.work()
		case "wait":
			d, err := time.ParseDuration(arg(1))
			if err != nil {
				t.Fatal(err)
			}
			s.to(s.now.Add(d))
		case "heal", "sicken":
			w.over[arg(1)] = f[0] == "heal"
		case "fail":
			w.fail[arg(1)] = append(w.fail[arg(1)], errors.New(strings.Join(f[2:], " ")))
		case "answer":
			a := arg(1)
			w.answers = func(r Request) (Approval, error) {
				switch a {
				case "approve":
					return Approval{Answer: Approved, By: "ada", Digest: r.Digest}, nil
				case "deny":
					return Approval{Answer: NotApproved, By: "ada", Reason: "not during the sale", Digest: r.Digest}, nil
				}
				return Approval{}, errors.New("nobody there")
			}
		case "replicas":
			n, err := strconv.ParseInt(arg(2), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			replicas[arg(1)] = n
			declare()
		case "pause":
			s.dispatch(event{pause: &Pause{Scope: arg(1), By: "ada", Why: "release day"}})
			s.work()
		case "resume":
			s.dispatch(event{resume: &Pause{Scope: arg(1), By: "ada", Why: "all quiet"}})
			s.work()
		case "crash":
			s.boot()
			s.work()
		case "show":
			c, err := s.d.caseByID(arg(1))
			if err != nil {
				t.Fatal(err)
			}
			out.WriteString(c.String())
		default:
			t.Fatalf("%q: no such step", line)
		}
		s.checkReplay()
	}
	for id, n := range w.writes {
		if n != 1 {
			t.Errorf("%s was written %d times", id, n)
		}
	}
	return out.String()
}

func scenarioAction(t *testing.T, s string) Action {
	s, undo := strings.CutSuffix(s, "+undo")
	kind, name, _ := strings.Cut(s, ":")
	switch kind {
	case "revert":
		return Action{Type: RevertCommit, Undo: undo}
	case "scale":
		return Action{Type: SetField, Name: "scale up", Field: "spec.replicas", Factor: 1.5, Max: 10, Undo: undo}
	case "restart":
		return Action{Type: RestartInstance}
	case "run":
		return Action{Type: RunFunction, Name: name}
	case "escalate":
		return Action{Type: Escalate}
	}
	t.Fatalf("action %q", s)
	return Action{}
}

func scenarioLimit(t *testing.T, l *Limits, name, value string) {
	ints := map[string]*int{"MaxInFlight": &l.MaxInFlight, "MaxInFlightPerTarget": &l.MaxInFlightPerTarget,
		"MaxPerWindow": &l.MaxPerWindow, "MaxPerTarget": &l.MaxPerTarget, "MaxAttempts": &l.MaxAttempts}
	durations := map[string]*time.Duration{"Window": &l.Window, "MinInterval": &l.MinInterval, "Cooldown": &l.Cooldown, "MaxCooldown": &l.MaxCooldown}
	var err error
	switch {
	case ints[name] != nil:
		*ints[name], err = strconv.Atoi(value)
	case durations[name] != nil:
		*durations[name], err = time.ParseDuration(value)
	default:
		t.Fatalf("limit %q", name)
	}
	if err != nil {
		t.Fatal(err)
	}
}
