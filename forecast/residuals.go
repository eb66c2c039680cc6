package forecast

import "math"

// residuals are the last errors of a forecast, kept in order of size so that
// any quantile of them costs nothing. Adding one moves part of a short array:
// constant time, no allocation.
type residuals struct {
	ring   []float64
	sorted []float64
	next   int
}

func newResiduals(size int) residuals {
	return residuals{ring: make([]float64, 0, size), sorted: make([]float64, 0, size)}
}

func (r *residuals) len() int { return len(r.sorted) }

// search is the first index whose value is not below x.
func (r *residuals) search(x float64) int {
	lo, hi := 0, len(r.sorted)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if r.sorted[mid] < x {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// add takes a finite error, in the place of the oldest if there is no more room.
func (r *residuals) add(x float64) {
	if len(r.ring) < cap(r.ring) {
		i := r.search(x)
		r.sorted = r.sorted[:len(r.sorted)+1]
		copy(r.sorted[i+1:], r.sorted[i:])
		r.sorted[i] = x
		r.ring = append(r.ring, x)
		return
	}
	out, in := r.search(r.ring[r.next]), r.search(x)
	if in > out {
		in--
		copy(r.sorted[out:in], r.sorted[out+1:in+1])
	} else {
		copy(r.sorted[in+1:out+1], r.sorted[in:out])
	}
	r.sorted[in] = x
	r.ring[r.next] = x
	r.next++
	if r.next == len(r.ring) {
		r.next = 0
	}
}

// spread is a robust standard deviation: from the middle half of the errors,
// or from their mean size while there are only a few.
func (r *residuals) spread() float64 {
	n := len(r.sorted)
	if n == 0 {
		return 0
	}
	if n < 8 {
		sum := 0.0
		for _, x := range r.sorted {
			sum += math.Abs(x)
		}
		return 1.2533141373155001 * (sum / float64(n))
	}
	return (r.at(float64(0.75*float64(n-1))) - r.at(float64(0.25*float64(n-1)))) / 1.3489795003921634
}

// at interpolates the order statistics at a position in [0, n-1].
func (r *residuals) at(pos float64) float64 {
	i := int(pos)
	if i >= len(r.sorted)-1 {
		return r.sorted[len(r.sorted)-1]
	}
	a, b := r.sorted[i], r.sorted[i+1]
	return a + float64((pos-float64(i))*(b-a))
}

// quantile is the p-quantile of the next error: the order statistic at
// p(n+1), which makes a split-conformal bound valid in finite samples, and
// past the last one a Gaussian tail of the same spread. It rises with p.
func (r *residuals) quantile(p float64) float64 {
	n := float64(len(r.sorted))
	if n == 0 {
		return 0
	}
	pos := float64(p*(n+1)) - 1
	switch {
	case pos < 0:
		return r.sorted[0] + float64(r.spread()*(normal(p)-normal(1/(n+1))))
	case pos > n-1:
		return r.sorted[len(r.sorted)-1] + float64(r.spread()*(normal(p)-normal(n/(n+1))))
	}
	return r.at(pos)
}

// normal is the quantile function of the standard normal distribution, for p
// taken no nearer to 0 and 1 than 1e-15.
func normal(p float64) float64 {
	return math.Sqrt2 * math.Erfinv(2*clamp(p, 1e-15, 1-1e-15)-1)
}

// assumedSpread is the standard deviation, as a share of the value, that a
// model takes while it has seen no error of its own.
const assumedSpread = 0.25
