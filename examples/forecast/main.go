// Command forecast picks the model that would have foreseen a metric best, and
// shows the next hours of it. The metric is a file with one number a line,
// empty where missing; without a file, it is four made-up days of traffic.
//
//	go run ./examples/forecast [-step 30m] [-season 24h] [-horizon 12h] [FILE]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/forecast"
)

func main() {
	err := run(os.Args[1:])
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	in, err := readInput(args)
	if err != nil {
		return err
	}
	ctx := context.Background()
	period, horizon := int(in.season/in.series.Step), int(in.horizon/in.series.Step)
	var best forecast.Model
	least := math.Inf(1)
	fmt.Printf("%-22s %8s %8s %10s %10s\n", "model", "MASE", "sMAPE", "pinball", "80 % holds")
	for _, m := range []forecast.Model{
		forecast.SeasonalNaive{Period: period},
		forecast.ETS{Trend: forecast.DampedTrend, Season: forecast.AdditiveSeason, Period: period},
		forecast.Profile{Period: period},
	} {
		e, err := forecast.CrossValidate(ctx, m, in.series, forecast.EvalOptions{Horizon: horizon, Period: period, NonNegative: true})
		if err != nil {
			return err
		}
		s := e.Mean
		fmt.Printf("%-22s %8.3f %7.2f%% %10.3f %9.1f%%\n", e.Model, s.MASE, s.SMAPE, s.Pinball, 100*s.Coverage)
		if s.Pinball < least {
			best, least = m, s.Pinball
		}
	}
	if best == nil {
		return fmt.Errorf("%s: too much is missing to judge a model", in.series.Name)
	}
	fitted, err := best.Fit(ctx, in.series)
	if err != nil {
		return err
	}
	var next forecast.Forecast
	if err := fitted.Forecast(&next, horizon, forecast.Options{Levels: []float64{0.1, 0.9}, NonNegative: true}); err != nil {
		return err
	}
	fmt.Printf("\n%s by %s\n", in.series.Name, next.Model)
	for _, why := range next.Fallbacks {
		fmt.Println("note:", why)
	}
	top := max(slices.Max(next.Quantiles[1]), math.SmallestNonzeroFloat64)
	column := func(v float64) int { return int(56 * (v / top)) }
	for h, mean := range next.Mean {
		low, high := next.Quantiles[0][h], next.Quantiles[1][h]
		band := strings.Repeat(" ", column(low)) + strings.Repeat("-", column(high)-column(low)+1)
		at := column(mean)
		band = band[:min(at, len(band)-1)] + "#" + band[min(at+1, len(band)):]
		fmt.Printf("%s %8.1f |%-57s| %.1f … %.1f\n", next.Start.Add(time.Duration(h)*next.Step).Format("Mon 15:04"), mean, band, low, high)
	}
	return nil
}
