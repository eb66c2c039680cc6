package shop

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"sync"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// durationBuckets are upper bounds in seconds, close enough together that a
// p90 read from them is within about 20 %.
var durationBuckets = [...]float64{.005, .01, .02, .03, .04, .05, .065, .08, .1, .125, .15, .2, .25, .3, .4, .5, .65, .8, 1, 1.25, 1.5, 2.5}

// registry holds a process's metrics. Its rates are some hundred events a
// second, so one lock for all is enough.
type registry struct {
	mu       sync.Mutex
	families []*family
}

type family struct {
	r        *registry
	name     string
	help     string
	typ      dto.MetricType
	labels   []string
	children map[string]*child
}

type child struct {
	values []string
	value  float64
	counts []uint64 // one for each bucket and one above, not cumulative
	n      uint64
}

func (r *registry) family(typ dto.MetricType, name, help string, labels ...string) *family {
	f := &family{r: r, name: name, help: help, typ: typ, labels: labels, children: map[string]*child{}}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.families = append(r.families, f)
	if len(labels) == 0 {
		f.child(nil) // a metric without labels exists from the start
	}
	return f
}

func (r *registry) counter(name, help string, labels ...string) *family {
	return r.family(dto.MetricType_COUNTER, name, help, labels...)
}

func (r *registry) gauge(name, help string, labels ...string) *family {
	return r.family(dto.MetricType_GAUGE, name, help, labels...)
}

func (r *registry) histogram(name, help string, labels ...string) *family {
	return r.family(dto.MetricType_HISTOGRAM, name, help, labels...)
}

func (f *family) child(values []string) *child {
	key := strings.Join(values, "\x00")
	c, ok := f.children[key]
	if !ok {
		c = &child{values: slices.Clone(values)}
		if f.typ == dto.MetricType_HISTOGRAM {
			c.counts = make([]uint64, len(durationBuckets)+1)
		}
		f.children[key] = c
	}
	return c
}

func (f *family) add(v float64, values ...string) {
	f.r.mu.Lock()
	f.child(values).value += v
	f.r.mu.Unlock()
}

func (f *family) set(v float64, values ...string) {
	f.r.mu.Lock()
	f.child(values).value = v
	f.r.mu.Unlock()
}

func (f *family) observe(seconds float64, values ...string) {
	f.r.mu.Lock()
	c := f.child(values)
	i, _ := slices.BinarySearch(durationBuckets[:], seconds)
	c.counts[i]++
	c.n++
	c.value += seconds
	f.r.mu.Unlock()
}

// gather gives the metrics in the exposition's own types, in name order.
func (r *registry) gather() []*dto.MetricFamily {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*dto.MetricFamily, 0, len(r.families))
	for _, f := range r.families {
		if len(f.children) == 0 {
			continue
		}
		mf := &dto.MetricFamily{Name: &f.name, Help: &f.help, Type: &f.typ}
		keys := make([]string, 0, len(f.children))
		for k := range f.children {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			mf.Metric = append(mf.Metric, f.metric(f.children[k]))
		}
		out = append(out, mf)
	}
	slices.SortFunc(out, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out
}

func (f *family) metric(c *child) *dto.Metric {
	m := &dto.Metric{}
	for i, l := range f.labels {
		m.Label = append(m.Label, &dto.LabelPair{Name: &l, Value: &c.values[i]})
	}
	v := c.value
	switch f.typ {
	case dto.MetricType_COUNTER:
		m.Counter = &dto.Counter{Value: &v}
	case dto.MetricType_HISTOGRAM:
		n := c.n
		h := &dto.Histogram{SampleCount: &n, SampleSum: &v}
		var sum uint64
		for i, bound := range durationBuckets {
			sum += c.counts[i]
			cum := sum
			h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: &bound, CumulativeCount: &cum})
		}
		m.Histogram = h
	default:
		m.Gauge = &dto.Gauge{Value: &v}
	}
	return m
}

// handler serves the metrics; before, if set, brings gauges up to date.
func (r *registry) handler(before func()) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if before != nil {
			before()
		}
		var b bytes.Buffer
		for _, mf := range r.gather() {
			if _, err := expfmt.MetricFamilyToText(&b, mf); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
		_, _ = w.Write(b.Bytes()) // a scraper that went away needs no answer
	}
}
