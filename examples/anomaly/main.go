// Command anomaly watches two services through a day and a half, as a host
// would that scrapes them every minute. On the second day a release makes
// checkout fail, payment leaks during its maintenance, and a metric is lost.
package main

import (
	"fmt"
	"log"
	"math"
	"math/rand/v2"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly"
)

// detector is the host's choice of a detector for each kind of metric.
func detector(id anomaly.SeriesID) (anomaly.Detector, error) {
	switch id.Metric {
	case "request_rate":
		return anomaly.NewSeasonal(anomaly.SeasonalOptions{Period: 24 * time.Hour})
	case "error_ratio":
		return anomaly.NewLevel(anomaly.Options{Direction: anomaly.Up, MinDeviation: 0.05})
	default:
		return anomaly.NewLevel(anomaly.Options{Direction: anomaly.Up})
	}
}

func main() {
	monitor, err := anomaly.NewMonitor(anomaly.MonitorOptions{Detector: detector})
	if err != nil {
		log.Fatal(err)
	}
	start := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	at := func(hour, minute int) time.Time {
		return start.AddDate(0, 0, 1).Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	fmt.Printf("%-12s %-15s %-22s %-10s %9s %9s %6s  %s\n", "time", "event", "series", "kind", "value", "expected", "score", "reason")
	for t := start; t.Before(at(18, 0)); t = t.Add(time.Minute) {
		if t.Equal(at(13, 0)) {
			err := monitor.Suppress(anomaly.Match{Service: "payment"}, at(14, 0), "maintenance of payment")
			if err != nil {
				log.Fatal(err)
			}
		}
		hour := t.Sub(start).Hours()
		for _, service := range []string{"checkout", "payment"} {
			values := map[string]float64{
				"request_rate": (300 - 200*math.Cos(hour/24*2*math.Pi)) * (1 + 0.03*rng.NormFloat64()),
				"error_ratio":  max(0, 0.002*rng.NormFloat64()),
				"memory_mb":    220 + 3*rng.NormFloat64(),
			}
			within := func(s string, from, to time.Time) bool { return service == s && !t.Before(from) && t.Before(to) }
			switch {
			case within("checkout", at(9, 30), at(9, 50)):
				values["error_ratio"] = 0.25 + 0.05*rng.Float64()
			case within("payment", at(13, 10), at(13, 40)):
				values["memory_mb"] += 15 * t.Sub(at(13, 10)).Minutes()
			case within("checkout", at(16, 0), at(16, 15)):
				values["request_rate"] = math.NaN()
			}
			for _, metric := range []string{"error_ratio", "memory_mb", "request_rate"} {
				events, err := monitor.Observe(t, anomaly.SeriesID{Service: service, Metric: metric}, values[metric])
				if err != nil {
					log.Fatal(err)
				}
				for _, e := range events {
					fmt.Printf("%-12s %-15s %-22s %-10s %9.3g %9.3g %6.1f  %s\n", e.Time.Format("02 Jan 15:04"), e.Type,
						e.Alert.Series, e.Alert.Kind, e.Alert.Value, e.Alert.Expected, e.Alert.Score, e.Reason)
				}
			}
		}
	}
	for _, inc := range monitor.Incidents() {
		fmt.Printf("\n%s began between %s and %s, %d alert(s), closed %s", inc.ID,
			inc.OnsetEarliest.Format("15:04"), inc.OnsetLatest.Format("15:04"), len(inc.Alerts), inc.Closed.Format("15:04"))
	}
	for _, s := range monitor.Suppressions() {
		fmt.Printf("\n%d alert(s) held back: %s\n", s.Count, s.Reason)
	}
}
