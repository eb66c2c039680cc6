package scrape

import (
	"io"
	"math"
	"slices"
	"sort"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// reading is what one target exposed at one time. Counters and gauges are
// alike here: what a name means is known to whoever asks for it.
type reading struct {
	at     time.Time
	values map[string][]labelled
	hists  map[string][]histogram
}

type labelled struct {
	labels map[string]string
	key    string // of the labels
	value  float64
}

type histogram struct {
	labels map[string]string
	key    string
	// counts[i] is the number of observations of at most bounds[i] and above
	// bounds[i-1]; the last bound is +Inf.
	bounds []float64
	counts []float64
}

// parse reads the text exposition format.
func parse(r io.Reader, at time.Time) (*reading, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return nil, err
	}
	return convert(families, at), nil
}

// convert leaves out what is not finite or not rising where it must be: one
// broken line costs one value and not the scrape.
func convert(families map[string]*dto.MetricFamily, at time.Time) *reading {
	out := &reading{at: at, values: map[string][]labelled{}, hists: map[string][]histogram{}}
	for name, f := range families {
		for _, m := range f.GetMetric() {
			labels := make(map[string]string, len(m.GetLabel()))
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			key := keyOf(labels)
			switch {
			case m.GetHistogram() != nil:
				if h, ok := buckets(m.GetHistogram()); ok {
					h.labels, h.key = labels, key
					out.hists[name] = append(out.hists[name], h)
				}
			default:
				v := math.NaN()
				switch {
				case m.GetCounter() != nil:
					v = m.GetCounter().GetValue()
				case m.GetGauge() != nil:
					v = m.GetGauge().GetValue()
				case m.GetUntyped() != nil:
					v = m.GetUntyped().GetValue()
				}
				if !math.IsNaN(v) && !math.IsInf(v, 0) {
					out.values[name] = append(out.values[name], labelled{labels: labels, key: key, value: v})
				}
			}
		}
	}
	return out
}

func buckets(h *dto.Histogram) (histogram, bool) {
	list := slices.Clone(h.GetBucket())
	sort.SliceStable(list, func(i, j int) bool { return list[i].GetUpperBound() < list[j].GetUpperBound() })
	var out histogram
	last := uint64(0)
	for _, b := range list {
		n := b.GetCumulativeCount()
		if n < last || math.IsNaN(b.GetUpperBound()) {
			return histogram{}, false
		}
		if k := len(out.bounds); k > 0 && out.bounds[k-1] == b.GetUpperBound() {
			return histogram{}, false
		}
		out.bounds = append(out.bounds, b.GetUpperBound())
		out.counts = append(out.counts, float64(n-last))
		last = n
	}
	if n := len(out.bounds); n == 0 || !math.IsInf(out.bounds[n-1], 1) {
		total := h.GetSampleCount()
		if total < last {
			return histogram{}, false
		}
		out.bounds = append(out.bounds, math.Inf(1))
		out.counts = append(out.counts, float64(total-last))
	}
	return out, true
}

func keyOf(labels map[string]string) string {
	names := make([]string, 0, len(labels))
	for n := range labels {
		names = append(names, n)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, n := range names {
		b.WriteString(n)
		b.WriteByte(1)
		b.WriteString(labels[n])
		b.WriteByte(2)
	}
	return b.String()
}

// increase gives what was added between two readings of one process: the
// same shape, with increases for values. A value that fell was started anew,
// and what it has now is its increase. A nil prev stands for a process that
// had counted nothing yet.
func increase(prev, cur *reading) *reading {
	out := &reading{at: cur.at, values: make(map[string][]labelled, len(cur.values)), hists: make(map[string][]histogram, len(cur.hists))}
	for name, list := range cur.values {
		var before []labelled
		if prev != nil {
			before = prev.values[name]
		}
		for _, v := range list {
			for _, b := range before {
				if b.key == v.key && b.value <= v.value {
					v.value -= b.value
					break
				}
			}
			out.values[name] = append(out.values[name], v)
		}
	}
	for name, list := range cur.hists {
		var before []histogram
		if prev != nil {
			before = prev.hists[name]
		}
		for _, h := range list {
			h.counts = slices.Clone(h.counts)
			for _, b := range before {
				if b.key == h.key && !fell(b, h) {
					for i := range h.counts {
						h.counts[i] -= b.counts[i]
					}
					break
				}
			}
			out.hists[name] = append(out.hists[name], h)
		}
	}
	return out
}

// fell tells whether h is not a later reading of b.
func fell(b, h histogram) bool {
	if !slices.Equal(b.bounds, h.bounds) {
		return true
	}
	for i := range h.counts {
		if h.counts[i] < b.counts[i] {
			return true
		}
	}
	return false
}

// sum adds up the values of a name that keep accepts.
func (r *reading) sum(name string, keep func(labels map[string]string) bool) float64 {
	total := 0.0
	for _, v := range r.values[name] {
		if keep == nil || keep(v.labels) {
			total += v.value
		}
	}
	return total
}

// merge adds the histograms of a name that keep accepts to h, which may be
// nil.
func (r *reading) merge(h *histogram, name string, keep func(labels map[string]string) bool) *histogram {
	for _, o := range r.hists[name] {
		if keep != nil && !keep(o.labels) {
			continue
		}
		if h == nil {
			h = &histogram{bounds: o.bounds, counts: slices.Clone(o.counts)}
			continue
		}
		if slices.Equal(h.bounds, o.bounds) {
			for i := range h.counts {
				h.counts[i] += o.counts[i]
			}
		}
	}
	return h
}

// quantile reads a quantile from increases, going straight through the
// bucket that it falls into; NaN where nothing was observed. Above the last
// finite bound it is that bound.
func (h *histogram) quantile(q float64) float64 {
	if h == nil {
		return math.NaN()
	}
	total := 0.0
	for _, c := range h.counts {
		total += c
	}
	if total <= 0 {
		return math.NaN()
	}
	rank := q * total
	below := 0.0
	for i, c := range h.counts {
		if below+c < rank || c == 0 {
			below += c
			continue
		}
		low := 0.0
		if i > 0 {
			low = h.bounds[i-1]
		}
		if math.IsInf(h.bounds[i], 1) {
			return low
		}
		low = min(low, h.bounds[i])
		return low + (h.bounds[i]-low)*(rank-below)/c
	}
	return math.NaN()
}
