package rootcause

import (
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly"
)

// Metric is one metric of one service over the grid of an [Input].
type Metric struct {
	// Service and Name identify it; Instance is one replica of the service,
	// empty for the whole service.
	Service  string
	Instance string
	Name     string
	// Values has one value a row, NaN where missing.
	Values []float64
}

// Edge is one dependency: Caller calls Callee.
type Edge struct {
	Caller string `json:"caller"`
	Callee string `json:"callee"`
}

// Change is something that somebody did: a commit that was deployed, a flag,
// a configuration.
type Change struct {
	// ID is the commit or another stable name.
	ID string `json:"id"`
	// Time is when it took effect on the platform.
	Time time.Time `json:"time"`
	// Services are the services that it touched.
	Services []string `json:"services"`
	// Summary and Author are for people.
	Summary string `json:"summary"`
	Author  string `json:"author,omitempty"`
	// Automatic is true for changes made by automation.
	Automatic bool `json:"automatic,omitempty"`
	// Fields are the paths of the fields that it changed: an image says more
	// about guilt than a replica count.
	Fields []string `json:"fields,omitempty"`
}

// Input is what a ranking looks at: all metrics on one grid of rows.
type Input struct {
	// Start is the time of row 0, Step the time from row to row.
	Start time.Time
	Step  time.Duration
	// Metrics all have the same number of values.
	Metrics []Metric
	// Onset is when the trouble began, as far as is known; it may be off by
	// some rows.
	Onset time.Time
	// Target is the series whose alert asks for a cause; zero if unknown.
	Target anomaly.SeriesID
	// Graph are the calls between services; may be empty.
	Graph []Edge
	// Changes are what was done in the hours before.
	Changes []Change
}

// Class is the kind of remedy that fits a cause.
type Class string

// The classes.
const (
	// RollBack: a change broke it, taking it back mends it.
	RollBack Class = "RollBack"
	// Restart: an instance went bad by itself.
	Restart Class = "Restart"
	// ScaleUp: there is more demand than capacity.
	ScaleUp Class = "ScaleUp"
	// Escalate: a person has to look.
	Escalate Class = "Escalate"
)

// RankedMetric is one metric of a ranked service.
type RankedMetric struct {
	Name     string `json:"name"`
	Instance string `json:"instance,omitempty"`
	// Score is the robust deviation of the rows after onset from those before.
	Score float64 `json:"score"`
	// Before and After are the medians before and after onset.
	Before float64 `json:"before"`
	After  float64 `json:"after"`
}

// RankedService is one candidate for the root cause.
type RankedService struct {
	Service string `json:"service"`
	// Score orders the candidates; Confidence, in [0, 1], is this one's share
	// of belief.
	Score      float64 `json:"score"`
	Confidence float64 `json:"confidence"`
	// Instance is set where one replica alone is to blame.
	Instance string `json:"instance,omitempty"`
	// Metrics are its metrics, most deviating first.
	Metrics []RankedMetric `json:"metrics"`
	// Path leads from the alerting service to this one along calls.
	Path []string `json:"path,omitempty"`
	// Evidence are lines for a person.
	Evidence []string `json:"evidence"`
}

// RankedChange is one candidate for the change to blame.
type RankedChange struct {
	Change     Change   `json:"change"`
	Confidence float64  `json:"confidence"`
	Evidence   []string `json:"evidence"`
}

// Report is the outcome: ranked causes with evidence. Services is empty where
// nothing deviates.
type Report struct {
	// Onset is the estimated onset.
	Onset time.Time `json:"onset"`
	// Services are the candidates, most likely first.
	Services []RankedService `json:"services"`
	// Change is the change to blame, nil for none; Changes are all
	// candidates, most likely first.
	Change  *RankedChange  `json:"change,omitempty"`
	Changes []RankedChange `json:"changes,omitempty"`
	// Class is the kind of remedy that fits, and Why one line for a person.
	Class Class  `json:"class"`
	Why   string `json:"why"`
}
