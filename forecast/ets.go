package forecast

import (
	"context"
	"fmt"
	"math"
	"time"
)

// Trend is the trend component of [ETS].
type Trend string

// The trends.
const (
	// NoTrend: the level stays.
	NoTrend Trend = ""
	// AdditiveTrend goes on as a straight line.
	AdditiveTrend Trend = "A"
	// DampedTrend flattens out, which is the safer one for long horizons.
	DampedTrend Trend = "Ad"
)

// Season is the seasonal component of [ETS].
type Season string

// The seasons.
const (
	NoSeason Season = ""
	// AdditiveSeason adds to the level.
	AdditiveSeason Season = "A"
	// MultiplicativeSeason multiplies the level; only for values above zero.
	MultiplicativeSeason Season = "M"
)

// ETS is exponential smoothing as a state-space model with additive errors
// (Hyndman, Koehler, Ord and Snyder, Forecasting with Exponential Smoothing,
// 2008). The zero value is simple exponential smoothing.
//
// Smoothing parameters that are zero are estimated by maximum likelihood,
// which for additive errors is least squares of the one-step errors, by a
// Nelder-Mead search from the best point of a grid; with fewer than 10
// observed values they stay at alpha 0.5, beta 0.05, gamma 0.05, phi 0.9. A
// season of any length is started from the average profile of the first three
// seasons. A missing value leaves the states where their own equations take
// them. Intervals are Gaussian with the exact variance of the model class
// (their equation 6.1); for a multiplicative season the same sum with the
// seasonal factors as weights, exact to first order.
//
// What the data cannot carry is dropped and named in [Forecast.Fallbacks]: a
// trend on fewer than four values, a season on fewer than two cycles, a
// multiplicative season where a value is not above zero.
type ETS struct {
	Trend  Trend
	Season Season
	// Period is the length of the season in steps, at least 2 if Season is set.
	Period int
	// Alpha, Beta and Gamma smooth level, trend and season: 0 < Alpha < 1,
	// 0 < Beta <= Alpha, 0 < Gamma <= 1 - Alpha. Phi damps the trend,
	// in (0, 1). Zero is estimated.
	Alpha, Beta, Gamma, Phi float64
}

// Name is like ETS(A,Ad,M)[24].
func (m ETS) Name() string {
	t, s := m.Trend, m.Season
	if t == NoTrend {
		t = "N"
	}
	if s == NoSeason {
		return fmt.Sprintf("ETS(A,%s,N)", t)
	}
	return fmt.Sprintf("ETS(A,%s,%s)[%d]", t, s, m.Period)
}

func (m ETS) check() error {
	bad := func(what string, got any, want string) error {
		return fmt.Errorf("forecast: ETS: %w: %s %v is not %s", ErrInvalid, what, got, want)
	}
	switch m.Trend {
	case NoTrend, AdditiveTrend, DampedTrend:
	default:
		return bad("trend", fmt.Sprintf("%q", string(m.Trend)), `"", "A" or "Ad"`)
	}
	switch m.Season {
	case NoSeason:
	case AdditiveSeason, MultiplicativeSeason:
		if err := checkPeriod(m.Period, 2); err != nil {
			return err
		}
	default:
		return bad("season", fmt.Sprintf("%q", string(m.Season)), `"", "A" or "M"`)
	}
	if !(m.Alpha >= 0 && m.Alpha < 1) {
		return bad("alpha", m.Alpha, "in (0, 1)")
	}
	if !(m.Beta >= 0 && m.Beta < 1) || m.Alpha > 0 && m.Beta > m.Alpha {
		return bad("beta", m.Beta, "in (0, alpha]")
	}
	if !(m.Gamma >= 0 && m.Gamma < 1) || m.Gamma > 1-m.Alpha {
		return bad("gamma", m.Gamma, "in (0, 1-alpha]")
	}
	if !(m.Phi >= 0 && m.Phi < 1) {
		return bad("phi", m.Phi, "in (0, 1)")
	}
	return nil
}

// smoothing holds the states of exponential smoothing and moves them on.
type smoothing struct {
	alpha, beta, gamma, phi float64
	trending, mult          bool
	level, trend            float64
	season                  []float64 // nil without a season
	pos                     int
}

// tiny keeps a division by a vanishing seasonal factor or level finite.
const tiny = 1e-8

// advance takes the next value, and returns its error, NaN where it is missing.
func (s *smoothing) advance(y float64) float64 {
	damped := float64(s.phi * s.trend)
	base := s.level + damped
	factor, mean := 1.0, base
	if s.season != nil {
		if s.mult {
			factor = s.season[s.pos]
			mean = base * factor
		} else {
			mean = base + s.season[s.pos]
		}
	}
	e := y - mean
	if e != e {
		s.level, s.trend = base, damped
		s.turn()
		return e
	}
	rel := e
	if s.mult {
		rel = e / max(factor, tiny)
		season := factor
		if math.Abs(base) > tiny {
			season += float64(s.gamma * e / base)
		}
		s.season[s.pos] = clamp(season, tiny, 1/tiny)
	} else if s.season != nil {
		s.season[s.pos] = clamp(s.season[s.pos]+float64(s.gamma*e), -huge, huge)
	}
	s.level = clamp(base+float64(s.alpha*rel), -huge, huge)
	if s.trending {
		s.trend = clamp(damped+float64(s.beta*rel), -huge, huge)
	}
	s.turn()
	return e
}

func (s *smoothing) turn() {
	if s.season != nil {
		if s.pos++; s.pos == len(s.season) {
			s.pos = 0
		}
	}
}

// path writes means and standard deviations, the latter for one-step errors of
// standard deviation sigma. The loops over the season and the horizon are
// bounded by horizon², and only for a multiplicative season.
func (s *smoothing) path(mean, deviation []float64, sigma float64) {
	trend, power, pos := 0.0, 1.0, s.pos
	sum := 0.0
	for h := range mean {
		// Here trend is phi + … + phi^h, so that c_h = alpha + beta*trend.
		if h > 0 {
			c := s.alpha
			if s.trending {
				c += float64(s.beta * trend)
			}
			if m := len(s.season); m > 0 && !s.mult && h%m == 0 {
				c += s.gamma
			}
			sum = min(sum+float64(c*c), huge)
		}
		if s.trending {
			power = float64(power * s.phi)
			trend += power
		}
		mean[h] = s.level + float64(trend*s.trend)
		growth := 1 + sum
		if s.season != nil {
			if s.mult {
				growth = s.growth(h, mean[h])
				mean[h] *= s.season[pos]
			} else {
				mean[h] += s.season[pos]
			}
			if pos++; pos == len(s.season) {
				pos = 0
			}
		}
		deviation[h] = sigma * math.Sqrt(growth)
	}
}

// growth is the factor of the variance h+1 steps ahead for a multiplicative
// season: each error e at i reaches the target through level and trend, as
// c_j e/s_i, times the target's factor; and after whole seasons through its
// factor, as gamma e/level_i, times the target's level.
func (s *smoothing) growth(h int, level float64) float64 {
	m := len(s.season)
	target := s.season[(s.pos+h)%m]
	sum, trend, power := 1.0, 0.0, 1.0
	from := (s.pos + h) % m
	for j := 1; j <= h; j++ {
		if from--; from < 0 {
			from = m - 1
		}
		c := s.alpha
		if s.trending {
			power = float64(power * s.phi)
			trend += power
			c += float64(s.beta * trend)
		}
		c = float64(c * target / max(s.season[from], tiny))
		if j%m == 0 && math.Abs(s.level) > tiny {
			c += float64(s.gamma * level / s.level)
		}
		sum = min(sum+float64(c*c), huge)
	}
	return sum
}

// Fit implements [Model]. Settings out of range are an [ErrInvalid].
func (m ETS) Fit(ctx context.Context, s Series) (Fitted, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if err := checkFit(ctx, m.Name(), s); err != nil {
		return nil, err
	}
	f := &etsFitted{units: unitsOf(s.Values), start: s.Start, step: s.Step}
	values := make([]float64, len(s.Values))
	seen, low := 0, math.Inf(1)
	for i, y := range s.Values {
		values[i] = f.in(y)
		if values[i] == values[i] {
			seen++
			low = min(low, values[i])
		}
	}
	if m.Season == MultiplicativeSeason && low <= 0 {
		m.Season = AdditiveSeason
		f.fallbacks = append(f.fallbacks, "a value is not above zero: the season is additive")
	}
	if m.Season != NoSeason && len(values) < 2*m.Period {
		f.fallbacks = append(f.fallbacks, fmt.Sprintf("fewer than two seasons of %d values: no season", m.Period))
		m.Season = NoSeason
	}
	if m.Season != NoSeason && !f.startSeason(m, values) {
		f.fallbacks = append(f.fallbacks, "too many missing values in the first seasons: no season")
		m.Season = NoSeason
	}
	if m.Trend != NoTrend && seen < 4 {
		f.fallbacks = append(f.fallbacks, "fewer than four values: no trend")
		m.Trend = NoTrend
		f.trend = 0
	}
	if m.Season == NoSeason {
		f.startLevel(m, values)
	}
	f.name = m.Name()
	f.trending = m.Trend != NoTrend
	if err := f.estimate(ctx, m, values, seen); err != nil {
		return nil, fmt.Errorf("forecast: fitting %s to %q: %w", m.Name(), s.Name, err)
	}
	sse, n := 0.0, 0
	for _, y := range values {
		if e := f.advance(y); e == e {
			sse += float64(e * e)
			n++
		}
	}
	f.n, f.errors = len(values), n
	// The very first error of a series without a season is zero by
	// construction, so it counts as a parameter.
	f.variance = sse / float64(max(n-1, 1))
	f.known = n >= 3
	f.memory = float64(max(200, 2*m.Period))
	return f, nil
}

type etsFitted struct {
	units
	smoothing
	name      string
	start     time.Time
	step      time.Duration
	n, errors int
	variance  float64 // of the one-step errors
	memory    float64 // how many of them the variance averages
	known     bool    // whether variance rests on anything
	fallbacks []string
	deviation []float64
}

// startLevel starts level and trend from the first ten observed values.
func (f *etsFitted) startLevel(m ETS, values []float64) {
	f.season, f.mult = nil, false
	var n, st, sy, stt, sty float64
	first := math.NaN()
	for i, y := range values {
		if y != y {
			continue
		}
		if first != first {
			first = y
		}
		t := float64(i)
		n, st, sy = n+1, st+t, sy+y
		stt, sty = stt+float64(t*t), sty+float64(t*y)
		if n == 10 {
			break
		}
	}
	f.level, f.trend = first, 0
	if d := float64(n*stt) - float64(st*st); m.Trend != NoTrend && d > 0 {
		f.trend = (float64(n*sty) - float64(st*sy)) / d
		f.level = (sy-float64(f.trend*st))/n - f.trend
	}
}

// startSeason starts level, trend and season from up to three first cycles;
// false if they hold too little.
func (f *etsFitted) startSeason(m ETS, values []float64) bool {
	period := m.Period
	cycles := min(len(values)/period, 3)
	means := make([]float64, cycles)
	for c := range means {
		n := 0
		for _, y := range values[c*period : (c+1)*period] {
			if y == y {
				n++
				means[c] += y
			}
		}
		if 4*n < 3*period {
			return false
		}
		means[c] /= float64(n)
	}
	slope := (means[cycles-1] - means[0]) / float64((cycles-1)*period)
	centre := float64(float64(period-1) / 2)
	line := func(t int) float64 { return means[0] + float64(slope*(float64(t)-centre)) }

	profile := make([]float64, period)
	weight := make([]float64, period)
	for t, y := range values[:cycles*period] {
		if y != y {
			continue
		}
		if m.Season == MultiplicativeSeason {
			profile[t%period] += y / max(line(t), tiny)
		} else {
			profile[t%period] += y - line(t)
		}
		weight[t%period]++
	}
	for i, w := range weight {
		if w > 0 {
			profile[i] /= w
		}
	}
	fillGaps(profile, weight)
	// A long season averaged over so few cycles is mostly noise step by step.
	if period > 24 {
		k := kernel{period: period}
		k.choose(profile, weight)
		smooth := make([]float64, period)
		k.smooth(smooth, profile, weight)
		profile = smooth
	}
	mean := 0.0
	for _, p := range profile {
		mean += p / float64(period)
	}
	for i := range profile {
		if m.Season == MultiplicativeSeason {
			profile[i] = clamp(profile[i]/max(mean, tiny), tiny, 1/tiny)
		} else {
			profile[i] -= mean
		}
	}
	f.season, f.mult, f.pos = profile, m.Season == MultiplicativeSeason, 0
	if m.Trend == NoTrend {
		f.level, f.trend = means[0], 0
	} else {
		f.level, f.trend = line(-1), slope
	}
	return true
}

// parameters of the search: alpha in (0, 1), beta/alpha and gamma/(1-alpha) in
// (0, 1), phi in (0.8, 0.98) as is usual.
func (s *smoothing) set(m ETS, alpha, beta, gamma, phi float64) {
	if m.Alpha > 0 {
		alpha = m.Alpha
	}
	s.alpha = alpha
	s.beta, s.gamma, s.phi = 0, 0, 0
	if m.Trend != NoTrend {
		s.beta = beta * alpha
		if m.Beta > 0 {
			s.beta = min(m.Beta, alpha)
		}
		s.phi = 1
	}
	if m.Trend == DampedTrend {
		s.phi = phi
		if m.Phi > 0 {
			s.phi = m.Phi
		}
	}
	if m.Season != NoSeason {
		s.gamma = gamma * (1 - alpha)
		if m.Gamma > 0 {
			s.gamma = min(m.Gamma, 1-alpha)
		}
	}
}

func (f *etsFitted) estimate(ctx context.Context, m ETS, values []float64, seen int) error {
	f.set(m, 0.5, 0.1, 0.1, 0.9)
	if seen < 10 {
		return nil
	}
	trial := f.smoothing
	season := make([]float64, len(f.season))
	sse := func() float64 {
		trial.level, trial.trend, trial.pos = f.level, f.trend, f.pos
		if f.season != nil {
			copy(season, f.season)
			trial.season = season
		}
		sum := 0.0
		for _, y := range values {
			if e := trial.advance(y); e == e {
				sum += float64(e * e)
			}
		}
		return math.Log(min(sum/float64(seen), huge) + 1e-300)
	}
	share := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	bounded := func(x float64) float64 { return 1e-4 + float64((1-2e-4)*share(x)) }
	// Only the parameters that the model has, and that are not given, are
	// searched; x holds them in this order.
	var free []int
	for i, is := range []bool{
		m.Alpha == 0,
		m.Trend != NoTrend && m.Beta == 0,
		m.Season != NoSeason && m.Gamma == 0,
		m.Trend == DampedTrend && m.Phi == 0,
	} {
		if is {
			free = append(free, i)
		}
	}
	if len(free) == 0 {
		return nil
	}
	var full [4]float64
	objective := func(x []float64) float64 {
		full = [4]float64{0, -2, -2, 0.2}
		for i, k := range free {
			full[k] = x[i]
		}
		trial.set(m, bounded(full[0]), bounded(full[1]), bounded(full[2]), 0.8+float64(0.18*share(full[3])))
		return sse()
	}
	// The grid guards against the flat valleys that smoothing parameters have.
	grid := [][4]float64{
		{-2.2, -3, -2.2, 1}, {-2.2, -3, 0, 1}, {0, -3, -2.2, 1}, {0, -1, -2.2, 1}, {2.2, -3, -2.2, 1}, {2.2, -1, 0, 1},
	}
	start, best := make([]float64, len(free)), math.Inf(1)
	x := make([]float64, len(free))
	for _, g := range grid {
		for i, k := range free {
			x[i] = g[k]
		}
		if v := objective(x); v < best {
			best = v
			copy(start, x)
		}
	}
	if err := minimize(ctx, objective, start, 0.8, 60*len(free)); err != nil {
		return err
	}
	objective(start)
	f.alpha, f.beta, f.gamma, f.phi = trial.alpha, trial.beta, trial.gamma, trial.phi
	return nil
}

// Update implements [Fitted].
func (f *etsFitted) Update(y float64) {
	f.n++
	e := f.advance(f.in(y))
	if e != e {
		return
	}
	f.errors++
	e = clamp(e, -huge, huge)
	f.variance += (float64(e*e) - f.variance) / min(float64(max(f.errors-1, 1)), f.memory)
	if f.errors >= 3 {
		f.known = true
	}
}

// Forecast implements [Fitted].
func (f *etsFitted) Forecast(dst *Forecast, horizon int, opts Options) error {
	if err := opts.check(horizon); err != nil {
		return err
	}
	dst.prepare(f.start.Add(time.Duration(f.n)*f.step), f.step, horizon, opts.Levels)
	dst.Model = f.name
	dst.Fallbacks = append(dst.Fallbacks, f.fallbacks...)
	sigma := math.Sqrt(f.variance)
	if !f.known {
		dst.Fallbacks = append(dst.Fallbacks, "fewer than three values: the spread is assumed")
		sigma = max(sigma, assumedSpread*math.Abs(f.level))
	}
	f.deviation = resize(f.deviation, horizon)
	f.path(dst.Mean, f.deviation, sigma)
	for i, p := range opts.Levels {
		z := normal(p)
		for h, v := range dst.Mean {
			dst.Quantiles[i][h] = v + float64(z*f.deviation[h])
		}
	}
	dst.finish(f.scale, opts)
	return nil
}
