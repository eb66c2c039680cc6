package reconcile

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// thing makes a resource from a key, and objects and pairs to add to it.
func thing(key string, adds ...object) Resource {
	k, err := ParseKey(key)
	if err != nil {
		panic(err)
	}
	meta := object{"name": k.Name}
	if k.Namespace != "" {
		meta["namespace"] = k.Namespace
	}
	apiVersion := "v1"
	if k.Group != "" {
		apiVersion = k.Group + "/v1"
	}
	o := object{"apiVersion": apiVersion, "kind": k.Kind, "metadata": meta}
	for _, add := range adds {
		o = overlay(o, CloneObject(add)).(object)
	}
	return Resource{Key: k, Object: o}
}

func annotated(name, value string) object {
	return object{"metadata": object{"annotations": object{name: value}}}
}

func placed(r Resource, path string, line int) Resource {
	r.Origin = Origin{Path: path, Line: line, Column: 1}
	return r
}

func state(t testing.TB, revision string, rs ...Resource) *State {
	t.Helper()
	s, err := NewState(revision, rs)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func managed(rs ...Resource) *Inventory {
	v := (*Inventory)(nil).Clone()
	for _, r := range rs {
		v.Items[r.Key] = Item{Applied: r.Object, Origin: r.Origin}
	}
	return v
}

// lines gives a plan as "+key", "~key" and "-key", waves separated by "|",
// held ones as "!key by".
func lines(p *Plan) string {
	var out []string
	for i, w := range p.Waves {
		if i > 0 {
			out = append(out, "|")
		}
		for _, c := range w {
			out = append(out, c.Action.sign()+c.Key.String())
		}
	}
	for _, h := range p.Held {
		out = append(out, "!"+h.Change.Key.String()+" by "+h.By)
	}
	return strings.Join(out, " ")
}

func many(n int) (rs []Resource) {
	for i := range n {
		rs = append(rs, thing(fmt.Sprintf("ConfigMap/a/c%03d", i)))
	}
	return rs
}

func TestMakePlan(t *testing.T) {
	dep := func(on string) object { return annotated(AnnotationDependsOn, on) }
	rep := func(n int64) object { return object{"spec": object{"replicas": n}} }
	dying := object{"metadata": object{"deletionTimestamp": "now"}}
	a := thing("Deployment.apps/s/a", rep(1))
	tests := []struct {
		name          string
		rules         rules
		desired, live []Resource
		inv           *Inventory
		want          string
		why           string // a reason to be found in the plan
	}{
		{name: "empty"},
		{
			name:    "kinds come in phases",
			desired: []Resource{thing("Deployment.apps/s/a"), thing("Namespace/s"), thing("ConfigMap/s/c"), thing("CustomResourceDefinition.x/d"), thing("Service/s/a"), thing("ValidatingWebhookConfiguration.x/w"), thing("Ingress.x/s/i")},
			want:    "+Namespace/s | +CustomResourceDefinition.x/d | +ConfigMap/s/c | +Service/s/a | +Deployment.apps/s/a | +Ingress.x/s/i | +ValidatingWebhookConfiguration.x/w",
		},
		{
			name:    "what is named comes first, across phases",
			desired: []Resource{thing("Service/s/a", dep("Deployment.apps/s/a")), thing("Deployment.apps/s/a", dep("Deployment.apps/s/b, Job.batch/s/j")), thing("Deployment.apps/s/b"), thing("Job.batch/s/j")},
			want:    "+Deployment.apps/s/b +Job.batch/s/j | +Deployment.apps/s/a | +Service/s/a",
		},
		{
			name:    "a kind comes after its definition",
			desired: []Resource{thing("Namespace/n", annotated("x", "y")), thing("ConfigMap.g/c"), thing("CustomResourceDefinition.x/d", object{"spec": object{"group": "g", "names": object{"kind": "ConfigMap"}}})},
			want:    "+Namespace/n | +CustomResourceDefinition.x/d | +ConfigMap.g/c",
		},
		{
			name:    "deletions go last and the other way",
			inv:     managed(thing("Namespace/s"), thing("ConfigMap/s/c"), thing("Deployment.apps/s/a", dep("Deployment.apps/s/b")), thing("Deployment.apps/s/b"), thing("Job/x"), thing("Job/y"), thing("Job/z"), thing("Job/w")),
			live:    []Resource{thing("Namespace/s"), thing("ConfigMap/s/c"), thing("Deployment.apps/s/a"), thing("Deployment.apps/s/b"), thing("Job/x"), thing("Job/y"), thing("Job/z"), thing("Job/w")},
			desired: []Resource{thing("Job/x"), thing("Job/y"), thing("Job/z"), thing("Job/w"), thing("Job/v")},
			want:    "+Job/v | -Deployment.apps/s/a | -Deployment.apps/s/b | -ConfigMap/s/c | -Namespace/s",
		},
		{
			name: "a circle among deletions does not matter", rules: rules{brake: Brake{Off: true}},
			inv:  managed(thing("Job/a", dep("Job/b")), thing("Job/b", dep("Job/a"))),
			live: []Resource{thing("Job/a"), thing("Job/b")},
			want: "-Job/a -Job/b",
		},
		{name: "created", desired: []Resource{placed(a, "a.yaml", 3)}, want: "+Deployment.apps/s/a", why: "declared in a.yaml:3:1"},
		{name: "adopted", desired: []Resource{a}, live: []Resource{thing("Deployment.apps/s/a", rep(2))}, want: "~Deployment.apps/s/a", why: "exists already, now declared"},
		{name: "drifted", desired: []Resource{a}, live: []Resource{thing("Deployment.apps/s/a", rep(2))}, inv: managed(a), want: "~Deployment.apps/s/a", why: "drift: spec.replicas"},
		{name: "deleted by hand", desired: []Resource{a}, inv: managed(a), want: "+Deployment.apps/s/a", why: "drift: deleted on the live side"},
		{name: "changed", desired: []Resource{thing("Deployment.apps/s/a", rep(2))}, live: []Resource{a}, inv: managed(a), want: "~Deployment.apps/s/a", why: "changed: spec.replicas"},
		{name: "unchanged", desired: []Resource{a}, live: []Resource{a}, inv: managed(a), want: ""},
		{name: "ceded by rule", rules: rules{ceded: []cededRule{{Ceded{"apps", "Deployment", "spec.replicas"}, mustPath(t, "spec.replicas")}}}, desired: []Resource{a}, live: []Resource{thing("Deployment.apps/s/a", rep(9))}, inv: managed(a), want: ""},
		{name: "ceded to other kinds", rules: rules{ceded: []cededRule{{Ceded{"", "Job", "spec.replicas"}, mustPath(t, "spec.replicas")}}}, desired: []Resource{a}, live: []Resource{thing("Deployment.apps/s/a", rep(9))}, inv: managed(a), want: "~Deployment.apps/s/a"},
		{
			name: "ceded by annotation", desired: []Resource{thing("Deployment.apps/s/a", rep(1), annotated(AnnotationCeded, "spec.replicas"))},
			live: []Resource{thing("Deployment.apps/s/a", rep(9), annotated(AnnotationCeded, "spec.replicas"))}, want: "",
		},
		{name: "not ours is not pruned", desired: []Resource{a}, live: []Resource{a, thing("Job/x")}, inv: managed(a), want: ""},
		{name: "gone already", desired: []Resource{a}, live: []Resource{a}, inv: managed(a, thing("Job/x")), want: ""},
		{name: "kept by annotation on the live side", desired: []Resource{a}, live: []Resource{a, thing("Job/x", annotated(AnnotationPrune, "false"))}, inv: managed(a, thing("Job/x")), want: ""},
		{name: "kept by annotation as it was declared", desired: []Resource{a}, live: []Resource{a, thing("Job/x")}, inv: managed(a, thing("Job/x", annotated(AnnotationPrune, "false"))), want: ""},
		{name: "half may go", desired: []Resource{a}, live: []Resource{a, thing("Job/x")}, inv: managed(a, placed(thing("Job/x"), "x.yaml", 9)), want: "-Job/x", why: "was in x.yaml:9"},
		{name: "more than half may not", live: []Resource{a, thing("Job/x")}, inv: managed(a, thing("Job/x")), want: "!Job/x by mass-delete !Deployment.apps/s/a by mass-delete", why: "2 deletions of 2 managed resources, more than 50%"},
		{name: "ten may go", desired: many(30)[10:], live: many(30), inv: managed(many(30)...), want: strings.TrimSpace(strings.Repeat("-ConfigMap/a/c00%d ", 10))},
		{name: "eleven may not", desired: many(30)[11:], live: many(30), inv: managed(many(30)...), want: strings.TrimSpace(strings.Repeat("!ConfigMap/a/c00%d by mass-delete ", 11)), why: "11 deletions in one plan, more than 10"},
		{name: "what is long gone does not count as managed", desired: []Resource{a}, live: []Resource{a, thing("Job/x"), thing("Job/y")}, inv: managed(append(many(9), a, thing("Job/x"), thing("Job/y"))...), want: "!Job/x by mass-delete !Job/y by mass-delete"},
		{
			name: "a namespace counts with what is in it", rules: rules{brake: Brake{MaxShare: 1}}, live: append(many(10), thing("Namespace/a"), a), desired: []Resource{a}, inv: managed(a, thing("Namespace/a")),
			want: "!Namespace/a by mass-delete", why: "11 deletions in one plan, more than 10",
		},
		{
			name: "but not twice", rules: rules{brake: Brake{MaxDeletes: 11, MaxShare: 1}}, live: append(many(10), thing("Namespace/a"), a), desired: []Resource{a}, inv: managed(append(many(9), a, thing("Namespace/a"))...),
			want: strings.TrimSpace(strings.Repeat("-ConfigMap/a/c00%d ", 9)) + " | -Namespace/a",
		},
		{
			name: "a definition counts with what is of it", rules: rules{brake: Brake{MaxDeletes: 2, MaxShare: 1}}, desired: []Resource{a},
			live: []Resource{a, thing("Widget.g/s/x"), thing("Widget.g/t/y"), thing("Widget/s/other"), thing("CustomResourceDefinition.x/w", object{"spec": object{"group": "g", "names": object{"kind": "Widget"}}})},
			inv:  managed(a, thing("CustomResourceDefinition.x/w")),
			want: "!CustomResourceDefinition.x/w by mass-delete", why: "3 deletions in one plan, more than 2",
		},
		{name: "brake off", rules: rules{brake: Brake{Off: true}}, live: []Resource{a}, inv: managed(a), want: "-Deployment.apps/s/a"},
		{name: "brake set", rules: rules{brake: Brake{MaxDeletes: 1, MaxShare: 1}}, live: []Resource{a, thing("Job/x")}, inv: managed(a, thing("Job/x")), want: "!Job/x by mass-delete !Deployment.apps/s/a by mass-delete"},
		{name: "being deleted by hand", desired: []Resource{a}, live: []Resource{thing("Deployment.apps/s/a", rep(2), dying)}, inv: managed(a), want: "!Deployment.apps/s/a by terminating"},
		{name: "deletion under way is not asked for twice", desired: []Resource{a}, live: []Resource{a, thing("Job/x", dying)}, inv: managed(a, thing("Job/x")), want: "!Job/x by terminating"},
		{name: "named and nowhere", desired: []Resource{thing("Job/x", dep("Job/typo")), thing("Job/y", dep("Job/x")), thing("Job/z")}, want: "+Job/z !Job/x by depends-on !Job/y by depends-on", why: "it depends on Job/typo, which neither is declared nor exists"},
		{name: "named and live", desired: []Resource{thing("Job/x", dep("Job/theirs"))}, live: []Resource{thing("Job/theirs")}, want: "+Job/x"},
		{
			name: "a field written before a crash is known", desired: []Resource{a}, live: []Resource{thing("Deployment.apps/s/a", rep(1), object{"spec": object{"paused": true}})},
			inv:  &Inventory{Items: map[Key]Item{a.Key: {Pending: true, Applied: a.Object, Writing: thing("Deployment.apps/s/a", object{"spec": object{"paused": true}}).Object}}},
			want: "~Deployment.apps/s/a", why: "changed: spec.paused",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.inv == nil {
				tt.inv = managed()
			}
			desired, live := state(t, "r1", tt.desired...), state(t, "", tt.live...)
			p, err := makePlan(tt.rules, desired, live, tt.inv)
			if err != nil {
				t.Fatal(err)
			}
			want := tt.want
			for i := 0; strings.Contains(want, "c00%d"); i++ {
				want = strings.Replace(want, "c00%d", fmt.Sprintf("c%03d", i), 1)
			}
			if got := lines(p); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if !strings.Contains(p.String(), tt.why) {
				t.Errorf("no %q in\n%s", tt.why, p)
			}
			again, err := makePlan(tt.rules, desired, live, tt.inv)
			if err != nil || again.Digest() != p.Digest() || again.String() != p.String() {
				t.Errorf("the same input gave another plan:\n%s\n%s", p, again)
			}
		})
	}
}

func TestDependsOnOfDeletionsIsTurnedRound(t *testing.T) {
	ns, a, b := thing("Namespace/s"), thing("Job/s/a", annotated(AnnotationDependsOn, "Job/s/b")), thing("Job/s/b")
	p, err := makePlan(rules{brake: Brake{Off: true}}, state(t, "r"), state(t, "", ns, a, b), managed(ns, a, b))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]Key{}
	for c := range p.Changes() {
		got[c.Key.String()] = c.DependsOn
	}
	want := map[string][]Key{"Job/s/a": nil, "Job/s/b": {a.Key}, "Namespace/s": {a.Key, b.Key}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	// Holding one holds what would leave it stranded.
	if _, err := p.hold(map[Key]Held{b.Key: {By: "x"}}, nil); err != nil || lines(p) != "-Job/s/a !Job/s/b by x !Namespace/s by x" {
		t.Errorf("%s, %v", lines(p), err)
	}
}

func TestMakePlanRefusesBadDeclarations(t *testing.T) {
	dep := func(on string) object { return annotated(AnnotationDependsOn, on) }
	_, err := makePlan(rules{}, state(t, "r", thing("Job/a", dep("Job/b")), thing("Job/b", dep("Job/c")), thing("Job/c", dep("Job/b"))), state(t, ""), managed())
	var cycle *CycleError
	if !errors.As(err, &cycle) || !errors.Is(err, ErrInvalid) || err.Error() != "reconcile: dependency cycle: Job/b -> Job/c -> Job/b" {
		t.Errorf("%v", err)
	}
	// A circle is refused even where nothing of it has to change.
	a, b := thing("Job/a", dep("Job/b")), thing("Job/b", dep("Job/a"))
	if _, err := makePlan(rules{}, state(t, "r", a, b), state(t, "", a, b), managed(a, b)); !errors.As(err, &cycle) {
		t.Errorf("%v", err)
	}
	// All errors come together, each with its place.
	_, err = makePlan(rules{}, state(t, "r", placed(thing("Job/a", dep("nonsense")), "a.yaml", 1), placed(thing("Job/b", annotated(AnnotationCeded, "a..b")), "b.yaml", 7)), state(t, "", thing("Job/b")), managed())
	for _, part := range []string{"a.yaml:1:1", "Job/a", `"nonsense"`, "b.yaml:7:1", "Job/b", `"a..b"`} {
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in %v", part, err)
		}
	}
}

// samplePlan has every kind of change.
func samplePlan(t testing.TB) *Plan {
	t.Helper()
	at := func(r Resource, path string, line int) Resource {
		r = placed(r, path, line)
		r.Fields = map[string]Position{"spec.replicas": {line + 6, 3}}
		r.Origin.Revision = "3f2c1e0d9a8b7c6d"
		return r
	}
	cart := thing("Deployment.apps/shop/cart", object{"spec": object{"replicas": int64(3), "big": int64(1<<62 + 1), "rate": 0.5}})
	cart.Object["spec"].(object)["args"] = list{"a", nil, true}
	secret := thing("Secret/shop/db", object{"data": object{"password": "aHVudGVyMg=="}, "stringData": object{"user": "u1"}})
	oldSecret := thing("Secret/shop/db", object{"data": object{"password": "b2xk"}})
	newSecret := thing("Secret/shop/new", object{"data": object{"token": "c2VjcmV0"}})
	payment := thing("Deployment.apps/shop/payment", object{"spec": object{"replicas": int64(3)}})
	livePayment := thing("Deployment.apps/shop/payment", object{"spec": object{"replicas": int64(2)}})
	livePayment.Version = "41"
	stock := thing("Job.batch/shop/stock", annotated(AnnotationDependsOn, "Job.batch/shop/missing"))
	old := thing("ConfigMap/shop/old")
	old.Version = "7"
	desired := state(t, "3f2c1e0d9a8b7c6d", at(cart, "shop/cart.yaml", 1), at(secret, "shop/db.yaml", 1), at(newSecret, "shop/db.yaml", 12), at(payment, "shop/payment.yaml", 3), at(stock, "shop/stock.yaml", 1), thing("Namespace/shop"))
	live := state(t, "", oldSecret, livePayment, old, thing("Namespace/shop"))
	p, err := makePlan(rules{target: "prod"}, desired, live, managed(at(payment, "shop/payment.yaml", 3), at(old, "shop/old.yaml", 1), thing("Namespace/shop"), oldSecret))
	if err != nil {
		t.Fatal(err)
	}
	p.Made = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	p.Verdicts = []Verdict{{Gate: "security", Objections: []Objection{{Decision: Warn, Key: cart.Key, Rule: "image-tag", Path: "spec.image", Message: "the tag moves"}}}}
	return p
}

func TestPlanGolden(t *testing.T) {
	p := samplePlan(t)
	golden(t, "plan.golden", p.String())
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "plan.json.golden", string(b)+"\n")
	for _, secret := range []string{"aHVudGVyMg", "b2xk", "c2VjcmV0", "u1"} {
		if strings.Contains(string(b), secret) || strings.Contains(p.String(), secret) {
			t.Errorf("%q is told", secret)
		}
	}
}

func TestPlanJSONRoundTrip(t *testing.T) {
	p := samplePlan(t)
	first, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back Plan
	if err := json.Unmarshal(first, &back); err != nil {
		t.Fatal(err)
	}
	second, err := json.Marshal(&back)
	if err != nil || string(first) != string(second) {
		t.Errorf("%v (-first +second):\n%s", err, cmp.Diff(string(first), string(second)))
	}
	if back.String() != p.String() {
		t.Errorf("-first +second:\n%s", cmp.Diff(p.String(), back.String()))
	}
	if back.digest != p.Digest() {
		t.Errorf("the digest is %s, want %s", back.digest, p.Digest())
	}
	if back.openDigest() != p.openDigest() {
		t.Error("what the plan shows has another digest")
	}
	if back.Digest() == p.Digest() {
		t.Error("a plan without its secrets has the digest of one with them")
	}
	for c := range back.Changes() {
		if c.Key.Name == "cart" {
			spec := c.Desired["spec"].(object)
			if d := cmp.Diff(object{"replicas": int64(3), "big": int64(1<<62 + 1), "rate": 0.5, "args": list{"a", nil, true}}, spec); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		}
	}
}

func TestDigest(t *testing.T) {
	base := samplePlan(t).Digest()
	if base != samplePlan(t).Digest() {
		t.Error("equal plans have different digests")
	}
	p := samplePlan(t)
	p.Made, p.Verdicts, p.Held = time.Time{}, nil, nil
	if p.Digest() != base {
		t.Error("when it was made and what gates said are part of the digest")
	}
	for name, edit := range map[string]func(p *Plan){
		"target":   func(p *Plan) { p.Target = "x" },
		"revision": func(p *Plan) { p.Revision = "x" },
		"action":   func(p *Plan) { p.Waves[0][0].Action = Delete },
		"version":  func(p *Plan) { p.Waves[0][0].LiveVersion = "x" },
		"secret": func(p *Plan) {
			d := CloneObject(p.Waves[0][0].Desired)
			d["data"] = object{"x": "y"}
			p.Waves[0][0].Desired = d
		},
		"fewer changes": func(p *Plan) { p.Waves = p.Waves[1:] },
		"no JSON":       func(p *Plan) { p.Waves[0][0].Desired = object{"x": math.NaN()} },
		"no JSON, too":  func(p *Plan) { p.Waves[0][0].Desired = object{"x": math.Inf(1)} },
	} {
		p := samplePlan(t)
		edit(p)
		if d := p.Digest(); d == base {
			t.Errorf("%s is not part of the digest", name)
		} else {
			base2 := d
			p.Revision += "x"
			if p.Digest() == base2 {
				t.Errorf("%s: the digest is blind to the rest", name)
			}
		}
	}
}

func FuzzPlanJSON(f *testing.F) {
	b, err := json.Marshal(samplePlan(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"waves":[[{"key":"Job/a","desired":{"a":1e400}}]]}`))
	f.Add([]byte(`{"waves":[[{"fields":[{"path":"a","to":9223372036854775808}]}]]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Plan
		if json.Unmarshal(b, &p) != nil {
			return
		}
		_ = p.String()
		_ = p.Digest()
		first, err := json.Marshal(&p)
		if err != nil {
			return // an infinity
		}
		var q Plan
		if err := json.Unmarshal(first, &q); err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		if q.Digest() != p.openDigest() {
			t.Fatalf("%s: read again it differs", first)
		}
	})
}

// Applying a plan to the objects leaves nothing to plan.
func TestPlanProperties(t *testing.T) {
	r := random{rand.New(rand.NewPCG(3, 4))}
	keys := []string{"Namespace/s", "ConfigMap/s/a", "Deployment.apps/s/a", "Deployment.apps/s/b", "Job.batch/s/j", "Service/s/a"}
	some := func() (rs []Resource) {
		for _, k := range keys {
			if r.IntN(3) > 0 {
				rs = append(rs, thing(k, object{"spec": r.object(2)}))
			}
		}
		return rs
	}
	for range 500 {
		desired, live, inv := state(t, "r", some()...), state(t, "", some()...), managed(some()...)
		rules := rules{brake: Brake{Off: true}}
		p, err := makePlan(rules, desired, live, inv)
		if err != nil {
			t.Fatal(err)
		}
		if p2, _ := makePlan(rules, desired, live, inv); p2.Digest() != p.Digest() {
			t.Fatal("equal input, other digest")
		}
		after := map[Key]Resource{}
		for res := range live.All() {
			after[res.Key] = res
		}
		seen := map[Key]bool{}
		for c := range p.Changes() {
			for _, k := range c.DependsOn {
				if !seen[k] {
					t.Fatalf("%s before %s:\n%s", c.Key, k, p)
				}
			}
			seen[c.Key] = true
			if c.Action == Delete {
				if _, ours := inv.Items[c.Key]; !ours {
					t.Fatalf("%s is not ours to delete", c.Key)
				}
				delete(after, c.Key)
				continue
			}
			after[c.Key] = Resource{Key: c.Key, Object: c.Merge(after[c.Key].Object)}
		}
		var rs []Resource
		for _, res := range after {
			rs = append(rs, res)
		}
		then := managed()
		for res := range desired.All() {
			then.Items[res.Key] = Item{Applied: res.Object}
		}
		if p2, err := makePlan(rules, desired, state(t, "", rs...), then); err != nil || !p2.Empty() {
			t.Fatalf("%v\n%s", err, p2)
		}
	}
}

func BenchmarkMakePlanUnchanged10k(b *testing.B) {
	var rs []Resource
	for i := range 10_000 {
		r := thing(fmt.Sprintf("Deployment.apps/shop/d%05d", i))
		o := deployment()
		o["metadata"].(object)["name"] = r.Key.Name
		r.Object = o
		rs = append(rs, r)
	}
	desired, inv := state(b, "r", rs...), managed(rs...)
	for i := range rs {
		rs[i] = rs[i].Clone()
	}
	live := state(b, "", rs...)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if p, err := makePlan(rules{}, desired, live, inv); err != nil || !p.Empty() {
			b.Fatal(err)
		}
	}
}
