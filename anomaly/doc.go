// Package anomaly notices unusual values in streams of metrics, and turns
// them into alerts and incidents.
//
// A [Detector] scores one series, a value at a time: [Level] against the
// recent median, [Seasonal] against the season or a model of package
// forecast, [ChangePoint] for lasting shifts. An [Alerter] raises an [Alert]
// when enough values are unusual and clears it when enough are not; a
// [Grouper] collects alerts that belong together into one [Incident]. A
// [Monitor] is the three wired up for many series. Each is useful alone.
//
// # Guarantees
//
//  1. Causal: a score depends on the values so far, never on later ones.
//  2. Observe allocates nothing, and a detector's size is bounded and stated.
//  3. Scores are finite and not negative whatever the values are: NaN and
//     infinite ones are missing, a constant series divides nothing by zero.
//  4. What is unusual is not learned as normal, until Options.Relearn values
//     confirm it; the value that does says so ([Result].Relearned).
//  5. Deterministic: the same values give the same results and events, the
//     same alerts the same incident ID.
//  6. Snapshots are versioned and checked, and a restored detector goes on
//     bit for bit as the saved one would have.
//  7. A suppression has an end, does not match everything, and counts what it
//     held back.
//
// # Example
//
//	m, err := anomaly.NewMonitor(anomaly.MonitorOptions{
//		Detector: func(id anomaly.SeriesID) (anomaly.Detector, error) {
//			if id.Metric == "error_ratio" {
//				return anomaly.NewLevel(anomaly.Options{Direction: anomaly.Up, MinDeviation: 0.05})
//			}
//			return anomaly.NewSeasonal(anomaly.SeasonalOptions{Period: 24 * time.Hour})
//		},
//	})
//	// … for each scraped value:
//	events, err := m.Observe(t, id, x)
//	for _, e := range events {
//		if e.Type == anomaly.IncidentOpened {
//			// find the cause: package rootcause
//		}
//	}
//	// … after the repair:
//	_, still := m.Active(id)
//
// # What happens on failure
//
// Constructors fail with [ErrOptions], naming the setting. A value that is not
// newer than its series' last is refused with [ErrLate]. A damaged or foreign
// snapshot gives [ErrSnapshot] and leaves the detector as it was. A model that
// cannot forecast makes a value count neither as usual nor as unusual.
package anomaly
