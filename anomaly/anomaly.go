package anomaly

import (
	"time"
)

// Kind is what an unusual value looks like.
type Kind string

// The kinds.
const (
	Spike      Kind = "Spike"
	Dip        Kind = "Dip"
	LevelShift Kind = "LevelShift"
	FlatLine   Kind = "FlatLine"
	Dropout    Kind = "Dropout"
)

// Result is what a [Detector] says of one value.
type Result struct {
	// Score is how unusual the value is: 0 is ordinary, above 1 is more
	// unusual than the detector's threshold. It is finite and not negative.
	Score float64
	// P is the probability of a value at least as unusual on an ordinary day,
	// in [0, 1]; 1 while the detector warms up.
	P float64
	// Expected is the value that was expected, and [Lower, Upper] the band
	// outside which Score is above 1; NaN while the detector warms up. A
	// limit on a side that does not count is infinite.
	Expected, Lower, Upper float64
	// Kind is what the value looks like; empty while it is ordinary.
	Kind Kind
	// Ready is false while the detector warms up.
	Ready bool
	// Relearned is true for the value at which the detector, having seen
	// nothing else for long enough, took a new level as normal: what follows
	// is usual again without anything having been repaired.
	Relearned bool
}

// Detector scores a stream, one value at a time. Observe takes the values in
// time order, NaN where one is missing, allocates nothing and uses bounded
// memory. A Detector is not safe for concurrent use.
type Detector interface {
	Observe(t time.Time, x float64) Result
}

// SeriesID names what an alert is about.
type SeriesID struct {
	// Service is the service or workload; Metric the metric's name.
	Service string `json:"service"`
	Metric  string `json:"metric"`
	// Instance is one replica of the service; empty for the whole service.
	Instance string `json:"instance,omitempty"`
}

// String gives service/metric or service/instance/metric.
func (id SeriesID) String() string {
	if id.Instance != "" {
		return id.Service + "/" + id.Instance + "/" + id.Metric
	}
	return id.Service + "/" + id.Metric
}

// Alert is a stretch of unusual values of one series.
type Alert struct {
	Series SeriesID `json:"series"`
	Kind   Kind     `json:"kind"`
	// Onset is the time of the first unusual value, Raised when the alert was
	// raised, Cleared when the series was back to normal; Cleared is zero
	// while the alert is active.
	Onset   time.Time `json:"onset"`
	Raised  time.Time `json:"raised"`
	Cleared time.Time `json:"cleared,omitzero"`
	// Value is the most unusual value so far, Expected, Lower and Upper what
	// the detector expected of it, Score its score.
	Value    float64 `json:"value"`
	Expected float64 `json:"expected"`
	Lower    float64 `json:"lower"`
	Upper    float64 `json:"upper"`
	Score    float64 `json:"score"`
	// LastNormal is the time of the last ordinary value before Onset, zero if
	// there was none: the trouble began between the two.
	LastNormal time.Time `json:"lastNormal,omitzero"`
	// Relearned is true where the alert was cleared because the detector took
	// the new level as normal, and not because the old one came back.
	Relearned bool `json:"relearned,omitempty"`
}

// Active tells whether the series is still unusual.
func (a Alert) Active() bool { return a.Cleared.IsZero() }

// Incident is a group of alerts that belong together.
type Incident struct {
	// ID is unique and stable: the same alerts give the same ID.
	ID string `json:"id"`
	// The trouble began between OnsetEarliest, the last ordinary value before
	// its earliest unusual one, and OnsetLatest, when its first alert was
	// raised.
	OnsetEarliest time.Time `json:"onsetEarliest"`
	OnsetLatest   time.Time `json:"onsetLatest"`
	// Opened is when its first alert was raised; Closed when its last was
	// cleared, zero before.
	Opened time.Time `json:"opened"`
	Closed time.Time `json:"closed,omitzero"`
	// Alerts are its alerts, in order of Raised and Series.
	Alerts []Alert `json:"alerts"`
}
