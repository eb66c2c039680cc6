package forecast

import (
	"fmt"
	"math"
	"time"
)

// Series is a metric on a regular grid. Values[i] is the value of the
// interval that begins at Start + i*Step; a missing value is NaN.
type Series struct {
	// Name is for people and reports.
	Name string
	// Labels identify the series at its source; may be nil.
	Labels map[string]string
	// Start is the time of Values[0], in UTC.
	Start time.Time
	// Step is the length of one interval, above zero.
	Step time.Duration
	// Values are finite, or NaN where missing.
	Values []float64
}

// Len is the number of values, missing ones included.
func (s Series) Len() int { return len(s.Values) }

// Time is the time of Values[i]; i may lie past the end.
func (s Series) Time(i int) time.Time { return s.Start.Add(time.Duration(i) * s.Step) }

// End is the time of the first value that the series does not have yet.
func (s Series) End() time.Time { return s.Time(len(s.Values)) }

// Slice is the part [from, to) of the series; it shares the values.
func (s Series) Slice(from, to int) Series {
	s.Start = s.Time(from)
	s.Values = s.Values[from:to]
	return s
}

// Validate reports a step that is not above zero or a value that is infinite;
// the error is an [ErrInvalid].
func (s Series) Validate() error {
	if s.Step <= 0 {
		return fmt.Errorf("forecast: series %q: %w: step %v is not above zero", s.Name, ErrInvalid, s.Step)
	}
	for i, v := range s.Values {
		if math.IsInf(v, 0) {
			return fmt.Errorf("forecast: series %q: %w: value %d (%v) is infinite", s.Name, ErrInvalid, i, s.Time(i).Format(time.RFC3339))
		}
	}
	return nil
}
