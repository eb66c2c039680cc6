package forecast

import (
	"context"
	"errors"
	"time"
)

// ErrTooShort says that a series has no observed value to fit a model to.
var ErrTooShort = errors.New("forecast: series is too short")

// Source gives metrics. Query evaluates a query, in the source's own
// language, on the grid start, start+step, … up to and including end, with
// NaN where there is no value. It returns one Series for each label set, in a
// deterministic order, and no error where there is none.
type Source interface {
	Query(ctx context.Context, query string, start, end time.Time, step time.Duration) ([]Series, error)
}

// Model is a forecasting method with its settings. Models hold no data: Fit
// may be called from several goroutines.
type Model interface {
	// Name is the method's usual name with its settings: "ETS(A,Ad,A)[24]".
	Name() string
	// Fit learns from a series, whose values it does not keep or change. A
	// series with too few values for the method is not an error: the method
	// falls back to a simpler one and the [Forecast] says so. A series with
	// no observed value gives [ErrTooShort].
	Fit(ctx context.Context, s Series) (Fitted, error)
}

// Fitted is a model that has seen data and goes on learning. It is not safe
// for concurrent use.
type Fitted interface {
	// Update takes the next value of the series, NaN if it is missing, in
	// constant time and without allocation.
	Update(y float64)
	// Forecast writes the next horizon steps into dst, whose slices are
	// reused where they are large enough. It fails only on bad options.
	Forecast(dst *Forecast, horizon int, opts Options) error
}

// Options say what a forecast holds.
type Options struct {
	// Levels are the wanted quantiles, each in (0, 1), in rising order; nil
	// asks for the mean alone.
	Levels []float64
	// NonNegative lifts every value to at least zero.
	NonNegative bool
	// Cap, where above zero, limits every value from above.
	Cap float64
}

// Forecast is a probabilistic forecast of a [Series].
type Forecast struct {
	// Start is the time of the first forecast step, Step their distance.
	Start time.Time
	Step  time.Duration
	// Mean has one value a step.
	Mean []float64
	// Levels are the quantile levels asked for, and Quantiles[i][h] is the
	// quantile Levels[i] of step h; never crossing: rising in i for each h.
	Levels    []float64
	Quantiles [][]float64
	// Model is the name of the model that was really used, and Fallbacks say
	// why it is not the one asked for, if so.
	Model     string
	Fallbacks []string
}
