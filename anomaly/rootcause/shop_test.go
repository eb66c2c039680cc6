package rootcause_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
)

var t0 = time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)

// calls is the shop's call graph, with the share of requests that make each
// call.
var calls = map[string][]struct {
	to    string
	share float64
}{
	"frontend":  {{"catalogue", 0.7}, {"cart", 0.4}, {"checkout", 0.3}},
	"catalogue": {{"stock", 0.6}},
	"checkout":  {{"payment", 1}, {"shipping", 0.7}},
	"payment":   {{"ledger", 0.9}},
}

var shopServices = []string{"frontend", "catalogue", "cart", "checkout", "stock", "payment", "shipping", "ledger"}

func shopGraph() []rootcause.Edge {
	var g []rootcause.Edge
	for _, s := range shopServices {
		for _, c := range calls[s] {
			g = append(g, rootcause.Edge{Caller: s, Callee: c.to})
		}
	}
	return g
}

// fault is what is injected into a service.
type fault struct {
	service  string
	errors   float64 // share of requests that fail of themselves
	extraMS  float64 // added to the service's own time
	instance int     // above zero: only this one of the instances has it
}

// shop simulates requests one by one, so that symptoms propagate as they do:
// an error of a callee mostly fails its caller, its time adds to the caller's.
type shop struct {
	rng    *rand.Rand
	fault  fault
	active bool
	demand float64 // requests a row
	self   bool    // export the metrics that leave callees out
	split  int     // export metrics for each of this many instances

	stats map[string]*stat
}

type stat struct {
	n, errors, own int
	ms, selfMS     []float64
}

func (s *stat) ratio(k int) float64 {
	if s.n == 0 {
		return math.NaN()
	}
	return float64(k) / float64(s.n)
}

func (s *shop) call(name string) (ms float64, failed bool) {
	st := s.stats[name]
	sts := []*stat{st}
	instance := 0
	if s.split > 0 {
		instance = 1 + st.n%s.split
		sts = append(sts, s.stats[instanceName(name, instance)])
	}
	own := 3 * math.Exp(0.4*s.rng.NormFloat64())
	broken := false
	if s.active && s.fault.service == name && (s.fault.instance == 0 || s.fault.instance == instance) {
		own += s.fault.extraMS * (0.7 + 0.6*s.rng.Float64())
		broken = s.rng.Float64() < s.fault.errors
	}
	broken = broken || s.rng.Float64() < 0.001
	for _, st := range sts {
		st.n++
	}
	ms = own
	if !broken {
		for _, c := range calls[name] {
			if s.rng.Float64() >= c.share {
				continue
			}
			m, f := s.call(c.to)
			ms += m
			if f && s.rng.Float64() < 0.95 {
				failed = true
				break
			}
		}
	}
	failed = failed || broken
	for _, st := range sts {
		if broken {
			st.own++
		}
		if failed {
			st.errors++
		}
		st.ms = append(st.ms, ms)
		st.selfMS = append(st.selfMS, own)
	}
	return ms, failed
}

func instanceName(service string, i int) string { return fmt.Sprintf("%s-%d", service, i) }

func p90(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	return v[(len(v)*9)/10]
}

func (s *shop) input(before, after, late int) rootcause.Input {
	values := map[[3]string][]float64{}
	instance := ""
	add := func(service, metric string, v float64) {
		k := [3]string{service, metric, instance}
		values[k] = append(values[k], v)
	}
	memory := map[string]float64{}
	for row := range before + after {
		s.active = row >= before
		s.stats = map[string]*stat{}
		for _, n := range shopServices {
			s.stats[n] = &stat{}
			for i := range s.split {
				s.stats[instanceName(n, i+1)] = &stat{}
			}
		}
		n := int(s.demand * (1 + 0.3*math.Sin(float64(row)/40) + 0.1*s.rng.NormFloat64()))
		for range max(n, 1) {
			s.call("frontend")
		}
		for _, name := range shopServices {
			st := s.stats[name]
			for i := range s.split {
				instance = instanceName(name, i+1)
				add(name, "error_ratio", s.stats[instance].ratio(s.stats[instance].errors))
				add(name, "latency_ms", p90(s.stats[instance].ms))
				add(name, "memory_mb", 80+s.rng.NormFloat64())
			}
			instance = ""
			memory[name] = 0.9*memory[name] + s.rng.NormFloat64()
			add(name, "request_rate", float64(st.n))
			add(name, "error_ratio", st.ratio(st.errors))
			add(name, "latency_ms", p90(st.ms))
			add(name, "memory_mb", 80+memory[name])
			add(name, "busy", min(1, float64(st.n)*0.01+0.02*s.rng.Float64()))
			if s.self {
				add(name, "self_error_ratio", st.ratio(st.own))
				add(name, "self_ms", p90(st.selfMS))
			}
		}
	}
	in := rootcause.Input{
		Start: t0, Step: time.Second, Graph: shopGraph(),
		Onset:  t0.Add(time.Duration(before+late) * time.Second),
		Target: anomaly.SeriesID{Service: "frontend", Metric: "error_ratio"},
	}
	for k, v := range values {
		in.Metrics = append(in.Metrics, rootcause.Metric{Service: k[0], Name: k[1], Instance: k[2], Values: v})
	}
	return in
}
