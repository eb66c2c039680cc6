package remediate_test

import (
	"context"
	"fmt"
	"log"
	"sync/atomic"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
	"github.com/evenkeel-go/evenkeel/remediate"
)

// platform restarts instances, remembers which orders it has carried out, and
// knows whether the service is well.
type platform struct {
	well atomic.Bool
	done atomic.Value
}

func (p *platform) Do(_ context.Context, a remediate.DirectAction) error {
	fmt.Println("platform:", a.Kind, a.Target, a.Instance)
	p.done.Store(a.ID)
	p.well.Store(true)
	return nil
}

func (p *platform) Done(_ context.Context, id string) (bool, error) {
	return p.done.Load() == id, nil
}

func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	p := &platform{}
	m, err := remediate.New(ctx, remediate.Options{
		Journal: remediate.NewMemoryJournal(),
		Actor:   p,
		// With an anomaly.Monitor: remediate.VerifyAlerts(monitor).
		Verifier: remediate.VerifierFunc(func(context.Context, remediate.Case) (bool, string, error) {
			return p.well.Load(), "the platform says so", nil
		}),
		Playbooks: []remediate.Playbook{{
			Name:     "restart",
			Match:    remediate.Match{Classes: []rootcause.Class{rootcause.Restart}},
			Actions:  []remediate.Action{{Type: remediate.RestartInstance}},
			Verify:   remediate.Verify{Hold: 1}, // a nanosecond: for the example
			Autonomy: remediate.Act,
		}},
		Timings: remediate.Timings{VerifyEvery: 1},
		Observer: func(e remediate.Event) {
			if e.Case.Status.Final() {
				cancel()
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	id, err := m.Handle(ctx, remediate.FromIncident(anomaly.Incident{
		ID:     "inc-7",
		Alerts: []anomaly.Alert{{Series: anomaly.SeriesID{Service: "cart", Instance: "cart-2", Metric: "memory"}, Kind: anomaly.LevelShift}},
	}), &rootcause.Report{
		Class: rootcause.Restart, Why: "cart-2 alone leaks memory",
		Services: []rootcause.RankedService{{Service: "cart", Instance: "cart-2", Confidence: 0.9}},
	})
	if err != nil {
		log.Fatal(err)
	}
	_ = m.Run(ctx) // until the observer cancels
	c, err := m.Case(id)
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range c.Timeline {
		fmt.Println(e.What)
	}
	// Output:
	// platform: restart cart cart-2
	// opened: cart/cart-2/memory LevelShift; playbook restart
	// planned: restart cart/cart-2 (risk Low, never tried)
	// began: restart cart/cart-2
	// done: restart cart/cart-2
	// back to normal
	// verified: restart cart/cart-2
}
