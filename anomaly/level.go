package anomaly

import (
	"math"
	"time"
)

// Level judges values against the median of the recent ordinary ones, in
// units of their robust noise. It suits metrics without a season or with one
// that is slow against its window: error ratios, latency quantiles, memory,
// queues. The zero value is a Level with default [Options].
//
// Unusual values are not learned as normal: a lone one counts only up to the
// edge of the band, a run of them not at all, until Options.Relearn confirms
// a new level. The size is about 24 bytes for each value of the window and
// 400 besides: 1.8 kB by default.
type Level struct {
	opts   Options
	w      window // ordinary values
	recent ring   // all values, to start afresh from
	v      vitals
	out    int // unusual values less usual ones, not below zero
	run    int // unusual values in a row on one side: above zero up, below down
}

// NewLevel makes a Level; it fails only with [ErrOptions].
func NewLevel(opts Options) (*Level, error) {
	o, err := opts.resolve()
	if err != nil {
		return nil, err
	}
	l := &Level{}
	l.init(o)
	return l, nil
}

func (l *Level) init(o Options) {
	*l = Level{opts: o, w: newWindow(o.Window), recent: newRing(o.Window)}
}

// Observe judges one value and learns from it. A value that is NaN,
// infinite or beyond 1e150 is missing: it has Score 0 unless it makes a [Dropout].
func (l *Level) Observe(_ time.Time, x float64) Result {
	if l.opts.Window == 0 {
		o, _ := Options{}.resolve()
		l.init(o)
	}
	r, _ := l.observe(x, 0)
	return r
}

// observe judges x against base plus the level of what was left over base
// before. Level itself has base 0; a seasonal detector brings its season, and
// learn is the value that it may learn, NaN for none.
func (l *Level) observe(x, base float64) (r Result, learn float64) {
	if !usable(x) || !usable(base) {
		return l.missing(base), math.NaN()
	}
	l.v.missing = 0
	e := x - base
	if l.w.len() < l.opts.WarmUp {
		l.w.push(e)
		l.recent.push(e)
		l.v.last = x
		return warming(), x
	}
	m := l.w.median()
	sd := l.w.sd(m)
	expected := m + base
	half := l.opts.half(expected, sd)
	r = Result{Ready: true, Expected: expected}
	r.Lower, r.Upper = l.opts.band(expected, half)
	d := e - m
	raw := min(math.Abs(d)/half, maxScore)
	r.Score = min(l.opts.gate(d)/half, maxScore)
	r.P = 1
	if r.Score > 0 {
		r.P = tail(r.Score * l.opts.Threshold)
	}
	if r.Score > 1 {
		r.Kind = Spike
		if d < 0 {
			r.Kind = Dip
		}
	}

	l.v.value(&l.opts, x, base, &l.w, sd)
	l.recent.push(e)
	learn = math.NaN()
	if raw <= 1 {
		l.run = 0
		l.out = max(0, l.out-1)
		l.w.push(e)
		learn = x
	} else {
		if d > 0 {
			l.run = max(l.run, 0) + 1
		} else {
			l.run = min(l.run, 0) - 1
		}
		l.out++
		if l.run <= isolated && l.run >= -isolated {
			clipped := m + math.Copysign(half, d)
			l.w.push(clipped)
			learn = base + clipped
		}
	}
	if r.Kind != "" && (l.run >= confirmed || l.run <= -confirmed) {
		r.Kind = LevelShift
	}
	l.v.judge(&l.opts, &r)
	if l.opts.Relearn > 0 && l.out >= l.opts.Relearn {
		l.relearn()
		r.Relearned = true
		learn = x
	}
	return r, learn
}

// relearn starts afresh from the last values, unusual as they were.
func (l *Level) relearn() {
	l.w.clear()
	for k := len(l.recent.values) - 1; k >= 0; k-- {
		l.w.push(l.recent.last(k))
	}
	l.out, l.run = 0, 0
	l.v.zeros, l.v.same = 0, 0
}

// missing is the result for a value that is not there.
func (l *Level) missing(base float64) Result {
	if !usable(base) {
		base = math.NaN()
	}
	l.v.missing++
	if l.w.len() < l.opts.WarmUp {
		return warming()
	}
	m := l.w.median()
	r := Result{Ready: true, P: 1, Expected: m + base}
	r.Lower, r.Upper = l.opts.band(r.Expected, l.opts.half(r.Expected, l.w.sd(m)))
	l.v.judge(&l.opts, &r)
	return r
}

func warming() Result {
	return Result{P: 1, Expected: math.NaN(), Lower: math.NaN(), Upper: math.NaN()}
}

// vitals tells a metric that died from one that is merely unusual.
type vitals struct {
	missing int // missing values in a row
	zeros   int // zeros in a row where none was before
	same    int // repetitions of the last value in a row
	last    float64
	varied  bool // the metric varied before it began to repeat
}

// value counts a value that is there.
func (v *vitals) value(o *Options, x, base float64, w *window, sd float64) {
	switch {
	case x != 0:
		v.zeros = 0
	case v.zeros > 0 || w.min()+base > 0 || w.max()+base < 0:
		v.zeros++
	}
	if x != v.last {
		v.same = 0
	} else {
		if v.same == 0 {
			v.varied = sd > 0
		}
		v.same++
	}
	v.last = x
	// After Relearn more equal values a constant is the new normal.
	if o.Relearn > 0 && o.Missing > 0 && v.zeros > o.Missing+o.Relearn {
		v.zeros = 0
	}
	if o.FlatLine > 0 && o.Relearn > 0 && v.same >= o.FlatLine+o.Relearn {
		v.varied = false
	}
}

// judge turns the counts into a verdict that overrides the value's own.
func (v *vitals) judge(o *Options, r *Result) {
	set := func(k Kind, n, limit int) {
		r.Kind = k
		r.Score = max(r.Score, min(1+float64(n)/float64(limit), 10))
		r.P = min(r.P, tail(r.Score*o.Threshold))
	}
	switch {
	case o.Missing > 0 && v.missing >= o.Missing:
		set(Dropout, v.missing, o.Missing)
	case o.Missing > 0 && o.Direction != Up && v.missing == 0 && v.zeros >= o.Missing:
		set(Dropout, v.zeros, o.Missing)
	case o.FlatLine > 0 && v.missing == 0 && v.varied && v.same+1 >= o.FlatLine:
		set(FlatLine, v.same+1, o.FlatLine)
	}
}
