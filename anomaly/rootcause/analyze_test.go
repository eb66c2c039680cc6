package rootcause_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
)

func analyze(t testing.TB, in rootcause.Input) *rootcause.Report {
	t.Helper()
	r, err := rootcause.Analyzer{}.Analyze(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Each service in turn breaks, seen through few requests and few rows; the
// alert comes from the frontend, the onset is known to a few rows, and every
// second run does without the metrics that leave callees out.
func TestShopNamesTheCulprit(t *testing.T) {
	for _, what := range []string{"errors", "latency"} {
		for _, self := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s self=%v", what, self), func(t *testing.T) {
				right, all, confident := 0, 0, 0.0
				for seed := range uint64(30) {
					rng := rand.New(rand.NewPCG(seed, 20))
					for _, culprit := range shopServices {
						f := fault{service: culprit}
						if what == "errors" {
							f.errors = 0.25 + 0.4*rng.Float64()
						} else {
							f.extraMS = 25 + 100*rng.Float64()
						}
						s := &shop{rng: rng, fault: f, demand: 15 + 25*rng.Float64(), self: self}
						r := analyze(t, s.input(40+rng.IntN(20), 4+rng.IntN(5), rng.IntN(4)-2))
						all++
						if len(r.Services) > 0 && r.Services[0].Service == culprit {
							right++
							confident += r.Services[0].Confidence
						} else if testing.Verbose() {
							t.Logf("seed %d %+v demand %.0f: %+v", seed, f, s.demand, r)
						}
					}
				}
				t.Logf("rank 1 in %d of %d, mean confidence %.2f", right, all, confident/float64(max(right, 1)))
				if right*20 < all*19 {
					t.Errorf("rank 1 in %d of %d, want at least 19 of 20", right, all)
				}
			})
		}
	}
}

// One of three replicas breaks: the service is named, and the replica.
func TestShopNamesTheInstance(t *testing.T) {
	right, all := 0, 0
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 25))
		for k, culprit := range shopServices {
			f := fault{service: culprit, instance: 1 + rng.IntN(3)}
			if k%2 == 0 {
				f.errors = 0.6
			} else {
				f.extraMS = 120
			}
			s := &shop{rng: rng, fault: f, demand: 60, split: 3, self: seed%2 == 0}
			r := analyze(t, s.input(50, 8, 0))
			all++
			if len(r.Services) > 0 && r.Services[0].Service == culprit && r.Services[0].Instance == instanceName(culprit, f.instance) && r.Class == rootcause.Restart {
				right++
			} else if testing.Verbose() {
				t.Logf("seed %d %+v: %s %+v", seed, f, r.Why, r.Services)
			}
		}
	}
	t.Logf("instance named in %d of %d", right, all)
	if right*20 < all*19 {
		t.Errorf("instance named in %d of %d, want at least 19 of 20", right, all)
	}
}

// A service that falls silent while its callers fail is to blame; one that is
// merely not called any more, or whose silence harms nobody, is not.
func TestSilentService(t *testing.T) {
	for seed := range uint64(10) {
		silent := func(culprit, gone string, metrics ...string) *rootcause.Report {
			s := &shop{rng: rand.New(rand.NewPCG(seed, 26)), fault: fault{service: culprit, errors: 1}, demand: 30}
			in := s.input(50, 8, 0)
			for _, m := range in.Metrics {
				if m.Service == gone && (len(metrics) == 0 || slices.Contains(metrics, m.Name)) {
					for i := 50; i < len(m.Values); i++ {
						m.Values[i] = math.NaN()
					}
				}
			}
			return analyze(t, in)
		}
		if r := silent("payment", "payment"); r.Services[0].Service != "payment" || !strings.Contains(r.Why, "payment reports nothing since 10:00:50") {
			t.Errorf("seed %d: payment is gone: %s", seed, r.Why)
		}
		if r := silent("checkout", "payment", "error_ratio", "latency_ms"); r.Services[0].Service != "checkout" {
			t.Errorf("seed %d: payment is not called: %s", seed, r.Why)
		}
		if r := silent("payment", "cart"); r.Services[0].Service != "payment" {
			t.Errorf("seed %d: cart is gone too: %s", seed, r.Why)
		}
		if r := silent("nobody", "cart"); len(r.Services) != 0 {
			t.Errorf("seed %d: cart is gone and nobody minds: %s", seed, r.Why)
		}
	}
}

// With nothing wrong, nothing is blamed.
func TestShopQuiet(t *testing.T) {
	named := 0
	for seed := range uint64(60) {
		s := &shop{rng: rand.New(rand.NewPCG(seed, 21)), demand: 30, self: seed%2 == 0}
		in := s.input(50, 6, 0)
		in.Changes = []rootcause.Change{{ID: "c1", Time: in.Onset.Add(-5 * time.Second), Services: []string{"cart"}, Fields: []string{"spec.image"}}}
		r := analyze(t, in)
		if len(r.Services) > 0 {
			named++
			t.Logf("seed %d: %q", seed, r.Services[0].Evidence)
		} else if r.Change != nil || r.Class != rootcause.Escalate {
			t.Errorf("seed %d: nothing is off, and yet %+v", seed, r)
		}
	}
	if named > 3 {
		t.Errorf("a cause is named in %d of 60 quiet runs", named)
	}
}

// release is a shop whose payment fails 4 rows after a release of it.
func release(seed uint64) rootcause.Input {
	s := &shop{rng: rand.New(rand.NewPCG(seed, 22)), fault: fault{service: "payment", errors: 0.4, extraMS: 40}, demand: 25, self: true}
	in := s.input(60, 8, 1)
	broke := t0.Add(60 * time.Second)
	in.Changes = []rootcause.Change{
		{ID: "late", Time: broke.Add(7 * time.Second), Services: []string{"payment"}, Summary: "After the fact", Fields: []string{"spec.image"}},
		{ID: "guilty", Time: broke.Add(-2 * time.Second), Services: []string{"payment"}, Summary: "Release payment v2", Fields: []string{"spec.template.spec.containers[0].image"}},
		{ID: "scaled", Time: broke.Add(-time.Second), Services: []string{"payment", "frontend"}, Summary: "Scale", Automatic: true, Fields: []string{"spec.replicas"}},
		{ID: "aside", Time: broke.Add(-3 * time.Second), Services: []string{"shipping"}, Summary: "Release shipping v5", Fields: []string{"spec.template.spec.containers[0].image"}},
		{ID: "old", Time: broke.Add(-3 * time.Hour), Services: []string{"payment"}, Summary: "Long ago", Fields: []string{"spec.image"}},
	}
	return in
}

func TestBlamesTheRelease(t *testing.T) {
	for seed := range uint64(20) {
		r := analyze(t, release(seed))
		if r.Services[0].Service != "payment" || r.Change == nil || r.Change.Change.ID != "guilty" || r.Class != rootcause.RollBack {
			t.Fatalf("seed %d: %+v", seed, r)
		}
		if got := r.Onset.Sub(t0); got < 58*time.Second || got > 62*time.Second {
			t.Errorf("seed %d: onset at %v, want 1m0s", seed, got)
		}
		if want := []string{"frontend", "checkout", "payment"}; !slices.Equal(r.Services[0].Path, want) {
			t.Errorf("path %v, want %v", r.Services[0].Path, want)
		}
		for _, c := range r.Changes {
			if c.Change.ID == "late" || c.Change.ID == "old" {
				t.Errorf("%s is a candidate", c.Change.ID)
			}
			if c.Confidence > 0.3 && c.Change.ID != "guilty" {
				t.Errorf("%s has confidence %.2f", c.Change.ID, c.Confidence)
			}
		}
		if !strings.Contains(r.Services[0].Evidence[0], "callers checkout, frontend follow") {
			t.Errorf("evidence %q", r.Services[0].Evidence)
		}
	}
}

func TestAbstainsWithoutAGuiltyChange(t *testing.T) {
	for _, keep := range []string{"scaled", "aside", "late", "old"} {
		for seed := range uint64(10) {
			in := release(seed)
			in.Changes = slices.DeleteFunc(in.Changes, func(c rootcause.Change) bool { return c.ID != keep })
			if r := analyze(t, in); r.Change != nil || r.Class != rootcause.Escalate {
				t.Errorf("%s: blamed in %s: %s", keep, r.Class, r.Why)
			}
		}
	}
}

// hand builds an input of 40 rows before the onset and 8 after it.
type hand struct {
	in  rootcause.Input
	rng *rand.Rand
}

func newHand(seed uint64) *hand {
	return &hand{rng: rand.New(rand.NewPCG(seed, 23)), in: rootcause.Input{Start: t0, Step: time.Second, Onset: t0.Add(40 * time.Second)}}
}

func (h *hand) add(service, instance, name string, before, after, noise float64) {
	v := make([]float64, 48)
	for i := range v {
		v[i] = before
		if i >= 40 {
			v[i] = after
		}
		v[i] += noise * h.rng.NormFloat64()
	}
	h.in.Metrics = append(h.in.Metrics, rootcause.Metric{Service: service, Instance: instance, Name: name, Values: v})
}

// A caller with a fixed number of workers queues when its callee gets slow,
// and its queue, which begins at nothing, deviates far more than the callee's
// latency does.
func TestWaitingCallerIsNoCause(t *testing.T) {
	for _, self := range []bool{true, false} {
		h := newHand(7)
		h.in.Graph = []rootcause.Edge{{Caller: "frontend", Callee: "catalogue"}}
		h.in.Target = anomaly.SeriesID{Service: "frontend", Metric: "latency_ms"}
		h.add("frontend", "", "latency_ms", 145, 430, 12)
		h.add("frontend", "", "queue", 0, 15, 0)
		h.add("frontend", "", "busy", 0.6, 1, 0.02)
		h.add("catalogue", "", "latency_ms", 100, 250, 8)
		h.add("catalogue", "", "queue", 0, 1, 0)
		if self {
			h.add("frontend", "", "self_ms", 30, 31, 2)
			h.add("catalogue", "", "self_ms", 60, 210, 4)
		}
		r := analyze(t, h.in)
		if len(r.Services) == 0 || r.Services[0].Service != "catalogue" {
			t.Errorf("self metrics %v: %+v, want catalogue first", self, r.Services)
		}
	}
}

func TestClasses(t *testing.T) {
	for _, tc := range []struct {
		name     string
		build    func(h *hand)
		service  string
		instance string
		class    rootcause.Class
	}{
		{"one instance of three", func(h *hand) {
			h.add("cart", "", "latency_ms", 10, 16, 1)
			for _, i := range []string{"cart-1", "cart-2", "cart-3"} {
				after := 10.0
				if i == "cart-2" {
					after = 300
				}
				h.add("cart", i, "latency_ms", 10, after, 1)
			}
		}, "cart", "cart-2", rootcause.Restart},
		{"all instances", func(h *hand) {
			for _, i := range []string{"cart-1", "cart-2", "cart-3"} {
				h.add("cart", i, "latency_ms", 10, 300, 1)
			}
		}, "cart", "", rootcause.Escalate},
		{"a sole instance leaks", func(h *hand) {
			h.add("cart", "cart-1", "memory_mb", 100, 400, 2)
		}, "cart", "cart-1", rootcause.Restart},
		{"a sole instance errs", func(h *hand) {
			h.add("cart", "cart-1", "error_ratio", 0, 0.4, 0)
		}, "cart", "", rootcause.Escalate},
		{"one instance while a change touched all", func(h *hand) {
			h.in.Changes = []rootcause.Change{{ID: "c", Time: h.in.Onset.Add(-time.Minute), Services: []string{"cart"}, Fields: []string{"spec.image"}}}
			h.add("cart", "cart-1", "memory_mb", 100, 400, 2)
			h.add("cart", "cart-2", "memory_mb", 100, 100, 2)
		}, "cart", "cart-1", rootcause.Restart},
		{"demand beyond capacity", func(h *hand) {
			h.add("cart", "", "request_rate", 100, 220, 4)
			h.add("cart", "", "queue", 1, 40, 0.5)
			h.add("cart", "", "latency_ms", 10, 80, 1)
		}, "cart", "", rootcause.ScaleUp},
		{"a caller breaks, its callee starves", func(h *hand) {
			h.in.Graph = []rootcause.Edge{{Caller: "checkout", Callee: "payment"}}
			h.add("checkout", "", "error_ratio", 0, 0.8, 0)
			h.add("checkout", "", "request_rate", 50, 50, 1)
			h.add("payment", "", "request_rate", 50, 8, 1)
			h.add("payment", "", "latency_ms", 10, 7, 0.3)
			h.add("payment", "", "error_ratio", 0, 0, 0)
		}, "checkout", "", rootcause.Escalate},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for seed := range uint64(10) {
				h := newHand(seed)
				tc.build(h)
				r := analyze(t, h.in)
				if len(r.Services) == 0 {
					t.Fatalf("seed %d: no cause", seed)
				}
				got := []string{r.Services[0].Service, r.Services[0].Instance, string(r.Class)}
				if diff := cmp.Diff([]string{tc.service, tc.instance, string(tc.class)}, got); diff != "" {
					t.Errorf("seed %d: service, instance, class (-want +got):\n%s%s", seed, diff, r.Why)
				}
			}
		})
	}
}

// shuffled is the same content in another order.
func shuffled(in rootcause.Input, rng *rand.Rand) rootcause.Input {
	in.Metrics = slices.Clone(in.Metrics)
	in.Graph = append(slices.Clone(in.Graph), in.Graph[:len(in.Graph)/2]...)
	in.Changes = slices.Clone(in.Changes)
	rng.Shuffle(len(in.Metrics), func(i, j int) { in.Metrics[i], in.Metrics[j] = in.Metrics[j], in.Metrics[i] })
	rng.Shuffle(len(in.Graph), func(i, j int) { in.Graph[i], in.Graph[j] = in.Graph[j], in.Graph[i] })
	rng.Shuffle(len(in.Changes), func(i, j int) { in.Changes[i], in.Changes[j] = in.Changes[j], in.Changes[i] })
	for i := range in.Changes {
		c := &in.Changes[i]
		c.Services = slices.Clone(c.Services)
		slices.Reverse(c.Services)
	}
	return in
}

func TestOrderDoesNotMatter(t *testing.T) {
	for seed := range uint64(10) {
		in := release(seed)
		want, _ := json.Marshal(analyze(t, in))
		for k := range uint64(10) {
			got, _ := json.Marshal(analyze(t, shuffled(in, rand.New(rand.NewPCG(seed, k)))))
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Fatalf("seed %d, order %d (-want +got):\n%s", seed, k, diff)
			}
		}
	}
}

func TestInputIsNotChanged(t *testing.T) {
	in, want := release(1), release(1)
	slices.SortFunc(in.Metrics, byID)
	slices.SortFunc(want.Metrics, byID)
	analyze(t, in)
	if diff := cmp.Diff(fmt.Sprint(want), fmt.Sprint(in)); diff != "" {
		t.Errorf("input changed (-want +got):\n%s", diff)
	}
}

func byID(a, b rootcause.Metric) int {
	return strings.Compare(a.Service+"|"+a.Name, b.Service+"|"+b.Name)
}

// Metrics that are constant, missing or nonsense win nothing, and a quiet
// stranger changes nothing about who is first.
func TestDegenerateMetricsNeverWin(t *testing.T) {
	in := release(3)
	n := len(in.Metrics[0].Values)
	fill := func(f func(i int) float64) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[i] = f(i)
		}
		return v
	}
	for name, v := range map[string][]float64{
		"constant": fill(func(int) float64 { return 7 }),
		"zero":     fill(func(int) float64 { return 0 }),
		"missing":  fill(func(int) float64 { return math.NaN() }),
		"infinite": fill(func(i int) float64 { return math.Inf(1 - 2*(i%2)) }),
		"vanishes": fill(func(i int) float64 {
			if i >= 60 {
				return math.NaN()
			}
			return 5
		}),
		"appears": fill(func(i int) float64 {
			if i < 60 {
				return math.NaN()
			}
			return 5e9
		}),
		"huge": fill(func(i int) float64 { return math.MaxFloat64 * float64(1-2*(i%2)) }),
		"dust": fill(func(i int) float64 {
			if i < 60 {
				return 0
			}
			return 1e-12
		}),
	} {
		odd := in
		odd.Metrics = append(slices.Clone(in.Metrics), rootcause.Metric{Service: "odd", Name: "something", Values: v})
		r := analyze(t, odd)
		if r.Services[0].Service != "payment" {
			t.Errorf("%s: first is %s: %q", name, r.Services[0].Service, r.Services[0].Evidence)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBadInput(t *testing.T) {
	good := func() rootcause.Input { return release(1) }
	for _, tc := range []struct {
		field string
		spoil func(in *rootcause.Input)
	}{
		{"Step", func(in *rootcause.Input) { in.Step = 0 }},
		{"Metrics[1]", func(in *rootcause.Input) { in.Metrics[1].Values = in.Metrics[1].Values[1:] }},
		{"Metrics[2]", func(in *rootcause.Input) { in.Metrics[2].Service = "" }},
		{"twice", func(in *rootcause.Input) { in.Metrics[2] = in.Metrics[3] }},
		{"Graph[0]", func(in *rootcause.Input) { in.Graph[0].Callee = "" }},
		{"Target.Service", func(in *rootcause.Input) { in.Target = anomaly.SeriesID{Service: "nobody"} }},
		{"Onset", func(in *rootcause.Input) { in.Onset = in.Start.Add(-time.Second) }},
		{"Onset", func(in *rootcause.Input) { in.Onset = in.Start.Add(time.Hour) }},
		{"Changes[0]", func(in *rootcause.Input) { in.Changes[0].ID = "" }},
	} {
		in := good()
		tc.spoil(&in)
		_, err := rootcause.Analyzer{}.Analyze(context.Background(), in)
		if !errors.Is(err, rootcause.ErrInput) || !strings.Contains(err.Error(), tc.field) {
			t.Errorf("%s: %v", tc.field, err)
		}
	}
	for _, o := range []rootcause.Options{{MinScore: -1}, {MinScore: math.NaN()}, {ChangeWindow: -1}, {MinConfidence: 2}, {MaxMetrics: -1}} {
		if _, err := (rootcause.Analyzer{Options: o}).Analyze(context.Background(), good()); !errors.Is(err, rootcause.ErrInput) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := (rootcause.Analyzer{}).Analyze(ctx, good()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestTooLittleData(t *testing.T) {
	for rows := range 12 {
		for onset := range rows + 1 {
			in := rootcause.Input{Start: t0, Step: time.Second, Metrics: []rootcause.Metric{{Service: "a", Name: "latency_ms", Values: make([]float64, rows)}}}
			if onset < rows {
				in.Onset = t0.Add(time.Duration(onset) * time.Second)
			}
			if r := analyze(t, in); len(r.Services) != 0 || r.Class != rootcause.Escalate || r.Why == "" {
				t.Errorf("%d rows: %+v", rows, r)
			}
		}
	}
	if r := analyze(t, rootcause.Input{Step: 1}); len(r.Services) != 0 {
		t.Errorf("empty input: %+v", r)
	}
}

// Any input gives a report or an ErrInput, never a panic; confidences are
// shares, and the report can be written as JSON.
func FuzzAnalyze(f *testing.F) {
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz"), uint16(20), uint8(3))
	f.Add([]byte{0, 255, 0, 255, 1, 2, 3, 250, 251, 252}, uint16(5), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, onset uint16, width uint8) {
		n := int(width%6) + 1
		rows := len(b) / n
		in := rootcause.Input{Start: t0, Step: time.Second, Onset: t0.Add(time.Duration(onset) * time.Second), Target: anomaly.SeriesID{Service: "s0"}}
		odd := []float64{0, math.NaN(), math.Inf(1), math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64}
		names := []string{"error_ratio", "latency_ms", "request_rate", "memory_mb", "x", "self_ms"}
		for i := range n {
			m := rootcause.Metric{Service: fmt.Sprintf("s%d", i/2), Name: names[i], Values: make([]float64, rows)}
			for r := range rows {
				v := b[i*rows+r]
				m.Values[r] = float64(v)
				if int(v) < len(odd) {
					m.Values[r] = odd[v]
				}
			}
			in.Metrics = append(in.Metrics, m)
			in.Graph = append(in.Graph, rootcause.Edge{Caller: fmt.Sprintf("s%d", i), Callee: fmt.Sprintf("s%d", (i+int(width/6))%n)})
		}
		in.Changes = []rootcause.Change{{ID: "c", Time: in.Onset.Add(-time.Duration(width) * time.Second), Services: []string{"s0", "s9"}}}
		r, err := rootcause.Analyzer{}.Analyze(context.Background(), in)
		if err != nil {
			if !errors.Is(err, rootcause.ErrInput) {
				t.Fatal(err)
			}
			return
		}
		sum := 0.0
		for _, v := range r.Services {
			if !(v.Confidence >= 0 && v.Confidence <= 1) || math.IsNaN(v.Score) {
				t.Fatalf("%+v", v)
			}
			sum += v.Confidence
		}
		if sum > 1+1e-9 {
			t.Fatalf("confidences sum to %v", sum)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Fatal(err)
		}
	})
}

// wide is an input of 1,000 metrics, 420 rows, 100 services in a tree.
func wide() rootcause.Input {
	rng := rand.New(rand.NewPCG(1, 24))
	in := rootcause.Input{Start: t0, Step: time.Second, Onset: t0.Add(360 * time.Second), Target: anomaly.SeriesID{Service: "s000"}}
	names := []string{"error_ratio", "latency_ms", "request_rate", "memory_mb", "busy", "queue", "cpu", "self_ms", "a", "b"}
	for s := range 100 {
		service := fmt.Sprintf("s%03d", s)
		if s > 0 {
			in.Graph = append(in.Graph, rootcause.Edge{Caller: fmt.Sprintf("s%03d", (s-1)/3), Callee: service})
		}
		for _, n := range names {
			v := make([]float64, 420)
			for i := range v {
				v[i] = 10 + rng.NormFloat64()
				if s == 77 && i >= 360 && n == "latency_ms" {
					v[i] += 30
				}
			}
			in.Metrics = append(in.Metrics, rootcause.Metric{Service: service, Name: n, Values: v})
		}
	}
	return in
}

func BenchmarkAnalyze1000x420(b *testing.B) {
	in := wide()
	b.ReportAllocs()
	for b.Loop() {
		r := analyze(b, in)
		if r.Services[0].Service != "s077" {
			b.Fatalf("first is %s", r.Services[0].Service)
		}
	}
}
