package shop

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Curve is demand: requests per second of wall time, as a function of
// simulated time. It is never negative. Implementations are pure and safe
// for concurrent use.
type Curve interface {
	Rate(sim time.Time) float64
}

// Daily is the built-in demand: a lull at night, a sharp surge in the
// morning, a plateau at noon and a peak in the evening, with noise and a few
// bursts. The zero value with a Peak is usable.
type Daily struct {
	// Peak is the rate at the evening peak without noise and bursts, in
	// requests per second.
	Peak float64 `json:"peak"`
	// Noise is the relative size of the noise, as a standard deviation; 0 is
	// 0.04, negative is none.
	Noise float64 `json:"noise,omitempty"`
	// Bursts is how many bursts of 12 to 30 minutes a day has; 0 is 2,
	// negative is none. Each adds 20 to 45 % of the rate.
	Bursts int `json:"bursts,omitempty"`
	// Seed chooses noise and bursts.
	Seed uint64 `json:"seed,omitempty"`
}

// dayShape is the share of the peak by hour of the day, repeated daily.
// Between the points it is a monotone cubic, so no wiggle passes a point.
var dayShape = [...]struct{ hour, share float64 }{
	{0, .30}, {2, .17}, {4, .14}, {6, .17}, {7, .30}, {8, .60}, {9, .78},
	{11, .72}, {13, .75}, {15, .68}, {17, .76}, {19, .96}, {20, 1}, {21, .92}, {22.5, .55},
}

// Rate gives the demand at a simulated time.
func (d Daily) Rate(sim time.Time) float64 {
	sim = sim.UTC()
	day := sim.Unix() / 86400
	hour := float64(sim.Unix()-day*86400)/3600 + float64(sim.Nanosecond())/3.6e12
	rate := d.Peak * shape(hour)
	if d.Bursts >= 0 {
		n := cmp.Or(d.Bursts, 2)
		rng := rand.New(rand.NewPCG(d.Seed, uint64(day)))
		for range n {
			at, length, height := 7+15*rng.Float64(), .2+.3*rng.Float64(), .2+.25*rng.Float64()
			if x := (hour - at) / length; x > 0 && x < 1 {
				// Up within a fifth of its length, then slowly back.
				rate *= 1 + height*min(x/.2, (1-x)/.8)
			}
		}
	}
	if d.Noise >= 0 {
		// Noise is drawn for every fifth minute and goes straight between.
		x := hour * 12
		i := math.Floor(x)
		a, b := d.gauss(day*288+int64(i)), d.gauss(day*288+int64(i)+1)
		rate *= max(0, 1+cmp.Or(d.Noise, .04)*(a+(b-a)*(x-i)))
	}
	return max(0, rate)
}

func (d Daily) gauss(i int64) float64 {
	v := rand.New(rand.NewPCG(d.Seed^0x9e3779b97f4a7c15, uint64(i))).NormFloat64()
	return min(max(v, -3), 3)
}

// shape interpolates dayShape with Fritsch and Carlson's limited slopes.
func shape(hour float64) float64 {
	n := len(dayShape)
	at := func(i int) (x, y float64) {
		p := dayShape[((i%n)+n)%n]
		return p.hour + 24*math.Floor(float64(i)/float64(n)), p.share
	}
	slope := func(i int) float64 {
		x0, y0 := at(i - 1)
		x1, y1 := at(i)
		x2, y2 := at(i + 1)
		a, b := (y1-y0)/(x1-x0), (y2-y1)/(x2-x1)
		if a*b <= 0 {
			return 0
		}
		return 2 * a * b / (a + b)
	}
	i := n - 1
	for i > 0 && dayShape[i].hour > hour {
		i--
	}
	x0, y0 := at(i)
	x1, y1 := at(i + 1)
	h := x1 - x0
	t := (hour - x0) / h
	t2, t3 := t*t, t*t*t
	return y0*(2*t3-3*t2+1) + slope(i)*h*(t3-2*t2+t) + y1*(-2*t3+3*t2) + slope(i+1)*h*(t3-t2)
}

// Trace is recorded demand: one value for each minute of simulated time from
// Start on, straight lines between, and again from the first value after the
// last.
type Trace struct {
	Start  time.Time
	Values []float64
}

// Rate gives the demand at a simulated time; 0 where there are no values.
func (t Trace) Rate(sim time.Time) float64 {
	n := len(t.Values)
	if n == 0 {
		return 0
	}
	x := sim.Sub(t.Start).Minutes()
	x -= float64(n) * math.Floor(x/float64(n))
	i := min(int(x), n-1)
	a, b := t.Values[i], t.Values[(i+1)%n]
	return max(0, a+(b-a)*(x-float64(i)))
}

// ReadTrace reads recorded demand: one number a line, the demand of one
// minute in any unit; empty lines and lines that begin with # are skipped.
// The values are scaled so that the largest of the first so much that is
// played, or of all if that is 0, is peak requests per second. Errors name the
// line, counted from 1.
func ReadTrace(r io.Reader, start time.Time, peak float64, play time.Duration) (Trace, error) {
	if !(peak > 0) || math.IsInf(peak, 0) {
		return Trace{}, fmt.Errorf("shop: trace: peak of %v requests per second is not above zero", peak)
	}
	t := Trace{Start: start}
	sc := bufio.NewScanner(r)
	line := 0
	for sc.Scan() {
		line++
		s := strings.TrimSpace(strings.TrimPrefix(sc.Text(), "\ufeff"))
		if s == "" || s[0] == '#' {
			continue
		}
		v, err := strconv.ParseFloat(s, 64)
		switch {
		case err != nil:
			return Trace{}, fmt.Errorf("shop: trace line %d: %q is not a number", line, shorten(s))
		case math.IsNaN(v) || math.IsInf(v, 0) || v < 0:
			return Trace{}, fmt.Errorf("shop: trace line %d: %q: want a finite number of at least zero", line, shorten(s))
		}
		t.Values = append(t.Values, v)
	}
	if err := sc.Err(); err != nil {
		return Trace{}, fmt.Errorf("shop: trace line %d: %w", line+1, err)
	}
	if len(t.Values) < 2 {
		return Trace{}, fmt.Errorf("shop: trace: %d values; want at least 2", len(t.Values))
	}
	played := t.Values
	if n := int(play / time.Minute); n > 0 && n < len(played) {
		played = played[:n]
	}
	top := slices.Max(played)
	if top == 0 {
		return Trace{}, fmt.Errorf("shop: trace: all %d values that are played are zero", len(played))
	}
	for i, v := range t.Values {
		t.Values[i] = v / top * peak // in this order nothing overflows
	}
	return t, nil
}

func shorten(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
