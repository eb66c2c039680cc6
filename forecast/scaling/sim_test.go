package scaling

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/forecast"
)

var t0 = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

// day is a daily shape with a quiet night, a morning surge that multiplies
// demand by five within half an hour, and a decline with an evening bump.
func day(u float64) float64 {
	surge := 1 / (1 + math.Exp(-(u-0.36)/0.006))
	decline := 1 / (1 + math.Exp((u-0.85)/0.03))
	evening := math.Exp(-(u - 0.78) * (u - 0.78) / 0.004)
	return 40 + surge*decline*(160+60*evening)
}

func demand(seed uint64, perDay int, noise float64, levels ...float64) forecast.Series {
	r := rand.New(rand.NewPCG(seed, 7))
	s := forecast.Series{Name: "shop", Start: t0, Step: 24 * time.Hour / time.Duration(perDay)}
	for _, level := range levels {
		for i := range perDay {
			s.Values = append(s.Values, level*day(float64(i)/float64(perDay))*(1+noise*r.NormFloat64()))
		}
	}
	return s
}

// outcome is what a policy made of the days after the first.
type outcome struct {
	violations, surgeViolations int
	replicaSteps                int
	starts                      int
	decisions                   []Decision
}

// simulate replays demand: a step is served by the replicas that were ready at
// its beginning, and replicas asked for at its end are ready lead steps later;
// scale-down is at once, the youngest first.
func simulate(t testing.TB, p Policy, s forecast.Series, perDay, lead int, capacity float64) outcome {
	t.Helper()
	var o outcome
	ready := 3
	var starting []int // the step from whose beginning each is ready
	for i, y := range s.Values {
		kept := starting[:0]
		for _, at := range starting {
			if at <= i {
				ready++
			} else {
				kept = append(kept, at)
			}
		}
		starting = kept
		if i >= perDay {
			o.replicaSteps += ready + len(starting)
			if y > float64(ready)*capacity {
				o.violations++
				if u := float64(i%perDay) / float64(perDay); u > 0.30 && u < 0.42 {
					o.surgeViolations++
				}
			}
		}
		d, err := p.Decide(Input{Now: s.Time(i + 1), History: s.Slice(0, i+1), Replicas: ready + len(starting), Ready: ready})
		if err != nil {
			t.Fatal(err)
		}
		o.decisions = append(o.decisions, d)
		for n := d.Replicas - ready - len(starting); n > 0; n-- {
			starting = append(starting, i+1+lead)
			if i >= perDay {
				o.starts++
			}
		}
		for n := ready + len(starting) - d.Replicas; n > 0; n-- {
			if len(starting) > 0 {
				starting = starting[:len(starting)-1]
			} else {
				ready--
			}
		}
	}
	return o
}

// The first day is learned live; on the second, capacity is ready before the
// morning surge, where the reactive rule is late.
func TestSurgeIsForeseenAfterOneDay(t *testing.T) {
	const capacity = 20
	for _, perDay := range []int{120, 240} {
		for _, lead := range []int{2, 4, 6} {
			for seed := range uint64(5) {
				s := demand(seed, perDay, 0.06, 1, 1.05)
				quantile, err := NewQuantile(QuantileOptions{LeadTime: time.Duration(lead) * s.Step, Capacity: capacity, Min: 1, Max: 40, Model: forecast.Profile{Period: perDay}})
				if err != nil {
					t.Fatal(err)
				}
				hpa, err := NewHPA(HPAOptions{Capacity: capacity, Min: 1, Max: 40})
				if err != nil {
					t.Fatal(err)
				}
				q, h := simulate(t, quantile, s, perDay, lead, capacity), simulate(t, hpa, s, perDay, lead, capacity)
				t.Logf("%d steps a day, lead %d, seed %d: quantile %d violations, %d replica-steps, %d starts; HPA %d, %d, %d",
					perDay, lead, seed, q.violations, q.replicaSteps, q.starts, h.violations, h.replicaSteps, h.starts)
				if q.surgeViolations > 0 {
					t.Errorf("%d steps a day, lead %d, seed %d: %d violations in the surge", perDay, lead, seed, q.surgeViolations)
				}
				if h.surgeViolations == 0 {
					t.Errorf("%d steps a day, lead %d, seed %d: the reactive rule was not late, so the test shows nothing", perDay, lead, seed)
				}
			}
		}
	}
}
