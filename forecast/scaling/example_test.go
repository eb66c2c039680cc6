package scaling_test

import (
	"fmt"
	"log"
	"time"

	"github.com/evenkeel-go/evenkeel/forecast"
	"github.com/evenkeel-go/evenkeel/forecast/scaling"
)

// Demand triples at nine every morning. A replica takes half an hour to
// start, so the capacity for nine has to be asked for at half past eight.
func ExampleQuantile() {
	policy, err := scaling.NewQuantile(scaling.QuantileOptions{
		LeadTime: 30 * time.Minute,
		Capacity: 100,
		Target:   0.8,
		Min:      1, Max: 20,
		Model: forecast.Profile{Period: 48}, // a day of half hours
	})
	if err != nil {
		log.Fatal(err)
	}
	demand := forecast.Series{Name: "orders", Start: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC), Step: 30 * time.Minute}
	replicas := 3
	for day := range 3 {
		for i := range 48 {
			v := 200.0
			if i >= 18 && i < 40 {
				v = 600
			}
			demand.Values = append(demand.Values, v)
			d, err := policy.Decide(scaling.Input{Now: demand.End(), History: demand, Replicas: replicas, Ready: replicas})
			if err != nil {
				log.Fatal(err)
			}
			if day == 2 && d.Replicas != replicas {
				fmt.Printf("%s  demand %3.0f  %d to %2d replicas  (%s)\n", d.Time.Format("15:04"), v, replicas, d.Replicas, d.Bound)
			}
			replicas = d.Replicas
		}
	}
	// Output:
	// 07:30  demand 200  3 to  4 replicas  (Forecast)
	// 08:00  demand 200  4 to  7 replicas  (Forecast)
	// 08:30  demand 200  7 to  8 replicas  (Forecast)
	// 09:30  demand 600  8 to  9 replicas  (Forecast)
	// 13:00  demand 600  9 to  8 replicas  (Forecast)
	// 21:00  demand 200  8 to  4 replicas  (Forecast)
}
