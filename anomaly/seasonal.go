package anomaly

import (
	"context"
	"fmt"
	"math"
	"math/bits"
	"time"

	"github.com/evenkeel-go/evenkeel/forecast"
)

// SeasonalOptions are the settings of a [Seasonal].
type SeasonalOptions struct {
	Options
	// Period is the length of the season; 0 means 24 hours.
	Period time.Duration
	// Buckets is how many parts of the period are told apart, at most 4096,
	// with straight lines between their middles; 0 means 96. A bucket should
	// not be shorter than the step of the metric.
	Buckets int
	// Model, if set, takes the place of the built-in season once
	// [Seasonal.Seed] has fitted it: values are judged against its one-step
	// forecasts.
	Model forecast.Model
	// Restore, needed only to restore a snapshot of a detector with a Model,
	// makes the fitted model from its own snapshot.
	Restore func(snapshot []byte) (forecast.Fitted, error)
}

const (
	maxBuckets = 4096
	seasonGain = 0.25 // share of a period's deviation that the season takes over, after four periods
)

// Seasonal judges values against what the season, or a model of package
// forecast, makes of this moment, plus the recent level of what is left, in
// units of the robust noise of what is left: a [Level] over forecast
// residuals, with all that is said there of what is learned and what not.
//
// With the built-in season it judges by level alone for the first period,
// then it warms up once more. The size is that of a Level and 10 bytes for
// each bucket, 2.8 kB by default, and that of the model.
type Seasonal struct {
	opts    SeasonalOptions
	level   Level
	profile []float64 // typical value of each bucket
	periods []uint16  // how often each bucket was learned
	began   time.Time // of the first value
	known   bool      // the first period is over
	bucket  int       // the bucket being learned, -1 for none
	sum     float64   // of what the bucket's values differ from the profile
	n       int

	fitted forecast.Fitted
	fc     forecast.Forecast
}

// NewSeasonal makes a Seasonal; it fails only with [ErrOptions].
func NewSeasonal(opts SeasonalOptions) (*Seasonal, error) {
	o, err := opts.resolve()
	if err != nil {
		return nil, err
	}
	s := &Seasonal{}
	s.init(o)
	return s, nil
}

func (o SeasonalOptions) resolve() (SeasonalOptions, error) {
	common, err := o.Options.resolve()
	if err != nil {
		return o, err
	}
	o.Options = common
	if o.Period == 0 {
		o.Period = 24 * time.Hour
	}
	if o.Period < 0 {
		return o, fmt.Errorf("%w: Period %v is negative", ErrOptions, o.Period)
	}
	if o.Buckets == 0 {
		o.Buckets = 96
	}
	if o.Buckets < 1 || o.Buckets > maxBuckets {
		return o, fmt.Errorf("%w: Buckets %d is not in 1..%d", ErrOptions, o.Buckets, maxBuckets)
	}
	if o.Period < time.Duration(o.Buckets) {
		return o, fmt.Errorf("%w: Period %v is too short for %d Buckets", ErrOptions, o.Period, o.Buckets)
	}
	return o, nil
}

func (s *Seasonal) init(o SeasonalOptions) {
	*s = Seasonal{opts: o, bucket: -1, profile: make([]float64, o.Buckets), periods: make([]uint16, o.Buckets)}
	s.level.init(o.Options)
}

// Seed learns from history, as if every value of it had been observed. With a
// Model, the model is fitted to all but the last quarter, or the last Window
// values if those are fewer, from which the noise of its forecasts is
// learned. It fails where history does, or the model on it; the detector is
// then as it was before.
func (s *Seasonal) Seed(ctx context.Context, history forecast.Series) error {
	if err := history.Validate(); err != nil {
		return fmt.Errorf("anomaly: seed: %w", err)
	}
	if s.level.opts.Window == 0 {
		o, _ := s.opts.resolve()
		s.init(o)
	}
	from := 0
	if s.opts.Model != nil {
		from = history.Len() - min(history.Len()/4, s.opts.Window)
		fitted, err := s.opts.Model.Fit(ctx, history.Slice(0, from))
		if err != nil {
			return fmt.Errorf("anomaly: seed: fit %s: %w", s.opts.Model.Name(), err)
		}
		s.fitted = fitted
		s.level.init(s.opts.Options)
	}
	for i := from; i < history.Len(); i++ {
		s.Observe(history.Time(i), history.Values[i])
	}
	return nil
}

// Observe judges one value and learns from it. A value that is NaN, infinite
// or beyond 1e150 is missing. It allocates nothing if the model's Update and
// Forecast do not.
func (s *Seasonal) Observe(t time.Time, x float64) Result {
	if s.level.opts.Window == 0 {
		o, _ := s.opts.resolve()
		s.init(o)
	}
	if s.fitted != nil {
		base := math.NaN()
		if err := s.fitted.Forecast(&s.fc, 1, forecast.Options{}); err == nil && len(s.fc.Mean) > 0 {
			base = s.fc.Mean[0]
		}
		r, learn := s.level.observe(x, base)
		if !usable(base) && usable(x) {
			learn = x // a model that cannot forecast has to see values to recover
		}
		s.fitted.Update(learn)
		return r
	}
	if s.began.IsZero() {
		s.began = t
	}
	if !s.known && t.Sub(s.began) >= s.opts.Period {
		s.flush()
		s.known = true
		s.level.init(s.opts.Options)
	}
	phase := s.phase(t)
	base := 0.0
	if s.known {
		base = s.base(phase)
	}
	r, learn := s.level.observe(x, base)
	if b := int(phase); b != s.bucket {
		s.flush()
		s.bucket = b
	}
	if !math.IsNaN(learn) {
		// Over a known season, what is left after the level: a lasting shift
		// belongs to the level, not to the hour in which it happened.
		d := learn
		if s.known {
			d -= base
			if s.level.w.len() > 0 {
				d -= s.level.w.median()
			}
		}
		s.sum += d
		s.n++
	}
	return r
}

// flush learns the bucket that time has left.
func (s *Seasonal) flush() {
	if s.bucket >= 0 && s.n > 0 {
		mean, b := s.sum/float64(s.n), s.bucket
		switch {
		case !s.known || s.periods[b] == 0:
			if s.known {
				mean += s.typical(b)
			}
			s.profile[b] += (mean - s.profile[b]) / float64(s.periods[b]+1)
		default:
			s.profile[b] += max(seasonGain, 1/float64(s.periods[b]+1)) * mean
		}
		if s.periods[b] < math.MaxUint16-1 {
			s.periods[b]++
		}
	}
	s.bucket, s.sum, s.n = -1, 0, 0
}

// phase is the place of t in its period, in buckets.
func (s *Seasonal) phase(t time.Time) float64 {
	p := int64(s.opts.Period)
	sec := uint64((t.Unix()%p + p) % p)
	// In 128 bits: the nanoseconds of a date may not fit into 64.
	hi, lo := bits.Mul64(sec, uint64(time.Second))
	in := (bits.Rem64(hi, lo, uint64(p)) + uint64(t.Nanosecond())) % uint64(p)
	f := float64(in) / float64(p) * float64(s.opts.Buckets)
	return min(f, math.Nextafter(float64(s.opts.Buckets), 0))
}

// base is the season at a phase, on the line between the middles of buckets.
func (s *Seasonal) base(phase float64) float64 {
	n := len(s.profile)
	left := math.Floor(phase - 0.5)
	f := phase - 0.5 - left
	i := (int(left) + n) % n
	return (1-f)*s.typical(i) + f*s.typical((i+1)%n)
}

// typical is the profile of a bucket, or of the nearest learned one before it.
func (s *Seasonal) typical(b int) float64 {
	for k := range s.profile {
		if i := (b - k + len(s.profile)) % len(s.profile); s.periods[i] > 0 {
			return s.profile[i]
		}
	}
	return 0
}
