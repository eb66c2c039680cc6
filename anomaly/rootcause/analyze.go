package rootcause

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// ErrInput says that an [Input] or [Options] cannot be used; the message names
// the field.
var ErrInput = errors.New("rootcause: bad input")

// Options are the settings of an [Analyzer]; the zero value is useful.
type Options struct {
	// OnsetWindow is how far from Input.Onset the onset is searched, to either
	// side; 0 means 90 seconds, but at least 8 rows; negative means not at
	// all.
	OnsetWindow time.Duration
	// MinScore is the score below which a metric counts as ordinary; 0 means
	// 5, in robust standard deviations.
	MinScore float64
	// ChangeWindow is how long before onset a change may lie to be a
	// candidate; the belief in it halves with each quarter of the window. 0
	// means 1 hour.
	ChangeWindow time.Duration
	// MinConfidence is the confidence below which no change is blamed; 0
	// means 0.5.
	MinConfidence float64
	// MaxMetrics is how many metrics are listed for each service; 0 means 8.
	MaxMetrics int
}

func (o Options) resolve() (Options, error) {
	if o.OnsetWindow == 0 {
		o.OnsetWindow = 90 * time.Second
	}
	if o.MinScore == 0 {
		o.MinScore = 5
	}
	if o.ChangeWindow == 0 {
		o.ChangeWindow = time.Hour
	}
	if o.MinConfidence == 0 {
		o.MinConfidence = 0.5
	}
	if o.MaxMetrics == 0 {
		o.MaxMetrics = 8
	}
	switch {
	case !(o.MinScore > 0) || math.IsInf(o.MinScore, 0):
		return o, fmt.Errorf("%w: Options.MinScore %v is not a finite number above 0", ErrInput, o.MinScore)
	case o.ChangeWindow < 0:
		return o, fmt.Errorf("%w: Options.ChangeWindow %v is negative", ErrInput, o.ChangeWindow)
	case !(o.MinConfidence > 0 && o.MinConfidence <= 1):
		return o, fmt.Errorf("%w: Options.MinConfidence %v is not in (0, 1]", ErrInput, o.MinConfidence)
	case o.MaxMetrics < 0:
		return o, fmt.Errorf("%w: Options.MaxMetrics %d is negative", ErrInput, o.MaxMetrics)
	}
	return o, nil
}

// Analyzer ranks causes. It holds no state but its options and may be used
// from several goroutines at once.
type Analyzer struct {
	Options Options
}

// Analyze ranks the services and the changes that may have caused what the
// metrics of in show. The report depends on the content of in alone, not on
// the order of its slices. Analyze keeps nothing of in and changes nothing.
//
// It fails with [ErrInput], naming the field, where metrics differ in length,
// a name is empty or comes twice, Step is not above zero, Onset is given and
// lies outside the rows, or Target is in neither Metrics nor Graph; and with
// ctx's error when ctx ends. Too little data is no error: what cannot be
// judged is ordinary.
func (a Analyzer) Analyze(ctx context.Context, in Input) (*Report, error) {
	opts, err := a.Options.resolve()
	if err != nil {
		return nil, err
	}
	rows, err := in.validate()
	if err != nil {
		return nil, err
	}
	s := &analysis{opts: opts, in: in, rows: rows}
	s.canonical()
	if err := s.findOnset(ctx); err != nil {
		return nil, err
	}
	if err := s.scoreMetrics(ctx); err != nil {
		return nil, err
	}
	s.rankServices()
	s.rankChanges()
	return s.report(), nil
}

func (in Input) validate() (rows int, err error) {
	bad := func(format string, args ...any) (int, error) {
		return 0, fmt.Errorf("%w: "+format, append([]any{ErrInput}, args...)...)
	}
	if in.Step <= 0 {
		return bad("Step %v is not above zero", in.Step)
	}
	known := map[string]bool{}
	for i, m := range in.Metrics {
		if m.Service == "" || m.Name == "" {
			return bad("Metrics[%d]: Service %q or Name %q is empty", i, m.Service, m.Name)
		}
		if i == 0 {
			rows = len(m.Values)
		}
		if len(m.Values) != rows {
			return bad("Metrics[%d] (%s): %d Values, the first metric has %d", i, m.label(), len(m.Values), rows)
		}
		known[m.Service] = true
	}
	ids := make([]metricID, len(in.Metrics))
	for i, m := range in.Metrics {
		ids[i] = m.id()
	}
	slices.SortFunc(ids, metricID.compare)
	for i := range ids[:max(0, len(ids)-1)] {
		if ids[i] == ids[i+1] {
			return bad("Metrics: %s comes twice", ids[i].label())
		}
	}
	for i, e := range in.Graph {
		if e.Caller == "" || e.Callee == "" {
			return bad("Graph[%d]: Caller %q or Callee %q is empty", i, e.Caller, e.Callee)
		}
		known[e.Caller], known[e.Callee] = true, true
	}
	if in.Target.Service != "" && !known[in.Target.Service] {
		return bad("Target.Service %q is in neither Metrics nor Graph", in.Target.Service)
	}
	if !in.Onset.IsZero() && rows > 0 {
		if end := in.Start.Add(time.Duration(rows) * in.Step); in.Onset.Before(in.Start) || !in.Onset.Before(end) {
			return bad("Onset %s is outside the rows, %s to %s", clock(in.Onset), clock(in.Start), clock(end))
		}
	}
	for i, c := range in.Changes {
		if c.ID == "" {
			return bad("Changes[%d]: ID is empty", i)
		}
	}
	return rows, nil
}

type metricID struct{ service, name, instance string }

func (m Metric) id() metricID  { return metricID{m.Service, m.Name, m.Instance} }
func (m Metric) label() string { return m.id().label() }

func (id metricID) label() string {
	if id.instance != "" {
		return id.service + "/" + id.instance + "/" + id.name
	}
	return id.service + "/" + id.name
}

func (id metricID) compare(o metricID) int {
	return cmp.Or(cmp.Compare(id.service, o.service), cmp.Compare(id.name, o.name), cmp.Compare(id.instance, o.instance))
}

// analysis is one call of Analyze on its way.
type analysis struct {
	opts Options
	in   Input
	rows int

	metrics  []*metric // in canonical order
	services []*service
	index    map[string]int
	changes  []Change
	target   int // index of the target's service, -1 for none

	onset    int // best row
	from, to int // the rows in which the onset may lie
	onsets   []candidate

	rankedServices []*service
	rankedChanges  []RankedChange
	demand         string // how demand explains the first service, if it does
}

// candidate is a row that may be the onset, with its weight.
type candidate struct {
	row    int
	weight float64
}

type metric struct {
	Metric
	kind  kind
	self  bool // measures what the service itself did, without its callees
	trait trait

	score         float64 // robust deviation, whatever its direction
	weighted      float64 // the same as a sign of trouble
	before, after float64
}

type service struct {
	name    string
	metrics []*metric
	callees []int
	callers []int

	dev      [kinds]float64 // how far each kind of metric is off
	residual [kinds]float64 // what callees do not explain of it
	blame    []float64      // share of what is off that each callee explains
	own      float64        // residual of all kinds
	score    float64
	conf     float64
	instance string
	path     []string
	explains []string // callees that explain it
	gone     bool     // fell silent while a caller was off
}

// canonical puts everything into an order that depends on content alone.
func (s *analysis) canonical() {
	s.metrics = make([]*metric, len(s.in.Metrics))
	for i, m := range s.in.Metrics {
		k, self := classify(m.Name)
		s.metrics[i] = &metric{Metric: m, kind: k, self: self, trait: traits[k]}
	}
	slices.SortFunc(s.metrics, func(a, b *metric) int { return a.id().compare(b.id()) })

	names := map[string]bool{}
	for _, m := range s.metrics {
		names[m.Service] = true
	}
	for _, e := range s.in.Graph {
		names[e.Caller], names[e.Callee] = true, true
	}
	sorted := make([]string, 0, len(names))
	for n := range names {
		sorted = append(sorted, n)
	}
	slices.Sort(sorted)
	s.index = make(map[string]int, len(sorted))
	for i, n := range sorted {
		s.index[n] = i
		s.services = append(s.services, &service{name: n})
	}
	for _, m := range s.metrics {
		v := s.services[s.index[m.Service]]
		v.metrics = append(v.metrics, m)
	}
	for _, e := range s.in.Graph {
		a, b := s.index[e.Caller], s.index[e.Callee]
		if a != b {
			s.services[a].callees = append(s.services[a].callees, b)
			s.services[b].callers = append(s.services[b].callers, a)
		}
	}
	for _, v := range s.services {
		slices.Sort(v.callees)
		v.callees = slices.Compact(v.callees)
		slices.Sort(v.callers)
		v.callers = slices.Compact(v.callers)
	}
	s.target = -1
	if i, ok := s.index[s.in.Target.Service]; ok {
		s.target = i
	}
	s.changes = slices.Clone(s.in.Changes)
	for i := range s.changes {
		c := &s.changes[i]
		c.Services = slices.Compact(slices.Sorted(slices.Values(c.Services)))
		c.Fields = slices.Compact(slices.Sorted(slices.Values(c.Fields)))
	}
	slices.SortStableFunc(s.changes, func(a, b Change) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Summary, b.Summary),
			cmp.Compare(a.Author, b.Author), slices.Compare(a.Services, b.Services), slices.Compare(a.Fields, b.Fields))
	})
}

func (s *analysis) time(row int) time.Time {
	return s.in.Start.Add(time.Duration(row) * s.in.Step)
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05") }
