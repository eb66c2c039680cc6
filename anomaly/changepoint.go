package anomaly

import (
	"fmt"
	"math"
	"time"
)

// ChangePointOptions are the settings of a [ChangePoint]. Of the shared
// Options, MinDeviation and MinRelative bound the noise from below as
// everywhere: a shift by less is not noticed. A change point is
// learned at once; Relearn ends a [Dropout] or [FlatLine] alone.
type ChangePointOptions struct {
	Options
	// Drift is the shift that is let pass, in robust standard deviations a
	// value; 0 means 0.75. Shifts of about twice Drift are the smallest found.
	Drift float64
	// Limit is the cumulated deviation at which Score is 1, in robust
	// standard deviations; 0 means 10. With normal noise and the defaults a
	// false alarm comes every million values.
	Limit float64
}

const clipSD = 4 // one value counts this many standard deviations at most

// ChangePoint finds lasting shifts of level by a two-sided cumulative sum
// (Page's test) of values standardised by the median and the robust noise of
// the ordinary ones, each value clipped so that no single one makes a shift.
// The value that completes the proof has Score above 1 and Kind
// [LevelShift]; the detector then resets itself to the level since the shift
// began and goes on from there, ready.
//
// The size is that of a [Level].
type ChangePoint struct {
	opts     ChangePointOptions
	w        window
	recent   ring
	v        vitals
	up, down float64 // the sums
	sinceUp  int     // values since the sum was last zero
	sinceDn  int
	sd       float64 // noise before the last change, a floor until the window is warm again
}

// NewChangePoint makes a ChangePoint; it fails only with [ErrOptions].
func NewChangePoint(opts ChangePointOptions) (*ChangePoint, error) {
	o, err := opts.resolve()
	if err != nil {
		return nil, err
	}
	c := &ChangePoint{}
	c.init(o)
	return c, nil
}

func (o ChangePointOptions) resolve() (ChangePointOptions, error) {
	common, err := o.Options.resolve()
	if err != nil {
		return o, err
	}
	o.Options = common
	if !(o.Drift >= 0) || !(o.Limit >= 0) || math.IsInf(o.Drift+o.Limit, 0) {
		return o, fmt.Errorf("%w: Drift %v or Limit %v is not a finite number from 0", ErrOptions, o.Drift, o.Limit)
	}
	if o.Drift == 0 {
		o.Drift = 0.75
	}
	if o.Limit == 0 {
		o.Limit = 10
	}
	if o.Drift >= clipSD {
		return o, fmt.Errorf("%w: Drift %v is not below %v, what one value counts at most", ErrOptions, o.Drift, clipSD)
	}
	return o, nil
}

func (c *ChangePoint) init(o ChangePointOptions) {
	*c = ChangePoint{opts: o, w: newWindow(o.Window), recent: newRing(o.Window)}
}

// Observe judges one value and learns from it. A value that is NaN, infinite
// or beyond 1e150 is missing.
func (c *ChangePoint) Observe(_ time.Time, x float64) Result {
	if c.opts.Window == 0 {
		o, _ := ChangePointOptions{}.resolve()
		c.init(o)
	}
	o := &c.opts
	if !usable(x) {
		c.v.missing++
		if !c.ready() {
			return warming()
		}
		m, sd := c.noise()
		r := Result{Ready: true, P: 1, Expected: m}
		r.Lower, r.Upper = c.band(m, sd)
		c.v.judge(&o.Options, &r)
		return r
	}
	c.v.missing = 0
	if !c.ready() {
		c.w.push(x)
		c.recent.push(x)
		c.v.last = x
		return warming()
	}
	m, sd := c.noise()
	r := Result{Ready: true, Expected: m, P: 1}
	r.Lower, r.Upper = c.band(m, sd)
	z := (x - m) / sd
	zc := max(-clipSD, min(clipSD, z))
	c.recent.push(x)
	c.v.value(&o.Options, x, 0, &c.w, c.w.sd(m))
	c.w.push(m + zc*sd)

	c.up, c.sinceUp = add(c.up, zc-o.Drift, c.sinceUp)
	c.down, c.sinceDn = add(c.down, -zc-o.Drift, c.sinceDn)
	if o.Direction != Down {
		r.Score = c.up / o.Limit
	}
	if o.Direction != Up {
		r.Score = max(r.Score, c.down/o.Limit)
	}
	// The chance of a walk with drift against it to climb this high.
	r.P = math.Exp(-2 * o.Drift * r.Score * o.Limit)
	if r.Score > 1 {
		r.Kind = LevelShift
	}
	if max(c.up, c.down) > o.Limit {
		since := c.sinceUp
		if c.down > c.up {
			since = c.sinceDn
		}
		c.restart(since, sd)
	}
	c.v.judge(&o.Options, &r)
	return r
}

func add(sum, d float64, since int) (float64, int) {
	if sum += d; sum <= 0 {
		return 0, 0
	}
	return sum, since + 1
}

// ready holds from the warm-up on: a change does not end it.
func (c *ChangePoint) ready() bool { return c.w.len() >= c.opts.WarmUp || c.sd > 0 }

func (c *ChangePoint) noise() (m, sd float64) {
	m = c.w.median()
	sd = max(c.w.sd(m), c.opts.half(m, 0)/c.opts.Threshold)
	if c.w.len() < c.opts.WarmUp {
		sd = max(sd, c.sd)
	}
	return m, max(sd, math.SmallestNonzeroFloat64)
}

// restart takes the values since the change as the whole past.
func (c *ChangePoint) restart(since int, sd float64) {
	since = max(1, min(since, len(c.recent.values)))
	c.w.clear()
	for k := since - 1; k >= 0; k-- {
		c.w.push(c.recent.last(k))
	}
	c.up, c.down, c.sinceUp, c.sinceDn, c.sd = 0, 0, 0, 0, sd
}

// band gives the values that would complete the proof now; a single value can
// do that only when the sum is already high.
func (c *ChangePoint) band(m, sd float64) (lower, upper float64) {
	lower, upper = math.Inf(-1), math.Inf(1)
	if z := c.opts.Limit - c.up + c.opts.Drift; c.opts.Direction != Down && z < clipSD {
		upper = m + z*sd
	}
	if z := c.opts.Limit - c.down + c.opts.Drift; c.opts.Direction != Up && z < clipSD {
		lower = m - z*sd
	}
	return lower, upper
}
