package scaling

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/forecast"
)

// QuantileOptions are the settings of a [Quantile] policy. LeadTime, Capacity
// and Max must be given; zero elsewhere is the default.
type QuantileOptions struct {
	// LeadTime is how long a replica takes from being asked for to being ready.
	LeadTime time.Duration
	// Capacity is the demand that one replica carries at full utilisation, in
	// the unit of the history.
	Capacity float64
	// Target is the utilisation in (0, 1] that replicas are meant to run at;
	// 0 is 0.8. It is headroom for latency alone: that for noise and surges is
	// in the quantile, so it can be higher than an HPA's.
	Target float64
	// Level is the quantile of demand to be ready for, in (0, 1); 0 is 0.95.
	// With a cost of u for demand not met and c for capacity not used, the one
	// that costs least is u/(u+c).
	Level float64
	// Min and Max limit the replicas: 0 <= Min <= Max, 1 <= Max.
	Min, Max int
	// MaxStep is the largest change of one decision; 0 is no limit. It also
	// slows the answer to a surge that nobody foresaw.
	MaxStep int
	// Hold is how long replicas stay after they were last needed; 0 is the
	// larger of LeadTime and 15 minutes, negative is no hold. Waiting about as
	// long as a start costs is the break-even rule of ski rental: never more
	// than twice what perfect hindsight would pay.
	Hold time.Duration
	// Stale is the age of the newest value above which the metric counts as
	// missing; 0 is three steps of the history.
	Stale time.Duration
	// Model forecasts demand; nil is a [forecast.Profile] of one day.
	Model forecast.Model
	// RefitEvery is after how many new values the model is fitted afresh to
	// the history given; 0 is whenever that has doubled since the last fit,
	// negative is never. In between the model is updated value by value.
	RefitEvery int
}

// Quantile asks for the replicas that carry a quantile of the demand forecast
// for the time until replicas asked for at the next decision could be ready:
// [now, now + LeadTime + one step of the history]. It never asks for fewer
// than the newest demand needs. It remembers its model and its hold, so one
// Quantile serves one workload. It is not safe for concurrent use.
type Quantile struct {
	opts   QuantileOptions
	model  forecast.Model
	fitted forecast.Fitted
	levels [1]float64
	dst    forecast.Forecast

	// What the model has seen: values on a grid of step, up to end. size is the
	// length of the history of the last fit, since the values since then.
	step  time.Duration
	end   time.Time
	size  int
	since int

	last  time.Time
	needs window
}

// maxLookahead bounds the steps of one forecast, and of one gap in the history.
const maxLookahead = 10_000

// NewQuantile checks the settings and fills in the defaults; an impossible
// setting is an [ErrInvalid].
func NewQuantile(opts QuantileOptions) (*Quantile, error) {
	if opts.Target == 0 {
		opts.Target = 0.8
	}
	if opts.Level == 0 {
		opts.Level = 0.95
	}
	if opts.Hold == 0 {
		opts.Hold = max(opts.LeadTime, 15*time.Minute)
	}
	switch {
	case opts.LeadTime <= 0 || opts.LeadTime > year:
		return nil, invalid("lead time %v is not above zero and at most a year", opts.LeadTime)
	case !(opts.Capacity > 0) || math.IsInf(opts.Capacity, 0):
		return nil, invalid("capacity %v is not above zero", opts.Capacity)
	case !(opts.Target > 0 && opts.Target <= 1):
		return nil, invalid("target utilisation %v is not in (0, 1]", opts.Target)
	case !(opts.Level > 0 && opts.Level < 1):
		return nil, invalid("level %v is not in (0, 1)", opts.Level)
	case opts.Stale < 0:
		return nil, invalid("stale %v is below zero", opts.Stale)
	case opts.MaxStep < 0:
		return nil, invalid("max step %d is below zero", opts.MaxStep)
	}
	if err := checkLimits(opts.Min, opts.Max); err != nil {
		return nil, err
	}
	opts.Hold = max(opts.Hold, 0)
	return &Quantile{opts: opts, levels: [1]float64{opts.Level}}, nil
}

// maxReplicas is more than anybody runs, and far from overflow.
const maxReplicas = 1_000_000

func checkLimits(low, high int) error {
	switch {
	case low < 0:
		return invalid("min %d is below zero", low)
	case high < 1 || high > maxReplicas:
		return invalid("max %d is not in 1…%d", high, maxReplicas)
	case low > high:
		return invalid("min %d is above max %d", low, high)
	}
	return nil
}

// Decide implements [Policy]. An input that makes no sense, and a failure of
// the model to fit, is an error; the Decision then holds what runs, within Min
// and Max, and can be used.
func (q *Quantile) Decide(in Input) (Decision, error) {
	d := Decision{Time: in.Now, Bound: ByFallback}
	d.Replicas = min(max(in.Replicas, q.opts.Min), q.opts.Max)
	err := in.check()
	if err == nil && in.Now.Before(q.last) {
		err = invalid("time %v is before that of the last decision, %v", in.Now, q.last)
	}
	if err == nil {
		err = q.learn(in)
	}
	if err != nil {
		d.Reason = "holds what runs: " + err.Error()
		return d, err
	}
	if q.last.IsZero() {
		// What runs at the start was needed by somebody.
		q.needs.add(held{at: in.Now, replicas: in.Replicas, demand: float64(in.Replicas) * q.perReplica()}, q.opts.Hold)
	}
	q.last = in.Now

	ahead, err := q.foresee(in.Now)
	if err != nil {
		d.Reason = "holds what runs: " + err.Error()
		return d, err
	}
	now, at, seen := newest(in.History, in.Now)
	stale := q.opts.Stale
	if stale == 0 {
		stale = 3 * in.History.Step
	}
	if !seen || in.Now.Sub(at) > stale {
		return q.fallback(in, ahead, at, seen), nil
	}
	return q.decide(in, ahead, now), nil
}

// perReplica is the demand that one replica is meant to carry.
func (q *Quantile) perReplica() float64 { return q.opts.Capacity * q.opts.Target }

// learn brings the model up to date with the history. What the model has
// learned outlives a history that only ever shows a recent window.
func (q *Quantile) learn(in Input) error {
	h := in.History
	// An interval that has not ended yet is no demand to learn from.
	for h.Len() > 0 && h.End().After(in.Now) {
		h.Values = h.Values[:h.Len()-1]
	}
	if h.Len() == 0 {
		return nil
	}
	news := 0
	if q.fitted != nil {
		gap := h.End().Sub(q.end)
		if h.Step != q.step || gap < 0 || gap%h.Step != 0 || gap/h.Step > maxLookahead {
			q.fitted = nil // another grid, or an older one: the history restarts
		} else {
			news = int(gap / h.Step)
		}
	}
	refit := q.opts.RefitEvery > 0 && q.since+news >= q.opts.RefitEvery ||
		q.opts.RefitEvery == 0 && h.Len() >= 2*q.size
	if q.fitted != nil && !(refit && news > 0 && h.Len() > q.size) {
		for i := h.Len() - news; i < h.Len(); i++ {
			v := math.NaN()
			if i >= 0 {
				v = h.Values[i]
			}
			q.fitted.Update(v)
		}
		q.end = h.End()
		q.since += news
		return nil
	}
	return q.fit(h)
}

// fit learns from the whole history, if it holds anything.
func (q *Quantile) fit(h forecast.Series) error {
	if q.model = q.opts.Model; q.model == nil {
		q.model = forecast.Profile{Period: max(int(24*time.Hour/h.Step), 2)}
	}
	if !slices.ContainsFunc(h.Values, usable) {
		return nil
	}
	if slices.ContainsFunc(h.Values, func(v float64) bool { return math.IsInf(v, 0) }) {
		h.Values = slices.Clone(h.Values)
		for i, v := range h.Values {
			if !usable(v) {
				h.Values[i] = math.NaN()
			}
		}
	}
	f, err := q.model.Fit(context.Background(), h)
	if err != nil {
		return fmt.Errorf("scaling: %w", err)
	}
	q.fitted, q.step, q.end, q.size, q.since = f, h.Step, h.End(), h.Len(), 0
	return nil
}

// outlook is the largest forecast demand of the lead window.
type outlook struct {
	demand  float64
	at      time.Time
	horizon time.Duration
	model   string
	known   bool
}

func (q *Quantile) foresee(now time.Time) (outlook, error) {
	if q.fitted == nil {
		return outlook{}, nil
	}
	until := now.Add(q.opts.LeadTime + q.step)
	// Forecast steps begin at q.end; those that have ended by now are skipped.
	skip := max(0, int(now.Sub(q.end)/q.step))
	steps := int(until.Sub(q.end)/q.step) + 1
	if steps > maxLookahead {
		return outlook{}, nil // the metric was lost too long ago to say anything
	}
	opts := forecast.Options{Levels: q.levels[:], NonNegative: true}
	if err := q.fitted.Forecast(&q.dst, steps, opts); err != nil {
		return outlook{}, fmt.Errorf("scaling: %w", err)
	}
	o := outlook{horizon: q.opts.LeadTime + q.step, model: q.dst.Model, known: true, demand: -1}
	for h := skip; h < steps; h++ {
		if v := q.dst.Quantiles[0][h]; v > o.demand {
			o.demand, o.at = v, q.end.Add(time.Duration(h)*q.step)
		}
	}
	if o.at.Before(now) {
		o.at = now
	}
	return o, nil
}

// fallback holds what runs, or takes more if the forecast asks for it.
func (q *Quantile) fallback(in Input, ahead outlook, at time.Time, seen bool) Decision {
	d := Decision{
		Time: in.Now, Replicas: in.Replicas, Bound: ByFallback,
		Demand: float64(in.Replicas) * q.perReplica(),
	}
	why := "no demand has been seen"
	if seen {
		why = fmt.Sprintf("the newest demand is %v old", in.Now.Sub(at))
	}
	d.Reason = why + ": holds what runs"
	if ahead.known {
		if n := replicasFor(ahead.demand, q.perReplica(), q.opts.Max); n > d.Replicas {
			q.cover(&d, ahead)
			d.Replicas = n
			d.Reason = why + ": takes more, as " + q.expects(ahead)
		}
	}
	q.needs.add(held{in.Now, d.Replicas, d.Demand}, q.opts.Hold)
	return q.limit(in, d)
}

// cover fills in what the forecast says.
func (q *Quantile) cover(d *Decision, o outlook) {
	d.Demand, d.Level, d.Horizon, d.Model, d.Peak = o.demand, q.opts.Level, o.horizon, o.model, o.at
}

func (q *Quantile) expects(o outlook) string {
	return fmt.Sprintf("%s is %.4g %% sure of no more than %.4g, at %s", o.model, 100*q.opts.Level, o.demand, o.at.UTC().Format("15:04:05"))
}

func (q *Quantile) decide(in Input, ahead outlook, now float64) Decision {
	d := Decision{Time: in.Now, Bound: ByDemand, Demand: now}
	d.Replicas = replicasFor(now, q.perReplica(), q.opts.Max)
	d.Reason = fmt.Sprintf("demand is %.4g, %.4g a replica", now, q.perReplica())
	if ahead.known && ahead.demand >= now {
		q.cover(&d, ahead)
		d.Replicas = replicasFor(ahead.demand, q.perReplica(), q.opts.Max)
		d.Bound = ByForecast
		d.Reason = fmt.Sprintf("%s; %.4g a replica", q.expects(ahead), q.perReplica())
	}
	q.needs.add(held{in.Now, d.Replicas, d.Demand}, q.opts.Hold)
	if most := q.needs.most(); most.replicas > d.Replicas {
		d.Reason = fmt.Sprintf("%d would do (%s), but %d were needed %v ago; held for %v",
			d.Replicas, d.Reason, most.replicas, in.Now.Sub(most.at), q.opts.Hold)
		d.Replicas, d.Demand, d.Bound = most.replicas, most.demand, ByHold
	}
	return q.limit(in, d)
}

// limit applies the largest step, then Min and Max, which always hold.
func (q *Quantile) limit(in Input, d Decision) Decision {
	if s := q.opts.MaxStep; s > 0 {
		if d.Replicas > in.Replicas+s {
			d.Reason = fmt.Sprintf("%s; wants %d, goes up by at most %d", d.Reason, d.Replicas, s)
			d.Replicas, d.Bound = in.Replicas+s, ByStep
		} else if d.Replicas < in.Replicas-s {
			d.Reason = fmt.Sprintf("%s; wants %d, goes down by at most %d", d.Reason, d.Replicas, s)
			d.Replicas, d.Bound = in.Replicas-s, ByStep
		}
	}
	return clampDecision(d, q.opts.Min, q.opts.Max)
}

func clampDecision(d Decision, low, high int) Decision {
	switch {
	case d.Replicas < low:
		d.Reason = fmt.Sprintf("%s; never below %d", d.Reason, low)
		d.Replicas, d.Bound = low, ByMin
	case d.Replicas > high:
		d.Reason = fmt.Sprintf("%s; never above %d", d.Reason, high)
		d.Replicas, d.Bound = high, ByMax
	}
	return d
}
