package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/forecast"
	"github.com/evenkeel-go/evenkeel/forecast/scaling"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/scrape"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

// run keeps everything going until ctx ends. Reconciler and manager have
// loops of their own; what they tell and what is scraped is handled here, by
// one goroutine.
func (a *autopilot) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.rec.Run(ctx) })
	g.Go(func() error { return a.manager.Run(ctx) })
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				a.drain(context.WithoutCancel(ctx))
				return ctx.Err()
			case <-a.mail.wake:
				a.drain(ctx)
			case <-time.After(a.untilNextTick()):
				if err := a.tick(ctx); err != nil {
					return err
				}
			}
		}
	})
	return g.Wait()
}

// untilNextTick is the wall time to just after the next interval of the grid
// begins.
func (a *autopilot) untilNextTick() time.Duration {
	step := a.clock.step()
	next := a.clock.Now().Truncate(step).Add(step)
	return time.Until(a.clock.load.WallTime(next)) + 5*time.Millisecond
}

// replay feeds what an earlier controller scraped to the new detectors, which
// end up as its were.
func (a *autopilot) replay() error {
	return a.history.read(func(b scrape.Batch, watched bool) error {
		if err := a.scraper.Restore(b); err != nil {
			return err
		}
		if watched {
			a.watch(b, false)
			if a.watched.IsZero() {
				a.watched = a.clock.load.WallTime(b.Time)
				a.warm = a.watched
			}
			if a.opened.IsZero() {
				a.opened = b.Time
			}
		}
		a.record(b)
		return nil
	})
}

// tick scrapes once and acts on what is there.
func (a *autopilot) tick(ctx context.Context) error {
	b, err := a.scraper.Tick(ctx, a.clock.Now())
	switch {
	case errors.Is(err, scrape.ErrNotAfter):
		return nil
	case err != nil:
		return a.passing(ctx, "metrics", err)
	}
	watched := a.ordinary(b)
	if err := a.history.append(b, watched); err != nil {
		return err
	}
	if watched {
		a.watch(b, true)
	}
	a.record(b)
	a.diagnose(ctx)
	return a.scale(ctx, b.Time)
}

// passing tells of a failure that the next round may not have. When the run
// is over nothing is told, since everything fails then.
func (a *autopilot) passing(ctx context.Context, what string, err error) error {
	if ctx.Err() == nil {
		a.tl.say(wordError, nil, "%s: %v", what, err)
	}
	return ctx.Err()
}

// ordinary tells whether detectors may learn from a batch. Starting up is no
// ordinary time, and neither is the time until there is capacity for the
// demand that the shop opened to: who learns from them takes errors for usual.
// Once it is, it stays so, and after a while it is whatever it is.
func (a *autopilot) ordinary(b scrape.Batch) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.watched.IsZero() {
		return true
	}
	if a.warm.IsZero() || time.Now().Before(a.warm) {
		return false
	}
	if a.opened.IsZero() {
		a.opened = b.Time
	}
	value := map[anomaly.SeriesID]float64{}
	for _, s := range b.Samples {
		value[s.Series] = s.Value
	}
	a.enough++
	for name, s := range a.scalers {
		rate := value[anomaly.SeriesID{Service: name, Metric: scrape.RequestRate}]
		if rate > s.capacity*value[anomaly.SeriesID{Service: name, Metric: scrape.ReplicasReady}] {
			a.enough = 0
		}
	}
	if a.enough < 4 && time.Since(a.warm) < 15*time.Second {
		return false
	}
	a.watched = time.Now()
	return true
}

// watch shows a batch to the detectors. In a replay nothing is told or
// analysed that was before.
func (a *autopilot) watch(b scrape.Batch, live bool) {
	present := map[string]bool{}
	for _, s := range b.Samples {
		if s.Series.Instance != "" {
			present[s.Series.Service+"/"+s.Series.Instance] = true
			if a.instances[s.Series.Service] == nil {
				a.instances[s.Series.Service] = map[string]bool{}
			}
			a.instances[s.Series.Service][s.Series.Instance] = true
		}
		events, err := a.monitor.Observe(b.Time, s.Series, s.Value)
		if err != nil {
			a.tl.say(wordError, nil, "%v", err)
			continue
		}
		a.alerted(events, live)
	}
	for _, service := range shop.Services() {
		for _, instance := range slices.Sorted(maps.Keys(a.instances[service])) {
			if present[service+"/"+instance] {
				continue
			}
			delete(a.instances[service], instance)
			id := anomaly.SeriesID{Service: service, Instance: instance, Metric: scrape.MemoryMB}
			a.alerted(a.monitor.Forget(b.Time, id), live)
		}
	}
	a.alerted(a.monitor.Tick(b.Time), live)
}

// record keeps a batch for the report.
func (a *autopilot) record(b scrape.Batch) {
	if a.cfg.story == "none" {
		return // nobody asks for a report
	}
	value := map[anomaly.SeriesID]float64{}
	replicas := map[string]map[string]bool{}
	for _, s := range b.Samples {
		value[s.Series] = s.Value
		if s.Series.Instance != "" {
			if replicas[s.Series.Service] == nil {
				replicas[s.Series.Service] = map[string]bool{}
			}
			replicas[s.Series.Service][s.Series.Instance] = true
		}
	}
	get := func(service, metric string) float64 {
		if v, ok := value[anomaly.SeriesID{Service: service, Metric: metric}]; ok {
			return v
		}
		return math.NaN()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, t := range a.tracks {
		t.add(b.Time, get(name, scrape.RequestRate), get(name, scrape.LatencyMS), get(name, scrape.ErrorRatio),
			get(name, scrape.ReplicasReady), float64(len(replicas[name])))
	}
}

// scale asks each service's policy and commits what it decides, all services
// in one commit. While an incident is open nothing shrinks: what is measured
// then is the trouble and not the demand.
func (a *autopilot) scale(ctx context.Context, now time.Time) error {
	step := scaleEvery * a.clock.step()
	if a.opened.IsZero() || !now.Truncate(step).Add(step-a.clock.step()).Equal(now) {
		return nil // in the middle of a step
	}
	state, err := a.repo.Fetch(ctx)
	if err != nil {
		return a.passing(ctx, "scale", err)
	}
	trouble := slices.ContainsFunc(a.monitor.Incidents(), func(i anomaly.Incident) bool { return i.Closed.IsZero() })
	var edits []reconcile.Edit
	var what, why, short []string
	var ups []scaling.Decision
	up := false
	for _, name := range shop.Services() {
		s := a.scalers[name]
		r, ok := state.Get(s.key)
		if !ok {
			continue
		}
		declared, _ := lookup(r, "spec.replicas").(int64)
		demand, err := a.demand(ctx, name, now)
		if err != nil {
			a.log.Warn("no demand", "service", name, "error", err)
			continue
		}
		d, err := s.policy.Decide(scaling.Input{
			Now: now.Truncate(step).Add(step), History: demand, Replicas: int(declared), Ready: a.ready(name),
		})
		if err != nil {
			a.log.Warn("no decision", "service", name, "error", err)
			continue
		}
		if d.Replicas == int(declared) || d.Replicas < int(declared) && trouble {
			continue
		}
		if d.Replicas > int(declared) {
			up = true
			ups = append(ups, d)
		}
		edits = append(edits, reconcile.Edit{Key: s.key, Path: "spec.replicas", Value: int64(d.Replicas)})
		what = append(what, fmt.Sprintf("%s %d to %d", name, declared, d.Replicas))
		why = append(why, name+": "+d.Reason)
		short = append(short, name+": "+s.reason(d))
	}
	// Shrinking can wait until several services do it together.
	if len(edits) == 0 || !up && time.Since(a.lastScale) < 2*time.Second {
		return nil
	}
	c, err := a.repo.Write(ctx, reconcile.WriteRequest{
		ID:       "scale-" + now.UTC().Format("20060102T150405"),
		Message:  "Scale " + strings.Join(what, ", ") + "\n\n" + strings.Join(why, "\n"),
		Trailers: []reconcile.Trailer{{Key: "Policy", Value: fmt.Sprintf("quantile %g over a lead time of %v", level, a.clock.sim(leadWall))}},
		Edits:    edits,
	})
	if err != nil {
		return a.passing(ctx, "scale", err)
	}
	a.lastScale = time.Now()
	a.rec.Trigger()
	a.mu.Lock()
	a.scaledUp = append(a.scaledUp, ups...)
	a.mu.Unlock()
	if !a.cfg.verbose {
		why = short[:1] // the commit has them all
	}
	a.tl.say(wordScale, why, "%s, by commit %s", strings.Join(what, ", "), reconcile.ShortRevision(c.Revision))
	return nil
}

// reason is a decision's, shorter than in the commit.
func (s *scaler) reason(d scaling.Decision) string {
	const clock = "15:04"
	per := fmt.Sprintf("a replica is given %.0f req/s", s.capacity*utilisation)
	switch d.Bound {
	case scaling.ByForecast:
		return fmt.Sprintf("expects at most %.0f req/s by %s (%.0f %% sure, %s); %s", d.Demand, d.Peak.Format(clock), 100*d.Level, d.Model, per)
	case scaling.ByDemand:
		return fmt.Sprintf("has %.0f req/s now; %s", d.Demand, per)
	case scaling.ByHold:
		return "fewer would do, but these were needed a short while ago"
	case scaling.ByMin, scaling.ByMax, scaling.ByStep, scaling.ByTolerance, scaling.ByFallback:
	}
	return d.Reason
}

func (a *autopilot) ready(service string) int {
	n := 0
	for _, in := range a.platform.Instances(service) {
		if in.Ready {
			n++
		}
	}
	return n
}

// demand is what was asked of a service since the shop opened, one value for
// two scrapes: a rate over half a second of traffic is mostly noise.
func (a *autopilot) demand(ctx context.Context, service string, now time.Time) (forecast.Series, error) {
	step := scaleEvery * a.clock.step()
	start, end := a.opened.Truncate(step).Add(step), now.Truncate(step)
	if oldest := end.Add(-kept * a.clock.step()).Truncate(step); start.Before(oldest) {
		start = oldest
	}
	if end.Before(start) {
		return forecast.Series{Name: service, Start: end, Step: step}, nil
	}
	q := scrape.Query{Metric: scrape.RequestRate, Service: service}
	list, err := a.scraper.Query(ctx, q.String(), start, end, step)
	if err != nil || len(list) == 0 {
		return forecast.Series{Name: service, Start: now.Truncate(step), Step: step}, err
	}
	return list[0], nil
}
