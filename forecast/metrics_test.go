package forecast

import (
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var nan = math.NaN()

// Values worked out by hand from the definitions.
func TestMeasures(t *testing.T) {
	near := cmp.Options{cmpopts.EquateApprox(0, 1e-12), cmpopts.EquateNaNs()}
	for _, tt := range []struct {
		name      string
		got, want float64
	}{
		// Errors 1, 2, 0; the train's steps are 2, 1, 3: (3/3) / (6/3).
		{"MASE", MASE([]float64{5, 4, 6}, []float64{4, 6, 6}, []float64{1, 3, 2, 5}, 1), 0.5},
		// Seasonal steps |2-1|, |5-3|: mean 1.5; errors mean 1.
		{"MASE of a season", MASE([]float64{5, 4, 6}, []float64{4, 6, 6}, []float64{1, 3, 2, 5}, 2), 2.0 / 3},
		{"MASE leaves NaN out", MASE([]float64{5, nan, 6}, []float64{4, 6, 6}, []float64{1, 3, nan, 5, 6}, 1), 0.5 / 1.5},
		{"MASE of a perfect forecast of a constant", MASE([]float64{5}, []float64{5}, []float64{5, 5, 5}, 1), 0},
		{"MASE without a scale", MASE([]float64{5}, []float64{4}, []float64{5, 5, 5}, 1), nan},
		{"MASE of nothing", MASE(nil, nil, []float64{1, 2}, 1), nan},
		{"MASE of huge values", MASE([]float64{1e300, 1e300}, []float64{0, 0}, []float64{1e300, -5e299, 1e300}, 1), 1 / 1.5},
		// 200*1/9, 200*2/10, 0.
		{"sMAPE", SMAPE([]float64{5, 4, 6}, []float64{4, 6, 6}), (200.0/9 + 40) / 3},
		{"sMAPE of zero and zero", SMAPE([]float64{0, 1}, []float64{0, 0}), 100},
		{"sMAPE of huge values", SMAPE([]float64{1.5e308}, []float64{-1.5e308}), 200},
		{"sMAPE of nothing", SMAPE([]float64{nan}, []float64{1}), nan},
		// At 0.9: 0.9*2 above, 0.1*1 below, 0.
		{"pinball", Pinball([]float64{5, 4, 6}, []float64{3, 5, 6}, 0.9), 1.9 / 3},
		{"pinball of the median is half the error", Pinball([]float64{5, 4, 6}, []float64{4, 6, 6}, 0.5), 0.5},
		{"pinball of nothing", Pinball(nil, nil, 0.5), nan},
		// 2*(0.9*2 + 0.1*1)/15 and 2*(0.5*1 + 0.5*2)/15, averaged.
		{"WQL", WeightedQuantileLoss([]float64{5, 4, 6}, [][]float64{{4, 6, 6}, {3, 5, 6}}, []float64{0.5, 0.9}), (3.8/15 + 3.0/15) / 2},
		{"WQL of zeros", WeightedQuantileLoss([]float64{0}, [][]float64{{1}}, []float64{0.5}), nan},
		{"coverage", Coverage([]float64{1, 2, 3, nan}, []float64{1, 0, 4, 0}, []float64{1, 1, 5, 0}), 1.0 / 3},
	} {
		if d := cmp.Diff(tt.want, tt.got, near); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

func TestCrossValidate(t *testing.T) {
	s := demand(3, 48, 0.05, 1, 1, 1, 1, 1, 1)
	// A model that is only updated must do as one that is fitted to all: the
	// seasonal naive keeps nothing from the fit.
	every, err := CrossValidate(ctx, SeasonalNaive{Period: 48}, s, EvalOptions{Horizon: 24, Step: 12, Windows: 5, Period: 48})
	if err != nil {
		t.Fatal(err)
	}
	once, err := CrossValidate(ctx, SeasonalNaive{Period: 48}, s, EvalOptions{Horizon: 24, Step: 12, Windows: 5, Period: 48, Refit: -1})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(every, once); d != "" {
		t.Errorf("refitting and updating differ: %s", d)
	}
	if len(every.Windows) != 5 || every.Windows[4].Origin != 288-24 || every.Windows[0].Origin != 288-24-48 {
		t.Errorf("windows %+v", every.Windows)
	}
	sum := 0.0
	for _, w := range every.Windows {
		sum += w.MASE / 5
	}
	if math.Abs(sum-every.Mean.MASE) > 1e-12 {
		t.Errorf("mean MASE %v is not that of the windows, %v", every.Mean.MASE, sum)
	}
	// A shape learned over days beats repeating the last one.
	own, err := CrossValidate(ctx, Profile{Period: 48}, s, EvalOptions{Horizon: 24, Step: 12, Period: 48})
	if err != nil {
		t.Fatal(err)
	}
	naive, err := CrossValidate(ctx, SeasonalNaive{Period: 48}, s, EvalOptions{Horizon: 24, Step: 12, Period: 48})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(own)
	t.Log(naive)
	if own.Mean.MASE > 0.9*naive.Mean.MASE || own.Mean.Pinball > 0.9*naive.Mean.Pinball {
		t.Errorf("%v\nis not clearly better than\n%v", own, naive)
	}
	if own.Mean.Coverage < 0.7 || own.Mean.Coverage > 0.95 {
		t.Errorf("80 %% intervals cover %.3f", own.Mean.Coverage)
	}
}

func TestCrossValidateErrors(t *testing.T) {
	s := demand(3, 48, 0.05, 1)
	for name, opts := range map[string]EvalOptions{
		"no horizon":      {},
		"horizon too far": {Horizon: 48},
		"negative step":   {Horizon: 1, Step: -1},
		"bad level":       {Horizon: 1, Levels: []float64{1}},
	} {
		if _, err := CrossValidate(ctx, SeasonalNaive{}, s, opts); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	missing := Series{Step: 1, Values: []float64{nan, nan, 1, 2}}
	if _, err := CrossValidate(ctx, SeasonalNaive{}, missing, EvalOptions{Horizon: 1, Windows: 3}); !errors.Is(err, ErrTooShort) {
		t.Errorf("nothing observed: error %v", err)
	}
}
