package anomaly

import (
	"fmt"
	"sync"
	"time"
)

// MonitorOptions are the settings of a [Monitor].
type MonitorOptions struct {
	// Detector makes the detector of a series that is seen for the first
	// time; nil without an error means that the series is not watched. If
	// Detector itself is nil, every series gets a default [Level].
	Detector func(SeriesID) (Detector, error)
	// Alerts and Group set up alerting and grouping.
	Alerts AlertOptions
	Group  GroupOptions
}

// Monitor watches many series: a detector for each, one [Alerter], one
// [Grouper]. It is safe for concurrent use; its output depends on the
// sequence of its inputs alone.
type Monitor struct {
	mu        sync.Mutex
	factory   func(SeriesID) (Detector, error)
	detectors map[SeriesID]Detector
	alerter   *Alerter
	grouper   *Grouper
}

// NewMonitor makes a Monitor; it fails only with [ErrOptions].
func NewMonitor(opts MonitorOptions) (*Monitor, error) {
	a, err := NewAlerter(opts.Alerts)
	if err != nil {
		return nil, err
	}
	g, err := NewGrouper(opts.Group)
	if err != nil {
		return nil, err
	}
	m := &Monitor{factory: opts.Detector, detectors: make(map[SeriesID]Detector), alerter: a, grouper: g}
	if m.factory == nil {
		m.factory = func(SeriesID) (Detector, error) { return NewLevel(Options{}) }
	}
	return m, nil
}

// Observe takes one value of one series, NaN where it is missing, in time
// order for each series, and gives the events that follow, mostly none. It
// fails where the detector cannot be made, and with [ErrLate], having changed
// nothing, where t is not after the series' last value.
func (m *Monitor) Observe(t time.Time, id SeriesID, x float64) ([]Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, seen := m.detectors[id]
	if !seen {
		var err error
		if d, err = m.factory(id); err != nil {
			return nil, fmt.Errorf("anomaly: detector of %s: %w", id, err)
		}
		m.detectors[id] = d
	}
	if d == nil {
		return nil, nil
	}
	if s := m.alerter.series[id]; s != nil && !t.After(s.last.t) {
		return nil, fmt.Errorf("%w: %s at %s", ErrLate, id, t.UTC().Format(time.RFC3339Nano))
	}
	e, ok := m.alerter.Step(t, id, x, d.Observe(t, x))
	if !ok {
		return m.grouper.Tick(t), nil
	}
	return m.grouper.Step(e), nil
}

// Tick closes quiet incidents while no values come in.
func (m *Monitor) Tick(t time.Time) []Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.grouper.Tick(t)
}

// Forget drops a series that is no more, such as a replica that was removed:
// its active alert, if any, is cleared.
func (m *Monitor) Forget(t time.Time, id SeriesID) []Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.detectors, id)
	if e, ok := m.alerter.Forget(t, id); ok {
		return m.grouper.Step(e)
	}
	return nil
}

// Suppress is [Alerter.Suppress].
func (m *Monitor) Suppress(match Match, until time.Time, reason string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.alerter.Suppress(match, until, reason)
}

// Suppressions is [Alerter.Suppressions].
func (m *Monitor) Suppressions() []Suppression {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.alerter.Suppressions()
}

// Incidents are the remembered closed ones and then the open ones, each in
// order of opening.
func (m *Monitor) Incidents() []Incident {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.grouper.Incidents()
}

// Active gives the active alert of a series: whether it is back to normal is
// what a repair is verified by.
func (m *Monitor) Active(id SeriesID) (Alert, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.alerter.Active(id)
}

// Alerts gives all active alerts, in order of Raised and Series.
func (m *Monitor) Alerts() []Alert {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.alerter.Alerts()
}

// Latest is the last value of a series with the detector's result for it;
// false before the first.
func (m *Monitor) Latest(id SeriesID) (Observation, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.alerter.series[id]
	if s == nil {
		return Observation{}, false
	}
	return Observation{Time: s.last.t, Value: s.last.x, Result: s.last.r}, true
}

// Newest is the time of the newest value of all series that match selects,
// false where there is none: whether anything is still heard of a service.
func (m *Monitor) Newest(match Match) (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var newest time.Time
	found := false
	for id, s := range m.alerter.series {
		if match.Matches(id) && (!found || s.last.t.After(newest)) {
			newest, found = s.last.t, true
		}
	}
	return newest, found
}

// Observation is a value with what its detector said of it.
type Observation struct {
	Time   time.Time
	Value  float64
	Result Result
}
