package rootcause

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// report puts the outcome into words.
func (s *analysis) report() *Report {
	r := &Report{Onset: s.time(s.onset), Class: Escalate, Services: []RankedService{}}
	for _, v := range s.rankedServices {
		out := RankedService{
			Service: v.name, Score: v.score, Confidence: v.conf, Instance: v.instance, Path: v.path,
			Evidence: s.evidence(v),
		}
		for _, m := range s.listed(v) {
			out.Metrics = append(out.Metrics, RankedMetric{Name: m.Name, Instance: m.Instance, Score: m.score, Before: m.before, After: m.after})
		}
		r.Services = append(r.Services, out)
	}
	r.Changes = s.rankedChanges
	if len(r.Changes) > 0 && r.Changes[0].Confidence >= s.opts.MinConfidence {
		c := r.Changes[0]
		r.Change = &c
	}
	if len(r.Services) == 0 {
		r.Why = "no metric is further off than usual"
		return r
	}
	top := r.Services[0]
	why := top.Evidence[0]
	switch {
	case r.Change != nil:
		r.Class = RollBack
		r.Why = fmt.Sprintf("change %s (%s) %s: %s", short(r.Change.Change.ID), r.Change.Change.Summary, r.Change.Evidence[0], why)
	case top.Instance != "":
		r.Class = Restart
		r.Why = fmt.Sprintf("instance %s of %s went bad by itself: %s", top.Instance, top.Service, why)
	case s.demand != "":
		r.Class = ScaleUp
		r.Why = fmt.Sprintf("demand of %s rose (%s) beyond its capacity: %s", top.Service, s.demand, why)
	default:
		r.Why = fmt.Sprintf("%s is off, and no change, instance or demand explains it: %s", top.Service, why)
	}
	return r
}

// listed are the metrics of a service that a report shows, worst first.
func (s *analysis) listed(v *service) []*metric {
	ms := slices.DeleteFunc(slices.Clone(v.metrics), func(m *metric) bool { return math.IsNaN(m.before) })
	slices.SortStableFunc(ms, func(a, b *metric) int { return cmp.Compare(b.weighted, a.weighted) })
	return ms[:min(len(ms), s.opts.MaxMetrics)]
}

func (s *analysis) evidence(v *service) []string {
	var lines []string
	since := clock(s.time(s.onset))
	if v.gone {
		lines = append(lines, fmt.Sprintf("%s reports nothing since %s, while its callers are off", v.name, since))
	}
	for _, m := range s.listed(v) {
		if m.weighted < s.opts.MinScore || len(lines) == 3 {
			break
		}
		line := fmt.Sprintf("%s %s → %s (score %.0f) since %s", m.label(), number(m.before), number(m.after), m.score, since)
		if len(lines) == 0 {
			if f := s.followers(v); len(f) > 0 {
				line += "; " + plural(len(f), "caller", "callers") + " " + list(f) + plural(len(f), " follows", " follow")
			}
		}
		lines = append(lines, line)
	}
	if len(v.explains) > 0 {
		lines = append(lines, fmt.Sprintf("explained in part by %s, which it calls", list(v.explains)))
	} else if len(v.callees) > 0 {
		lines = append(lines, "nothing that it calls explains it")
	}
	if v.instance != "" {
		lines = append(lines, fmt.Sprintf("instance %s alone is off", v.instance))
	}
	if len(v.path) > 1 {
		lines = append(lines, "reached from the alert by "+strings.Join(v.path, " → "))
	}
	return lines
}

// followers are the callers, direct or not, that are off as well.
func (s *analysis) followers(v *service) []string {
	dist := s.distances(s.index[v.name], true)
	var names []string
	for _, o := range s.rankedServices {
		if dist[s.index[o.name]] > 0 {
			names = append(names, o.name)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(dist[s.index[a]], dist[s.index[b]]), cmp.Compare(a, b))
	})
	return names
}

func list(names []string) string { return strings.Join(names, ", ") }

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// number is short and never in exponents where people do not expect them.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a != 0 && (a < 0.001 || a >= 1e9):
		return strconv.FormatFloat(v, 'g', 3, 64)
	case a < 10:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case a < 1000:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// short is the first part of an ID that is a long hash.
func short(id string) string {
	if len(id) == 40 || len(id) == 64 {
		return id[:10]
	}
	return id
}
