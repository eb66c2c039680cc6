// Package scrape turns the metrics that the processes of a local platform
// expose into series on a grid, for forecasts, detectors and root causes.
//
// A [Scraper] finds its targets in DIR/run, reads /metrics of each in the
// Prometheus text format, and at every [Scraper.Tick] adds one value to each
// series. The grid's time is the caller's, and may be simulated; rates are
// measured with the wall clock, since that is what the processes live in.
//
//	s, err := scrape.New(scrape.Options{Dir: dir, Step: 5 * time.Minute})
//	if err != nil {
//		return err
//	}
//	defer s.Close()
//	batch, err := s.Tick(ctx, simulated) // every 200 ms, say
//	for _, x := range batch.Samples {
//		detectors[x.Series].Observe(batch.Time, x.Value)
//	}
//	demand, err := s.Query(ctx, `request_rate{service="frontend"}`, from, to, 5*time.Minute)
//	window := s.Window(from, to) // for rootcause.Input
//
// It guarantees:
//
//  1. What is not known is NaN: a target that did not answer, a ratio of no
//     requests, a percentile of nothing, an interval without a tick. Zero
//     means zero.
//  2. A counter that was reset, by a restart, never gives a negative rate.
//  3. A process that is seen for the first time counts from its start if it
//     is younger than the last tick; otherwise its past is not taken for the
//     last interval's.
//  4. Memory is bounded: [Options].Capacity values a series, and none for
//     instances that have been gone for longer than that.
//  5. Equal readings give equal samples in equal order.
//
// A target that fails costs its own values and is named in [Batch].Failed; a
// service's sums are then of the replicas that answered.
package scrape
