package forecast

import "math"

// widths are the half-widths that a [kernel] chooses from; read-only.
var widths = [...]int{0, 1, 2, 3, 5, 8, 12, 18}

// kernel smooths a seasonal profile round its circle with a triangular window.
type kernel struct {
	period int
	width  int
}

// weight is the window at distance d.
func (k *kernel) weight(d int) float64 { return float64(k.width+1-d) / float64(k.width+1) }

// at is the smoothed value at position i, and the same without the value at i
// itself; skip is NaN where the window holds nothing else.
func (k *kernel) at(profile, weights []float64, i int) (all, skip float64) {
	sum, total := 0.0, 0.0
	for d := 1; d <= k.width; d++ {
		left, right := i-d, i+d
		if left < 0 {
			left += k.period
		}
		if right >= k.period {
			right -= k.period
		}
		w := k.weight(d)
		wl, wr := float64(w*weights[left]), float64(w*weights[right])
		sum += float64(wl*profile[left]) + float64(wr*profile[right])
		total += wl + wr
	}
	skip = math.NaN()
	if total > 0 {
		skip = sum / total
	}
	if own := weights[i]; own > 0 {
		return (sum + float64(own*profile[i])) / (total + own), skip
	}
	if skip == skip {
		return skip, skip
	}
	return profile[i], skip
}

// choose takes the width with the least leave-one-out squared error: wide for
// a smooth and noisy profile, none for a clean one. A width of zero leaves
// nothing to predict from, so it is judged by what repeating single values
// costs where the profile is locally straight: twice the noise, which is a
// third of the mean squared second difference.
func (k *kernel) choose(profile, weights []float64) {
	best := math.Inf(1)
	chosen := 0
	for _, w := range widths {
		if 6*w >= k.period {
			break
		}
		k.width = w
		sum, n := 0.0, 0
		for i := range profile {
			if weights[i] == 0 {
				continue
			}
			var e float64
			if w == 0 {
				left, right := (i+k.period-1)%k.period, (i+1)%k.period
				e = (profile[left] - float64(2*profile[i]) + profile[right]) / math.Sqrt(3)
			} else {
				_, skip := k.at(profile, weights, i)
				if skip != skip {
					continue
				}
				e = profile[i] - skip
			}
			sum += float64(e * e)
			n++
		}
		if n > 0 && sum/float64(n) < best {
			best, chosen = sum/float64(n), w
		}
	}
	k.width = chosen
}

// smooth writes the smoothed profile.
func (k *kernel) smooth(dst, profile, weights []float64) {
	for i := range profile {
		dst[i], _ = k.at(profile, weights, i)
	}
}

// fillGaps interpolates positions of no weight from their neighbours round
// the circle. At least one position must have weight.
func fillGaps(profile, weights []float64) {
	n := len(profile)
	first := 0
	for weights[first] == 0 {
		if first++; first == n {
			return
		}
	}
	for i := first; i < first+n; {
		j := i + 1
		for weights[j%n] == 0 {
			j++
		}
		a, b := profile[i%n], profile[j%n]
		for k := i + 1; k < j; k++ {
			profile[k%n] = a + float64((b-a)*float64(k-i))/float64(j-i)
		}
		i = j
	}
}
