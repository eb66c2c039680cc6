package anomaly_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/forecast"
)

// daily is a day of 96 steps, noise, and from row bad on a third less.
func daily(rng *rand.Rand, n, bad int) forecast.Series {
	s := forecast.Series{Name: "requests", Start: t0, Step: 15 * time.Minute, Values: make([]float64, n)}
	for i := range s.Values {
		v := 500 + 300*math.Sin(float64(i)/96*2*math.Pi) + 10*rng.NormFloat64()
		if i >= bad {
			v *= 0.66
		}
		s.Values[i] = v
	}
	return s
}

func TestSeasonalOverForecastModels(t *testing.T) {
	for _, model := range []forecast.Model{
		forecast.SeasonalNaive{Period: 96},
		forecast.ETS{Season: forecast.AdditiveSeason, Period: 96},
	} {
		t.Run(model.Name(), func(t *testing.T) {
			all := daily(rand.New(rand.NewPCG(1, 40)), 96*9+10, 96*9)
			d := must(anomaly.NewSeasonal(anomaly.SeasonalOptions{Model: model}))
			if err := d.Seed(context.Background(), all.Slice(0, 96*7)); err != nil {
				t.Fatal(err)
			}
			for i := 96 * 7; i < all.Len(); i++ {
				r := d.Observe(all.Time(i), all.Values[i])
				if !r.Ready {
					t.Fatalf("not ready after seeding: %d", i)
				}
				if bad := i >= 96*9; (r.Score > 1) != bad {
					t.Errorf("row %d: %+v", i, r)
				}
			}
		})
	}
}

func TestSeedFails(t *testing.T) {
	d := must(anomaly.NewSeasonal(anomaly.SeasonalOptions{Model: forecast.SeasonalNaive{Period: 4}}))
	gaps := forecast.Series{Start: t0, Step: time.Minute, Values: []float64{math.NaN(), math.NaN()}}
	if err := d.Seed(context.Background(), gaps); !errors.Is(err, forecast.ErrTooShort) {
		t.Errorf("no observed value: %v", err)
	}
	if err := d.Seed(context.Background(), forecast.Series{Values: []float64{1}}); err == nil {
		t.Error("a step of zero is taken")
	}
	var zero anomaly.Seasonal
	if err := zero.Seed(context.Background(), daily(rand.New(rand.NewPCG(1, 41)), 400, 400)); err != nil {
		t.Error(err)
	}
	if r := zero.Observe(t0.Add(400*15*time.Minute), 500); !r.Ready {
		t.Errorf("not ready after seeding: %+v", r)
	}
}

// last forecasts the last value; it can be saved.
type last struct{ v float64 }

func (l *last) Update(y float64) {
	if !math.IsNaN(y) {
		l.v = y
	}
}

func (l *last) Forecast(dst *forecast.Forecast, _ int, _ forecast.Options) error {
	if math.IsNaN(l.v) {
		return errors.New("nothing to forecast from")
	}
	dst.Mean = append(dst.Mean[:0], l.v)
	return nil
}

func (l *last) MarshalBinary() ([]byte, error) {
	return binary.LittleEndian.AppendUint64(nil, math.Float64bits(l.v)), nil
}

type lastModel struct{}

func (lastModel) Name() string { return "last" }
func (lastModel) Fit(_ context.Context, s forecast.Series) (forecast.Fitted, error) {
	return &last{s.Values[len(s.Values)-1]}, nil
}

func restoreLast(b []byte) (forecast.Fitted, error) {
	if len(b) != 8 {
		return nil, errors.New("not eight bytes")
	}
	return &last{math.Float64frombits(binary.LittleEndian.Uint64(b))}, nil
}

func TestModelSnapshot(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 42))
	all := daily(rng, 500, 450)
	opts := anomaly.SeasonalOptions{Model: lastModel{}, Restore: restoreLast}
	d := must(anomaly.NewSeasonal(opts))
	if err := d.Seed(context.Background(), all.Slice(0, 300)); err != nil {
		t.Fatal(err)
	}
	b := must(d.MarshalBinary())
	n := must(anomaly.NewSeasonal(opts))
	if err := n.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	for i := 300; i < all.Len(); i++ {
		if want, got := bitsOf(d.Observe(all.Time(i), all.Values[i])), bitsOf(n.Observe(all.Time(i), all.Values[i])); want != got {
			t.Fatalf("row %d: %v, want %v", i, got, want)
		}
	}
	if err := new(anomaly.Seasonal).UnmarshalBinary(b); !errors.Is(err, anomaly.ErrSnapshot) {
		t.Errorf("without Restore: %v", err)
	}
	allocs := testing.AllocsPerRun(100, func() { d.Observe(t0, 500) })
	if allocs != 0 {
		t.Errorf("%v allocations a value", allocs)
	}
}

func TestModelThatCannotBeSaved(t *testing.T) {
	d := must(anomaly.NewSeasonal(anomaly.SeasonalOptions{Model: blindModel{}}))
	if err := d.Seed(context.Background(), daily(rand.New(rand.NewPCG(1, 43)), 100, 100)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.MarshalBinary(); !errors.Is(err, anomaly.ErrSnapshot) {
		t.Errorf("save: %v", err)
	}
	// A model that cannot forecast says nothing, and is not silently ignored.
	r := d.Observe(t0, 1e6)
	if r.Score != 0 || r.Kind != "" {
		t.Errorf("without a forecast: %+v", r)
	}
}

type blindModel struct{}

func (blindModel) Name() string { return "blind" }
func (blindModel) Fit(context.Context, forecast.Series) (forecast.Fitted, error) {
	return blind{}, nil
}

type blind struct{}

func (blind) Update(float64) {}
func (blind) Forecast(*forecast.Forecast, int, forecast.Options) error {
	return errors.New("no forecast")
}
