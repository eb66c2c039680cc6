package anomaly_test

import (
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly"
)

// A monitor over one error ratio: quiet, a bad minute, repaired.
func Example() {
	m, err := anomaly.NewMonitor(anomaly.MonitorOptions{
		Detector: func(anomaly.SeriesID) (anomaly.Detector, error) {
			return anomaly.NewLevel(anomaly.Options{Direction: anomaly.Up, MinDeviation: 0.05})
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	id := anomaly.SeriesID{Service: "payment", Metric: "error_ratio"}
	t := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	for i := range 60 {
		x := 0.0
		if i >= 40 && i < 50 {
			x = 0.3
		}
		events, err := m.Observe(t.Add(time.Duration(i)*5*time.Second), id, x)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, e := range events {
			fmt.Println(e)
		}
	}
	_, still := m.Active(id)
	fmt.Println("still unusual:", still)
	// Output:
	// 10:03:30 IncidentOpened inc-ed5094f309c1
	// 10:03:30 Raised payment/error_ratio Spike 0.3 (expected 0, score 6.0)
	// 10:04:30 Cleared payment/error_ratio Spike 0.3 (expected 0, score 6.0): back to normal
	// still unusual: false
}

func ExampleLevel() {
	d, err := anomaly.NewLevel(anomaly.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	t := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	for i := range 30 {
		d.Observe(t.Add(time.Duration(i)*time.Minute), 100+float64(i%3))
	}
	r := d.Observe(t.Add(30*time.Minute), 150)
	fmt.Printf("%s, score %.1f, expected %.0f, ordinary is %.0f to %.0f\n", r.Kind, r.Score, r.Expected, r.Lower, r.Upper)
	// Output:
	// Spike, score 4.9, expected 101, ordinary is 91 to 111
}
