package scrape

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
	"github.com/evenkeel-go/evenkeel/forecast"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ forecast.Source = (*Scraper)(nil)

var day = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

// stepClock is a wall clock that the test moves.
type stepClock struct{ now time.Time }

func (c *stepClock) Now() time.Time                       { return c.now }
func (c *stepClock) After(time.Duration) <-chan time.Time { return nil }

// target is a process that exposes what the test says.
type target struct {
	text string
	srv  *httptest.Server
}

func newTarget(t *testing.T, d rundir.Dir, e rundir.Entry) *target {
	t.Helper()
	x := &target{}
	x.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if x.text == "" {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, x.text)
	}))
	t.Cleanup(x.srv.Close)
	_, port, _ := net.SplitHostPort(x.srv.Listener.Addr().String())
	e.Port, _ = strconv.Atoi(port)
	e.PID = os.Getpid()
	if err := d.Register(e); err != nil {
		t.Fatal(err)
	}
	return x
}

func value(b Batch, service, instance, metric string) float64 {
	for _, s := range b.Samples {
		if s.Series == (anomaly.SeriesID{Service: service, Instance: instance, Metric: metric}) {
			return s.Value
		}
	}
	return -1
}

func replica(ok, bad, own, busy float64) string {
	return fmt.Sprintf(`# TYPE http_requests_total counter
http_requests_total{code="200"} %v
http_requests_total{code="500"} %v
# TYPE http_requests_failed_own_total counter
http_requests_failed_own_total %v
# TYPE worker_busy_seconds_total counter
worker_busy_seconds_total %v
# TYPE workers gauge
workers 2
# TYPE queue_length gauge
queue_length 3
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 2.097152e+06
# TYPE http_self_duration_seconds histogram
http_self_duration_seconds_bucket{le="0.01"} %v
http_self_duration_seconds_bucket{le="+Inf"} %v
http_self_duration_seconds_sum 1
http_self_duration_seconds_count %v
`, ok, bad, own, busy, ok, ok, ok)
}

func TestTick(t *testing.T) {
	d := rundir.Dir(t.TempDir())
	if err := d.Create(); err != nil {
		t.Fatal(err)
	}
	clock := &stepClock{now: day}
	one := newTarget(t, d, rundir.Entry{ID: "cart-1", Role: rundir.RoleService, Service: "cart", Started: day.Add(-time.Hour)})
	lb := newTarget(t, d, rundir.Entry{ID: "lb-1", Role: rundir.RoleLB, Started: day.Add(-time.Hour)})
	s, err := New(Options{Dir: string(d), Step: time.Minute, Clock: clock, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	balancer := func(ok, bad int) string {
		return fmt.Sprintf(`lb_requests_total{service="cart",code="200"} %d
lb_requests_total{service="cart",code="503"} %d
lb_edge_requests_total{caller="ingress",callee="frontend",code="200"} 1
lb_edge_requests_total{caller="frontend",callee="cart",code="200"} 1
lb_edge_requests_total{caller="cart",callee="none",code="200"} 0
lb_backends_ready{service="cart"} 1
`, ok, bad)
	}
	ctx := context.Background()
	tick := func(minute int) Batch {
		t.Helper()
		b, err := s.Tick(ctx, day.Add(time.Duration(minute)*time.Minute+7*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		clock.now = clock.now.Add(2 * time.Second)
		return b
	}
	check := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-9 && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}

	// The past of a process that is older than the scraper does not count.
	one.text, lb.text = replica(100, 0, 0, 50), balancer(100, 0)
	b := tick(0)
	check("first rate", value(b, "cart", "", RequestRate), math.NaN())
	check("first memory", value(b, "cart", "", MemoryMB), 2)
	check("ready", value(b, "cart", "", ReplicasReady), 1)

	one.text, lb.text = replica(110, 10, 5, 51), balancer(115, 5)
	b = tick(1)
	check("rate", value(b, "cart", "", RequestRate), 10)
	check("errors", value(b, "cart", "", ErrorRatio), .25)
	check("instance's errors", value(b, "cart", "cart-1", ErrorRatio), .5)
	check("own errors", value(b, "cart", "", SelfErrorRatio), .25)
	check("busy", value(b, "cart", "", Busy), .25)
	check("queue", value(b, "cart", "", QueueLength), 3)
	check("self p90", value(b, "cart", "", SelfMS), 9)

	// Nothing happens: no errors of no requests is not known.
	b = tick(2)
	check("idle rate", value(b, "cart", "", RequestRate), 0)
	check("idle errors", value(b, "cart", "", ErrorRatio), math.NaN())
	check("idle p90", value(b, "cart", "", SelfMS), math.NaN())

	// Counters begin again.
	lb.text = balancer(4, 0)
	b = tick(3)
	check("rate after a reset", value(b, "cart", "", RequestRate), 2)
	check("errors after a reset", value(b, "cart", "", ErrorRatio), 0)

	// A target that does not answer: unknown now, and its next rate is over
	// the whole time.
	text := lb.text
	lb.text = ""
	b = tick(4)
	check("unreachable", value(b, "cart", "", RequestRate), math.NaN())
	if len(b.Failed) != 1 || b.Targets != 2 || !strings.Contains(b.Failed[0].Error(), "lb-1") {
		t.Errorf("failed %v of %d", b.Failed, b.Targets)
	}
	lb.text = strings.Replace(text, "} 4\n", "} 24\n", 1)
	b = tick(5)
	check("rate over the gap", value(b, "cart", "", RequestRate), 5)

	// One that was born since the last tick counts from its birth.
	two := newTarget(t, d, rundir.Entry{ID: "cart-2", Role: rundir.RoleService, Service: "cart", Started: clock.now.Add(-time.Second)})
	two.text = replica(6, 0, 0, 0)
	b = tick(6)
	check("new instance", value(b, "cart", "cart-2", RequestRate), 6)

	// One that vanishes is gone from the batch, and NaN in the window.
	if err := d.Unregister("cart-1"); err != nil {
		t.Fatal(err)
	}
	b = tick(8) // and minute 7 was left out
	check("vanished", value(b, "cart", "cart-1", MemoryMB), -1)

	if _, err := s.Tick(ctx, day.Add(8*time.Minute+30*time.Second)); !errors.Is(err, ErrNotAfter) {
		t.Errorf("the same minute again: %v", err)
	}
	if diff := cmp.Diff([]rootcause.Edge{{Caller: "frontend", Callee: "cart"}}, s.Graph()); diff != "" {
		t.Error(diff)
	}

	nan := math.NaN()
	w := s.Window(day, day.Add(time.Hour))
	if w.Rows != 9 || !w.Start.Equal(day) || w.Step != time.Minute {
		t.Errorf("window of %d rows from %v", w.Rows, w.Start)
	}
	got := map[string][]float64{}
	for _, m := range w.Metrics {
		if m.Name == RequestRate || m.Name == MemoryMB {
			got[m.Service+"/"+m.Instance+"/"+m.Name] = m.Values
		}
	}
	want := map[string][]float64{
		"cart//request_rate":       {nan, 10, 0, 2, nan, 5, 0, nan, 0},
		"cart/cart-1/request_rate": {nan, 10, 0, 0, 0, 0, 0, nan, nan},
		"cart/cart-2/request_rate": {nan, nan, nan, nan, nan, nan, 6, nan, 0},
		"cart//memory_mb":          {2, 2, 2, 2, 2, 2, 2, nan, 2},
		"cart/cart-1/memory_mb":    {2, 2, 2, 2, 2, 2, 2, nan, nan},
		"cart/cart-2/memory_mb":    {nan, nan, nan, nan, nan, nan, 2, nan, 2},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); diff != "" {
		t.Error(diff)
	}

	for q, want := range map[string][]float64{
		`request_rate{service="cart"}`:                       {nan, 10, 0, 2},
		`request_rate{instance="*"}`:                         {nan, 10, 0, 0},
		`request_rate{instance="cart-1", service="cart"}`:    {nan, 10, 0, 0},
		`request_rate{service="frontend"}`:                   nil,
		`no_such_metric`:                                     nil,
		`memory_mb{service="cart",instance="cart-1"}`:        {2, 2, 2, 2},
		`memory_mb{service="cart",instance="nobody at all"}`: nil,
	} {
		got, err := s.Query(ctx, q, day, day.Add(3*time.Minute), time.Minute)
		if err != nil {
			t.Errorf("%s: %v", q, err)
			continue
		}
		if want == nil {
			if len(got) != 0 {
				t.Errorf("%s: %v", q, got)
			}
			continue
		}
		if len(got) == 0 {
			t.Errorf("%s: nothing", q)
			continue
		}
		if diff := cmp.Diff(want, got[0].Values, cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("%s: %s", q, diff)
		}
		if err := got[0].Validate(); err != nil {
			t.Error(err)
		}
	}
	coarse, err := s.Query(ctx, `request_rate{service="cart"}`, day, day.Add(6*time.Minute), 3*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]float64{5, 3.5, 0}, coarse[0].Values, cmpopts.EquateNaNs()); diff != "" {
		t.Error(diff)
	}
	for _, f := range []func() error{
		func() error { _, err := s.Query(ctx, "a", day, day.Add(-1), time.Minute); return err },
		func() error { _, err := s.Query(ctx, "a", day, day.Add(time.Hour), 0); return err },
		func() error { _, err := s.Query(ctx, "a", day, day.Add(time.Hour), time.Millisecond); return err },
		func() error { _, err := s.Query(ctx, "a{", day, day, time.Minute); return err },
	} {
		if err := f(); !errors.Is(err, ErrQuery) {
			t.Errorf("bad query: %v", err)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	s, err := New(Options{Dir: t.TempDir(), Step: time.Minute, Capacity: 8})
	if err != nil {
		t.Fatal(err)
	}
	s.ticked, s.origin = true, day
	for i := range int64(1000) {
		s.last = i
		s.put(anomaly.SeriesID{Service: "a"}, i, float64(i))
		if i%100 == 0 {
			s.put(anomaly.SeriesID{Service: "a", Instance: fmt.Sprint(i)}, i, 1)
		}
		if i%300 == 0 {
			s.put(anomaly.SeriesID{Service: "gaps"}, i, float64(i))
		}
		s.forget()
		for id, c := range s.series {
			if len(c.values) > 16 {
				t.Fatalf("%s keeps %d values", id, len(c.values))
			}
		}
		if len(s.series) > 3 {
			t.Fatalf("%d series", len(s.series))
		}
	}
	w := s.Window(day, day.Add(2000*time.Minute))
	if w.Rows != 8 || len(w.Metrics) != 1 || w.Metrics[0].Values[0] != 992 || w.Metrics[0].Values[7] != 999 {
		t.Errorf("%+v", w)
	}
}

func TestQuantile(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		h    *histogram
		want float64
	}{
		{nil, math.NaN()},
		{&histogram{bounds: []float64{1, inf}, counts: []float64{0, 0}}, math.NaN()},
		{&histogram{bounds: []float64{1, 2, inf}, counts: []float64{10, 0, 0}}, .9},
		{&histogram{bounds: []float64{1, 2, inf}, counts: []float64{5, 5, 0}}, 1.8},
		{&histogram{bounds: []float64{1, 2, inf}, counts: []float64{5, 0, 5}}, 2},
		{&histogram{bounds: []float64{inf}, counts: []float64{5}}, 0},
	} {
		if got := c.h.quantile(.9); math.Abs(got-c.want) > 1e-9 && !(math.IsNaN(got) && math.IsNaN(c.want)) {
			t.Errorf("%+v: %v, want %v", c.h, got, c.want)
		}
	}
}

func TestParseQueryErrors(t *testing.T) {
	for _, s := range []string{"", " ", "{}", "a b", "a{", "a{x=\"1\"}", "a{service}", "a{service=}", "a{service='x'}", `a{service=""}`, `a{service="x"`, `a{service="x" instance="y"}`, `a{service="x",service="y"}`, `a{}b`} {
		if q, err := ParseQuery(s); !errors.Is(err, ErrQuery) {
			t.Errorf("%q: %+v, %v", s, q, err)
		}
	}
}

func FuzzParseQuery(f *testing.F) {
	for _, s := range []string{"a", `a{service="b"}`, `a{service="b",instance="*"}`, `a { instance = "x\"y" , }`, "a{service=`b`}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := ParseQuery(s)
		if err != nil {
			if !errors.Is(err, ErrQuery) {
				t.Errorf("%v", err)
			}
			return
		}
		again, err := ParseQuery(q.String())
		if err != nil || again != q {
			t.Errorf("%q is %+v, printed %q, read %+v, %v", s, q, q.String(), again, err)
		}
	})
}

// FuzzParse feeds two readings of one target and looks at what is made of
// them: no increase and no quantile is negative or infinite.
func FuzzParse(f *testing.F) {
	f.Add(replica(1, 2, 3, 4), replica(5, 1, 3, 9))
	f.Add("h_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_count 5\n", "# TYPE h histogram\nh_bucket{le=\"-1\"} 2\nh_count 9\n")
	f.Add("# TYPE h histogram\nh_bucket{le=\"0.1\"} 2\nh_bucket{le=\"0.1\"} 3\nh_sum 1\nh_count 3\n", "a NaN\nb +Inf\n")
	f.Fuzz(func(t *testing.T, a, b string) {
		first, err1 := parse(strings.NewReader(a), day)
		second, err2 := parse(strings.NewReader(b), day.Add(time.Second))
		if err1 != nil || err2 != nil {
			return
		}
		d := increase(first, second)
		for name, hs := range d.hists {
			for _, h := range hs {
				for _, c := range h.counts {
					if c < 0 {
						t.Errorf("%s: %v", name, h)
					}
				}
				if q := h.quantile(.9); math.IsInf(q, 0) {
					t.Errorf("%s: quantile %v of %v", name, q, h)
				}
			}
			d.merge(nil, name, nil).quantile(.5)
		}
		for name := range d.values {
			if v := d.sum(name, nil); math.IsNaN(v) {
				t.Errorf("%s: %v", name, v)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	text := replica(100, 10, 5, 7)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parse(strings.NewReader(text), day); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleParseQuery() {
	q, err := ParseQuery(`request_rate{service="frontend", instance="*"}`)
	fmt.Println(q, err)
	_, err = ParseQuery(`request_rate{pod="x"}`)
	fmt.Println(err)
	// Output:
	// request_rate{service="frontend",instance="*"} <nil>
	// scrape: query "request_rate{pod=\"x\"}": at 14: want service or instance: bad query
}
