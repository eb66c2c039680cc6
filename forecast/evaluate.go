package forecast

import (
	"context"
	"fmt"
	"time"
)

// EvalOptions say how [CrossValidate] tests a model.
type EvalOptions struct {
	// Horizon is how many steps each window forecasts, at least 1.
	Horizon int
	// Windows is how many windows there are at most, the last of which ends
	// with the series; 0 is as many as leave half of the series to learn from.
	Windows int
	// Step is the distance of the windows in values; 0 is Horizon.
	Step int
	// Refit is after how many windows the model is fitted afresh; in between
	// it is updated with what came. 0 is every window; negative only once.
	Refit int
	// Levels are the quantiles to judge; nil is 0.1, 0.2, … 0.9.
	Levels []float64
	// Period is the season of [MASE] in steps; 0 is 1.
	Period int
	// NonNegative lifts forecasts to at least zero.
	NonNegative bool
}

// Window is one test of an [Evaluation].
type Window struct {
	// Origin is the number of values that the model had seen; Time is that of
	// the first forecast value.
	Origin int
	Time   time.Time
	Score
	// Model and Fallbacks are those of the forecast.
	Model     string
	Fallbacks []string
}

// Evaluation is the result of [CrossValidate].
type Evaluation struct {
	Model   string
	Windows []Window
	// Mean is the mean of the windows' scores, each over the windows that have it.
	Mean Score
}

// String is one line.
func (e *Evaluation) String() string {
	return fmt.Sprintf("%s over %d windows: %s", e.Model, len(e.Windows), e.Mean)
}

// CrossValidate tests a model on the past with a rolling origin: for each
// window the model sees the series up to the origin, and its forecast of the
// next Horizon values is judged against what came. A window whose forecast
// could not be judged, since all its values are missing, counts with NaN.
//
// A bad option, or a series too short for one window, is an [ErrInvalid]; an
// error of the model's ends the test and names the window.
func CrossValidate(ctx context.Context, m Model, s Series, opts EvalOptions) (*Evaluation, error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("forecast: cross-validating %s on %q: %w: %s", m.Name(), s.Name, ErrInvalid, fmt.Sprintf(format, args...))
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if opts.Levels == nil {
		opts.Levels = []float64{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}
	}
	ask := Options{Levels: opts.Levels, NonNegative: opts.NonNegative}
	if err := ask.check(opts.Horizon); err != nil {
		return nil, err
	}
	if opts.Step < 0 || opts.Windows < 0 || opts.Period < 0 {
		return nil, bad("step %d, windows %d or period %d is below zero", opts.Step, opts.Windows, opts.Period)
	}
	if opts.Step == 0 {
		opts.Step = opts.Horizon
	}
	last := s.Len() - opts.Horizon
	if last < 1 {
		return nil, bad("%d values hold no window of %d and a history", s.Len(), opts.Horizon)
	}
	windows := 1 + (last-1)/opts.Step
	switch {
	case opts.Windows > 0:
		windows = min(windows, opts.Windows)
	case last > s.Len()/2:
		windows = 1 + (last-max(s.Len()/2, 1))/opts.Step
	default:
		windows = 1
	}

	e := &Evaluation{Model: m.Name(), Windows: make([]Window, 0, windows)}
	var f Fitted
	var dst Forecast
	var mase, smape, pinball, wql, coverage mean
	for i := range windows {
		origin := last - (windows-1-i)*opts.Step
		if f == nil || opts.Refit == 0 || opts.Refit > 0 && i%opts.Refit == 0 {
			var err error
			if f, err = m.Fit(ctx, s.Slice(0, origin)); err != nil {
				return nil, fmt.Errorf("forecast: cross-validating %s on %q, window %d: %w", m.Name(), s.Name, i, err)
			}
		} else {
			for _, y := range s.Values[origin-opts.Step : origin] {
				f.Update(y)
			}
		}
		if err := f.Forecast(&dst, opts.Horizon, ask); err != nil {
			return nil, fmt.Errorf("forecast: cross-validating %s on %q, window %d: %w", m.Name(), s.Name, i, err)
		}
		w := Window{
			Origin: origin, Time: s.Time(origin), Model: dst.Model,
			Score: NewScore(&dst, s.Values[origin:origin+opts.Horizon], s.Values[:origin], opts.Period),
		}
		w.Fallbacks = append(w.Fallbacks, dst.Fallbacks...)
		e.Windows = append(e.Windows, w)
		for _, part := range []struct {
			of  *mean
			add float64
		}{{&mase, w.MASE}, {&smape, w.SMAPE}, {&pinball, w.Pinball}, {&wql, w.WQL}, {&coverage, w.Coverage}} {
			if part.add == part.add {
				part.of.add(part.add)
			}
		}
	}
	e.Mean = Score{MASE: mase.of(), SMAPE: smape.of(), Pinball: pinball.of(), WQL: wql.of(), Coverage: coverage.of()}
	return e, nil
}
