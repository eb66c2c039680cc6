package main

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/forecast"
	"github.com/evenkeel-go/evenkeel/forecast/scaling"
)

// track is what was measured of one service, one value a scrape.
type track struct {
	Service string
	// Capacity is what one ready replica can serve, in requests a second.
	Capacity float64
	Times    []time.Time
	Demand   []float64 // requests a second
	Latency  []float64 // ms, p90
	Errors   []float64 // share
	Ready    []float64 // replicas that take requests
	Replicas []float64 // processes, ready or not
}

func (t *track) add(at time.Time, demand, latency, errors, ready, replicas float64) {
	t.Times = append(t.Times, at)
	t.Demand = append(t.Demand, demand)
	t.Latency = append(t.Latency, latency)
	t.Errors = append(t.Errors, errors)
	t.Ready = append(t.Ready, ready)
	t.Replicas = append(t.Replicas, replicas)
}

// between gives the part of the track in [from, to).
func (t *track) between(from, to time.Time) *track {
	i, _ := slices.BinarySearchFunc(t.Times, from, time.Time.Compare)
	j, _ := slices.BinarySearchFunc(t.Times, to, time.Time.Compare)
	return &track{
		Service: t.Service, Capacity: t.Capacity, Times: t.Times[i:j], Demand: t.Demand[i:j], Latency: t.Latency[i:j],
		Errors: t.Errors[i:j], Ready: t.Ready[i:j], Replicas: t.Replicas[i:j],
	}
}

// coarse gives the track at the scalers' step: mean demand, errors, latency
// and replicas, and the fewest that were ready.
func (t *track) coarse(step time.Duration) *track {
	out := &track{Service: t.Service, Capacity: t.Capacity}
	for i := 0; i < len(t.Times); {
		at := t.Times[i].Truncate(step)
		j := i
		for j < len(t.Times) && t.Times[j].Before(at.Add(step)) {
			j++
		}
		ready := math.NaN()
		for _, r := range t.Ready[i:j] {
			if !math.IsNaN(r) && !(r >= ready) {
				ready = r
			}
		}
		out.add(at, mean(t.Demand[i:j]), mean(t.Latency[i:j]), mean(t.Errors[i:j]), ready, mean(t.Replicas[i:j]))
		i = j
	}
	return out
}

// mean of what is not missing.
func mean(v []float64) float64 {
	sum, n := 0.0, 0
	for _, x := range v {
		if !math.IsNaN(x) {
			sum += x
			n++
		}
	}
	if n == 0 {
		return math.NaN()
	}
	return sum / float64(n)
}

// short is the number of steps with more demand than ready capacity, of judged.
func (t *track) short() (short, judged int) {
	for i, d := range t.Demand {
		if math.IsNaN(d) || math.IsNaN(t.Ready[i]) {
			continue
		}
		judged++
		if d > t.Ready[i]*t.Capacity {
			short++
		}
	}
	return short, judged
}

// band is what was expected of each time of a coarse track when it was one
// lead time away: the median and the level that capacity is held for; NaN
// before there was a forecast.
func (t *track) band(ctx context.Context, model forecast.Model, ahead int) (median, high []float64, err error) {
	n := len(t.Times)
	median, high = make([]float64, n), make([]float64, n)
	for i := range n {
		median[i], high[i] = math.NaN(), math.NaN()
	}
	if n < 2 {
		return median, high, nil
	}
	s := forecast.Series{Name: t.Service, Start: t.Times[0], Step: t.Times[1].Sub(t.Times[0]), Values: t.Demand}
	opts := forecast.Options{Levels: []float64{0.5, level}, NonNegative: true}
	var fitted forecast.Fitted
	var f forecast.Forecast
	for i, fitAt := 1, 4; i+ahead <= n; i++ {
		if i == fitAt {
			fitAt *= 2
			if fitted, err = model.Fit(ctx, s.Slice(0, i)); errors.Is(err, forecast.ErrTooShort) {
				fitted = nil
			} else if err != nil {
				return nil, nil, err
			}
		} else if fitted != nil {
			fitted.Update(t.Demand[i-1])
		}
		if fitted == nil {
			continue
		}
		if err := fitted.Forecast(&f, ahead, opts); err != nil {
			return nil, nil, err
		}
		median[i+ahead-1], high[i+ahead-1] = f.Quantiles[0][ahead-1], f.Quantiles[1][ahead-1]
	}
	return median, high, nil
}

// replicaMinutes is the area below the replicas, in simulated minutes.
func (t *track) replicaMinutes(step time.Duration) float64 {
	sum := 0.0
	for _, r := range t.Replicas {
		if !math.IsNaN(r) {
			sum += r * step.Minutes()
		}
	}
	return sum
}

// staticMinutes is the same for a fleet that is always as large as the
// busiest moment needs at the target utilisation.
func (t *track) staticMinutes(step time.Duration, utilisation float64) float64 {
	peak := 0.0
	for _, d := range t.Demand {
		if d > peak {
			peak = d
		}
	}
	return math.Max(minReplicas, math.Ceil(peak/(t.Capacity*utilisation))) * step.Minutes() * float64(len(t.Times))
}

// replay is what a policy would have cost on the same demand.
type replay struct {
	minutes float64
	// short is the share of steps in which demand exceeded ready capacity.
	short float64
}

// replayPolicy runs a policy over the demand that was measured: what it asks
// for is paid at once and ready after the lead time.
func (t *track) replayPolicy(p scaling.Policy, start int, step, lead time.Duration) (replay, error) {
	type pending struct{ at time.Time }
	ready := start
	var starting []pending
	var out replay
	judged := 0
	history := make([]float64, 0, len(t.Demand))
	for i, d := range t.Demand {
		now := t.Times[i]
		for len(starting) > 0 && !starting[0].at.After(now) {
			ready++
			starting = starting[1:]
		}
		out.minutes += float64(ready+len(starting)) * step.Minutes()
		if !math.IsNaN(d) {
			judged++
			if d > float64(ready)*t.Capacity {
				out.short++
			}
		}
		history = append(history, d)
		dec, err := p.Decide(scaling.Input{
			Now:      now.Add(step),
			History:  forecast.Series{Name: t.Service, Start: t.Times[0], Step: step, Values: history},
			Replicas: ready + len(starting),
			Ready:    ready,
		})
		if err != nil {
			return out, err
		}
		for want := dec.Replicas; want > ready+len(starting); {
			starting = append(starting, pending{now.Add(step + lead)})
		}
		for ready+len(starting) > dec.Replicas && len(starting) > 0 {
			starting = starting[:len(starting)-1]
		}
		ready = min(ready, dec.Replicas)
	}
	if judged > 0 {
		out.short /= float64(judged)
	}
	return out, nil
}
