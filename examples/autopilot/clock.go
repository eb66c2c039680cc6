package main

import (
	"time"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
)

// simClock is simulated time: the load generator's, so that demand, metrics
// and decisions agree on what time it is. It is a [reconcile.Clock].
type simClock struct {
	load shop.LoadConfig
}

// Now is the simulated time.
func (c simClock) Now() time.Time { return c.load.SimTime(time.Now()) }

// After waits for a simulated duration.
func (c simClock) After(d time.Duration) <-chan time.Time { return time.After(c.wall(d)) }

// now gives both times.
func (c simClock) now() (sim time.Time, sinceStart time.Duration) {
	t := time.Now()
	return c.load.SimTime(t), t.Sub(c.load.WallStart)
}

// sinceStart is the wall time from the start to a simulated time.
func (c simClock) sinceStart(sim time.Time) time.Duration { return c.wall(sim.Sub(c.load.SimStart)) }

// wall is how long a simulated duration really takes, sim the inverse.
func (c simClock) wall(d time.Duration) time.Duration {
	return time.Duration(float64(d) / c.load.Speed)
}

func (c simClock) sim(d time.Duration) time.Duration {
	return time.Duration(float64(d) * c.load.Speed)
}

// step is the simulated time between two scrapes.
func (c simClock) step() time.Duration { return c.sim(scrapeEvery) }
