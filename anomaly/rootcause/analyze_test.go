package rootcause_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
)

// Each service in turn breaks, seen through few requests and few rows; the
// alert comes from the frontend, the onset is known to a few rows.
func TestShopNamesTheCulprit(t *testing.T) {
	type tally struct{ right, all int }
	byFault := map[string]*tally{}
	var total tally
	{
		for seed := range uint64(60) {
			self := seed%2 == 0
			rng := rand.New(rand.NewPCG(seed, 20))
			for _, culprit := range shopServices {
				for _, what := range []string{"errors", "latency"} {
					f := fault{service: culprit}
					if what != "latency" {
						f.errors = 0.25 + 0.4*rng.Float64()
					}
					if what != "errors" {
						f.extraMS = 25 + 100*rng.Float64()
					}
					s := &shop{rng: rng, fault: f, demand: 15 + 40*rng.Float64(), self: self}
					in := s.input(40+rng.IntN(20), 4+rng.IntN(5), rng.IntN(4)-2)
					r, err := rootcause.Analyzer{}.Analyze(context.Background(), in)
					if err != nil {
						t.Fatal(err)
					}
					key := fmt.Sprintf("self=%v %s", self, what)
					if byFault[key] == nil {
						byFault[key] = &tally{}
					}
					byFault[key].all++
					total.all++
					if len(r.Services) > 0 && r.Services[0].Service == culprit {
						byFault[key].right++
						total.right++
					} else if testing.Verbose() && seed < 6 {
						t.Logf("seed %d self=%v %+v demand %.0f", seed, self, f, s.demand)
						for i, v := range r.Services {
							t.Logf("   %d %s %.1f %.2f %q %+v", i+1, v.Service, v.Score, v.Confidence, v.Evidence, v.Metrics[:2])
						}
					}
				}
			}
		}
	}
	for k, v := range byFault {
		t.Logf("%s: %d of %d", k, v.right, v.all)
		if v.right*20 < v.all*19 {
			t.Errorf("%s: rank 1 in %d of %d, want at least 19 of 20", k, v.right, v.all)
		}
	}
}
