package scrape

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
	"github.com/evenkeel-go/evenkeel/forecast"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

// ErrNotAfter says that a tick's time is not in a later interval of the grid
// than the tick before.
var ErrNotAfter = errors.New("time is not after the last tick's")

// The metrics that a [Scraper] gives. Those of [Ingress] are what the clients
// see; the others are of a service, and the ones so marked of each instance
// too. Ratios are in [0, 1] and NaN where there was no request; times are
// the 90th percentile in milliseconds.
const (
	// RequestRate: requests a second, as answered by the load balancer;
	// instance: by the replica; ingress: by anybody.
	RequestRate = "request_rate"
	// ErrorRatio: share of answers of 500 and above; ingress: and of
	// requests without an answer. Instance too.
	ErrorRatio = "error_ratio"
	// SelfErrorRatio: share of requests that failed in the service itself
	// and not in one that it called. Instance too.
	SelfErrorRatio = "self_error_ratio"
	// LatencyMS: time to answer, seen from the load balancer; instance: from
	// the replica; ingress: from the clients.
	LatencyMS = "latency_ms"
	// SelfMS: own work, without waiting in the queue or for other services.
	// Instance too.
	SelfMS = "self_ms"
	// MemoryMB: resident memory in units of 2^20 bytes; for a service that of
	// its largest replica. Instance too.
	MemoryMB = "memory_mb"
	// QueueLength: requests that wait for a worker. Instance too.
	QueueLength = "queue"
	// Busy: share of the workers' time that was taken, in [0, 1]. Instance
	// too.
	Busy = "busy"
	// ReplicasReady: replicas that take requests.
	ReplicasReady = "replicas_ready"
	// OfferedRPS, OKRate and FailedRate are of [Ingress]: what the demand
	// asks for, and what became of it, in requests a second.
	OfferedRPS = "offered_rps"
	OKRate     = "ok_rate"
	FailedRate = "failed_rate"

	// Ingress is the service name of what the clients see.
	Ingress = shop.IngressCaller
)

// maxPoints bounds the answer to one query.
const maxPoints = 11000

// Options configure a [Scraper]. Dir and Step are needed.
type Options struct {
	// Dir is the platform's directory.
	Dir string
	// Step is the length of one interval of the grid, in the time that Tick
	// is given.
	Step time.Duration
	// Capacity is how many intervals are kept; 0 is 4,096.
	Capacity int
	// Smooth is over how many ticks ratios and percentiles are taken; 0 is 1.
	Smooth int
	// Timeout is how long one target may take; 0 is 200 ms.
	Timeout time.Duration
	// Clock is the wall clock that rates are measured with; nil is
	// [reconcile.SystemClock].
	Clock reconcile.Clock
}

// Sample is one value of one series.
type Sample struct {
	Series anomaly.SeriesID `json:"series"`
	// Value is NaN where it is missing.
	Value float64 `json:"value"`
}

// Batch is what one tick gave.
type Batch struct {
	// Time is the start of the interval.
	Time time.Time
	// Samples has each series of a service that was ever seen and of each
	// instance that is there, by service, instance and metric.
	Samples []Sample
	// Targets is how many processes there are, and Failed why some of them
	// could not be read.
	Targets int
	Failed  []error
}

// Scraper reads the metrics of a platform's processes. It implements
// [forecast.Source] and is safe for concurrent use.
type Scraper struct {
	o      Options
	client *http.Client

	tickMu  sync.Mutex // one tick at a time
	reader  rundir.Reader
	sources map[string]*source
	wall    time.Time // of the last tick

	mu      sync.RWMutex
	origin  time.Time
	last    int64 // interval of the last tick
	ticked  bool
	series  map[anomaly.SeriesID]*column
	edges   map[rootcause.Edge]bool
	service map[string]bool
}

// source is one process.
type source struct {
	entry  rundir.Entry
	last   *reading
	recent []gain // the last Smooth ones
}

// gain is what a process counted over some seconds.
type gain struct {
	*reading
	seconds float64
}

// column is the part of a series in which it had values: interval first+i is
// values[i].
type column struct {
	first  int64
	values []float64
}

// New makes a Scraper. Without Dir or Step it fails.
func New(o Options) (*Scraper, error) {
	if o.Dir == "" || o.Step <= 0 || o.Capacity < 0 || o.Smooth < 0 || o.Timeout < 0 {
		return nil, fmt.Errorf("scrape: options %+v: want a Dir, a Step above zero and nothing negative", o)
	}
	o.Capacity = cmp.Or(o.Capacity, 4096)
	o.Smooth = cmp.Or(o.Smooth, 1)
	o.Timeout = cmp.Or(o.Timeout, 200*time.Millisecond)
	if o.Clock == nil {
		o.Clock = reconcile.SystemClock{}
	}
	return &Scraper{
		o:       o,
		client:  &http.Client{Timeout: o.Timeout, Transport: &http.Transport{MaxIdleConnsPerHost: 1, DisableCompression: true, IdleConnTimeout: 30 * time.Second}},
		reader:  rundir.Reader{Dir: rundir.Dir(o.Dir)},
		sources: map[string]*source{},
		series:  map[anomaly.SeriesID]*column{},
		edges:   map[rootcause.Edge]bool{},
		service: map[string]bool{},
	}, nil
}

// Close drops idle connections. The series stay.
func (s *Scraper) Close() { s.client.CloseIdleConnections() }

// Tick reads all targets side by side and adds one value to each series, in
// the interval of the grid that now falls into; the first tick sets where the
// grid begins. Intervals that were left out are missing. A target that does
// not answer costs its own values; an error is given only where nothing can
// be read at all, or where now is not in a later interval ([ErrNotAfter]).
func (s *Scraper) Tick(ctx context.Context, now time.Time) (Batch, error) {
	s.tickMu.Lock()
	defer s.tickMu.Unlock()
	now = now.UTC()
	s.mu.RLock()
	origin, last, ticked := s.origin, s.last, s.ticked
	s.mu.RUnlock()
	if !ticked {
		origin = now.Truncate(s.o.Step)
	}
	at := floorDiv(now.Sub(origin), s.o.Step)
	if ticked && at <= last {
		return Batch{}, fmt.Errorf("scrape: tick %v: %w", now.Format(time.RFC3339Nano), ErrNotAfter)
	}
	entries, err := s.reader.Read()
	if err != nil {
		return Batch{}, fmt.Errorf("scrape: targets: %w", err)
	}
	wall := s.o.Clock.Now()
	readings, failed := s.fetch(ctx, entries)
	if err := ctx.Err(); err != nil {
		return Batch{}, err
	}
	present := make(map[string]bool, len(entries))
	fresh := map[string]bool{} // read in this tick
	for i, e := range entries {
		present[e.ID] = true
		src, ok := s.sources[e.ID]
		if !ok {
			src = &source{entry: e}
			s.sources[e.ID] = src
		}
		if readings[i] == nil {
			continue
		}
		fresh[e.ID] = true
		src.take(readings[i], s.wall, s.o.Smooth)
	}
	for id := range s.sources {
		if !present[id] {
			delete(s.sources, id)
		}
	}
	s.wall = wall

	b := Batch{Time: origin.Add(time.Duration(at) * s.o.Step), Targets: len(entries), Failed: failed}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.origin, s.last, s.ticked = origin, at, true
	b.Samples = s.evaluate(entries, fresh)
	for _, x := range b.Samples {
		s.put(x.Series, at, x.Value)
	}
	s.forget()
	return b, nil
}

func floorDiv(d, step time.Duration) int64 {
	q := int64(d / step)
	if d%step < 0 {
		q--
	}
	return q
}

func (s *Scraper) fetch(ctx context.Context, entries []rundir.Entry) ([]*reading, []error) {
	out := make([]*reading, len(entries))
	errs := make([]error, len(entries))
	slots := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for i, e := range entries {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if out[i], errs[i] = s.get(ctx, e); errs[i] != nil {
				errs[i] = fmt.Errorf("scrape: %s: %w", e.ID, errs[i])
			}
		})
	}
	wg.Wait()
	return out, slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

func (s *Scraper) get(ctx context.Context, e rundir.Entry) (*reading, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL()+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	at := s.o.Clock.Now()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET /metrics: %s", resp.Status)
	}
	return parse(io.LimitReader(resp.Body, 4<<20), at)
}

// take adds a reading. The first one of a process says how much it counted
// only if the process is younger than the tick before.
func (src *source) take(r *reading, lastTick time.Time, smooth int) {
	began, known := src.entry.Started, !lastTick.IsZero() && src.entry.Started.After(lastTick)
	if src.last != nil {
		began, known = src.last.at, true
	}
	if seconds := r.at.Sub(began).Seconds(); known && seconds > 0 {
		src.recent = append(src.recent, gain{increase(src.last, r), seconds})
		if len(src.recent) > smooth {
			src.recent = src.recent[1:]
		}
	}
	src.last = r
}

// newest is what was counted since the reading before, if any.
func (src *source) newest() (gain, bool) {
	if n := len(src.recent); n > 0 {
		return src.recent[n-1], true
	}
	return gain{}, false
}

// evaluate computes the samples of one tick. The caller holds mu.
func (s *Scraper) evaluate(entries []rundir.Entry, fresh map[string]bool) []Sample {
	values := map[anomaly.SeriesID]float64{}
	byService := map[string][]*source{}
	for _, e := range entries {
		src := s.sources[e.ID]
		switch e.Role {
		case rundir.RoleService:
			s.service[e.Service] = true
			if fresh[e.ID] {
				byService[e.Service] = append(byService[e.Service], src)
			}
			for _, m := range []string{RequestRate, ErrorRatio, SelfErrorRatio, LatencyMS, SelfMS, MemoryMB, QueueLength, Busy} {
				values[anomaly.SeriesID{Service: e.Service, Instance: e.ID, Metric: m}] = math.NaN()
			}
		}
	}
	for service := range s.service {
		for _, m := range []string{RequestRate, ErrorRatio, SelfErrorRatio, LatencyMS, SelfMS, MemoryMB, QueueLength, Busy, ReplicasReady} {
			values[anomaly.SeriesID{Service: service, Metric: m}] = math.NaN()
		}
		for _, src := range byService[service] {
			replicas([]*source{src}, service, src.entry.ID, values)
		}
		replicas(byService[service], service, "", values)
	}
	for _, e := range entries {
		if !fresh[e.ID] {
			continue
		}
		switch e.Role {
		case rundir.RoleLB:
			s.balancer(s.sources[e.ID], values)
		case rundir.RoleLoad:
			clients(s.sources[e.ID], values)
		}
	}
	out := make([]Sample, 0, len(values))
	for id, v := range values {
		out = append(out, Sample{id, v})
	}
	slices.SortFunc(out, func(a, b Sample) int { return compare(a.Series, b.Series) })
	return out
}

func compare(a, b anomaly.SeriesID) int {
	return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Instance, b.Instance), strings.Compare(a.Metric, b.Metric))
}

// replicas computes what the replicas themselves tell; for the whole service
// instance is empty, and rate, errors and latency are left to the load
// balancer, which also sees what never reached a replica.
func replicas(list []*source, service, instance string, values map[anomaly.SeriesID]float64) {
	if len(list) == 0 {
		return
	}
	set := func(metric string, v float64) {
		values[anomaly.SeriesID{Service: service, Instance: instance, Metric: metric}] = v
	}
	memory, queue := math.NaN(), 0.0
	rate, spent, available := 0.0, 0.0, 0.0
	total, failed, own := 0.0, 0.0, 0.0
	var duration, self *histogram
	counted := false
	for _, src := range list {
		if len(src.last.values["process_resident_memory_bytes"]) > 0 {
			m := src.last.sum("process_resident_memory_bytes", nil) / (1 << 20)
			if math.IsNaN(memory) || m > memory {
				memory = m
			}
		}
		queue += src.last.sum("queue_length", nil)
		if g, ok := src.newest(); ok {
			counted = true
			rate += g.sum("http_requests_total", nil) / g.seconds
			spent += g.sum("worker_busy_seconds_total", nil)
			available += g.seconds * src.last.sum("workers", nil)
		}
		for _, g := range src.recent {
			total += g.sum("http_requests_total", nil)
			failed += g.sum("http_requests_total", serverError)
			own += g.sum("http_requests_failed_own_total", nil)
			duration = g.merge(duration, "http_request_duration_seconds", nil)
			self = g.merge(self, "http_self_duration_seconds", nil)
		}
	}
	set(MemoryMB, memory)
	set(QueueLength, queue)
	set(SelfErrorRatio, ratio(own, total))
	set(SelfMS, 1000*self.quantile(.9))
	if counted {
		set(Busy, min(1, ratio(spent, available)))
	}
	if instance != "" {
		if counted {
			set(RequestRate, rate)
		}
		set(ErrorRatio, ratio(failed, total))
		set(LatencyMS, 1000*duration.quantile(.9))
	}
}

func ratio(part, whole float64) float64 {
	if whole <= 0 {
		return math.NaN()
	}
	return part / whole
}

// serverError accepts codes of 500 and above and 499, which is a caller that
// waited no longer.
func serverError(labels map[string]string) bool { return labels["code"] >= "499" }

// balancer computes what the load balancer tells of each service.
func (s *Scraper) balancer(src *source, values map[anomaly.SeriesID]float64) {
	for _, v := range src.last.values["lb_edge_requests_total"] {
		if v.value > 0 {
			s.edges[rootcause.Edge{Caller: v.labels["caller"], Callee: v.labels["callee"]}] = true
		}
	}
	for service := range s.service {
		of := func(labels map[string]string) bool { return labels["service"] == service }
		set := func(metric string, v float64) {
			values[anomaly.SeriesID{Service: service, Metric: metric}] = v
		}
		set(ReplicasReady, src.last.sum("lb_backends_ready", of))
		if g, ok := src.newest(); ok {
			set(RequestRate, g.sum("lb_requests_total", of)/g.seconds)
		}
		total, failed := 0.0, 0.0
		var h *histogram
		for _, g := range src.recent {
			total += g.sum("lb_requests_total", of)
			failed += g.sum("lb_requests_total", func(l map[string]string) bool { return of(l) && serverError(l) })
			h = g.merge(h, "lb_request_duration_seconds", of)
		}
		set(ErrorRatio, ratio(failed, total))
		set(LatencyMS, 1000*h.quantile(.9))
	}
}

// clients computes what the load generator tells.
func clients(src *source, values map[anomaly.SeriesID]float64) {
	set := func(metric string, v float64) {
		values[anomaly.SeriesID{Service: Ingress, Metric: metric}] = v
	}
	ok := func(l map[string]string) bool { return l["result"] == "ok" }
	set(OfferedRPS, src.last.sum("load_offered_rps", nil))
	for _, m := range []string{RequestRate, OKRate, FailedRate} {
		set(m, math.NaN())
	}
	if g, counted := src.newest(); counted {
		all, good := g.sum("load_requests_total", nil), g.sum("load_requests_total", ok)
		set(RequestRate, all/g.seconds)
		set(OKRate, good/g.seconds)
		set(FailedRate, (all-good)/g.seconds)
	}
	total, good := 0.0, 0.0
	var h *histogram
	for _, g := range src.recent {
		total += g.sum("load_requests_total", nil)
		good += g.sum("load_requests_total", ok)
		h = g.merge(h, "load_request_duration_seconds", nil)
	}
	set(ErrorRatio, ratio(total-good, total))
	set(LatencyMS, 1000*h.quantile(.9))
}

// put adds a value to a series. The caller holds mu.
func (s *Scraper) put(id anomaly.SeriesID, at int64, v float64) {
	c, ok := s.series[id]
	if !ok {
		if math.IsNaN(v) {
			return // a series begins with a value
		}
		c = &column{first: at}
		s.series[id] = c
	}
	if gap := at - c.first - int64(len(c.values)); gap >= int64(s.o.Capacity) {
		c.first, c.values = at, c.values[:0]
	} else {
		for range gap {
			c.values = append(c.values, math.NaN())
		}
	}
	c.values = append(c.values, v)
	// Twice the capacity is kept before the older half is dropped, so that
	// the copy is paid for once in as many ticks.
	if n := len(c.values); n >= 2*s.o.Capacity {
		drop := n - s.o.Capacity
		c.values = append(c.values[:0], c.values[drop:]...)
		c.first += int64(drop)
	}
}

// forget drops the series of instances that have been gone for as long as
// values are kept. The caller holds mu.
func (s *Scraper) forget() {
	old := s.last - int64(s.o.Capacity)
	for id, c := range s.series {
		if c.first+int64(len(c.values)) <= old {
			delete(s.series, id)
		}
	}
}

// at gives the value of an interval. The caller holds mu.
func (s *Scraper) at(c *column, i int64) float64 {
	k := i - c.first
	if k < 0 || k >= int64(len(c.values)) || i <= s.last-int64(s.o.Capacity) {
		return math.NaN()
	}
	return c.values[k]
}

// Query evaluates a query of [ParseQuery]'s language, as [forecast.Source]
// wants it. A step of several intervals of the grid gives the mean of those
// that begin in it, missing ones left out; a shorter one gives the interval
// that its time falls into.
func (s *Scraper) Query(ctx context.Context, query string, start, end time.Time, step time.Duration) ([]forecast.Series, error) {
	q, err := ParseQuery(query)
	if err != nil {
		return nil, err
	}
	if step <= 0 || end.Before(start) {
		return nil, fmt.Errorf("scrape: query %q: from %v to %v by %v: %w", query, start, end, step, ErrQuery)
	}
	n := int64(end.Sub(start)/step) + 1
	if n > maxPoints {
		return nil, fmt.Errorf("scrape: query %q: %d points, and at most %d are given: %w", query, n, maxPoints, ErrQuery)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	start = start.UTC()
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []forecast.Series
	for _, id := range s.ids() {
		if id.Metric != q.Metric || (q.Service != "" && id.Service != q.Service) {
			continue
		}
		if q.Instance == "*" && id.Instance == "" || q.Instance != "*" && q.Instance != id.Instance {
			continue
		}
		labels := map[string]string{"service": id.Service}
		if id.Instance != "" {
			labels["instance"] = id.Instance
		}
		f := forecast.Series{
			Name:   Query{Metric: id.Metric, Service: id.Service, Instance: id.Instance}.String(),
			Labels: labels, Start: start, Step: step, Values: make([]float64, n),
		}
		for i := range f.Values {
			f.Values[i] = s.mean(s.series[id], f.Time(i), step)
		}
		out = append(out, f)
	}
	return out, nil
}

// mean gives the mean over the intervals that begin in [t, t+step).
func (s *Scraper) mean(c *column, t time.Time, step time.Duration) float64 {
	if step < s.o.Step {
		return s.at(c, floorDiv(t.Sub(s.origin), s.o.Step))
	}
	sum, n := 0.0, 0
	from := floorDiv(t.Sub(s.origin)+s.o.Step-1, s.o.Step)
	to := floorDiv(t.Add(step).Sub(s.origin)+s.o.Step-1, s.o.Step)
	for i := max(from, c.first); i < min(to, c.first+int64(len(c.values))); i++ {
		if v := s.at(c, i); !math.IsNaN(v) {
			sum += v
			n++
		}
	}
	if n == 0 {
		return math.NaN()
	}
	return sum / float64(n)
}

func (s *Scraper) ids() []anomaly.SeriesID {
	return slices.SortedFunc(maps.Keys(s.series), compare)
}

// Window is a stretch of all series on the grid.
type Window struct {
	// Start is the time of row 0, Step the time from row to row.
	Start time.Time
	Step  time.Duration
	// Rows is the number of values of each metric.
	Rows int
	// Metrics are all series of services and instances that have a value in
	// the window, by service, instance and name. What the clients see
	// ([Ingress]) is not among them.
	Metrics []rootcause.Metric
}

// Window gives the intervals that begin in [from, to), no more than are kept.
func (s *Scraper) Window(from, to time.Time) Window {
	s.mu.RLock()
	defer s.mu.RUnlock()
	w := Window{Start: from.UTC(), Step: s.o.Step}
	if !s.ticked {
		return w
	}
	first := max(floorDiv(from.Sub(s.origin)+s.o.Step-1, s.o.Step), s.last-int64(s.o.Capacity)+1)
	end := min(floorDiv(to.Sub(s.origin)+s.o.Step-1, s.o.Step), s.last+1)
	w.Start = s.origin.Add(time.Duration(first) * s.o.Step)
	w.Rows = int(max(0, end-first))
	for _, id := range s.ids() {
		if id.Service == Ingress {
			continue
		}
		values := make([]float64, w.Rows)
		some := false
		for i := range values {
			values[i] = s.at(s.series[id], first+int64(i))
			some = some || !math.IsNaN(values[i])
		}
		if some {
			w.Metrics = append(w.Metrics, rootcause.Metric{Service: id.Service, Instance: id.Instance, Name: id.Metric, Values: values})
		}
	}
	return w
}

// Graph gives the calls that were seen between services, ordered; what comes
// from outside is not among them.
func (s *Scraper) Graph() []rootcause.Edge {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []rootcause.Edge
	for e := range s.edges {
		if e.Caller != Ingress {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b rootcause.Edge) int {
		return cmp.Or(strings.Compare(a.Caller, b.Caller), strings.Compare(a.Callee, b.Callee))
	})
	return out
}
