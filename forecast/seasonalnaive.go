package forecast

import (
	"context"
	"fmt"
	"math"
	"time"
)

// SeasonalNaive repeats the last season: the forecast of a step is the value
// one season before it, or further back where that is missing. It is the model
// to beat. Its quantiles are those of its own last errors, which widen with
// the square root of the number of seasons ahead (Hyndman and Athanasopoulos,
// Forecasting: Principles and Practice, 3rd ed., section 5.5).
//
// Before one season has been seen, it repeats the last value.
type SeasonalNaive struct {
	// Period is the length of the season in steps; 0 and 1 repeat the last value.
	Period int
}

// Name is SeasonalNaive[24], or Naive.
func (m SeasonalNaive) Name() string {
	if m.Period <= 1 {
		return "Naive"
	}
	return fmt.Sprintf("SeasonalNaive[%d]", m.Period)
}

// Fit implements [Model]. A Period that is negative or above 604,800 is an
// [ErrInvalid].
func (m SeasonalNaive) Fit(ctx context.Context, s Series) (Fitted, error) {
	if m.Period == 0 {
		m.Period = 1
	}
	if err := checkPeriod(m.Period, 1); err != nil {
		return nil, err
	}
	if err := checkFit(ctx, m.Name(), s); err != nil {
		return nil, err
	}
	f := &seasonalNaive{
		units: unitsOf(s.Values), name: m.Name(), start: s.Start, step: s.Step,
		season: make([]float64, m.Period), last: math.NaN(), unseen: m.Period,
		errors: newResiduals(residualWindow(m.Period)), moves: newResiduals(64),
		short:  []string{fmt.Sprintf("fewer than one season of %d values seen: repeats the last value", m.Period)},
		spread: []string{"the season has not come round yet: intervals from the differences of neighbours"},
	}
	for i := range f.season {
		f.season[i] = math.NaN()
	}
	for _, y := range s.Values {
		f.Update(y)
	}
	return f, nil
}

// residualWindow is how many errors are kept: about a season, so that a quiet
// night does not wipe out what was learned in the day.
func residualWindow(period int) int { return min(max(period, 128), 320) }

type seasonalNaive struct {
	units
	name   string
	start  time.Time
	step   time.Duration
	n      int
	season []float64
	pos    int
	unseen int
	last   float64
	errors residuals
	moves  residuals

	short, spread []string
}

// Update implements [Fitted].
func (f *seasonalNaive) Update(y float64) {
	y = f.in(y)
	if y == y {
		before := f.season[f.pos]
		if before == before {
			f.errors.add(y - before)
		} else {
			f.unseen--
		}
		if f.last == f.last && len(f.season) > 1 {
			f.moves.add(y - f.last)
		}
		f.season[f.pos], f.last = y, y
	}
	f.n++
	f.pos++
	if f.pos == len(f.season) {
		f.pos = 0
	}
}

// Forecast implements [Fitted].
func (f *seasonalNaive) Forecast(dst *Forecast, horizon int, opts Options) error {
	if err := opts.check(horizon); err != nil {
		return err
	}
	period := len(f.season)
	dst.prepare(f.start.Add(time.Duration(f.n)*f.step), f.step, horizon, opts.Levels)
	dst.Model = f.name
	errors, stride := &f.errors, period
	if f.n < period || 2*f.unseen > period {
		dst.Model = "Naive"
		dst.Fallbacks = append(dst.Fallbacks, f.short...)
		stride = 1
		errors = &f.moves
	} else if period > 1 && f.errors.len() < min(period, 16) {
		dst.Fallbacks = append(dst.Fallbacks, f.spread...)
		errors = &f.moves
	}
	pos := f.pos
	for h := range dst.Mean {
		v := f.last
		if stride == period && f.season[pos] == f.season[pos] {
			v = f.season[pos]
		}
		dst.Mean[h] = v
		if pos++; pos == period {
			pos = 0
		}
	}
	for i, p := range opts.Levels {
		q, relative := errors.quantile(p), 0.0
		if errors.len() == 0 {
			relative = assumedSpread * normal(p)
		}
		for h, v := range dst.Mean {
			grow := math.Sqrt(float64(h/stride + 1))
			dst.Quantiles[i][h] = v + float64(grow*q) + float64(grow*float64(relative*math.Abs(v)))
		}
	}
	dst.finish(f.scale, opts)
	return nil
}
