package forecast

import (
	"fmt"
	"math"
)

// mean is a running mean, which cannot overflow where a sum would.
type mean struct {
	value float64
	n     int
}

func (m *mean) add(x float64) {
	m.n++
	m.value += (x - m.value) / float64(m.n)
}

// of is NaN for the mean of nothing.
func (m *mean) of() float64 {
	if m.n == 0 {
		return math.NaN()
	}
	return m.value
}

// MASE is the mean absolute scaled error (Hyndman and Koehler, 2006) as in M4
// and GluonTS: the mean of |actual - forecast| over that of
// |train[t] - train[t-period]|. Steps where a value is NaN are left out; so
// are those past the end of the shorter slice. It is 0 for a perfect forecast,
// and NaN where nothing can be compared or the history never changed. A period
// below 1 counts as 1.
func MASE(actual, forecast, train []float64, period int) float64 {
	period = max(period, 1)
	var e, scale mean
	for i := range min(len(actual), len(forecast)) {
		if d := math.Abs(actual[i] - forecast[i]); d == d {
			e.add(d)
		}
	}
	for t := period; t < len(train); t++ {
		if d := math.Abs(train[t] - train[t-period]); d == d {
			scale.add(d)
		}
	}
	if e.n > 0 && e.value == 0 {
		return 0
	}
	if scale.n == 0 || scale.value == 0 {
		return math.NaN()
	}
	return e.of() / scale.value
}

// SMAPE is the symmetric mean absolute percentage error of M4, in percent: the
// mean of 200 |actual - forecast| / (|actual| + |forecast|), in [0, 200], where
// 0/0 counts as 0. Steps where a value is NaN are left out; NaN if none is left.
func SMAPE(actual, forecast []float64) float64 {
	var m mean
	for i := range min(len(actual), len(forecast)) {
		// Halves, so that the sum of two large values is finite.
		a, f := float64(actual[i]/2), float64(forecast[i]/2)
		d, sum := math.Abs(a-f), math.Abs(a)+math.Abs(f)
		switch {
		case d != d:
		case sum == 0:
			m.add(0)
		default:
			m.add(float64(200 * (d / sum)))
		}
	}
	return m.of()
}

// Pinball is the mean pinball loss of a forecast quantile at a level in (0, 1):
// level (y - q) where y >= q and (1 - level) (q - y) below, in the unit of the
// values. (GluonTS reports twice this, as a sum.) Steps where a value is NaN
// are left out; NaN if none is left.
func Pinball(actual, quantile []float64, level float64) float64 {
	var m mean
	for i := range min(len(actual), len(quantile)) {
		d := actual[i] - quantile[i]
		switch {
		case d >= 0:
			m.add(float64(level * d))
		case d < 0:
			m.add(float64((level - 1) * d))
		}
	}
	return m.of()
}

// WeightedQuantileLoss is GluonTS's mean weighted quantile loss: for each level
// twice the summed pinball loss over the sum of |actual|, averaged over the
// levels. quantiles[i] belongs to levels[i]. NaN where there is nothing to
// compare or all actual values are 0.
func WeightedQuantileLoss(actual []float64, quantiles [][]float64, levels []float64) float64 {
	var size, loss mean
	for _, y := range actual {
		if y == y {
			size.add(math.Abs(y))
		}
	}
	for i := range min(len(levels), len(quantiles)) {
		loss.add(float64(2 * Pinball(actual, quantiles[i], levels[i])))
	}
	if size.n == 0 || size.value == 0 {
		return math.NaN()
	}
	return loss.of() / size.value
}

// Coverage is the share of actual values, in [0, 1], that lie in [lower, upper].
// Steps where the value is NaN are left out; NaN if none is left.
func Coverage(actual, lower, upper []float64) float64 {
	var m mean
	for i := range min(len(actual), len(lower), len(upper)) {
		switch y := actual[i]; {
		case y != y:
		case y >= lower[i] && y <= upper[i]:
			m.add(1)
		default:
			m.add(0)
		}
	}
	return m.of()
}

// Score is how good a forecast was. What cannot be computed is NaN.
type Score struct {
	// MASE and SMAPE judge the mean: see [MASE] and [SMAPE].
	MASE, SMAPE float64
	// Pinball is the pinball loss averaged over the levels, and WQL the
	// [WeightedQuantileLoss].
	Pinball, WQL float64
	// Coverage is the share of values between the lowest and the highest level.
	Coverage float64
}

// String is one line.
func (s Score) String() string {
	return fmt.Sprintf("MASE %.3f, sMAPE %.2f %%, pinball %.4g, WQL %.3f, coverage %.1f %%", s.MASE, s.SMAPE, s.Pinball, s.WQL, 100*s.Coverage)
}

// NewScore judges a forecast against what came. train is the history that the
// forecast was made from, and period the season of [MASE].
func NewScore(f *Forecast, actual, train []float64, period int) Score {
	s := Score{
		MASE: MASE(actual, f.Mean, train, period), SMAPE: SMAPE(actual, f.Mean),
		Pinball: math.NaN(), WQL: math.NaN(), Coverage: math.NaN(),
	}
	if n := len(f.Levels); n > 0 {
		var loss mean
		for i, p := range f.Levels {
			loss.add(Pinball(actual, f.Quantiles[i], p))
		}
		s.Pinball = loss.of()
		s.WQL = WeightedQuantileLoss(actual, f.Quantiles, f.Levels)
		s.Coverage = Coverage(actual, f.Quantiles[0], f.Quantiles[n-1])
	}
	return s
}
