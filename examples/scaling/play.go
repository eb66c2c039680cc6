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
	"github.com/evenkeel-go/evenkeel/forecast/scaling"
)

type input struct {
	demand           forecast.Series
	lead             time.Duration
	capacity         float64
	perDay, steepest int
}

// result is how a policy fared on the second day.
type result struct {
	steps                       []string // one for each step: ready of asked
	decisions                   []scaling.Decision
	short, replicaSteps, starts int
}

// play serves each step with the replicas that are ready at its beginning.
// What is asked for at its end is ready after the lead time.
func play(p scaling.Policy, in input) (result, error) {
	var r result
	lead := int(math.Ceil(in.lead.Seconds() / in.demand.Step.Seconds()))
	asked := make([]int, in.demand.Len()+1) // at the beginning of each step
	asked[0] = 2
	for i, y := range in.demand.Values {
		// Ready is what has been asked for during the whole lead time.
		ready := asked[i]
		for k := max(0, i-lead); k < i; k++ {
			ready = min(ready, asked[k])
		}
		mark := ""
		if y > float64(ready)*in.capacity {
			mark = " short"
		}
		r.steps = append(r.steps, fmt.Sprintf("%d/%d%s", ready, asked[i], mark))
		d, err := p.Decide(scaling.Input{
			Now: in.demand.Time(i + 1), History: in.demand.Slice(0, i+1), Replicas: asked[i], Ready: ready,
		})
		if err != nil {
			return r, err
		}
		asked[i+1] = d.Replicas
		r.decisions = append(r.decisions, d)
		if i >= in.perDay {
			r.replicaSteps += asked[i]
			r.starts += max(0, asked[i+1]-asked[i])
			if mark != "" {
				r.short++
			}
		}
	}
	return r, nil
}

func readInput(args []string) (in input, err error) {
	flags := flag.NewFlagSet("scaling", flag.ContinueOnError)
	step := flags.Duration("step", 6*time.Minute, "distance of the values")
	flags.DurationVar(&in.lead, "lead", 24*time.Minute, "time a replica takes to start")
	flags.Float64Var(&in.capacity, "capacity", 20, "demand that one replica carries")
	if err := flags.Parse(args); err != nil {
		return in, err
	}
	if *step <= 0 || *step > time.Hour {
		return in, fmt.Errorf("-step %v is not above zero and at most an hour", *step)
	}
	in.perDay = int(24 * time.Hour / *step)
	in.demand = forecast.Series{Step: *step, Start: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)}
	if flags.NArg() > 0 {
		text, err := os.ReadFile(flags.Arg(0))
		if err != nil {
			return in, err
		}
		for i, field := range strings.Fields(string(text)) {
			v, err := strconv.ParseFloat(field, 64)
			if err != nil || v < 0 || math.IsInf(v, 0) {
				return in, fmt.Errorf("%s: value %d, %q, is not a demand", flags.Arg(0), i+1, field)
			}
			in.demand.Values = append(in.demand.Values, v)
		}
		if in.demand.Len() < 2*in.perDay {
			return in, fmt.Errorf("%s: %d values of %v are less than two days", flags.Arg(0), in.demand.Len(), *step)
		}
		in.demand.Values = in.demand.Values[:2*in.perDay]
	} else {
		r := rand.New(rand.NewPCG(1, 1))
		for i := range 2 * in.perDay {
			u := math.Mod(float64(i)/float64(in.perDay), 1)
			day := 1 / (1 + math.Exp((0.35-u)/0.006)) / (1 + math.Exp((u-0.9)/0.03))
			in.demand.Values = append(in.demand.Values, (40+day*(160+60*math.Exp(-math.Pow((u-0.8)/0.06, 2))))*(1+0.05*r.NormFloat64()))
		}
	}
	most := math.Inf(-1)
	for i := in.perDay; i+5 < in.demand.Len(); i++ {
		if rise := in.demand.Values[i+5] - in.demand.Values[i]; rise > most {
			most, in.steepest = rise, i+5-in.perDay
		}
	}
	return in, nil
}
