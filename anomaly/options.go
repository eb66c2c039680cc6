package anomaly

import (
	"errors"
	"fmt"
	"math"
)

// The errors of the package; match them with errors.Is.
var (
	// ErrOptions says that a setting is impossible; the message names it.
	ErrOptions = errors.New("anomaly: bad option")
	// ErrSnapshot says that bytes are not a snapshot of this kind of detector
	// in a version that this package reads, or that they are damaged.
	ErrSnapshot = errors.New("anomaly: bad snapshot")
	// ErrLate says that a value is not newer than the one before it.
	ErrLate = errors.New("anomaly: value is late")
)

// Direction says which deviations count as unusual.
type Direction uint8

// The directions.
const (
	// Both counts values above and below the band.
	Both Direction = iota
	// Up counts values above the band alone: errors, latency, memory.
	Up
	// Down counts values below the band alone: throughput, free space.
	Down
)

// String gives Both, Up or Down.
func (d Direction) String() string {
	switch d {
	case Both:
		return "Both"
	case Up:
		return "Up"
	case Down:
		return "Down"
	}
	return fmt.Sprintf("Direction(%d)", uint8(d))
}

// Options are the settings that all detectors of this package share. The zero
// value suits a metric in any unit that is rarely exactly constant; a ratio
// that is zero for days wants a MinDeviation.
type Options struct {
	// Direction says which deviations count.
	Direction Direction
	// Threshold is the deviation at which Score is 1, in robust standard
	// deviations (from the 75th percentile of the absolute deviations from
	// the median); 0 means 6.
	Threshold float64
	// MinDeviation is the smallest deviation that counts, in the metric's
	// unit. It stands in for the noise of a metric that has none: for a ratio
	// that is exactly 0 in ordinary times, 0.05 asks for 5 % before anything
	// is unusual. 0 means none.
	MinDeviation float64
	// MinRelative is the smallest deviation that counts, as a share of the
	// expected value; 0 means 0.1, a negative number means none.
	MinRelative float64
	// Window is how many ordinary values level and noise are taken from, at
	// most 4096; 0 means 60. A drift that takes longer than a few windows is
	// followed, a steeper one is unusual.
	Window int
	// WarmUp is how many values are seen before the first is judged, at least
	// 3 and at most Window; 0 means 20, or Window if that is less.
	WarmUp int
	// Relearn is how many unusual values in excess of usual ones confirm that
	// a new level is the new normal: until then unusual values teach the
	// detector nothing, and then it starts afresh from the last Window
	// values. 0 means 240; a negative number means never.
	Relearn int
	// Missing is how many values in a row have to be missing (NaN or
	// infinite), or exactly zero where none was before, to be a [Dropout]; 0
	// means 5, a negative number means never. Zeros are not counted where
	// Direction is Up.
	Missing int
	// FlatLine is how many equal values in a row of a metric that used to
	// vary are a [FlatLine]; 0 means never. After Relearn more of them a
	// constant is the new normal.
	FlatLine int
}

const (
	maxWindow = 4096
	maxScore  = 1e6
	confirmed = 8          // unusual values in a row on one side that are a shift, not a spike
	isolated  = 2          // unusual values in a row that may still be noise, and are learned winsorised
	sigmaOf75 = 1 / 1.1503 // of the 75th percentile of the absolute deviations
	sigmaOf8  = 1 / 2.5631 // of the distance between the deciles
)

// resolve fills defaults in and reports the first impossible setting.
func (o Options) resolve() (Options, error) {
	if o.Direction > Down {
		return o, fmt.Errorf("%w: Direction %d is not Both, Up or Down", ErrOptions, o.Direction)
	}
	for _, f := range []struct {
		name string
		v    float64
		neg  bool
	}{{"Threshold", o.Threshold, false}, {"MinDeviation", o.MinDeviation, false}, {"MinRelative", o.MinRelative, true}} {
		if math.IsNaN(f.v) || math.IsInf(f.v, 0) || f.v < 0 && !f.neg {
			return o, fmt.Errorf("%w: %s %v is not a finite number from 0", ErrOptions, f.name, f.v)
		}
	}
	if o.Threshold == 0 {
		o.Threshold = 6
	}
	if o.MinRelative == 0 {
		o.MinRelative = 0.1
	}
	if o.Window == 0 {
		o.Window = 60
	}
	if o.Window < 3 || o.Window > maxWindow {
		return o, fmt.Errorf("%w: Window %d is not in 3..%d", ErrOptions, o.Window, maxWindow)
	}
	if o.WarmUp == 0 {
		o.WarmUp = min(20, o.Window)
	}
	if o.WarmUp < 3 || o.WarmUp > o.Window {
		return o, fmt.Errorf("%w: WarmUp %d is not in 3..Window (%d)", ErrOptions, o.WarmUp, o.Window)
	}
	if o.Relearn == 0 {
		o.Relearn = 240
	}
	if o.Missing == 0 {
		o.Missing = 5
	}
	if o.FlatLine < 0 || o.FlatLine == 1 {
		return o, fmt.Errorf("%w: FlatLine %d is neither 0 nor at least 2", ErrOptions, o.FlatLine)
	}
	return o, nil
}

// half is half the width of the band around m for a noise of sd.
func (o *Options) half(m, sd float64) float64 {
	h := max(o.Threshold*sd, o.MinDeviation)
	if o.MinRelative > 0 {
		h = max(h, o.MinRelative*math.Abs(m))
	}
	// A metric that was exactly constant at zero, with no floor set: any
	// value but the constant is unusual, by a finite score.
	return max(h, math.SmallestNonzeroFloat64)
}

// gate is the deviation in the direction that counts.
func (o *Options) gate(e float64) float64 {
	switch o.Direction {
	case Up:
		return max(e, 0)
	case Down:
		return max(-e, 0)
	default:
		return math.Abs(e)
	}
}

// band gives the limits outside which Score is above 1.
func (o *Options) band(m, half float64) (lower, upper float64) {
	lower, upper = m-half, m+half
	switch o.Direction {
	case Up:
		lower = math.Inf(-1)
	case Down:
		upper = math.Inf(1)
	}
	return lower, upper
}

// tail is the two-sided tail probability of a robust z under Student's t with
// four degrees of freedom: the tails of operational metrics are heavier than
// a normal's, and this one has a closed form.
func tail(z float64) float64 {
	q := 1 + z*z/4
	c := 0.75 * z / math.Sqrt(q) * (1 - z*z/(12*q))
	return min(1, max(0, 1-c))
}

// usable tells whether x can be reckoned with: not NaN, not infinite, and not
// so large that sums of squares are.
func usable(x float64) bool { return math.Abs(x) <= 1e150 }
