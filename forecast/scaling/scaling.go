package scaling

import (
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/forecast"
)

// Bound says what fixed the number of replicas of a [Decision].
type Bound string

// The bounds.
const (
	// ByForecast: the forecast's quantile over the lead time.
	ByForecast Bound = "Forecast"
	// ByDemand: what present demand needs at once.
	ByDemand Bound = "Demand"
	// ByHold: fewer would do, but scale-down is held for a while.
	ByHold Bound = "Hold"
	// ByMin and ByMax: the limits.
	ByMin Bound = "Min"
	ByMax Bound = "Max"
	// ByStep: the largest allowed step.
	ByStep Bound = "Step"
	// ByFallback: the metric is missing or stale, so nothing shrinks.
	ByFallback Bound = "Fallback"
	// ByTolerance: demand is near enough to what the replicas are meant for.
	ByTolerance Bound = "Tolerance"
)

// Input is all that a [Policy] may look at. A policy never reads a clock.
type Input struct {
	// Now is the time of the decision.
	Now time.Time
	// History is the demand up to Now, in requests (or any unit) a second;
	// its last value is the newest full interval.
	History forecast.Series
	// Replicas is what runs or has been asked for; Ready how many of those
	// are ready.
	Replicas, Ready int
}

// Decision is how many replicas there should be, and why.
type Decision struct {
	Time time.Time `json:"time"`
	// Replicas is the number to ask for.
	Replicas int `json:"replicas"`
	// Bound is what fixed the number.
	Bound Bound `json:"bound"`
	// Demand is the demand that the number covers, in the history's unit, and
	// Level the quantile of the forecast that it is (0 where no forecast was used).
	Demand float64 `json:"demand"`
	Level  float64 `json:"level,omitempty"`
	// Horizon is how far ahead was looked.
	Horizon time.Duration `json:"horizon,omitempty"`
	// Model is the forecasting model that was used.
	Model string `json:"model,omitempty"`
	// Peak is when, within the horizon, that demand is expected.
	Peak time.Time `json:"peak,omitzero"`
	// Reason is one line for a person.
	Reason string `json:"reason"`
}

// String is one line: "06:30 4 replicas (Forecast): …", the time in UTC.
func (d Decision) String() string {
	unit := "replicas"
	if d.Replicas == 1 {
		unit = "replica"
	}
	return fmt.Sprintf("%s %d %s (%s): %s", d.Time.UTC().Format("15:04"), d.Replicas, unit, d.Bound, d.Reason)
}

// Policy decides on replicas. Decide is deterministic and does no I/O; a
// policy with memory (holds, fitted models) is not safe for concurrent use
// and is fed in time order.
type Policy interface {
	Decide(in Input) (Decision, error)
}
