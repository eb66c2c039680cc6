package security

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

func named(id string) Rule {
	return resourceRule(Enforce, id, "", High, "", func(r reconcile.Resource) []Violation {
		return []Violation{{Path: "spec.containers[name=a].image", Message: "m"}}
	})
}

func TestNewSetRefuses(t *testing.T) {
	sel := Selector{Names: []string{"x"}}
	ok := Exception{Policy: "a", Selector: sel, Owner: "o", Reason: "r", Expires: now}
	change := func(f func(*Exception)) []Exception {
		e := ok
		f(&e)
		return []Exception{e}
	}
	for _, tt := range []struct {
		name string
		c    Config
		want string
	}{
		{"empty id", Config{Rules: []Rule{named("")}}, `rule 0 ("")`},
		{"bad id", Config{Rules: []Rule{named("A b")}}, `rule 0 ("A b"): an id is`},
		{"reserved id", Config{Rules: []Rule{named(RuleExpiredException)}}, "reserved"},
		{"two of one id", Config{Rules: []Rule{named("a"), named("a")}}, `rule 1 ("a"): the id is there twice`},
		{"no check", Config{Rules: []Rule{{Policy: Policy{ID: "a", Severity: Low}}}}, "needs one of Check and CheckPod"},
		{"two checks", Config{Rules: []Rule{{Policy: Policy{ID: "a", Severity: Low, Check: named("a").Check, CheckPod: memoryLimit}}}}, "needs one of Check and CheckPod"},
		{"no severity", Config{Rules: []Rule{{Policy: Policy{ID: "a", Check: named("a").Check}}}}, "severity 0"},
		{"bad mode", Config{Rules: []Rule{{Policy: named("a").Policy, Mode: "strict"}}}, `mode "strict"`},
		{"empty scope", Config{Rules: []Rule{{Policy: named("a").Policy, Scope: []Selector{{}}}}}, "scope 0: is empty"},
		{"exclude all", Config{Rules: []Rule{{Policy: named("a").Policy, Exclude: []Selector{{Namespaces: []string{"**"}}}}}}, "exclude 0: is empty or selects everything"},
		{"bad pattern", Config{Rules: []Rule{{Policy: named("a").Policy, Scope: []Selector{{Names: []string{"[a"}}}}}}, `pattern "[a"`},

		{"exception from nothing known", Config{Rules: []Rule{named("b")}, Exceptions: []Exception{ok}}, `exception 0 (policy "a"): the set has no such policy`},
		{"exception for everything", Config{Rules: []Rule{named("a")}, Exceptions: change(func(e *Exception) { e.Selector = Selector{} })}, "selector: is empty"},
		{"exception for stars", Config{Rules: []Rule{named("a")}, Exceptions: change(func(e *Exception) { e.Selector = Selector{Names: []string{"x", "*"}} })}, "selects everything"},
		{"exception for a kind", Config{Rules: []Rule{named("a")}, Exceptions: change(func(e *Exception) { e.Selector = Selector{Kinds: []string{"Pod"}} })}, "a kind alone"},
		{"exception without owner", Config{Rules: []Rule{named("a")}, Exceptions: change(func(e *Exception) { e.Owner = " " })}, "has no owner"},
		{"exception without reason", Config{Rules: []Rule{named("a")}, Exceptions: change(func(e *Exception) { e.Reason = "" })}, "has no reason"},
		{"exception without end", Config{Rules: []Rule{named("a")}, Exceptions: change(func(e *Exception) { e.Expires = time.Time{} })}, "has no expiry"},
		{"exception with a bad path", Config{Rules: []Rule{named("a")}, Exceptions: change(func(e *Exception) { e.Path = "a[" })}, "path: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := NewSet(tt.c)
			if !errors.Is(err, reconcile.ErrInvalid) || s != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	_, err := NewSet(Config{Rules: []Rule{named("A"), named("B")}})
	if err == nil || !strings.Contains(err.Error(), `"A"`) || !strings.Contains(err.Error(), `"B"`) {
		t.Errorf("not all faults are reported: %v", err)
	}
}

const twoPods = `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {tier: front}}
spec: {containers: [{name: a, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: kube-system}
spec: {containers: [{name: a, image: x}]}
`

func TestScope(t *testing.T) {
	for _, tt := range []struct {
		name string
		rule Rule
		want string
	}{
		{"everywhere", Rule{}, "agent web"},
		{"off", Rule{Mode: Off}, ""},
		{"namespace", Rule{Scope: []Selector{{Namespaces: []string{"sh*"}}}}, "web"},
		{"one of two", Rule{Scope: []Selector{{Namespaces: []string{"x"}}, {Names: []string{"agent"}}}}, "agent"},
		{"all of one", Rule{Scope: []Selector{{Namespaces: []string{"shop"}, Names: []string{"agent"}}}}, ""},
		{"labels", Rule{Scope: []Selector{{Labels: map[string]string{"tier": "front"}}}}, "web"},
		{"kind", Rule{Scope: []Selector{{Kinds: []string{"Deployment"}}}}, ""},
		{"exclude wins", Rule{Scope: []Selector{{Kinds: []string{"Pod"}}}, Exclude: []Selector{{Namespaces: []string{"kube-*"}}}}, "web"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.rule.Policy = named("a").Policy
			var got []string
			for _, f := range newSet(t, Config{Rules: []Rule{tt.rule, {Policy: named("b").Policy, Mode: Off}}}).Evaluate(state(t, decode(t, twoPods))) {
				got = append([]string{f.Key.Name}, got...)
			}
			if d := cmp.Diff(tt.want, strings.Join(got, " ")); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestExceptions(t *testing.T) {
	with := func(es ...Exception) []Finding {
		return newSet(t, Config{Rules: []Rule{named("a")}, Exceptions: es}).Evaluate(state(t, decode(t, twoPods)))
	}
	at := func(expires time.Time, path string) Exception {
		return Exception{Policy: "a", Selector: Selector{Namespaces: []string{"kube-system"}}, Owner: "platform", Reason: "agent", Expires: expires, Path: path}
	}
	tell := func(fs []Finding) (out []string) {
		for _, f := range fs {
			out = append(out, f.Rule+" "+f.Key.Name+f.note())
		}
		return out
	}
	later, before := now.Add(time.Second), now.Add(-time.Hour)
	for _, tt := range []struct {
		name string
		got  []Finding
		want []string
	}{
		{"none", with(), []string{"a web", "a agent"}},
		{"in force", with(at(later, "")), []string{"a web", "a agent (excepted by platform until 2026-05-04)"}},
		{"on the field", with(at(later, "spec.containers[name=a].image")), []string{"a web", "a agent (excepted by platform until 2026-05-04)"}},
		{"above the field", with(at(later, "spec.containers[name=a]")), []string{"a web", "a agent (excepted by platform until 2026-05-04)"}},
		{"on another field", with(at(later, "spec.containers[name=ab]")), []string{"a web", "a agent"}},
		{"expires at its moment", with(at(now, "")), []string{"exception-expired ", "a web", "a agent (the exception of platform expired on 2026-05-04)"}},
		{"one in force beats one expired", with(at(before, ""), at(later, "")), []string{"exception-expired ", "a web", "a agent (excepted by platform until 2026-05-04)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, tell(tt.got)); d != "" {
				t.Error(d)
			}
			for _, f := range tt.got {
				if f.Excepted() == f.Enforced() && f.Rule == "a" {
					t.Errorf("%s is both or neither of excepted and enforced", f)
				}
			}
		})
	}
}

func TestZeroSetFindsNothing(t *testing.T) {
	var s Set
	if fs := s.Evaluate(state(t, decode(t, twoPods))); fs == nil || len(fs) > 0 {
		t.Errorf("got %v, want an empty list", fs)
	}
}

// TestSetIsSafeForConcurrentUse is for the race detector.
func TestSetIsSafeForConcurrentUse(t *testing.T) {
	set := newSet(t, Config{})
	st := state(t, decode(t, twoPods))
	want := set.Evaluate(st)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if d := cmp.Diff(want, set.Evaluate(st)); d != "" {
					t.Error(d)
				}
			}
		})
	}
	wg.Wait()
}
