// Package forecast foresees operational metrics: request rates, queue lengths,
// CPU seconds. It takes a metric on a regular grid, missing values and all, and
// gives a mean and quantiles of the next steps, fast enough to be asked on
// every scrape of every workload.
//
// A [Model] is a method with its settings. Fit learns from a [Series] and gives
// a [Fitted], which takes new values one at a time and forecasts whenever asked:
//
//	model := forecast.Profile{Period: 288} // a day of 5-minute steps
//	fitted, err := model.Fit(ctx, history)
//	if err != nil {
//		return err
//	}
//	var next forecast.Forecast // kept, so that its slices are used again
//	for value := range scrapes {
//		fitted.Update(value)
//		err := fitted.Forecast(&next, 12, forecast.Options{Levels: []float64{0.5, 0.95}, NonNegative: true})
//		if err != nil {
//			return err
//		}
//		fmt.Println(next.Mean[0], next.Quantiles[1]) // the 95 % quantiles of the next hour
//	}
//
// # Which model
//
//   - [SeasonalNaive] repeats the last season. Always compare with it.
//   - [Profile] is a level times a smoothed daily shape. It is ready after one
//     day, and what an autoscaler should start with.
//   - [ETS] is exponential smoothing with trend and season in the state-space
//     form. It suits slowly changing trends and short seasons, and needs two
//     seasons.
//
// [CrossValidate] tests a model on the past; [MASE], [SMAPE], [Pinball],
// [WeightedQuantileLoss] and [Coverage] are the usual measures with the
// definitions of the M4 competition and of GluonTS.
//
// # Guarantees
//
//  1. A forecast is finite, whatever finite values came before: constants,
//     zeros, gaps, a single value, 1e300. Update takes NaN and infinities as
//     missing.
//  2. Quantiles never cross, and NonNegative and Cap hold for all of them.
//  3. Update is constant time (amortised over a season) and allocates nothing;
//     Forecast allocates nothing once dst has been used for the same shape.
//  4. The same input gives the same bits. There is no randomness, no clock and
//     no goroutine. Products that feed a sum are rounded first, so that no
//     compiler fuses them into another result.
//  5. Memory is bounded by the settings, not by the number of values.
//
// # What happens on failure
//
// Bad settings, options and series are errors that wrap [ErrInvalid] and name
// the value; a series without a single observed value is [ErrTooShort]. Too
// little data is not an error: the model falls back to a simpler one,
// [Forecast.Model] names it and [Forecast.Fallbacks] says why. A Fit ends with
// the context's error when its context does.
package forecast
