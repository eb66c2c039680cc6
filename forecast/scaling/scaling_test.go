package scaling

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel-go/evenkeel/forecast"
)

var nan = math.NaN()

func minutes(n int) time.Duration { return time.Duration(n) * time.Minute }

func newQuantile(t testing.TB, opts QuantileOptions) *Quantile {
	t.Helper()
	if opts.LeadTime == 0 {
		opts.LeadTime = minutes(4)
	}
	if opts.Capacity == 0 {
		opts.Capacity = 10
	}
	if opts.Max == 0 {
		opts.Max = 20
	}
	if opts.Model == nil {
		opts.Model = forecast.Profile{Period: 24}
	}
	p, err := NewQuantile(opts)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newHPA(t testing.TB, opts HPAOptions) *HPA {
	t.Helper()
	if opts.Capacity == 0 {
		opts.Capacity = 10
	}
	if opts.Max == 0 {
		opts.Max = 100
	}
	p, err := NewHPA(opts)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func decide(t testing.TB, p Policy, in Input) Decision {
	t.Helper()
	d, err := p.Decide(in)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// history is demand by the minute from t0 on.
func history(values ...float64) forecast.Series {
	return forecast.Series{Name: "shop", Start: t0, Step: time.Minute, Values: values}
}

// at is the input at the end of a history.
func at(h forecast.Series, replicas, ready int) Input {
	return Input{Now: h.End(), History: h, Replicas: replicas, Ready: ready}
}

// constant demand without noise leaves no doubt, so the numbers are exact.
func constant(v float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func TestQuantileDecisions(t *testing.T) {
	naive := forecast.SeasonalNaive{}
	for _, tt := range []struct {
		name  string
		opts  QuantileOptions
		in    Input
		want  int
		bound Bound
		says  string
	}{
		{"what the forecast needs", QuantileOptions{Model: naive}, at(history(constant(40, 20)...), 5, 5), 5, ByForecast, "no more than 40"},
		{"at another target", QuantileOptions{Model: naive, Target: 1}, at(history(constant(40, 20)...), 4, 4), 4, ByForecast, "10 a replica"},
		{"scales up", QuantileOptions{Model: naive}, at(history(constant(80, 20)...), 5, 5), 10, ByForecast, ""},
		{"what runs at the start is held", QuantileOptions{Model: naive}, at(history(constant(8, 20)...), 5, 5), 5, ByHold, "1 would do"},
		{"without a hold", QuantileOptions{Model: naive, Hold: -1}, at(history(constant(8, 20)...), 5, 5), 1, ByForecast, ""},
		{"min", QuantileOptions{Model: naive, Hold: -1, Min: 3}, at(history(constant(8, 20)...), 5, 5), 3, ByMin, "never below 3"},
		{"none needed", QuantileOptions{Model: naive, Hold: -1}, at(history(constant(0, 20)...), 1, 1), 0, ByForecast, ""},
		{"max", QuantileOptions{Model: naive}, at(history(constant(1e300, 20)...), 5, 5), 20, ByMax, "never above 20"},
		{"step up", QuantileOptions{Model: naive, MaxStep: 2}, at(history(constant(80, 20)...), 5, 5), 7, ByStep, "wants 10"},
		{"step down", QuantileOptions{Model: naive, MaxStep: 2, Hold: -1}, at(history(constant(8, 20)...), 5, 5), 3, ByStep, "down by at most 2"},
		{"max is above the step", QuantileOptions{Model: naive, MaxStep: 2}, at(history(constant(80, 20)...), 30, 30), 20, ByMax, ""},
		{"no history", QuantileOptions{}, Input{Now: t0, Replicas: 5, Ready: 5}, 5, ByFallback, "no demand has been seen"},
		{"nothing but gaps", QuantileOptions{}, at(history(nan, nan), 5, 5), 5, ByFallback, "no demand has been seen"},
		{"no history, below min", QuantileOptions{Min: 2}, Input{Now: t0}, 2, ByMin, ""},
		{"one gap is bridged", QuantileOptions{Model: naive, Hold: -1}, at(history(append(constant(8, 20), nan)...), 5, 5), 1, ByForecast, ""},
		{"stale, nothing shrinks", QuantileOptions{Model: naive, Hold: -1}, at(history(append(constant(8, 20), nan, nan, nan, nan)...), 5, 5), 5, ByFallback, "4m0s old"},
		{"stale, but the forecast asks for more", QuantileOptions{Model: naive}, at(history(append(constant(80, 20), nan, nan, nan, nan)...), 5, 5), 10, ByFallback, "takes more"},
		{"infinite is missing", QuantileOptions{Model: naive}, at(history(append(constant(40, 20), math.Inf(1))...), 5, 5), 5, ByForecast, ""},
		{"negative is none", QuantileOptions{Model: naive, Hold: -1}, at(history(constant(-8, 20)...), 1, 1), 0, ByForecast, ""},
		{"the present minute is not over", QuantileOptions{Model: naive}, Input{Now: t0.Add(minutes(20)), History: history(append(constant(40, 20), 900)...), Replicas: 5, Ready: 5}, 5, ByForecast, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := decide(t, newQuantile(t, tt.opts), tt.in)
			if d.Replicas != tt.want || d.Bound != tt.bound || !strings.Contains(d.Reason, tt.says) {
				t.Errorf("%v, want %d by %s saying %q", d, tt.want, tt.bound, tt.says)
			}
		})
	}
}

// A jump that the model did not foresee is carried from the next decision on.
func TestQuantileFollowsPresentDemand(t *testing.T) {
	p := newQuantile(t, QuantileOptions{Model: forecast.ETS{Alpha: 0.01}})
	h := history(append(constant(40, 30), 120)...)
	d := decide(t, p, at(h, 5, 5))
	if d.Replicas != 15 || d.Bound != ByDemand || d.Demand != 120 {
		t.Errorf("%+v", d)
	}
}

func TestQuantileHold(t *testing.T) {
	p := newQuantile(t, QuantileOptions{Model: forecast.SeasonalNaive{}, Hold: minutes(15)})
	values := constant(80, 10)
	replicas := 10
	for i := range 40 {
		d := decide(t, p, at(history(values...), replicas, replicas))
		// The needs of 10 replicas end with the tenth value; the naive
		// forecast's interval is widened by the fall itself, so only bounds hold.
		if d.Replicas < replicas && i < 15 {
			t.Fatalf("after %d minutes: %v", i, d)
		}
		replicas = d.Replicas
		values = append(values, 8)
	}
	if replicas > 3 {
		t.Errorf("%d replicas after the lull", replicas)
	}
}

func TestQuantileExplains(t *testing.T) {
	s := demand(1, 48, 0.03, 1, 1, 1)
	h := s.Slice(0, 2*48+16) // at 8:00, half an hour before the surge
	p := newQuantile(t, QuantileOptions{LeadTime: time.Hour, Max: 100, Model: forecast.Profile{Period: 48}})
	d := decide(t, p, at(h, 6, 6))
	if d.Bound != ByForecast || d.Level != 0.95 || d.Horizon != 90*time.Minute || d.Model != "Profile[48]" {
		t.Errorf("%+v", d)
	}
	if want := h.End().Add(time.Hour); d.Peak.Before(want) || d.Peak.After(want.Add(30*time.Minute)) {
		t.Errorf("peak at %v", d.Peak)
	}
	if s := d.String(); !strings.HasPrefix(s, "08:00 ") || !strings.Contains(s, "replicas (Forecast): Profile[48] is 95 % sure") {
		t.Errorf("%s", s)
	}
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var back Decision
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, back); diff != "" {
		t.Error(diff)
	}
}

// What the model learned does not depend on how much of the past is shown.
func TestQuantileMovingWindow(t *testing.T) {
	s := demand(2, 48, 0.05, 1, 1, 1)
	whole := newQuantile(t, QuantileOptions{Max: 100, Model: forecast.Profile{Period: 48}, RefitEvery: -1})
	moving := newQuantile(t, QuantileOptions{Max: 100, Model: forecast.Profile{Period: 48}, RefitEvery: -1})
	for i := 1; i <= s.Len(); i++ {
		a := decide(t, whole, at(s.Slice(0, i), 5, 5))
		b := decide(t, moving, at(s.Slice(max(0, i-6), i), 5, 5))
		if d := cmp.Diff(a, b); d != "" {
			t.Fatalf("value %d: %s", i, d)
		}
	}
}

func TestQuantileRestarts(t *testing.T) {
	p := newQuantile(t, QuantileOptions{Model: forecast.SeasonalNaive{}, Hold: -1})
	decide(t, p, at(history(constant(80, 20)...), 5, 5))
	// Another grid: what was learned on the old one is dropped.
	h := forecast.Series{Start: t0, Step: 5 * time.Minute, Values: constant(16, 10)}
	if d := decide(t, p, at(h, 5, 5)); d.Replicas != 2 {
		t.Errorf("%v", d)
	}
	// A gap of an hour is bridged, and what follows is learned.
	h.Start, h.Values = t0.Add(110*time.Minute), constant(32, 4)
	if d := decide(t, p, at(h, 5, 5)); d.Replicas < 4 {
		t.Errorf("%v", d)
	}
}

// The examples of the Kubernetes documentation (Horizontal Pod Autoscaling,
// algorithm details) and of the controller's own tests (TestReplicaCalc…),
// with utilisations of the ready pods summed up into demand.
func TestHPADocumentedCases(t *testing.T) {
	for _, tt := range []struct {
		name            string
		target          float64
		replicas, ready int
		demand          float64
		want            int
		bound           Bound
	}{
		{"200m where 100m is wanted doubles", 0.1, 3, 3, 3 * 0.2, 6, ByDemand},
		{"50m where 100m is wanted halves", 0.1, 4, 4, 4 * 0.05, 2, ByDemand},
		{"ScaleUp", 0.3, 3, 3, 0.3 + 0.5 + 0.7, 5, ByDemand},
		{"ScaleDown", 0.5, 5, 5, 0.1 + 0.3 + 0.5 + 0.25 + 0.25, 3, ByDemand},
		{"ScaleUpUnreadyLessScale", 0.3, 3, 2, 0.5 + 0.7, 4, ByDemand},
		{"ScaleUpUnreadyNoScale", 0.4, 3, 1, 0.4, 3, ByTolerance},
		{"Tolerance", 1, 3, 3, 1.01 + 1.03 + 1.02, 3, ByTolerance},
		{"just within tolerance", 0.5, 10, 10, 5.49, 10, ByTolerance},
		{"just past tolerance", 0.5, 10, 10, 5.6, 12, ByDemand},
		{"no pod ready", 0.5, 3, 0, 3, 3, ByFallback},
		{"4 pods more", 0.5, 2, 2, 20, 6, ByStep},
		{"or twice as many", 0.5, 10, 10, 40, 20, ByStep},
		{"max", 0.5, 60, 60, 600, 100, ByMax},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newHPA(t, HPAOptions{Capacity: 1, Target: tt.target, Stabilization: -1})
			d := decide(t, p, at(history(tt.demand), tt.replicas, tt.ready))
			if d.Replicas != tt.want || d.Bound != tt.bound {
				t.Errorf("%v, want %d by %s", d, tt.want, tt.bound)
			}
		})
	}
}

// "The HPA controller will look at the highest recommendation of the last 300
// seconds": scale-down waits five minutes, and then takes the highest of them.
func TestHPAStabilization(t *testing.T) {
	p := newHPA(t, HPAOptions{})
	values, replicas := []float64{80}, 10
	var got []int
	for range 9 {
		d := decide(t, p, at(history(values...), replicas, replicas))
		replicas = d.Replicas
		got = append(got, replicas)
		// One minute of a little more in between.
		if v := 8.0; len(values) == 3 {
			values = append(values, 40)
		} else {
			values = append(values, v)
		}
	}
	if d := cmp.Diff([]int{10, 10, 10, 10, 10, 10, 5, 5, 5}, got); d != "" {
		t.Error(d)
	}
}

// Scale-ups within one period count against its limit together.
func TestHPAScaleUpPeriod(t *testing.T) {
	p := newHPA(t, HPAOptions{})
	h := history(900)
	in := at(h, 5, 5)
	var got []int
	for range 6 {
		d := decide(t, p, in)
		got = append(got, d.Replicas)
		in.Replicas, in.Ready = d.Replicas, d.Replicas
		in.Now = in.Now.Add(5 * time.Second)
	}
	if d := cmp.Diff([]int{10, 10, 10, 20, 20, 20}, got); d != "" {
		t.Error(d)
	}
}

func TestHPAMissing(t *testing.T) {
	p := newHPA(t, HPAOptions{})
	for _, in := range []Input{
		{Now: t0, Replicas: 5, Ready: 5},
		at(history(8, nan, nan, nan, nan), 5, 5),
		at(history(8, nan, nan, nan, nan, nan), 5, 5),
	} {
		if d := decide(t, p, in); d.Replicas != 5 || d.Bound != ByFallback {
			t.Errorf("%v", d)
		}
	}
}

func TestSettings(t *testing.T) {
	good := QuantileOptions{LeadTime: time.Minute, Capacity: 1, Max: 2}
	for name, spoil := range map[string]func(*QuantileOptions){
		"lead time": func(o *QuantileOptions) { o.LeadTime = 0 },
		"capacity":  func(o *QuantileOptions) { o.Capacity = nan },
		"target":    func(o *QuantileOptions) { o.Target = 1.5 },
		"level":     func(o *QuantileOptions) { o.Level = 1 },
		"min":       func(o *QuantileOptions) { o.Min = 3 },
		"max":       func(o *QuantileOptions) { o.Max = 0 },
		"stale":     func(o *QuantileOptions) { o.Stale = -1 },
		"max step":  func(o *QuantileOptions) { o.MaxStep = -1 },
	} {
		opts := good
		spoil(&opts)
		if _, err := NewQuantile(opts); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	for name, opts := range map[string]HPAOptions{
		"capacity":  {Max: 1},
		"target":    {Max: 1, Capacity: 1, Target: -1},
		"max":       {Capacity: 1},
		"min":       {Capacity: 1, Max: 1, Min: 2},
		"tolerance": {Capacity: 1, Max: 1, Tolerance: nan},
		"pods":      {Capacity: 1, Max: 1, UpPods: -1},
		"scale-up":  {Capacity: 1, Max: 1, UpPercent: -1},
		"period":    {Capacity: 1, Max: 1, UpPeriod: -1},
	} {
		if _, err := NewHPA(opts); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestBadInputHolds(t *testing.T) {
	good := at(history(40, 40), 5, 5)
	for name, spoil := range map[string]func(*Input){
		"replicas": func(in *Input) { in.Replicas = -1 },
		"ready":    func(in *Input) { in.Ready = -1 },
		"step":     func(in *Input) { in.History.Step = 0 },
		"not set":  func(in *Input) { in.Now = time.Time{} },
		"before":   func(in *Input) { in.Now = in.Now.Add(-time.Hour) },
	} {
		for _, p := range []Policy{newQuantile(t, QuantileOptions{Min: 2}), newHPA(t, HPAOptions{Min: 2})} {
			in := good
			decide(t, p, in)
			spoil(&in)
			d, err := p.Decide(in)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: error %v", name, err)
			}
			if want := max(in.Replicas, 2); d.Replicas != want || d.Bound != ByFallback {
				t.Errorf("%s: %v", name, d)
			}
		}
	}
	// A model that cannot be: the policy holds, and says so each time.
	p := newQuantile(t, QuantileOptions{Model: forecast.Profile{Period: 1}})
	if d, err := p.Decide(good); !errors.Is(err, forecast.ErrInvalid) || d.Replicas != 5 {
		t.Errorf("%v, error %v", d, err)
	}
}

// play makes a policy decide on a made-up run: each byte is one decision.
func play(t testing.TB, p Policy, low, high int, script []byte) []Decision {
	t.Helper()
	h := history()
	in := Input{Now: t0, Replicas: 3, Ready: 2}
	var all []Decision
	for len(script) >= 3 {
		a, b, c := script[0], script[1], script[2]
		script = script[3:]
		for range a % 4 {
			v := float64(b) * float64(c)
			switch b % 16 {
			case 1:
				v = nan
			case 2:
				v = math.Inf(1)
			case 3:
				v = -v
			case 4:
				v = math.Ldexp(v, 900)
			}
			h.Values = append(h.Values, v)
		}
		in.History = h
		switch a / 4 % 8 {
		case 1:
			in.History = h.Slice(h.Len()/2, h.Len())
		case 2:
			in.History.Step = time.Duration(c) * time.Second
		case 3:
			in.History = forecast.Series{}
		case 4:
			in.Replicas = int(b)
		case 5:
			in.History.Start = h.Start.Add(time.Duration(int(c)-100) * 17 * time.Second)
		}
		in.Now = in.Now.Add(time.Duration(int(a)*int(b)-2) * time.Second)
		in.Ready = min(in.Ready+1, in.Replicas)
		d, err := p.Decide(in)
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatal(err)
		}
		if d.Replicas < low || d.Replicas > high {
			t.Fatalf("%v is not in %d…%d", d, low, high)
		}
		if d.Reason == "" || d.Bound == "" || math.IsNaN(d.Demand) || math.IsInf(d.Demand, 0) {
			t.Fatalf("%+v", d)
		}
		if _, err := json.Marshal(d); err != nil {
			t.Fatal(err)
		}
		in.Replicas = d.Replicas
		all = append(all, d)
	}
	return all
}

// Limits always hold, and a run replayed gives the same decisions.
func FuzzDecide(f *testing.F) {
	f.Add([]byte("the quick brown fox jumps over the lazy dog, again and again"))
	var seed []byte
	for i := range 60 {
		seed = binary.LittleEndian.AppendUint32(seed, uint32(i*2654435761))
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, script []byte) {
		script = script[:min(len(script), 600)]
		for _, m := range []forecast.Model{nil, forecast.Profile{Period: 6}, forecast.ETS{Trend: forecast.DampedTrend}} {
			opts := QuantileOptions{LeadTime: minutes(3), Capacity: 10, Min: 1, Max: 12, MaxStep: 3, Model: m}
			if m == nil {
				opts.Model = forecast.SeasonalNaive{Period: 5}
			}
			one, two := play(t, newQuantile(t, opts), 1, 12, script), play(t, newQuantile(t, opts), 1, 12, script)
			if d := cmp.Diff(one, two); d != "" {
				t.Fatal(d)
			}
		}
		opts := HPAOptions{Min: 2, Max: 9}
		if d := cmp.Diff(play(t, newHPA(t, opts), 2, 9, script), play(t, newHPA(t, opts), 2, 9, script)); d != "" {
			t.Fatal(d)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	s := demand(1, 288, 0.05, 1, 1, 1, 1, 1, 1, 1)
	quantile := newQuantile(b, QuantileOptions{Max: 100, Model: forecast.Profile{Period: 288}})
	for _, bench := range []struct {
		name string
		p    Policy
	}{{"Quantile", quantile}, {"HPA", newHPA(b, HPAOptions{})}} {
		b.Run(bench.name, func(b *testing.B) {
			h := s.Slice(0, 288)
			h.Values = append([]float64(nil), h.Values...)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				// A window of one day that moves.
				h.Start = h.Start.Add(h.Step)
				h.Values = append(h.Values[1:], s.Values[i%s.Len()])
				decide(b, bench.p, at(h, 5, 5))
			}
		})
	}
}
