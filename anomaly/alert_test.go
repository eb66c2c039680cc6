package anomaly_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/evenkeel-go/evenkeel/anomaly"
)

var series = anomaly.SeriesID{Service: "payment", Metric: "error_ratio"}

// play steps an alerter through a script of one rune a value, a second apart:
// "." usual, digits the score, "?" missing, "w" warming up, "D" a confirmed
// dropout, "r" relearned. It gives the events as "second:Type".
func play(t *testing.T, a *anomaly.Alerter, from time.Time, script string) []string {
	t.Helper()
	var out []string
	for i, c := range script {
		x, r := 1.0, anomaly.Result{Ready: true}
		switch {
		case c >= '0' && c <= '9':
			r.Score, r.Kind = float64(c-'0'), anomaly.Spike
		case c == '?':
			x = math.NaN()
		case c == 'w':
			r.Ready = false
		case c == 'D':
			x, r.Score, r.Kind = math.NaN(), 2, anomaly.Dropout
		case c == 'r':
			r.Score, r.Kind, r.Relearned = 3, anomaly.LevelShift, true
		}
		if e, ok := a.Step(from.Add(time.Duration(i)*time.Second), series, x, r); ok {
			out = append(out, fmt.Sprintf("%d:%s", i, e.Type))
		}
	}
	return out
}

func TestAlerter(t *testing.T) {
	none := time.Duration(-1)
	for _, tc := range []struct {
		name   string
		opts   anomaly.AlertOptions
		script string
		want   []string
	}{
		{"three of five", anomaly.AlertOptions{}, "...3..3...3", nil},
		{"three of five, close enough", anomaly.AlertOptions{}, "...3.3.3", []string{"7:Raised"}},
		{"two are not enough", anomaly.AlertOptions{}, "...33......33", nil},
		{"clears after five usual ones", anomaly.AlertOptions{}, "333....3.....", []string{"2:Raised", "12:Cleared"}},
		{"missing counts neither way", anomaly.AlertOptions{}, "3?3w?3..?..?.", []string{"5:Raised", "12:Cleared"}},
		{"updates when clearly worse", anomaly.AlertOptions{}, "33344569", []string{"2:Raised", "5:Updated", "7:Updated"}},
		{"a confirmed kind raises at once", anomaly.AlertOptions{}, "....D", []string{"4:Raised"}},
		{"cool-down holds the same back", anomaly.AlertOptions{}, "333.....333.....", []string{"2:Raised", "7:Cleared"}},
		{"cool-down lets worse through", anomaly.AlertOptions{}, "333.....335", []string{"2:Raised", "7:Cleared", "10:Raised"}},
		{"no cool-down", anomaly.AlertOptions{CoolDown: none}, "333.....333", []string{"2:Raised", "7:Cleared", "10:Raised"}},
		{"cool-down ends", anomaly.AlertOptions{CoolDown: 5 * time.Second}, "333.....33333", []string{"2:Raised", "7:Cleared", "12:Raised"}},
		{"relearned clears", anomaly.AlertOptions{}, "33333r....", []string{"2:Raised", "5:Cleared"}},
		{"one of one", anomaly.AlertOptions{Raise: 1, Of: 1, Clear: 1, CoolDown: none}, ".2.2", []string{"1:Raised", "2:Cleared", "3:Raised"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := must(anomaly.NewAlerter(tc.opts))
			if diff := cmp.Diff(tc.want, play(t, a, t0, tc.script), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.script, diff)
			}
		})
	}
}

func TestAlertFields(t *testing.T) {
	var a anomaly.Alerter
	play(t, &a, t0, "....3.45")
	got, ok := a.Active(series)
	if !ok {
		t.Fatal("not active")
	}
	want := anomaly.Alert{Series: series, Kind: anomaly.Spike, Onset: t0.Add(4 * time.Second), Raised: t0.Add(7 * time.Second),
		Value: 1, Score: 5, LastNormal: t0.Add(3 * time.Second)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("alert (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]anomaly.Alert{want}, a.Alerts()); diff != "" {
		t.Errorf("alerts (-want +got):\n%s", diff)
	}
}

func TestSuppression(t *testing.T) {
	a := must(anomaly.NewAlerter(anomaly.AlertOptions{}))
	if err := a.Suppress(anomaly.Match{}, t0.Add(time.Hour), "everything"); !errors.Is(err, anomaly.ErrOptions) {
		t.Errorf("an empty match: %v", err)
	}
	if err := a.Suppress(anomaly.Match{Service: "payment"}, t0.Add(6*time.Second), "v2 was just applied"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"2:Suppressed", "6:Raised"}, play(t, a, t0, "3333333")); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	got := a.Suppressions()
	if len(got) != 1 || got[0].Count != 1 || got[0].Reason != "v2 was just applied" {
		t.Errorf("suppressions %+v", got)
	}
	al, _ := a.Active(series)
	if !al.Onset.Equal(t0.Add(2 * time.Second)) {
		t.Errorf("onset %v: want the first of the last five", al.Onset)
	}
}

func TestAlertJSON(t *testing.T) {
	want := anomaly.Alert{Series: series, Kind: anomaly.Dropout, Onset: t0, Raised: t0, Value: math.NaN(), Expected: 3,
		Lower: math.Inf(-1), Upper: math.Inf(1), Score: 2}
	b, err := json.Marshal(anomaly.Incident{ID: "x", Alerts: []anomaly.Alert{want}})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), `"value":null,"expected":3,"lower":null,"upper":null`) {
		t.Errorf("JSON %s", b)
	}
	var got anomaly.Incident
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.Alerts[0], cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("round trip (-want +got):\n%s", diff)
	}
}

func TestBadAlertOptions(t *testing.T) {
	for _, o := range []anomaly.AlertOptions{{Of: 65}, {Of: -1}, {Raise: 6, Of: 5}, {Raise: -1}, {Clear: -1}, {Worse: 0.5}, {Worse: math.NaN()}} {
		if _, err := anomaly.NewAlerter(o); !errors.Is(err, anomaly.ErrOptions) {
			t.Errorf("%+v: %v", o, err)
		}
		if _, err := anomaly.NewMonitor(anomaly.MonitorOptions{Alerts: o}); !errors.Is(err, anomaly.ErrOptions) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := anomaly.NewGrouper(anomaly.GroupOptions{Window: -1}); !errors.Is(err, anomaly.ErrOptions) {
		t.Errorf("negative window: %v", err)
	}
}

// outage feeds a monitor two services of which payment breaks at 100 s and
// checkout follows two seconds later, until both recover at 130 s.
func outage(t *testing.T, m *anomaly.Monitor) []anomaly.Event {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 30))
	var events []anomaly.Event
	for i := range 240 {
		at := t0.Add(time.Duration(i) * time.Second)
		for k, service := range []string{"checkout", "payment"} {
			errors, latency := 0.0, 40+2*rng.NormFloat64()
			if i >= 102-2*k && i < 130 {
				errors, latency = 0.4, 200
			}
			for _, s := range []struct {
				metric string
				x      float64
			}{{"error_ratio", errors}, {"latency_ms", latency}} {
				e, err := m.Observe(at, anomaly.SeriesID{Service: service, Metric: s.metric}, s.x)
				if err != nil {
					t.Fatal(err)
				}
				events = append(events, e...)
			}
		}
	}
	return events
}

func newMonitor() *anomaly.Monitor {
	return must(anomaly.NewMonitor(anomaly.MonitorOptions{
		Detector: func(id anomaly.SeriesID) (anomaly.Detector, error) {
			return anomaly.NewLevel(anomaly.Options{Direction: anomaly.Up, MinDeviation: 0.05})
		},
		Group: anomaly.GroupOptions{Quiet: 20 * time.Second},
	}))
}

func TestMonitorOneOutageOneIncident(t *testing.T) {
	m := newMonitor()
	events := outage(t, m)
	var got []string
	for _, e := range events {
		line := fmt.Sprintf("%v %s", e.Time.Sub(t0), e.Type)
		if e.Type != anomaly.IncidentOpened && e.Type != anomaly.IncidentClosed {
			line += " " + e.Alert.Series.String()
		}
		got = append(got, line)
	}
	want := []string{
		"1m42s IncidentOpened",
		"1m42s Raised payment/error_ratio",
		"1m42s Raised payment/latency_ms",
		"1m44s Raised checkout/error_ratio",
		"1m44s Raised checkout/latency_ms",
		"2m14s Cleared checkout/error_ratio",
		"2m14s Cleared checkout/latency_ms",
		"2m14s Cleared payment/error_ratio",
		"2m14s Cleared payment/latency_ms",
		"2m34s IncidentClosed",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	inc := m.Incidents()
	if len(inc) != 1 || len(inc[0].Alerts) != 4 || inc[0].ID != events[0].Incident || inc[0].Closed.IsZero() {
		t.Fatalf("incidents %+v", inc)
	}
	if a, b := inc[0].OnsetEarliest.Sub(t0), inc[0].OnsetLatest.Sub(t0); a != 99*time.Second || b != 102*time.Second {
		t.Errorf("onset in %v to %v, want 1m39s to 1m42s", a, b)
	}
	if _, ok := m.Active(anomaly.SeriesID{Service: "payment", Metric: "error_ratio"}); ok {
		t.Error("still active after recovery")
	}
	if o, ok := m.Latest(anomaly.SeriesID{Service: "payment", Metric: "error_ratio"}); !ok || o.Result.Score > 1 || o.Value != 0 || !o.Time.Equal(t0.Add(239*time.Second)) {
		t.Errorf("latest %+v", o)
	}
	if diff := cmp.Diff(events, outage(t, newMonitor())); diff != "" {
		t.Errorf("a second run differs (-first +second):\n%s", diff)
	}
}

func TestMonitorConcurrentUse(t *testing.T) {
	m := newMonitor()
	var wg sync.WaitGroup
	for k := range 4 {
		wg.Go(func() {
			id := anomaly.SeriesID{Service: fmt.Sprintf("s%d", k), Metric: "error_ratio"}
			for i := range 200 {
				if _, err := m.Observe(t0.Add(time.Duration(i)*time.Second), id, float64(i/100)); err != nil {
					t.Error(err)
				}
				m.Active(id)
				m.Latest(id)
				m.Incidents()
			}
		})
	}
	wg.Wait()
	if n := len(m.Alerts()); n != 4 {
		t.Errorf("%d alerts, want 4", n)
	}
}

func TestMonitorRefusesLateValues(t *testing.T) {
	m := newMonitor()
	if _, err := m.Observe(t0, series, 1); err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{t0, t0.Add(-time.Second)} {
		if _, err := m.Observe(at, series, 1); !errors.Is(err, anomaly.ErrLate) {
			t.Errorf("at %v: %v", at.Sub(t0), err)
		}
	}
}

func TestMonitorFactory(t *testing.T) {
	broken := errors.New("no settings for it")
	m := must(anomaly.NewMonitor(anomaly.MonitorOptions{Detector: func(id anomaly.SeriesID) (anomaly.Detector, error) {
		if id.Metric == "broken" {
			return nil, broken
		}
		return nil, nil
	}}))
	if _, err := m.Observe(t0, anomaly.SeriesID{Service: "a", Metric: "broken"}, 1); !errors.Is(err, broken) || !strings.Contains(err.Error(), "a/broken") {
		t.Errorf("broken: %v", err)
	}
	if e, err := m.Observe(t0, series, 1); e != nil || err != nil {
		t.Errorf("unwatched: %v, %v", e, err)
	}
	if _, ok := m.Latest(series); ok {
		t.Error("an unwatched series has a latest value")
	}
}

func TestMonitorForget(t *testing.T) {
	m := newMonitor()
	for i := range 40 {
		x := 0.0
		if i > 30 {
			x = 1
		}
		if _, err := m.Observe(t0.Add(time.Duration(i)*time.Second), series, x); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := m.Active(series); !ok {
		t.Fatal("no alert")
	}
	e := m.Forget(t0.Add(time.Minute), series)
	if len(e) != 1 || e[0].Type != anomaly.Cleared || e[0].Incident == "" {
		t.Errorf("forget: %v", e)
	}
	if e := m.Tick(t0.Add(2 * time.Minute)); len(e) != 1 || e[0].Type != anomaly.IncidentClosed {
		t.Errorf("tick: %v", e)
	}
	if _, ok := m.Latest(series); ok {
		t.Error("a forgotten series has a latest value")
	}
}

func TestMonitorObserveAllocatesNothing(t *testing.T) {
	m := newMonitor()
	at := t0
	if n := testing.AllocsPerRun(2000, func() {
		at = at.Add(time.Second)
		if _, err := m.Observe(at, series, 0.01); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a value", n)
	}
}

func BenchmarkAlerterStep(b *testing.B) {
	var a anomaly.Alerter
	r := anomaly.Result{Ready: true, Score: 0.5}
	at := t0
	b.ReportAllocs()
	for b.Loop() {
		at = at.Add(time.Second)
		a.Step(at, series, 1, r)
	}
}

func BenchmarkMonitorObserve(b *testing.B) {
	m := newMonitor()
	ids := make([]anomaly.SeriesID, 1000)
	for i := range ids {
		ids[i] = anomaly.SeriesID{Service: fmt.Sprintf("s%d", i), Metric: "latency_ms"}
	}
	rng := rand.New(rand.NewPCG(1, 31))
	at := t0
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i%len(ids) == 0 {
			at = at.Add(time.Second)
		}
		if _, err := m.Observe(at, ids[i%len(ids)], 10+rng.Float64()); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// Newest tells of the newest value among the series that match, and nothing
// of what was forgotten.
func TestMonitorNewest(t *testing.T) {
	m, err := anomaly.NewMonitor(anomaly.MonitorOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := m.Newest(anomaly.Match{}); ok {
		t.Error("a fresh monitor has seen something")
	}
	a := anomaly.SeriesID{Service: "cart", Instance: "cart-1", Metric: "memory"}
	b := anomaly.SeriesID{Service: "cart", Instance: "cart-2", Metric: "memory"}
	for i, id := range []anomaly.SeriesID{b, a, {Service: "web", Metric: "latency"}} {
		if _, err := m.Observe(t0.Add(time.Duration(i)*time.Second), id, 1); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		match anomaly.Match
		want  int // seconds; -1 for none
	}{{anomaly.Match{}, 2}, {anomaly.Match{Service: "cart"}, 1}, {anomaly.Match{Instance: "cart-2"}, 0}, {anomaly.Match{Service: "pay"}, -1}} {
		got, ok := m.Newest(tt.match)
		if ok != (tt.want >= 0) || ok && !got.Equal(t0.Add(time.Duration(tt.want)*time.Second)) {
			t.Errorf("%+v: %v, %v", tt.match, got, ok)
		}
	}
	m.Forget(t0.Add(time.Minute), a)
	if got, ok := m.Newest(anomaly.Match{Service: "cart"}); !ok || !got.Equal(t0) {
		t.Errorf("after Forget: %v, %v", got, ok)
	}
}
