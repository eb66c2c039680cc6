package rootcause

import (
	"context"
	"math"
	"slices"
	"strings"
)

// kind is what a metric measures, as far as its name tells.
type kind int

const (
	unknown kind = iota
	errorKind
	successKind
	latencyKind
	saturationKind // queues, busy workers: waiting for callees shows here too
	cpuKind
	memoryKind
	demandKind
	kinds
)

// trait is how a kind of metric is judged.
type trait struct {
	up, down float64 // how much a rise and a fall speak of trouble, in [0, 1]
	floor    float64 // smallest noise, in the metric's unit
	share    float64 // smallest noise, as a share of the value
	mean     bool    // a ratio of few requests: the mean sees what the median does not
}

// traits is read-only.
var traits = [kinds]trait{
	unknown:        {up: 0.8, down: 0.8, share: 0.05},
	errorKind:      {up: 1, down: 0.05, floor: 0.01, share: 0.1, mean: true},
	successKind:    {up: 0.05, down: 1, floor: 0.01, share: 0.01, mean: true},
	latencyKind:    {up: 1, down: 0.2, share: 0.1},
	saturationKind: {up: 0.8, down: 0.2, floor: 0.02, share: 0.1},
	cpuKind:        {up: 1, down: 0.3, share: 0.05},
	memoryKind:     {up: 1, down: 0.3, share: 0.03},
	demandKind:     {up: 0.3, down: 0.2, share: 0.1},
}

// classify reads the kind of a metric off its name, and whether the metric
// leaves out what the service's callees did.
func classify(name string) (k kind, self bool) {
	n := strings.ToLower(name)
	for _, p := range []string{"self_", "own_", "local_", "self."} {
		if strings.HasPrefix(n, p) {
			self = true
		}
	}
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(n, w) })
	}
	switch {
	case has("success", "availab"):
		k = successKind
	case has("error", "err_", "5xx", "fail", "exception", "fault", "timeout"):
		k = errorKind
	case has("latency", "lat_", "duration", "response_time", "_ms", "elapsed") || n == "lat" || n == "ms":
		k = latencyKind
	case has("mem", "rss", "heap"):
		k = memoryKind
	case has("queue", "busy", "saturat", "inflight", "in_flight", "backlog", "pool"):
		k = saturationKind
	case has("cpu"):
		k = cpuKind
	case has("request", "rps", "qps", "throughput", "workload", "_rate", "demand", "traffic", "lod", "calls"):
		k = demandKind
	}
	return k, self
}

const (
	clip      = 8    // robust standard deviations that one row counts at most for the onset
	localRows = 60   // rows beyond the window of onsets that the search looks at
	softFrom  = 30.0 // scores above are compressed: beyond doubt there is not much more to be said
	maxRaw    = 1e6
	constMax  = 10.0 // score that a metric without any noise can reach by its change alone
	minBefore = 5
	minAfter  = 2
)

// findOnset looks for the row at which most changed, near the one given: it
// maximises the sum over the metrics of what two levels explain better than
// one, each row in robust units and clipped.
func (s *analysis) findOnset(ctx context.Context) error {
	given := s.rows / 2
	reach := s.rows
	if !s.in.Onset.IsZero() {
		given = max(0, min(int(s.in.Onset.Sub(s.in.Start)/s.in.Step), s.rows))
		reach = 0
		if s.opts.OnsetWindow > 0 {
			reach = int(min(max(int64(s.opts.OnsetWindow/s.in.Step), 8), int64(s.rows)))
		}
	}
	lo := max(given-reach, min(minBefore, s.rows-1), 0)
	hi := min(given+reach, s.rows-minAfter)
	s.onset, s.from, s.to = given, given, given
	s.onsets = []candidate{{given, 1}}
	if lo > hi || s.rows < minBefore+minAfter {
		return nil
	}
	if reach == 0 {
		return nil
	}
	first, last := max(0, lo-localRows), min(s.rows, hi+localRows)
	gain := make([]float64, hi-lo+1)
	sum := make([]float64, last-first+1)
	count := make([]float64, last-first+1)
	buf := make([]float64, 0, s.rows)
	for i, m := range s.metrics {
		if i%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		// Noise from the rows before the search where there are enough.
		base := lo
		if base < 4*minBefore {
			base = (lo + given + 1) / 2
		}
		buf = present(buf[:0], m.Values[:max(base, minBefore)])
		if len(buf) < minBefore {
			continue
		}
		med, sd := robust(buf)
		sd = max(sd, m.trait.floor, m.trait.share*math.Abs(med))
		if sd == 0 {
			// Without noise and unit any change counts as one large step.
			sd = math.SmallestNonzeroFloat64
		}
		for r := first; r < last; r++ {
			z, n := 0.0, 0.0
			if v := m.Values[r]; usable(v) {
				z, n = (v-med)/sd, 1
				z = max(-clip, min(clip, z))
				if z < 0 {
					z *= m.trait.down
				} else {
					z *= m.trait.up
				}
			}
			sum[r-first+1] = sum[r-first] + z
			count[r-first+1] = count[r-first] + n
		}
		all, n := sum[last-first], count[last-first]
		for c := lo; c <= hi; c++ {
			n1, s1 := count[c-first], sum[c-first]
			n2, s2 := n-n1, all-s1
			if n1 < minBefore || n2 < minAfter {
				continue
			}
			d := s2/n2 - s1/n1
			gain[c-lo] += n1 * n2 / n * d * d
		}
	}
	best := 0
	for i := range gain {
		// The row given is as good a guess as any that is no better.
		away := math.Abs(float64(lo + i - given))
		gain[i] *= 1 - 0.2*away/float64(reach+1)
		if gain[i] > gain[best] || gain[i] == gain[best] && away < math.Abs(float64(lo+best-given)) {
			best = i
		}
	}
	if gain[best] == 0 {
		return nil
	}
	a, b := best, best
	for a > 0 && gain[a-1] >= 0.8*gain[best] {
		a--
	}
	for b < len(gain)-1 && gain[b+1] >= 0.8*gain[best] {
		b++
	}
	s.onset, s.from, s.to = lo+best, lo+a, lo+b
	s.onsets = s.onsets[:0]
	total := 0.0
	for _, i := range []int{a, best, b} {
		if n := len(s.onsets); n > 0 && s.onsets[n-1].row == lo+i {
			continue
		}
		w := gain[i] / gain[best]
		if i == best {
			w *= 2
		}
		s.onsets = append(s.onsets, candidate{lo + i, w})
		total += w
	}
	for i := range s.onsets {
		s.onsets[i].weight /= total
	}
	return nil
}

// scoreMetrics scores each metric, averaged over the onsets. What came before
// is the same for all of them, the rows before the earliest: a row that may
// already be foul is no measure of what is ordinary.
func (s *analysis) scoreMetrics(ctx context.Context) error {
	buf := make([]float64, 0, s.rows)
	for i, m := range s.metrics {
		if i%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		m.before, m.after = math.NaN(), math.NaN()
		buf = present(buf[:0], m.Values[:s.from])
		if len(buf) < minBefore {
			continue
		}
		before, sd := m.ordinary(buf)
		for _, c := range s.onsets {
			buf = present(buf[:0], m.Values[c.row:])
			if len(buf) < minAfter {
				continue
			}
			after := m.level(buf)
			m.score += c.weight * m.compare(before, sd, after)
			if c.row == s.onset {
				m.before, m.after = before, after
			}
		}
		if math.IsNaN(m.before) {
			m.score = 0
		}
		m.weighted = m.score * m.trait.up
		if m.after < m.before {
			m.weighted = m.score * m.trait.down
		}
	}
	return nil
}

// level is the typical one of values, which it reorders.
func (m *metric) level(values []float64) float64 {
	if m.trait.mean {
		return mean(values)
	}
	return median(values)
}

// ordinary gives level and noise of values, of which it leaves nothing.
func (m *metric) ordinary(values []float64) (level, sd float64) {
	if m.trait.mean {
		// The mean pays for its rows: a few bad requests in many quiet rows
		// are noise too.
		level = mean(values)
		return level, deviation(values, level)
	}
	return robust(values)
}

// compare scores the difference of two levels.
func (m *metric) compare(before, sd, after float64) float64 {
	d := math.Abs(after - before)
	scale := max(sd, m.trait.floor, m.trait.share*math.Abs(before))
	if sd == 0 && m.trait.floor == 0 {
		// No noise was seen and none can be assumed: the size of the change
		// says nothing but that there is one.
		scale = max(scale, d/constMax)
	}
	if d == 0 || scale == 0 {
		return 0
	}
	score := min(d/scale, maxRaw)
	if score > softFrom {
		score = softFrom * (1 + math.Log(score/softFrom))
	}
	return score
}

// usable tells whether a value can be reckoned with.
func usable(v float64) bool { return math.Abs(v) <= 1e150 }

func present(dst, values []float64) []float64 {
	for _, v := range values {
		if usable(v) {
			dst = append(dst, v)
		}
	}
	return dst
}

// robust gives the median and a robust standard deviation, the larger of that
// from the MAD and that from the quartiles. It leaves nothing of v.
func robust(v []float64) (med, sd float64) {
	med = median(v)
	// The median has parted v: the quartiles are each in their half.
	n := len(v)
	q1 := kth(v[:n/2+1], n/4)
	q3 := kth(v[n/2:], n-1-n/4-n/2)
	for i := range v {
		v[i] = math.Abs(v[i] - med)
	}
	mad := median(v)
	return med, max(1.4826*mad, (q3-q1)/1.349)
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

func deviation(v []float64, m float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += (x - m) * (x - m)
	}
	return math.Sqrt(sum / float64(len(v)))
}

// median reorders v, which is not empty.
func median(v []float64) float64 {
	n := len(v)
	hi := kth(v, n/2)
	if n%2 == 1 {
		return hi
	}
	lo := v[0]
	for _, x := range v[1 : n/2] {
		lo = max(lo, x)
	}
	return lo/2 + hi/2
}

// kth moves the k-th smallest value to v[k], smaller ones before it and larger
// ones behind (Hoare's selection, pivot from the middle of three), and gives
// it. Its values are the same whatever the order of v was.
func kth(v []float64, k int) float64 {
	lo, hi := 0, len(v)-1
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		p := max(min(v[lo], v[mid]), min(max(v[lo], v[mid]), v[hi]))
		i, j := lo, hi
		for i <= j {
			for v[i] < p {
				i++
			}
			for v[j] > p {
				j--
			}
			if i <= j {
				v[i], v[j] = v[j], v[i]
				i++
				j--
			}
		}
		switch {
		case k <= j:
			hi = j
		case k >= i:
			lo = i
		default:
			return v[k]
		}
	}
	return v[k]
}
