package anomaly

import "slices"

// window holds the last values in order of arrival and in order of size, so
// that quantiles are exact at any moment: there is no decay constant to tune,
// and a quarter of the values may be foul.
type window struct {
	ring, sorted []float64
	head         int // where the next value goes
}

func newWindow(size int) window {
	return window{ring: make([]float64, 0, size), sorted: make([]float64, 0, size)}
}

func (w *window) len() int { return len(w.ring) }

func (w *window) clear() { w.ring, w.sorted, w.head = w.ring[:0], w.sorted[:0], 0 }

func (w *window) push(x float64) {
	x += 0 // one zero, so that the order of equal values does not matter
	if len(w.ring) < cap(w.ring) {
		w.ring = append(w.ring, x)
		j, _ := slices.BinarySearch(w.sorted, x)
		w.sorted = append(w.sorted, x)
		copy(w.sorted[j+1:], w.sorted[j:])
		w.sorted[j] = x
		w.head = len(w.ring) % cap(w.ring)
		return
	}
	old := w.ring[w.head]
	w.ring[w.head] = x
	if w.head++; w.head == len(w.ring) {
		w.head = 0
	}
	i, _ := slices.BinarySearch(w.sorted, old)
	j, _ := slices.BinarySearch(w.sorted, x)
	if j > i {
		j--
		copy(w.sorted[i:j], w.sorted[i+1:j+1])
	} else {
		copy(w.sorted[j+1:i+1], w.sorted[j:i])
	}
	w.sorted[j] = x
}

// at is the value i places after the oldest.
func (w *window) at(i int) float64 {
	if len(w.ring) == cap(w.ring) {
		i = (w.head + i) % len(w.ring)
	}
	return w.ring[i]
}

func (w *window) median() float64 {
	n := len(w.sorted)
	if n%2 == 1 {
		return w.sorted[n/2]
	}
	// Halves first: the sum of two finite values may not be finite.
	return w.sorted[n/2-1]/2 + w.sorted[n/2]/2
}

func (w *window) min() float64 { return w.sorted[0] }
func (w *window) max() float64 { return w.sorted[len(w.sorted)-1] }

// sd is a robust standard deviation around the median m, from the 75th
// percentile of the absolute deviations: one step more careful than the MAD
// where a slow swing turns, and yet blind to the first quarter of a window of
// ramp. Where it is zero, because most of the values are equal, the distance
// of the deciles takes its place.
func (w *window) sd(m float64) float64 {
	s := w.sorted
	n := len(s)
	k := (3*n + 3) / 4
	// The k values nearest to m lie side by side, from i on: their reach to
	// the left falls with i and that to the right rises.
	lo, hi := 0, n-k
	for lo < hi {
		i := int(uint(lo+hi) / 2)
		if s[i+k-1]-m >= m-s[i] {
			hi = i
		} else {
			lo = i + 1
		}
	}
	reach := max(s[lo+k-1]-m, m-s[lo])
	if lo > 0 {
		reach = min(reach, max(s[lo+k-2]-m, m-s[lo-1]))
	}
	if reach > 0 {
		return reach * sigmaOf75
	}
	d := n / 10
	return sigmaOf8 * (s[n-1-d] - s[d])
}

// load takes values over in order of arrival.
func (w *window) load(values []float64) {
	w.clear()
	if over := len(values) - cap(w.ring); over > 0 {
		values = values[over:]
	}
	w.ring = append(w.ring, values...)
	w.sorted = append(w.sorted, values...)
	slices.Sort(w.sorted)
	w.head = len(w.ring) % cap(w.ring)
}

// ring holds the last values in order of arrival.
type ring struct {
	values []float64
	head   int
}

func newRing(size int) ring { return ring{values: make([]float64, 0, size)} }

func (r *ring) push(x float64) {
	if len(r.values) < cap(r.values) {
		r.values = append(r.values, x)
		r.head = len(r.values) % cap(r.values)
		return
	}
	r.values[r.head] = x
	if r.head++; r.head == len(r.values) {
		r.head = 0
	}
}

// last is the value k places before the newest.
func (r *ring) last(k int) float64 {
	n := len(r.values)
	if n < cap(r.values) {
		return r.values[n-1-k]
	}
	return r.values[(r.head+2*n-1-k)%n]
}
