package main

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/forecast"
)

type input struct {
	series          forecast.Series
	season, horizon time.Duration
}

func readInput(args []string) (in input, err error) {
	flags := flag.NewFlagSet("forecast", flag.ContinueOnError)
	step := flags.Duration("step", 30*time.Minute, "distance of the values")
	flags.DurationVar(&in.season, "season", 24*time.Hour, "length of the season")
	flags.DurationVar(&in.horizon, "horizon", 12*time.Hour, "how far to look ahead")
	if err := flags.Parse(args); err != nil {
		return in, err
	}
	if *step <= 0 || in.season < 2**step || in.horizon < *step {
		return in, fmt.Errorf("-step %v must be above zero, -season %v at least two steps and -horizon %v one", *step, in.season, in.horizon)
	}
	in.series = forecast.Series{Name: "requests a second", Step: *step, Start: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)}
	if flags.NArg() == 0 {
		in.series.Values = traffic(int(4*in.season / *step), in.season.Seconds()/step.Seconds())
		return in, nil
	}
	in.series.Name = flags.Arg(0)
	text, err := os.ReadFile(flags.Arg(0))
	if err != nil {
		return in, err
	}
	for i, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
		v := math.NaN()
		if line = strings.TrimSpace(line); line != "" {
			if v, err = strconv.ParseFloat(line, 64); err != nil {
				return in, fmt.Errorf("%s:%d: %q is not a number", flags.Arg(0), i+1, line)
			}
		}
		in.series.Values = append(in.series.Values, v)
	}
	return in, nil
}

// traffic is demand with a morning surge, an evening bump and noise.
func traffic(n int, period float64) []float64 {
	r := rand.New(rand.NewPCG(1, 1))
	values := make([]float64, n)
	for i := range values {
		u := math.Mod(float64(i)/period, 1)
		day := 1 / (1 + math.Exp((0.35-u)/0.02)) / (1 + math.Exp((u-0.9)/0.03))
		values[i] = (40 + day*(160+60*math.Exp(-math.Pow((u-0.8)/0.06, 2)))) * (1 + 0.05*r.NormFloat64())
	}
	return values
}
