package forecast

import (
	"context"
	"fmt"
	"math"
	"time"
)

// maxHorizon bounds what one call may ask memory for: a year of 5-minute steps.
const maxHorizon = 105_120

// check tells what is wrong with a horizon and options.
func (o Options) check(horizon int) error {
	if horizon < 1 || horizon > maxHorizon {
		return fmt.Errorf("forecast: %w: horizon %d is not in 1…%d", ErrInvalid, horizon, maxHorizon)
	}
	for i, p := range o.Levels {
		if !(p > 0 && p < 1) {
			return fmt.Errorf("forecast: %w: level %d (%v) is not between 0 and 1", ErrInvalid, i, p)
		}
		if i > 0 && p <= o.Levels[i-1] {
			return fmt.Errorf("forecast: %w: level %d (%v) is not above the one before (%v)", ErrInvalid, i, p, o.Levels[i-1])
		}
	}
	if !(o.Cap >= 0) {
		return fmt.Errorf("forecast: %w: cap %v is below zero or not a number", ErrInvalid, o.Cap)
	}
	return nil
}

// limit brings a value into what the options allow, and into what is finite.
func (o Options) limit(x float64) float64 {
	switch {
	case x != x:
		x = 0
	case x > math.MaxFloat64:
		x = math.MaxFloat64
	case x < -math.MaxFloat64:
		x = -math.MaxFloat64
	}
	if o.NonNegative && x < 0 {
		x = 0
	}
	if o.Cap > 0 && x > o.Cap {
		x = o.Cap
	}
	return x
}

// prepare gives dst its shape, reusing its slices.
func (dst *Forecast) prepare(start time.Time, step time.Duration, horizon int, levels []float64) {
	dst.Start, dst.Step = start, step
	dst.Mean = resize(dst.Mean, horizon)
	dst.Levels = append(dst.Levels[:0], levels...)
	if cap(dst.Quantiles) >= len(levels) {
		dst.Quantiles = dst.Quantiles[:len(levels)]
	} else {
		dst.Quantiles = append(dst.Quantiles[:cap(dst.Quantiles)], make([][]float64, len(levels)-cap(dst.Quantiles))...)
	}
	for i := range dst.Quantiles {
		dst.Quantiles[i] = resize(dst.Quantiles[i], horizon)
	}
	dst.Fallbacks = dst.Fallbacks[:0]
}

// finish takes the forecast from the model's units to the series', applies the
// options and makes sure that rounding has not made quantiles cross.
func (dst *Forecast) finish(scale float64, opts Options) {
	for h := range dst.Mean {
		dst.Mean[h] = opts.limit(dst.Mean[h] * scale)
		for i, q := range dst.Quantiles {
			q[h] = opts.limit(q[h] * scale)
			if i > 0 && q[h] < dst.Quantiles[i-1][h] {
				q[h] = dst.Quantiles[i-1][h]
			}
		}
	}
}

func resize(x []float64, n int) []float64 {
	if cap(x) >= n {
		return x[:n]
	}
	return make([]float64, n)
}

// huge is the largest value a model computes with, in its own units: its
// square is finite.
const huge = 1e150

// units are what a model computes in: the series divided by a power of four, so
// that its values are about one and squares neither overflow nor vanish. Such a
// division is exact, also under a square root, so it changes no result.
type units struct{ scale, inverse float64 }

func unitsOf(values []float64) units {
	top := 0.0
	for _, v := range values {
		if a := math.Abs(v); a > top {
			top = a
		}
	}
	exp := 0
	if top > 0 {
		_, exp = math.Frexp(top)
	}
	exp = min(max(exp&^1, -1000), 1022)
	return units{scale: math.Ldexp(1, exp), inverse: math.Ldexp(1, -exp)}
}

// in is y in the model's units; what is not finite is missing.
func (u units) in(y float64) float64 {
	if math.IsInf(y, 0) {
		return math.NaN()
	}
	return clamp(y*u.inverse, -huge, huge)
}

// clamp keeps NaN.
func clamp(x, lo, hi float64) float64 {
	if x < lo {
		return lo
	}
	if x > hi {
		return hi
	}
	return x
}

// observed counts the values that are not missing.
func observed(values []float64) int {
	n := 0
	for _, v := range values {
		if v == v {
			n++
		}
	}
	return n
}

// checkFit is what every Fit does first.
func checkFit(ctx context.Context, name string, s Series) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("forecast: fitting %s to %q: %w", name, s.Name, err)
	}
	if err := s.Validate(); err != nil {
		return err
	}
	if observed(s.Values) == 0 {
		return fmt.Errorf("forecast: fitting %s to %q: %w", name, s.Name, ErrTooShort)
	}
	return nil
}

// maxPeriod bounds the memory of a season: a week of seconds.
const maxPeriod = 604_800

func checkPeriod(period, least int) error {
	if period < least || period > maxPeriod {
		return fmt.Errorf("forecast: %w: season of %d steps is not in %d…%d", ErrInvalid, period, least, maxPeriod)
	}
	return nil
}
