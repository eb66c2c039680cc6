package forecast

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// every model of the package, with a season of m steps.
func models(m int) []Model {
	return []Model{
		SeasonalNaive{},
		SeasonalNaive{Period: m},
		ETS{},
		ETS{Trend: AdditiveTrend},
		ETS{Trend: DampedTrend},
		ETS{Season: AdditiveSeason, Period: m},
		ETS{Trend: DampedTrend, Season: AdditiveSeason, Period: m},
		ETS{Trend: AdditiveTrend, Season: MultiplicativeSeason, Period: m},
		ETS{Trend: DampedTrend, Season: MultiplicativeSeason, Period: m},
		Profile{Period: m},
		Profile{Period: m, Additive: true},
	}
}

// checkForecast is what holds for every forecast.
func checkForecast(t testing.TB, f *Forecast, horizon int, opts Options) {
	t.Helper()
	fine := func(x float64) bool {
		return !math.IsNaN(x) && !math.IsInf(x, 0) && (!opts.NonNegative || x >= 0) && (opts.Cap == 0 || x <= opts.Cap)
	}
	if len(f.Mean) != horizon || len(f.Quantiles) != len(opts.Levels) || len(f.Levels) != len(opts.Levels) {
		t.Fatalf("%s: %d steps, %d quantiles", f.Model, len(f.Mean), len(f.Quantiles))
	}
	for h, v := range f.Mean {
		if !fine(v) {
			t.Fatalf("%s: mean %d is %v", f.Model, h, v)
		}
		for i := range f.Quantiles {
			q := f.Quantiles[i][h]
			if !fine(q) {
				t.Fatalf("%s: quantile %v of step %d is %v", f.Model, opts.Levels[i], h, q)
			}
			if i > 0 && q < f.Quantiles[i-1][h] {
				t.Fatalf("%s: quantiles cross at step %d: %v, %v", f.Model, h, f.Quantiles[i-1][h], q)
			}
		}
	}
	if f.Model == "" {
		t.Fatal("no model named")
	}
}

var awkward = map[string][]float64{
	"one value":        {3},
	"one zero":         {0},
	"two values":       {3, 4},
	"three values":     {3, nan, 4},
	"constant":         {7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7},
	"zeros":            make([]float64, 30),
	"mostly zeros":     {0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0},
	"huge":             {1e300, 2e300, 1.5e300, 1e300, 2e300, 1.4e300, 1e300, 2e300, 1.5e300, 1e300, 2e300, 1.6e300},
	"largest":          {math.MaxFloat64, -math.MaxFloat64, math.MaxFloat64, -math.MaxFloat64, math.MaxFloat64, -math.MaxFloat64, 1, 2, 3},
	"tiny":             {1e-300, 2e-300, 1.5e-300, 1e-300, 2e-300, 1.4e-300, 1e-300, 2e-300, 1.5e-300, 1e-300, 2e-300},
	"smallest":         {5e-324, 0, 5e-324, 5e-324, 0, 5e-324, 5e-324, 5e-324, 0},
	"from tiny to big": {1e-300, 1e-300, 1e-300, 1e-300, 1, 1e300, 1e300, 1e-300, 1e300, 1, 1, 1, 1},
	"negative":         {-5, -3, -4, -5, -3, -4, -5, -3, -4, -5, -3, -4, -2},
	"gaps":             {nan, nan, 3, nan, 5, nan, nan, 4, nan, 6, 7, nan, 3, 2, 4, nan, nan, nan},
	"jump":             {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1e9, 1e9, 1e9, 1e9, 1e9},
}

func TestForecastsAreFinite(t *testing.T) {
	opts := []Options{
		{},
		{Levels: []float64{1e-300, 0.01, 0.5, 0.99, 1 - 1e-16}},
		{Levels: []float64{0.1, 0.9}, NonNegative: true},
		{Levels: []float64{0.1, 0.9}, NonNegative: true, Cap: 4},
	}
	for name, values := range awkward {
		for _, m := range models(4) {
			f, err := m.Fit(ctx, Series{Name: name, Step: time.Minute, Values: values})
			if err != nil {
				t.Fatalf("%s, %s: %v", name, m.Name(), err)
			}
			// The values once more by update, with what no series may hold.
			for _, y := range append([]float64{math.Inf(1), math.Inf(-1)}, append(values, 1e300, -1e300, nan)...) {
				for _, o := range opts {
					var dst Forecast
					if err := f.Forecast(&dst, 9, o); err != nil {
						t.Fatal(err)
					}
					checkForecast(t, &dst, 9, o)
				}
				f.Update(y)
			}
		}
	}
}

func FuzzForecast(f *testing.F) {
	for _, values := range awkward {
		var b []byte
		for _, v := range values {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}
		f.Add(b, uint8(4), uint8(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, period, split uint8) {
		var values []float64
		for ; len(b) >= 8 && len(values) < 200; b = b[8:] {
			v := math.Float64frombits(binary.LittleEndian.Uint64(b))
			if math.IsInf(v, 0) {
				v = nan
			}
			values = append(values, v)
		}
		cut := min(int(split), len(values))
		opts := Options{Levels: []float64{0.01, 0.5, 0.999}}
		for _, m := range models(2 + int(period)%30) {
			fitted, err := m.Fit(ctx, Series{Step: time.Second, Values: values[:cut]})
			if errors.Is(err, ErrTooShort) && observed(values[:cut]) == 0 {
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v", m.Name(), err)
			}
			for _, y := range values[cut:] {
				fitted.Update(y)
			}
			var dst Forecast
			if err := fitted.Forecast(&dst, 40, opts); err != nil {
				t.Fatal(err)
			}
			checkForecast(t, &dst, 40, opts)
		}
	})
}

func TestUpdateAndForecastDoNotAllocate(t *testing.T) {
	s := demand(1, 48, 0.1, 1, 1, 1)
	opts := Options{Levels: []float64{0.05, 0.5, 0.95}, NonNegative: true}
	for _, m := range models(48) {
		f := mustFit(t, m, s)
		i := 0
		if n := testing.AllocsPerRun(500, func() { f.Update(s.Values[i%s.Len()]); i++ }); n > 0 {
			t.Errorf("%s: Update allocates %v times", m.Name(), n)
		}
		var dst Forecast
		if n := testing.AllocsPerRun(20, func() {
			if err := f.Forecast(&dst, 96, opts); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%s: Forecast allocates %v times", m.Name(), n)
		}
	}
	// The first day live, too.
	f := mustFit(t, Profile{Period: 48}, s.Slice(0, 1))
	i := 0
	if n := testing.AllocsPerRun(100, func() { i++; f.Update(s.Values[i]) }); n > 0 {
		t.Errorf("learning the first season: Update allocates %v times", n)
	}
}

// The same series gives the same bits; and for the models that need no search,
// fitting a series is fitting its beginning and updating with the rest.
func TestForecastsAreReproducible(t *testing.T) {
	s := demand(5, 48, 0.1, 1, 1.2, 0.9, 1)
	for i := 20; i < 150; i += 13 {
		s.Values[i] = nan
	}
	levels := []float64{0.05, 0.5, 0.95}
	for _, m := range models(48) {
		one, two := mustForecast(t, mustFit(t, m, s), 60, levels...), mustForecast(t, mustFit(t, m, s), 60, levels...)
		if d := cmp.Diff(one, two); d != "" {
			t.Errorf("%s: two runs differ: %s", m.Name(), d)
		}
		if _, searched := m.(ETS); searched {
			continue
		}
		for _, cut := range []int{1, 30, 48, 100, 191} {
			f := mustFit(t, m, s.Slice(0, cut))
			for _, y := range s.Values[cut:] {
				f.Update(y)
			}
			if d := cmp.Diff(one, mustForecast(t, f, 60, levels...)); d != "" {
				t.Errorf("%s: updating from %d differs: %s", m.Name(), cut, d)
			}
		}
	}
}

// Units do not matter: a series times a power of four gives the forecast times it.
func TestForecastsScale(t *testing.T) {
	s := demand(5, 24, 0.1, 1, 1.2, 0.9, 1)
	big := s
	big.Values = nil
	for _, v := range s.Values {
		big.Values = append(big.Values, math.Ldexp(v, 400))
	}
	for _, m := range models(24) {
		want, got := mustForecast(t, mustFit(t, m, s), 30, 0.1, 0.9), mustForecast(t, mustFit(t, m, big), 30, 0.1, 0.9)
		for h := range want.Mean {
			if math.Ldexp(want.Mean[h], 400) != got.Mean[h] || math.Ldexp(want.Quantiles[1][h], 400) != got.Quantiles[1][h] {
				t.Fatalf("%s: step %d: %v and %v", m.Name(), h, want.Mean[h], got.Mean[h])
			}
		}
	}
}

func TestForecastTimes(t *testing.T) {
	s := demand(5, 24, 0.1, 1)
	f := mustFit(t, SeasonalNaive{Period: 24}, s)
	f.Update(1)
	if got, want := mustForecast(t, f, 1).Start, s.End().Add(s.Step); !got.Equal(want) {
		t.Errorf("starts %v, want %v", got, want)
	}
}

func TestSeasonalNaive(t *testing.T) {
	s := Series{Step: time.Hour, Values: []float64{1, 2, 3, 4, nan, 6}}
	got := mustForecast(t, mustFit(t, SeasonalNaive{Period: 3}, s), 5)
	if d := cmp.Diff([]float64{4, 2, 6, 4, 2}, got.Mean); d != "" {
		t.Error(d)
	}
	got = mustForecast(t, mustFit(t, SeasonalNaive{Period: 4}, s.Slice(0, 3)), 3)
	if d := cmp.Diff([]float64{3, 3, 3}, got.Mean); d != "" {
		t.Error(d)
	}
	if got.Model != "Naive" || len(got.Fallbacks) != 1 {
		t.Errorf("%s, fallbacks %v", got.Model, got.Fallbacks)
	}
	// Intervals widen with the root of the number of seasons.
	long := mustForecast(t, mustFit(t, SeasonalNaive{Period: 24}, demand(1, 24, 0.1, 1, 1, 1, 1)), 96, 0.9)
	first, fourth := long.Quantiles[0][5]-long.Mean[5], long.Quantiles[0][77]-long.Mean[77]
	if math.Abs(fourth-2*first) > 1e-9 {
		t.Errorf("widths %v, %v", first, fourth)
	}
}

// Holt's linear method by hand: alpha 0.5, beta 0.25, from the regression line.
func TestETSByHand(t *testing.T) {
	s := Series{Step: time.Hour, Values: []float64{10, 12, 14, 16, 20}}
	m := ETS{Trend: AdditiveTrend, Alpha: 0.5, Beta: 0.25}
	// The line through the values is 9.6 + 2.4 t: level 7.2 before the first.
	level, trend := 9.6-2.4, 2.4
	for _, y := range s.Values {
		e := y - level - trend
		level, trend = level+trend+0.5*e, trend+0.25*e
	}
	got := mustForecast(t, mustFit(t, m, s), 3)
	for h, v := range got.Mean {
		if want := level + float64(h+1)*trend; math.Abs(v-want) > 1e-12 {
			t.Errorf("step %d: %v, want %v", h+1, v, want)
		}
	}
	// Simple smoothing, where a missing value leaves the level.
	s = Series{Step: time.Hour, Values: []float64{10, 12, nan, 11}}
	got = mustForecast(t, mustFit(t, ETS{Alpha: 0.5}, s), 2)
	if d := cmp.Diff([]float64{11, 11}, got.Mean); d != "" {
		t.Error(d)
	}
}

// The closed forms of the variance in table 6.1 of Hyndman et al. (2008), which
// are written quite differently from the sum that the code takes.
func TestETSVariance(t *testing.T) {
	const alpha, beta, gamma, phi, m = 0.4, 0.15, 0.2, 0.85, 4
	closed := map[string]func(h float64) float64{
		"ETS(A,N,N)": func(h float64) float64 { return 1 + alpha*alpha*(h-1) },
		"ETS(A,A,N)": func(h float64) float64 {
			return 1 + (h-1)*(alpha*alpha+alpha*beta*h+beta*beta*h*(2*h-1)/6)
		},
		"ETS(A,Ad,N)": func(h float64) float64 {
			p := math.Pow(phi, h)
			return 1 + alpha*alpha*(h-1) +
				beta*phi*h/math.Pow(1-phi, 2)*(2*alpha*(1-phi)+beta*phi) -
				beta*phi*(1-p)/(math.Pow(1-phi, 2)*(1-phi*phi))*(2*alpha*(1-phi*phi)+beta*phi*(1+2*phi-p))
		},
		"ETS(A,N,A)": func(h float64) float64 {
			k := math.Floor((h - 1) / m)
			return 1 + alpha*alpha*(h-1) + gamma*k*(2*alpha+gamma)
		},
		"ETS(A,A,A)": func(h float64) float64 {
			k := math.Floor((h - 1) / m)
			return 1 + (h-1)*(alpha*alpha+alpha*beta*h+beta*beta*h*(2*h-1)/6) + gamma*k*(2*alpha+gamma+beta*m*(k+1))
		},
	}
	for name, want := range closed {
		s := smoothing{alpha: alpha, phi: 1}
		if strings.Contains(name, "A,A") {
			s.beta, s.trending = beta, true
		}
		if strings.Contains(name, "Ad") {
			s.phi = phi
		}
		if strings.HasSuffix(name, ",A)") {
			s.gamma, s.season = gamma, make([]float64, m)
		}
		mean, deviation := make([]float64, 20), make([]float64, 20)
		s.path(mean, deviation, 1)
		for h := range deviation {
			if got := deviation[h] * deviation[h]; math.Abs(got-want(float64(h+1))) > 1e-9 {
				t.Errorf("%s, h=%d: %v, want %v", name, h+1, got, want(float64(h+1)))
			}
		}
	}
}

// The variance of a multiplicative season against simulated paths.
func TestETSVarianceMultiplicative(t *testing.T) {
	const sigma, paths, horizon = 0.5, 20_000, 8
	start := smoothing{alpha: 0.4, beta: 0.05, gamma: 0.2, phi: 0.9, trending: true, mult: true, level: 50, trend: 0.5, season: []float64{0.5, 1, 1.5, 1}}
	mean, deviation := make([]float64, horizon), make([]float64, horizon)
	start.path(mean, deviation, sigma)
	r := rand.New(rand.NewPCG(1, 2))
	var square [horizon]float64
	for range paths {
		s := start
		s.season = append([]float64(nil), start.season...)
		for h := range horizon {
			y := (s.level+s.phi*s.trend)*s.season[s.pos] + sigma*r.NormFloat64()
			square[h] += (y - mean[h]) * (y - mean[h]) / paths
			s.advance(y)
		}
	}
	for h := range horizon {
		if got, want := deviation[h], math.Sqrt(square[h]); math.Abs(got/want-1) > 0.03 {
			t.Errorf("h=%d: %v, simulated %v", h+1, got, want)
		}
	}
}

// The search finds the parameters that a series was made with, and intervals
// cover what they promise.
func TestETSEstimates(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	truth := smoothing{alpha: 0.35, gamma: 0.2, phi: 1, level: 100, season: []float64{10, -5, 3, -8}}
	s := Series{Step: time.Hour}
	for range 3000 {
		y := truth.level + truth.season[truth.pos] + r.NormFloat64()
		s.Values = append(s.Values, y)
		truth.advance(y)
	}
	f := mustFit(t, ETS{Season: AdditiveSeason, Period: 4}, s).(*etsFitted)
	if math.Abs(f.alpha-0.35) > 0.04 || math.Abs(f.gamma-0.2) > 0.04 {
		t.Errorf("alpha %.3f, gamma %.3f", f.alpha, f.gamma)
	}
	if sigma := math.Sqrt(f.variance) * f.scale; math.Abs(sigma-1) > 0.05 {
		t.Errorf("sigma %.3f", sigma)
	}
	e, err := CrossValidate(ctx, ETS{Season: AdditiveSeason, Period: 4}, s.Slice(0, 1500), EvalOptions{Horizon: 8, Windows: 100, Refit: 50, Levels: []float64{0.1, 0.9}})
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(e.Mean.Coverage-0.8) > 0.04 {
		t.Errorf("80 %% intervals cover %.3f", e.Mean.Coverage)
	}
}

func TestETSFallbacks(t *testing.T) {
	for name, tt := range map[string]struct {
		model  ETS
		values []float64
		used   string
		why    string
	}{
		"season too long":   {ETS{Season: AdditiveSeason, Period: 4}, []float64{1, 2, 3, 4, 5}, "ETS(A,N,N)", "two seasons"},
		"trend too short":   {ETS{Trend: DampedTrend}, []float64{1, 2, 3}, "ETS(A,N,N)", "four values"},
		"zero":              {ETS{Season: MultiplicativeSeason, Period: 2}, []float64{1, 0, 1, 2}, "ETS(A,N,A)[2]", "not above zero"},
		"gap":               {ETS{Season: AdditiveSeason, Period: 4}, []float64{1, nan, nan, 3, 1, 2, 3, 4}, "ETS(A,N,N)", "missing"},
		"spread is assumed": {ETS{}, []float64{1}, "ETS(A,N,N)", "assumed"},
	} {
		got := mustForecast(t, mustFit(t, tt.model, Series{Step: time.Hour, Values: tt.values}), 2, 0.5, 0.9)
		if got.Model != tt.used || !strings.Contains(strings.Join(got.Fallbacks, "; "), tt.why) {
			t.Errorf("%s: %s, fallbacks %q", name, got.Model, got.Fallbacks)
		}
		if got.Quantiles[1][0] <= got.Quantiles[0][0] {
			t.Errorf("%s: no spread", name)
		}
	}
}

func TestErrors(t *testing.T) {
	good := Series{Step: time.Hour, Values: []float64{1, 2, 3}}
	for _, tt := range []struct {
		name   string
		model  Model
		series Series
		is     error
		says   string
	}{
		{"no step", SeasonalNaive{}, Series{Values: []float64{1}}, ErrInvalid, "step"},
		{"infinite", ETS{}, Series{Name: "cpu", Step: 1, Values: []float64{1, math.Inf(1)}}, ErrInvalid, `"cpu"`},
		{"empty", ETS{}, Series{Step: 1}, ErrTooShort, "ETS(A,N,N)"},
		{"all missing", Profile{Period: 2}, Series{Step: 1, Values: []float64{nan}}, ErrTooShort, "Profile[2]"},
		{"period", SeasonalNaive{Period: -1}, good, ErrInvalid, "-1"},
		{"no period", Profile{}, good, ErrInvalid, "season of 0"},
		{"memory", Profile{Period: 2, Memory: nan}, good, ErrInvalid, "memory"},
		{"renewal", Profile{Period: 2, Renewal: 2}, good, ErrInvalid, "renewal"},
		{"ETS period", ETS{Season: AdditiveSeason}, good, ErrInvalid, "season of 0"},
		{"trend", ETS{Trend: "B"}, good, ErrInvalid, `"B"`},
		{"season", ETS{Season: "B", Period: 2}, good, ErrInvalid, `"B"`},
		{"alpha", ETS{Alpha: 1}, good, ErrInvalid, "alpha"},
		{"beta", ETS{Alpha: 0.1, Beta: 0.2}, good, ErrInvalid, "beta"},
		{"gamma", ETS{Alpha: 0.9, Gamma: 0.2}, good, ErrInvalid, "gamma"},
		{"phi", ETS{Phi: -1}, good, ErrInvalid, "phi"},
	} {
		_, err := tt.model.Fit(ctx, tt.series)
		if !errors.Is(err, tt.is) || !strings.Contains(fmt.Sprint(err), tt.says) {
			t.Errorf("%s: error %v", tt.name, err)
		}
	}
	f := mustFit(t, ETS{}, good)
	for name, call := range map[string]struct {
		horizon int
		opts    Options
	}{
		"horizon": {0, Options{}}, "far": {1 << 40, Options{}}, "level": {1, Options{Levels: []float64{1}}},
		"order": {1, Options{Levels: []float64{0.5, 0.5}}}, "cap": {1, Options{Cap: nan}}, "NaN": {1, Options{Levels: []float64{nan}}},
	} {
		if err := f.Forecast(new(Forecast), call.horizon, call.opts); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	for _, m := range models(4) {
		if _, err := m.Fit(done, good); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error %v", m.Name(), err)
		}
	}
}

// A window of residuals agrees with sorting it.
func TestResiduals(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	w := newResiduals(20)
	var all []float64
	for range 500 {
		x := float64(r.IntN(12)) - 6
		w.add(x)
		all = append(all, x)
		sorted := append([]float64(nil), all[max(0, len(all)-20):]...)
		for i := range sorted {
			for j := i; j > 0 && sorted[j] < sorted[j-1]; j-- {
				sorted[j], sorted[j-1] = sorted[j-1], sorted[j]
			}
		}
		if d := cmp.Diff(sorted, w.sorted); d != "" {
			t.Fatal(d)
		}
	}
	before := math.Inf(-1)
	for p := 0.001; p < 1; p += 0.001 {
		if q := w.quantile(p); q < before {
			t.Fatalf("quantile %v falls", p)
		} else {
			before = q
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	s := demand(1, 288, 0.1, 1, 1, 1)
	for _, m := range []Model{SeasonalNaive{Period: 288}, ETS{Trend: DampedTrend, Season: AdditiveSeason, Period: 288}, Profile{Period: 288}} {
		b.Run(m.Name(), func(b *testing.B) {
			f := mustFit(b, m, s)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				f.Update(s.Values[i%s.Len()])
			}
		})
	}
}

func BenchmarkForecast(b *testing.B) {
	s := demand(1, 288, 0.1, 1, 1, 1)
	opts := Options{Levels: []float64{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}}
	for _, m := range []Model{SeasonalNaive{Period: 288}, ETS{Trend: DampedTrend, Season: AdditiveSeason, Period: 288}, Profile{Period: 288}} {
		b.Run(m.Name(), func(b *testing.B) {
			f := mustFit(b, m, s)
			var dst Forecast
			b.ReportAllocs()
			for b.Loop() {
				if err := f.Forecast(&dst, 48, opts); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkFit(b *testing.B) {
	s := demand(1, 288, 0.1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
	for _, m := range []Model{SeasonalNaive{Period: 288}, ETS{Trend: DampedTrend, Season: AdditiveSeason, Period: 288}, Profile{Period: 288}} {
		b.Run(m.Name(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				mustFit(b, m, s)
			}
		})
	}
}
