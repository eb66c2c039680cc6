package forecast

import (
	"context"
	"fmt"
	"math"
	"time"
)

// Profile is a model for demand with a daily shape: a level times a smoothed
// seasonal shape (or plus, where values may be negative), ready after a single
// season, which makes it the one to start an autoscaler with.
//
// The shape is the average of the seasons seen, newer ones weighing more,
// smoothed round the day by a triangular kernel as wide as leave-one-out
// prediction finds best. Two corrections from the newest values follow it: the
// level, the ratio of what was observed to what the shape said over the last
// Memory steps, which persists; and the deviation of the last few steps, which
// fades over the horizon. A value far outside what was expected counts only up
// to six standard deviations until it has stayed there for three steps.
// Where the shape is steep a value says little about the level, since a surge
// may come a little early or late.
//
// Quantiles are those of the model's own errors at horizons 1, 2, 4, … up to a
// season (interpolated between), measured on line as values arrive, which is
// split conformal prediction on a moving window. They are scaled by a power (0,
// 1/2 or 1) of the expected value, since busy hours are noisier. Right after
// the first season the errors come from replaying it with each value left out
// of its own shape. Days differ by more than a single one can show, so
// 5 % of the value over the squared number of seasons seen is added per
// standard deviation.
//
// Before one season with at least three quarters of its values has been seen,
// it falls back to damped-trend exponential smoothing, and says so.
type Profile struct {
	// Period is the length of the season in steps, at least 2.
	Period int
	// Memory is over how many steps the level is averaged; 0 is a twelfth of
	// the period, at least 12.
	Memory float64
	// Renewal is the weight of the newest season in the shape, in (0, 1];
	// 0 is 0.3. The first seasons are averaged with equal weights.
	Renewal float64
	// Additive adds the shape to the level even where all values are positive.
	Additive bool
}

// Name is Profile[240].
func (m Profile) Name() string { return fmt.Sprintf("Profile[%d]", m.Period) }

const (
	fade = 0.8 // what is left of a deviation after one step
	// dayPrior is the share by which days differ, before several were seen.
	dayPrior = 0.05
	outlier  = 6 // standard deviations
	patience = 3 // steps after which an outlier is a new level
)

// Fit implements [Model]. Settings out of range are an [ErrInvalid]. Fitting a
// series is the same as fitting its beginning and updating with the rest.
func (m Profile) Fit(ctx context.Context, s Series) (Fitted, error) {
	if err := checkPeriod(m.Period, 2); err != nil {
		return nil, err
	}
	if !(m.Memory >= 0) || math.IsInf(m.Memory, 0) {
		return nil, fmt.Errorf("forecast: Profile: %w: memory %v is not above zero", ErrInvalid, m.Memory)
	}
	if !(m.Renewal >= 0 && m.Renewal <= 1) {
		return nil, fmt.Errorf("forecast: Profile: %w: renewal %v is not in (0, 1]", ErrInvalid, m.Renewal)
	}
	if err := checkFit(ctx, m.Name(), s); err != nil {
		return nil, err
	}
	if m.Memory == 0 {
		m.Memory = math.Max(12, float64(m.Period)/12)
	}
	if m.Renewal == 0 {
		m.Renewal = 0.3
	}
	f := &profile{
		units: unitsOf(s.Values), name: m.Name(), start: s.Start, step: s.Step,
		period: m.Period, renewal: m.Renewal, additive: m.Additive,
		slow: math.Exp(-1 / math.Max(m.Memory, 1e-3)), fast: 0.75,
		raw: make([]float64, m.Period), weights: make([]float64, m.Period), shape: make([]float64, m.Period),
		without: make([]float64, m.Period), kernel: kernel{period: m.Period},
		short: []string{fmt.Sprintf("fewer than one season of %d values seen: damped-trend smoothing", m.Period)},
		young: young{smoothing: smoothing{alpha: 0.5, beta: 0.1, phi: 0.9, trending: true}},
	}
	f.young.errors = newResiduals(64)
	for h := 1; h <= m.Period; h *= 2 {
		a := anchor{ahead: make([]float64, h), errors: newResiduals(residualWindow(m.Period))}
		for i := range a.ahead {
			a.ahead[i] = math.NaN()
		}
		f.anchors = append(f.anchors, a)
	}
	for _, y := range s.Values {
		f.Update(y)
	}
	return f, nil
}

// anchor is a horizon at which errors are measured.
type anchor struct {
	// ahead are the forecasts made for the next steps at this horizon, which is
	// its length.
	ahead  []float64
	next   int
	errors residuals
}

// young is what stands in for the shape until one season has been seen.
type young struct {
	smoothing
	seen   int
	errors residuals
}

type profile struct {
	units
	name       string
	start      time.Time
	step       time.Duration
	period     int
	renewal    float64
	additive   bool
	slow, fast float64
	short      []string

	n, pos  int
	ready   bool
	young   young
	seasons float64 // seen in full

	raw     []float64 // average of the seasons, level taken out
	weights []float64 // how many seasons are in raw, at most 1/renewal
	shape   []float64 // raw smoothed
	without []float64 // scratch
	kernel  kernel
	power   float64 // errors grow with this power of the value: 0, 1/2 or 1
	floor   float64 // the smallest value they are scaled with

	seen, expected   float64 // averages over memory of value and shape
	level            float64 // their ratio, or difference
	excess, recent   float64 // averages over a few steps of error and forecast
	lean             float64 // their ratio, or excess
	cross, square    float64 // of it with the next error, and with itself
	deviation        float64 // lean times cross over square: what of it lasts
	anchors          []anchor
	far              int // consecutive values beyond the outlier limit
	cuts, deviations []float64
}

// at is the mean h steps ahead, h >= 1, of the position given, fading being
// fade to the power of h.
func (f *profile) at(pos int, fading float64) float64 {
	if f.additive {
		return f.shape[pos] + f.level + float64(f.deviation*fading)
	}
	base := float64(f.shape[pos] * f.level)
	return base + float64(base*float64(f.deviation*fading))
}

// unit is what an error of a forecast v is measured in.
func (f *profile) unit(v float64) float64 {
	switch f.power {
	case 0:
		return 1
	case 1:
		return max(math.Abs(v), f.floor)
	}
	return math.Sqrt(max(math.Abs(v), f.floor))
}

// Update implements [Fitted].
func (f *profile) Update(y float64) {
	y = f.in(y)
	f.n++
	pos := f.pos
	if f.pos++; f.pos == f.period {
		f.pos = 0
	}
	if f.ready {
		f.observe(pos, y, true)
		if f.pos == 0 {
			f.turn()
		}
		return
	}
	f.grow(y)
	if y == y {
		w := f.weights[pos] + 1
		f.weights[pos] = w
		f.raw[pos] += (y - f.raw[pos]) / w
	}
	if f.n >= f.period && 4*observedWeights(f.weights) >= 3*f.period {
		f.begin()
	}
}

func observedWeights(weights []float64) int {
	n := 0
	for _, w := range weights {
		if w > 0 {
			n++
		}
	}
	return n
}

// grow learns while there is no shape yet.
func (f *profile) grow(y float64) {
	if f.young.seen == 0 && y == y {
		f.young.level, f.young.seen = y, 1
		return
	}
	if e := f.young.advance(y); e == e {
		f.young.errors.add(clamp(e, -huge, huge))
		f.young.seen++
	}
}

// begin starts the shape from the first season, and measures on that season,
// each value left out of its own shape, what the errors are like.
func (f *profile) begin() {
	fillGaps(f.raw, f.weights)
	low, mean := math.Inf(1), 0.0
	for _, v := range f.raw {
		low = min(low, v)
		mean += v / float64(f.period)
	}
	if low < 0 || mean <= 0 {
		f.additive = true
	}
	f.kernel.choose(f.raw, f.weights)
	for i := range f.raw {
		f.shape[i], f.without[i] = f.kernel.at(f.raw, f.weights, i)
		if f.kernel.width == 0 || f.without[i] != f.without[i] {
			f.without[i] = (f.raw[(i+f.period-1)%f.period] + f.raw[(i+1)%f.period]) / 2
		}
	}
	f.floor = max(mean/20, 1e-300)
	f.power = f.noisePower(mean)
	f.level, f.seen, f.expected = 1, mean, mean
	if f.additive {
		f.level, f.seen, f.expected = 0, 0, 0
	}
	f.seasons = 1
	f.ready = true
	// With the left-out shape in the place of the shape, and nothing learned.
	f.shape, f.without = f.without, f.shape
	for i := range f.period {
		pos := (f.pos + i) % f.period
		y := math.NaN()
		if f.weights[pos] > 0 {
			y = f.raw[pos]
		}
		f.observe(pos, y, false)
	}
	f.shape, f.without = f.without, f.shape
}

// noisePower compares the noise of busy and of quiet positions: the power of
// the value that the noise grows with, to the nearest half.
func (f *profile) noisePower(mean float64) float64 {
	if f.additive {
		return 0
	}
	var noise, value, n [2]float64
	for i, v := range f.raw {
		if f.weights[i] == 0 {
			continue
		}
		side := 0
		if f.without[i] > mean {
			side = 1
		}
		noise[side] += math.Abs(v - f.without[i])
		value[side] += max(f.without[i], 0)
		n[side]++
	}
	if n[0] < 8 || n[1] < 8 || noise[0] <= 0 || value[0] <= 0 || noise[1] <= 0 {
		return 0.5
	}
	slope := math.Log((noise[1]/n[1])/(noise[0]/n[0])) / math.Log((value[1]/n[1])/(value[0]/n[0]))
	return clamp(math.Round(2*slope)/2, 0, 1)
}

// observe takes one value at a position. Without learn, the shape stays.
func (f *profile) observe(pos int, y float64, learn bool) {
	if y == y {
		f.correct(pos, y, learn)
	} else {
		f.deviation *= fade
		f.excess *= fade
	}
	// The forecasts that later values are compared with.
	h, fading := 0, 1.0
	for i := range f.anchors {
		a := &f.anchors[i]
		for ; h < len(a.ahead); h++ {
			fading *= fade
		}
		a.ahead[a.next] = f.at((pos+h)%f.period, fading)
		if a.next++; a.next == len(a.ahead) {
			a.next = 0
		}
	}
}

// steady is how much a position says about the level, in (0, 1]: the share of
// its variance that is noise, the rest being that the shape may be off in time
// where it is steep, by a hundredth of a season. Without this, a surge that is
// late looks like a lower level.
func (f *profile) steady(pos int) float64 {
	jitter := (f.period + 50) / 100
	if jitter == 0 {
		return 1
	}
	here := f.at(pos, 0)
	after := f.at((pos+jitter)%f.period, 0)
	before := f.at((pos+f.period-jitter)%f.period, 0)
	slope := max(math.Abs(after-here), math.Abs(here-before))
	noise := f.anchors[0].errors.spread() * f.unit(here)
	if slope <= 0 {
		return 1
	}
	r := slope / max(noise, 1e-6*slope)
	return 1 / (1 + float64(r*r))
}

// trust learns how much of a deviation is still there one step later, by the
// regression of the next error on what was expected of it.
func (f *profile) trust(e, base float64) {
	x := f.lean * fade
	if !f.additive {
		x *= base
	}
	u := f.unit(base)
	x, e = clamp(x/u, -1e70, 1e70), clamp(e/u, -1e70, 1e70)
	keep := 1 - 1/float64(f.period)
	f.cross = float64(keep*f.cross) + float64(x*e)
	f.square = float64(keep*f.square) + float64(x*x)
}

// gain is the share of a deviation that lasts, in [0, 1].
func (f *profile) gain() float64 {
	if f.square <= 0 {
		return 0
	}
	return clamp(f.cross/f.square, 0, 1)
}

func (f *profile) correct(pos int, y float64, learn bool) {
	expect := f.at(pos, fade)
	for i := range f.anchors {
		a := &f.anchors[i]
		if v := a.ahead[a.next]; v == v {
			a.errors.add(clamp((y-v)/f.unit(v), -huge, huge))
		}
	}
	if e := &f.anchors[0].errors; e.len() >= 16 {
		reach := float64(outlier * e.spread() * f.unit(expect))
		if math.Abs(y-expect) <= reach {
			f.far = 0
		} else if f.far++; f.far < patience {
			y = clamp(y, expect-reach, expect+reach)
		}
	}
	f.trust(y-f.at(pos, 0), f.at(pos, 0))
	s := f.shape[pos]
	w := (1 - f.slow) * f.steady(pos)
	f.seen = clamp(f.seen+float64(w*(y-f.seen)), -huge, huge)
	f.expected += float64(w * (s - f.expected))
	if f.additive {
		f.level = f.seen - f.expected
	} else if f.expected > 0 {
		f.level = clamp(f.seen/f.expected, 0, 1/tiny)
	}
	base := f.at(pos, 0)
	f.excess = clamp(float64(f.fast*f.excess)+float64((1-f.fast)*(y-base)), -huge, huge)
	f.recent = clamp(float64(f.fast*f.recent)+float64((1-f.fast)*base), -huge, huge)
	if f.additive {
		f.lean = f.excess
	} else if f.lean = 0; f.recent > 0 {
		f.lean = clamp(f.excess/f.recent, -0.9, 4)
	}
	f.deviation = f.lean * f.gain()
	if !learn {
		return
	}
	plain := y - f.level
	if !f.additive {
		if f.level <= tiny {
			return
		}
		plain = y / f.level
	}
	f.weights[pos] = min(f.weights[pos]+1, 1/f.renewal)
	f.raw[pos] = clamp(f.raw[pos]+float64((plain-f.raw[pos])/f.weights[pos]), -huge, huge)
	// The window round the position one width back is complete only now.
	back := pos - f.kernel.width
	if back < 0 {
		back += f.period
	}
	f.shape[back], _ = f.kernel.at(f.raw, f.weights, back)
}

// turn ends a season: the window is chosen anew, since more seasons need less
// smoothing. Its cost, spread over the season, is a small constant a step.
func (f *profile) turn() {
	f.seasons++
	f.kernel.choose(f.raw, f.weights)
	f.kernel.smooth(f.shape, f.raw, f.weights)
}

// Forecast implements [Fitted].
func (f *profile) Forecast(dst *Forecast, horizon int, opts Options) error {
	if err := opts.check(horizon); err != nil {
		return err
	}
	dst.prepare(f.start.Add(time.Duration(f.n)*f.step), f.step, horizon, opts.Levels)
	if !f.ready {
		f.forecastYoung(dst, opts)
		return nil
	}
	dst.Model = f.name
	fading, pos := 1.0, f.pos
	for h := range dst.Mean {
		fading *= fade
		dst.Mean[h] = f.at(pos, fading)
		if pos++; pos == f.period {
			pos = 0
		}
	}
	f.cuts = resize(f.cuts, len(f.anchors))
	for i, p := range opts.Levels {
		z := normal(p)
		for k := range f.anchors {
			f.cuts[k] = f.anchors[k].errors.quantile(p)
		}
		day := dayPrior / float64(f.seasons*f.seasons) * z
		k, last := 0, len(f.anchors)-1
		for h, v := range dst.Mean {
			for k < last && len(f.anchors[k+1].ahead) <= h+1 {
				k++
			}
			cut := f.cuts[k]
			if k < last {
				from, to := len(f.anchors[k].ahead), len(f.anchors[k+1].ahead)
				cut += float64((f.cuts[k+1] - cut) * float64(h+1-from) / float64(to-from))
			}
			dst.Quantiles[i][h] = v + float64(cut*f.unit(v)) + float64(day*math.Abs(v))
		}
	}
	dst.finish(f.scale, opts)
	return nil
}

// forecastYoung is the forecast before one season has been seen: damped trend,
// with the quantiles of its one-step errors widened as its variance grows.
func (f *profile) forecastYoung(dst *Forecast, opts Options) {
	dst.Model = "ETS(A,Ad,N)"
	dst.Fallbacks = append(dst.Fallbacks, f.short...)
	f.deviations = resize(f.deviations, len(dst.Mean))
	f.young.path(dst.Mean, f.deviations, 1)
	for i, p := range opts.Levels {
		q := f.young.errors.quantile(p)
		if f.young.errors.len() < 3 {
			q = max(assumedSpread*math.Abs(f.young.level), f.young.errors.spread()) * normal(p)
		}
		for h, v := range dst.Mean {
			dst.Quantiles[i][h] = v + float64(q*f.deviations[h])
		}
	}
	dst.finish(f.scale, opts)
}
