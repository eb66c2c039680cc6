package crashtest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
)

// Fault is what goes wrong in a run beside the controller.
type Fault string

// The faults.
const (
	// BadRelease is a commit that declares a build with a defect.
	BadRelease Fault = "bad release"
	// Leak is a replica that loses memory.
	Leak Fault = "leak"
	// NoFault leaves the shop alone: the kills during start-up are enough.
	NoFault Fault = "no fault"
)

// Anchor is the event from which a kill is timed.
type Anchor string

// The anchors.
const (
	// Started is the first start of the controller.
	Started Anchor = "start"
	// Serving is when every service has a ready replica.
	Serving Anchor = "serving"
	// Injected is when the fault has been injected.
	Injected Anchor = "fault"
	// Deciding is the first record in the controller's journal after the
	// fault. Right after it come the intent, the effect and the record that it
	// was made.
	Deciding Anchor = "decision"
	// Restarted is the restart after the kill before.
	Restarted Anchor = "restart"
)

// Kill is one SIGKILL: After the anchor, with the controller away for Pause.
type Kill struct {
	Anchor Anchor
	After  time.Duration
	Pause  time.Duration
}

// String gives the kill as "fault+3.210s (away 0.40s)".
func (k Kill) String() string {
	return fmt.Sprintf("%s+%.3fs (away %.2fs)", k.Anchor, k.After.Seconds(), k.Pause.Seconds())
}

// Plan is what happens in one run.
type Plan struct {
	Seed  uint64
	Fault Fault
	// Service gets the fault; empty with NoFault.
	Service string
	// Behaviour is that of the bad build.
	Behaviour shop.Behaviour
	Kills     []Kill
}

// String gives the plan as one line.
func (p Plan) String() string {
	var kills []string
	for _, k := range p.Kills {
		kills = append(kills, k.String())
	}
	where := ""
	if p.Service != "" {
		where = " in " + p.Service
	}
	return fmt.Sprintf("seed %d: %s%s, kills at %s", p.Seed, p.Fault, where, strings.Join(kills, ", "))
}

// The spans in which kills fall.
const (
	afterFault = 8 * time.Second
	startUp    = 2500 * time.Millisecond
	warmUp     = 12 * time.Second
	deciding   = 150 * time.Millisecond
	replacing  = 1200 * time.Millisecond // a replica starts in it
)

// NewPlan draws a plan: a leak in one of five runs and a bad release in the
// others, all services in turn; 7 of 10 first kills in the eight seconds after
// the fault, in which the trouble is noticed, traced and repaired, and of these
// 3 of 10 in the moment of the repair itself; the others during start-up and
// warm-up; a second kill soon after the restart in a third
// of the runs.
func NewPlan(seed uint64) Plan {
	rng := rand.New(rand.NewPCG(seed, 0x6b696c6c2d39))
	within := func(d time.Duration) time.Duration { return time.Duration(rng.Float64() * float64(d)) }
	services := shop.Services()
	p := Plan{Seed: seed, Fault: BadRelease, Service: services[seed%uint64(len(services))], Behaviour: shop.Behaviour{ErrorRate: 0.35, ExtraMS: 180}}
	if rng.IntN(5) == 0 {
		p.Fault, p.Behaviour = Leak, shop.Behaviour{}
	}
	k := Kill{Anchor: Injected, After: within(afterFault)}
	if rng.IntN(10) < 3 {
		k = Kill{Anchor: Deciding, After: within(deciding)}
		if p.Fault == Leak {
			k.After = within(replacing)
		}
	}
	if rng.IntN(10) >= 7 {
		k = Kill{Anchor: Started, After: within(startUp)}
		if rng.IntN(2) == 0 {
			k = Kill{Anchor: Serving, After: within(warmUp)}
		}
	}
	k.Pause = within(2 * time.Second)
	p.Kills = []Kill{k}
	if rng.IntN(3) == 0 {
		p.Kills = append(p.Kills, Kill{Anchor: Restarted, After: within(6 * time.Second), Pause: within(2 * time.Second)})
	}
	return p
}
