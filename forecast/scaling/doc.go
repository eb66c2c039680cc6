// Package scaling turns quantile forecasts of demand into replicas, so that
// capacity is ready before a surge and not after it.
//
// A [Policy] is given the history of demand and what runs, and says how many
// replicas there should be and why. [Quantile] asks for what carries, say, 95 %
// of the possible demands over the whole time that a new replica needs to
// start; [HPA] is the reactive rule of Kubernetes, to compare with.
//
//	policy, err := scaling.NewQuantile(scaling.QuantileOptions{
//		LeadTime: 90 * time.Second, // from asked for to ready
//		Capacity: 120,              // requests a second of one replica
//		Min:      2, Max: 40,
//		Model:    forecast.Profile{Period: 288}, // a day of 5-minute steps
//	})
//	if err != nil {
//		return err
//	}
//	for now := range ticks {
//		decision, err := policy.Decide(scaling.Input{
//			Now: now, History: demand, Replicas: asked, Ready: ready,
//		})
//		if err != nil {
//			log.Warn("scaling", "err", err) // the decision holds what runs
//		}
//		scaleTo(decision.Replicas, decision.String())
//	}
//
// # Guarantees
//
//  1. Min <= Replicas <= Max, for any input, also beside an error.
//  2. Quantile never asks for fewer replicas than the newest demand needs,
//     within Max and MaxStep.
//  3. Replicas go only after nothing needed them for the whole hold time.
//  4. Without a recent value nothing shrinks (within Max): what runs is held,
//     or more is taken if the forecast asks for it.
//  5. The same inputs in the same order give the same decisions. There is no
//     clock, no randomness and no I/O: time is Input.Now.
//  6. The history may be a window that moves: what the model learned stays. New
//     values cost an update each; the model is fitted afresh when the history
//     restarts on another grid or earlier, or at the interval asked for.
//  7. Only intervals that ended by Now are looked at.
//
// # What happens on failure
//
// Impossible settings are an [ErrInvalid] from the constructor. An input that
// makes no sense (negative counts, no step, time running backwards) and a model
// that cannot be fitted are errors of Decide; the Decision returned with them
// holds what runs, says so, and can be applied. Values that are NaN or infinite
// are missing, not errors.
package scaling
