package scaling

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/evenkeel-go/evenkeel/forecast"
)

// ErrInvalid is the cause of every error about a setting or an input that
// makes no sense; the error's text names it and its value.
var ErrInvalid = errors.New("invalid argument")

func invalid(format string, args ...any) error {
	return fmt.Errorf("scaling: %w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// year bounds times, so that no sum of them overflows.
const year = 365 * 24 * time.Hour

// check tells what is wrong with an input, as far as no policy can live with it.
func (in Input) check() error {
	switch {
	case in.Replicas < 0 || in.Replicas > math.MaxInt32:
		return invalid("replicas %d are not in 0…%d", in.Replicas, math.MaxInt32)
	case in.Ready < 0:
		return invalid("ready replicas %d are fewer than none", in.Ready)
	case in.Now.IsZero():
		return invalid("the time of the decision is not set")
	case in.History.Len() > 0 && (in.History.Step <= 0 || in.History.Step > year):
		return invalid("step %v of history %q is not above zero and at most a year", in.History.Step, in.History.Name)
	}
	return nil
}

// newest is the newest usable value that was complete at Now, and the end of
// its interval; false if there is none. Values are demand, so what is negative
// counts as zero.
func newest(s forecast.Series, now time.Time) (float64, time.Time, bool) {
	for i := s.Len() - 1; i >= 0; i-- {
		if v, end := s.Values[i], s.Time(i+1); usable(v) && !end.After(now) {
			return max(v, 0), end, true
		}
	}
	return 0, time.Time{}, false
}

func usable(v float64) bool { return v == v && !math.IsInf(v, 0) }

// replicasFor is how many replicas of a given capacity carry a demand. A
// surplus of less than a billionth is rounding, not demand. The result is at
// most limit+1, so that no demand overflows it.
func replicasFor(demand, capacity float64, limit int) int {
	n := math.Ceil(demand/capacity - 1e-9)
	switch {
	case !(n > 0):
		return 0
	case n > float64(limit):
		return limit + 1
	}
	return int(n)
}

// held is a number of replicas that was needed at a time, and for which demand.
type held struct {
	at       time.Time
	replicas int
	demand   float64
}

// window is the largest need of a trailing stretch of time: the monotonic
// queue, whose needs fall from front to back, so that it never holds more
// entries than there are different numbers of replicas.
type window struct{ queue []held }

// add takes a need and forgets what is older than keep; nothing is kept for
// no time.
func (w *window) add(h held, keep time.Duration) {
	drop := 0
	if keep == 0 {
		drop = len(w.queue)
	}
	for drop < len(w.queue) && h.at.Sub(w.queue[drop].at) > keep {
		drop++
	}
	rest := copy(w.queue, w.queue[drop:])
	for rest > 0 && w.queue[rest-1].replicas <= h.replicas {
		rest--
	}
	w.queue = append(w.queue[:rest], h)
}

// most is the largest need of the window; it must not be empty.
func (w *window) most() held { return w.queue[0] }
