package forecast

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

var ctx = context.Background()

// day is the daily shape of the tests: a quiet night, a sharp morning surge, a
// slow decline with an evening bump. u is the time of day in [0, 1).
func day(u float64) float64 {
	surge := 1 / (1 + math.Exp(-(u-0.36)/0.008))
	decline := 1 / (1 + math.Exp((u-0.85)/0.03))
	evening := math.Exp(-(u - 0.78) * (u - 0.78) / 0.004)
	return 40 + surge*decline*(160+60*evening)
}

// demand is noisy demand of some days of m steps; the level of day d is levels[d].
func demand(seed uint64, m int, noise float64, levels ...float64) Series {
	r := rand.New(rand.NewPCG(seed, 1))
	s := Series{Name: "demand", Start: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC), Step: 24 * time.Hour / time.Duration(m)}
	for _, level := range levels {
		for i := range m {
			s.Values = append(s.Values, level*day(float64(i)/float64(m))*(1+noise*r.NormFloat64()))
		}
	}
	return s
}

func mustFit(t testing.TB, m Model, s Series) Fitted {
	t.Helper()
	f, err := m.Fit(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustForecast(t testing.TB, f Fitted, horizon int, levels ...float64) *Forecast {
	t.Helper()
	var dst Forecast
	if err := f.Forecast(&dst, horizon, Options{Levels: levels}); err != nil {
		t.Fatal(err)
	}
	return &dst
}

// After one noisy day, day two is foreseen within little more than its noise,
// and clearly better than by repeating day one or by smoothing.
func TestProfileAfterOneDay(t *testing.T) {
	for _, m := range []int{120, 180, 240} {
		var own, naive, above, n float64
		for seed := range uint64(8) {
			s := demand(seed, m, 0.08, 1, 1)
			one, truth := s.Slice(0, m), demand(0, m, 0, 1)
			p := mustForecast(t, mustFit(t, Profile{Period: m}, one), m, 0.05, 0.95)
			if len(p.Fallbacks) > 0 {
				t.Fatalf("fallbacks %v", p.Fallbacks)
			}
			q := mustForecast(t, mustFit(t, SeasonalNaive{Period: m}, one), m)
			for h := range m {
				own += math.Abs(p.Mean[h]/truth.Values[h] - 1)
				naive += math.Abs(q.Mean[h]/truth.Values[h] - 1)
				if s.Values[m+h] > p.Quantiles[1][h] {
					above++
				}
				n++
			}
		}
		t.Logf("m=%d: mean relative error %.4f, seasonal naive %.4f, above the 95 %% quantile %.3f", m, own/n, naive/n, above/n)
		if own > 0.7*naive {
			t.Errorf("m=%d: error %.4f against %.4f of seasonal naive", m, own/n, naive/n)
		}
		if above/n > 0.06 {
			t.Errorf("m=%d: %.3f of values above the 95 %% quantile", m, above/n)
		}
	}
}
