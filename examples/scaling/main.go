// Command scaling plays two days of traffic through the forecasting autoscaler
// and through the rule of Kubernetes' HPA. Both see the first day live; the
// second is judged. The traffic is a file with one number a line, one every
// -step; without a file, it is made up, with a surge each morning.
//
//	go run ./examples/scaling [-step 6m] [-lead 24m] [-capacity 20] [FILE]
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/forecast"
	"github.com/evenkeel-go/evenkeel/forecast/scaling"
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
	quantile, err := scaling.NewQuantile(scaling.QuantileOptions{
		LeadTime: in.lead, Capacity: in.capacity, Min: 2, Max: 100,
		Model: forecast.Profile{Period: in.perDay},
	})
	if err != nil {
		return err
	}
	hpa, err := scaling.NewHPA(scaling.HPAOptions{Capacity: in.capacity, Min: 2, Max: 100})
	if err != nil {
		return err
	}
	foresight, err := play(quantile, in)
	if err != nil {
		return err
	}
	reaction, err := play(hpa, in)
	if err != nil {
		return err
	}

	// The three hours round the steepest rise of the second day.
	peak := in.demand.Values[in.perDay+in.steepest]
	from := in.perDay + max(0, in.steepest-in.perDay/16)
	fmt.Printf("%-5s %8s  %-24s %-12s %-12s\n", "", "demand", "", "forecast", "HPA")
	for i := from; i < min(from+in.perDay/8, in.demand.Len()); i++ {
		y := in.demand.Values[i]
		fmt.Printf("%s %8.1f  %-24s %-12s %-12s\n", in.demand.Time(i).Format("15:04"), y,
			strings.Repeat("#", min(24, max(0, int(16*y/peak)))), foresight.steps[i], reaction.steps[i])
	}
	fmt.Printf("\nwhat the forecasting policy did then, and why\n")
	for i := from; i < min(from+in.perDay/8, in.demand.Len()); i++ {
		if d := foresight.decisions[i]; d.Replicas != foresight.decisions[i-1].Replicas {
			fmt.Println(d)
		}
	}
	fmt.Printf("\n%-11s %18s %16s %8s\n", "second day", "short of capacity", "replica-hours", "starts")
	for i, r := range []result{foresight, reaction} {
		fmt.Printf("%-11s %18v %16.1f %8d\n", []string{"forecast", "HPA"}[i],
			time.Duration(r.short)*in.demand.Step, float64(r.replicaSteps)*in.demand.Step.Hours(), r.starts)
	}
	return nil
}
