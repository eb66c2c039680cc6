package security

import (
	"encoding/json"
	"errors"
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/manifest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// clockAt is a clock that stands still.
type clockAt time.Time

func (c clockAt) Now() time.Time                     { return time.Time(c) }
func (clockAt) After(time.Duration) <-chan time.Time { return nil }

var now = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func decode(t testing.TB, text string) []reconcile.Resource {
	t.Helper()
	rs, err := manifest.Decode("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func newSet(t testing.TB, c Config) *Set {
	t.Helper()
	if c.Clock == nil {
		c.Clock = clockAt(now)
	}
	s, err := NewSet(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func state(t testing.TB, rs []reconcile.Resource) *reconcile.State {
	t.Helper()
	s, err := reconcile.NewState("4f1d9c2a7b30", rs)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// rulePaths gives "rule path" for each finding of a set on one document.
func rulePaths(t testing.TB, s *Set, text string) []string {
	t.Helper()
	out := []string{}
	for _, r := range decode(t, text) {
		for _, f := range s.EvaluateResource(r) {
			out = append(out, f.Rule+" "+f.Path)
			if at := r.Locate(f.Path); at != f.Origin {
				t.Errorf("%s: origin %v, the field is at %v", f, f.Origin, at)
			}
		}
	}
	slices.Sort(out)
	return out
}

func indent(text string, n int) string {
	pad := strings.Repeat(" ", n)
	return pad + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+pad)
}

func TestSeverity(t *testing.T) {
	if !(Info < Low && Low < Medium && Medium < High && High < Critical) {
		t.Error("severities are out of order")
	}
	for s := Severity(0); s <= Critical; s++ {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back Severity
		if err := json.Unmarshal(b, &back); err != nil || back != s {
			t.Errorf("%s: got back %v, %v", b, back, err)
		}
	}
	if _, err := json.Marshal(Critical + 1); err == nil {
		t.Error("a severity beyond the last one was written")
	}
	if _, err := ParseSeverity("bad"); !errors.Is(err, reconcile.ErrInvalid) || !strings.Contains(err.Error(), `"bad"`) {
		t.Errorf("got %v", err)
	}
	if s, err := ParseSeverity("HIGH"); s != High || err != nil {
		t.Errorf("got %v, %v", s, err)
	}
}

// TestWorkloadKinds holds that a pod is found wherever a kind keeps it, and
// that its fields are named and placed there.
func TestWorkloadKinds(t *testing.T) {
	set := newSet(t, Config{Rules: Baseline()})
	pod := "hostPID: true\ncontainers:\n- name: a\n  securityContext: {privileged: true}"
	for _, tt := range []struct{ name, text, path string }{
		{"Pod", "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n" + indent(pod, 2), "spec"},
		{"PodTemplate", "apiVersion: v1\nkind: PodTemplate\nmetadata: {name: x}\ntemplate:\n  spec:\n" + indent(pod, 4), "template.spec"},
		{"ReplicationController", "apiVersion: v1\nkind: ReplicationController\nmetadata: {name: x}\nspec:\n  template:\n    spec:\n" + indent(pod, 6), "spec.template.spec"},
		{"Deployment", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec:\n  template:\n    spec:\n" + indent(pod, 6), "spec.template.spec"},
		{"old Deployment", "apiVersion: extensions/v1beta1\nkind: Deployment\nmetadata: {name: x}\nspec:\n  template:\n    spec:\n" + indent(pod, 6), "spec.template.spec"},
		{"StatefulSet", "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: x}\nspec:\n  template:\n    spec:\n" + indent(pod, 6), "spec.template.spec"},
		{"DaemonSet", "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: x}\nspec:\n  template:\n    spec:\n" + indent(pod, 6), "spec.template.spec"},
		{"ReplicaSet", "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: x}\nspec:\n  template:\n    spec:\n" + indent(pod, 6), "spec.template.spec"},
		{"Job", "apiVersion: batch/v1\nkind: Job\nmetadata: {name: x}\nspec:\n  template:\n    spec:\n" + indent(pod, 6), "spec.template.spec"},
		{"CronJob", "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: x}\nspec:\n  jobTemplate:\n    spec:\n      template:\n        spec:\n" + indent(pod, 10), "spec.jobTemplate.spec.template.spec"},
		{"CronJob with a decoy", "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: x}\nspec:\n  template: {spec: {containers: [{name: decoy}]}}\n  jobTemplate:\n    spec:\n      template:\n        spec:\n" + indent(pod, 10), "spec.jobTemplate.spec.template.spec"},
		{"another controller's kind", "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: x}\nspec:\n  template:\n    spec:\n" + indent(pod, 6), "spec.template.spec"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := []string{
				"pod-host-namespaces " + tt.path + ".hostPID",
				"pod-privileged " + tt.path + ".containers[name=a].securityContext.privileged",
			}
			if d := cmp.Diff(want, rulePaths(t, set, tt.text)); d != "" {
				t.Error(d)
			}
		})
	}
	for _, text := range []string{
		"apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {hostPID: true}",
		"apiVersion: example.org/v1\nkind: Pod\nmetadata: {name: x}\nspec: {hostPID: true}",
		"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}",
	} {
		if got := rulePaths(t, set, text); len(got) > 0 {
			t.Errorf("%s: got %v", text, got)
		}
	}
}

func TestFindingsAreSortedAndDistinct(t *testing.T) {
	twice := resourceRule(Enforce, "twice", "", Low, "", func(reconcile.Resource) []Violation {
		return []Violation{{"spec.b", "b", ""}, {"spec.a", "a", ""}, {"spec.b", "b", ""}, {"spec.b", "b2", ""}}
	})
	set := newSet(t, Config{Rules: []Rule{twice}})
	rs := decode(t, "kind: A\nmetadata: {name: x}\nspec:\n  b: 1\n  a: 2\n---\nkind: A\nmetadata: {name: w}\nspec:\n  a: 2\n  b: 1\n")
	got := set.Evaluate(state(t, rs))
	var lines []string
	for _, f := range got {
		lines = append(lines, f.String())
	}
	want := []string{
		"test.yaml:4:3: low twice: A/x: b",
		"test.yaml:4:3: low twice: A/x: b2",
		"test.yaml:5:3: low twice: A/x: a",
		"test.yaml:10:3: low twice: A/w: a",
		"test.yaml:11:3: low twice: A/w: b",
		"test.yaml:11:3: low twice: A/w: b2",
	}
	if d := cmp.Diff(want, lines); d != "" {
		t.Error(d)
	}
	slices.Reverse(rs)
	if d := cmp.Diff(got, set.Evaluate(state(t, rs))); d != "" {
		t.Errorf("the order of the resources shows: %s", d)
	}
}

// TestRulesAreDescribed holds that the built-in rules say what they are for
// and that Default contains the two levels in the right modes.
func TestRulesAreDescribed(t *testing.T) {
	for _, r := range Default() {
		if r.Title == "" || r.Why == "" || r.Mode == "" {
			t.Errorf("%s lacks a title, a reason or a mode", r.ID)
		}
	}
	modes := map[string]Mode{}
	for _, r := range Default() {
		modes[r.ID] = r.Mode
	}
	for i, r := range Restricted() {
		want := Warn
		if i < len(Baseline()) {
			want = Enforce
		}
		if modes[r.ID] != want || r.Mode != Enforce {
			t.Errorf("%s: mode %q in Default and %q in Restricted", r.ID, modes[r.ID], r.Mode)
		}
	}
}
