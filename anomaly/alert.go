package anomaly

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"
)

// EventType says what happened to an alert or an incident.
type EventType string

// The event types.
const (
	// Raised: a series is unusual.
	Raised EventType = "Raised"
	// Updated: an active alert got clearly worse.
	Updated EventType = "Updated"
	// Cleared: the series is back to normal, or its new level is.
	Cleared EventType = "Cleared"
	// Suppressed: an alert would have been raised, but for a suppression.
	Suppressed EventType = "Suppressed"
	// IncidentOpened and IncidentClosed frame a group of alerts.
	IncidentOpened EventType = "IncidentOpened"
	IncidentClosed EventType = "IncidentClosed"
)

// Event is one thing that happened, as data.
type Event struct {
	Type EventType `json:"type"`
	Time time.Time `json:"time"`
	// Alert is the alert as it is now; for an incident's event, its first.
	Alert Alert `json:"alert"`
	// Incident is the ID of the incident it belongs to; empty from an
	// [Alerter] alone and for a suppressed alert.
	Incident string `json:"incident,omitempty"`
	// Reason says why an alert was suppressed or cleared.
	Reason string `json:"reason,omitempty"`
}

// String gives one line for a log.
func (e Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", e.Time.UTC().Format("15:04:05"), e.Type)
	if e.Type == IncidentOpened || e.Type == IncidentClosed {
		fmt.Fprintf(&b, " %s", e.Incident)
		return b.String()
	}
	fmt.Fprintf(&b, " %s", e.Alert)
	if e.Reason != "" {
		fmt.Fprintf(&b, ": %s", e.Reason)
	}
	return b.String()
}

// String gives series, kind, the worst value and what was expected.
func (a Alert) String() string {
	return fmt.Sprintf("%s %s %.4g (expected %.4g, score %.1f)", a.Series, a.Kind, a.Value, a.Expected, a.Score)
}

type alertFields Alert

type alertJSON struct {
	alertFields
	Value    *float64 `json:"value"`
	Expected *float64 `json:"expected"`
	Lower    *float64 `json:"lower"`
	Upper    *float64 `json:"upper"`
}

// MarshalJSON gives null for a number that JSON does not have: a missing
// value, a limit on a side that does not count.
func (a Alert) MarshalJSON() ([]byte, error) {
	number := func(v float64) *float64 {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil
		}
		return &v
	}
	return json.Marshal(alertJSON{alertFields(a), number(a.Value), number(a.Expected), number(a.Lower), number(a.Upper)})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (a *Alert) UnmarshalJSON(b []byte) error {
	var j alertJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return fmt.Errorf("anomaly: alert: %w", err)
	}
	number := func(v *float64, missing float64) float64 {
		if v == nil {
			return missing
		}
		return *v
	}
	*a = Alert(j.alertFields)
	a.Value, a.Expected = number(j.Value, math.NaN()), number(j.Expected, math.NaN())
	a.Lower, a.Upper = number(j.Lower, math.Inf(-1)), number(j.Upper, math.Inf(1))
	return nil
}

// AlertOptions are the settings of an [Alerter].
type AlertOptions struct {
	// Raise unusual values among the last Of raise an alert; 0 means 3 and 5.
	// Of is at most 64. A [LevelShift], [FlatLine] or [Dropout] has been
	// confirmed over several values by its detector and raises at once.
	Raise int
	Of    int
	// Clear usual values in a row clear it; 0 means 5.
	Clear int
	// CoolDown is the time after clearing in which only a worse score raises
	// the series again; 0 means 5 minutes, a negative number means none.
	CoolDown time.Duration
	// Worse is how many times the last reported score a score has to be, to
	// be reported as an update, or to break the cool-down; 0 means 1.5.
	Worse float64
}

func (o AlertOptions) resolve() (AlertOptions, error) {
	if o.Of == 0 {
		o.Of = max(5, o.Raise)
	}
	if o.Raise == 0 {
		o.Raise = min(3, o.Of)
	}
	if o.Clear == 0 {
		o.Clear = 5
	}
	if o.CoolDown == 0 {
		o.CoolDown = 5 * time.Minute
	}
	if o.Worse == 0 {
		o.Worse = 1.5
	}
	switch {
	case o.Of < 1 || o.Of > 64:
		return o, fmt.Errorf("%w: Of %d is not in 1..64", ErrOptions, o.Of)
	case o.Raise < 1 || o.Raise > o.Of:
		return o, fmt.Errorf("%w: Raise %d is not in 1..Of (%d)", ErrOptions, o.Raise, o.Of)
	case o.Clear < 1:
		return o, fmt.Errorf("%w: Clear %d is not above 0", ErrOptions, o.Clear)
	case !(o.Worse >= 1) || math.IsInf(o.Worse, 0):
		return o, fmt.Errorf("%w: Worse %v is not a finite number from 1", ErrOptions, o.Worse)
	}
	return o, nil
}

// Match selects series; an empty field matches all, but not all may be empty.
type Match struct {
	Service  string `json:"service,omitempty"`
	Metric   string `json:"metric,omitempty"`
	Instance string `json:"instance,omitempty"`
}

// Matches tells whether m selects id.
func (m Match) Matches(id SeriesID) bool {
	return (m.Service == "" || m.Service == id.Service) &&
		(m.Metric == "" || m.Metric == id.Metric) &&
		(m.Instance == "" || m.Instance == id.Instance)
}

// Suppression keeps alerts of some series from being raised for a while:
// maintenance, a change that was just applied.
type Suppression struct {
	Match  Match     `json:"match"`
	Until  time.Time `json:"until"`
	Reason string    `json:"reason"`
	// Count is how many alerts it held back.
	Count int `json:"count"`
}

// Alerter turns results into alerts with hysteresis. It is a plain state
// machine: its output depends on the sequence of its inputs alone. It is not
// safe for concurrent use. The zero value has default [AlertOptions].
type Alerter struct {
	opts         AlertOptions
	series       map[SeriesID]*tracked
	suppressions []Suppression
}

type tracked struct {
	alert    Alert // active while on
	on       bool
	hits     uint64      // the last Of values, newest lowest, 1 for unusual
	times    []time.Time // of the same values, newest first
	normal   int         // usual values in a row
	worst    sample      // of the hits while not on
	previous time.Time   // of the last usual value
	reported float64     // score last told
	until    time.Time   // end of the cool-down
	held     bool        // the suppression of this stretch was told
	last     sample
}

// sample is a value with its result.
type sample struct {
	t time.Time
	x float64
	r Result
}

// NewAlerter makes an Alerter; it fails only with [ErrOptions].
func NewAlerter(opts AlertOptions) (*Alerter, error) {
	o, err := opts.resolve()
	if err != nil {
		return nil, err
	}
	return &Alerter{opts: o}, nil
}

// Suppress keeps alerts that m selects from being raised until a time. They
// are counted, and each gives one [Suppressed] event; one that is still
// unusual at the end is raised then. An alert that is active stays so.
// Suppress fails with [ErrOptions] where m is empty.
func (a *Alerter) Suppress(m Match, until time.Time, reason string) error {
	if m == (Match{}) {
		return fmt.Errorf("%w: suppression %q matches everything", ErrOptions, reason)
	}
	a.suppressions = append(a.suppressions, Suppression{Match: m, Until: until, Reason: reason})
	return nil
}

// Suppressions are all that have not been pruned, in order of Suppress. The
// ended ones are pruned when there are more than 256.
func (a *Alerter) Suppressions() []Suppression { return slices.Clone(a.suppressions) }

func (a *Alerter) suppression(id SeriesID, t time.Time) *Suppression {
	if len(a.suppressions) > 256 {
		a.suppressions = slices.DeleteFunc(a.suppressions, func(s Suppression) bool { return !t.Before(s.Until) })
	}
	for i := range a.suppressions {
		if s := &a.suppressions[i]; t.Before(s.Until) && s.Match.Matches(id) {
			return s
		}
	}
	return nil
}

// Step takes the result for one value of one series, in time order for each,
// and gives the event that it causes, if any. A value that is missing, or
// that the detector was not ready for, counts neither way.
func (a *Alerter) Step(t time.Time, id SeriesID, x float64, r Result) (Event, bool) {
	if a.opts.Of == 0 {
		a.opts, _ = a.opts.resolve()
	}
	s := a.series[id]
	if s == nil {
		if a.series == nil {
			a.series = make(map[SeriesID]*tracked)
		}
		s = &tracked{times: make([]time.Time, a.opts.Of)}
		a.series[id] = s
	}
	s.last = sample{t, x, r}
	unusual := r.Ready && r.Score > 1
	if r.Relearned {
		return a.relearned(s, t)
	}
	if !r.Ready || !unusual && math.IsNaN(x) {
		return Event{}, false
	}
	copy(s.times[1:], s.times)
	s.times[0] = t
	s.hits = s.hits << 1
	if a.opts.Of < 64 {
		s.hits &= 1<<a.opts.Of - 1
	}
	if !unusual {
		return a.usual(s, t)
	}
	s.hits |= 1
	s.normal = 0
	now := sample{t, x, r}
	if s.on {
		return a.worse(s, now)
	}
	if r.Score >= s.worst.r.Score {
		s.worst = now
	}
	sure := r.Kind == LevelShift || r.Kind == FlatLine || r.Kind == Dropout
	if !sure && bits.OnesCount64(s.hits) < a.opts.Raise {
		return Event{}, false
	}
	return a.raise(s, now, id)
}

func (a *Alerter) raise(s *tracked, now sample, id SeriesID) (Event, bool) {
	w := s.worst
	if now.t.Before(s.until) && w.r.Score < a.opts.Worse*s.reported {
		return Event{}, false
	}
	al := Alert{
		Series: id, Kind: now.r.Kind, Onset: s.times[bits.Len64(s.hits)-1], Raised: now.t,
		Value: w.x, Expected: w.r.Expected, Lower: w.r.Lower, Upper: w.r.Upper, Score: w.r.Score,
	}
	if s.previous.Before(al.Onset) {
		al.LastNormal = s.previous
	} else if i := bits.Len64(s.hits); i < len(s.times) {
		al.LastNormal = s.times[i] // usual values lie between the hits
	}
	if sup := a.suppression(id, now.t); sup != nil {
		if s.held {
			return Event{}, false
		}
		s.held = true
		sup.Count++
		return Event{Type: Suppressed, Time: now.t, Alert: al, Reason: sup.Reason}, true
	}
	s.on, s.held, s.alert, s.reported = true, false, al, w.r.Score
	return Event{Type: Raised, Time: now.t, Alert: al}, true
}

// worse keeps the worst value, and tells when it is clearly worse.
func (a *Alerter) worse(s *tracked, now sample) (Event, bool) {
	if now.r.Score > s.alert.Score {
		s.alert.Value, s.alert.Expected, s.alert.Score = now.x, now.r.Expected, now.r.Score
		s.alert.Lower, s.alert.Upper, s.alert.Kind = now.r.Lower, now.r.Upper, now.r.Kind
	}
	if now.r.Score < a.opts.Worse*s.reported {
		return Event{}, false
	}
	s.reported = now.r.Score
	return Event{Type: Updated, Time: now.t, Alert: s.alert}, true
}

func (a *Alerter) usual(s *tracked, t time.Time) (Event, bool) {
	s.previous = t
	s.normal++
	if !s.on {
		if s.hits == 0 {
			s.worst, s.held = sample{}, false
		}
		return Event{}, false
	}
	if s.normal < a.opts.Clear {
		return Event{}, false
	}
	return a.clear(s, t, "back to normal"), true
}

func (a *Alerter) relearned(s *tracked, t time.Time) (Event, bool) {
	if !s.on {
		s.reset()
		return Event{}, false
	}
	s.alert.Relearned = true
	return a.clear(s, t, "the new level is taken as normal"), true
}

func (s *tracked) reset() {
	s.hits, s.normal, s.worst, s.held = 0, 0, sample{}, false
}

func (a *Alerter) clear(s *tracked, t time.Time, reason string) Event {
	s.alert.Cleared = t
	e := Event{Type: Cleared, Time: t, Alert: s.alert, Reason: reason}
	s.on, s.until, s.reported = false, t.Add(max(0, a.opts.CoolDown)), s.alert.Score
	s.reset()
	return e
}

// Forget drops a series that is no more, such as a replica that was removed;
// if it had an active alert, that is cleared.
func (a *Alerter) Forget(t time.Time, id SeriesID) (Event, bool) {
	s := a.series[id]
	if s == nil {
		return Event{}, false
	}
	delete(a.series, id)
	if !s.on {
		return Event{}, false
	}
	return a.clear(s, t, "the series is no more"), true
}

// Active gives the active alert of a series.
func (a *Alerter) Active(id SeriesID) (Alert, bool) {
	if s := a.series[id]; s != nil && s.on {
		return s.alert, true
	}
	return Alert{}, false
}

// Alerts gives all active alerts, in order of Raised and Series.
func (a *Alerter) Alerts() []Alert {
	var out []Alert
	for _, s := range a.series {
		if s.on {
			out = append(out, s.alert)
		}
	}
	slices.SortFunc(out, compareAlerts)
	return out
}

func compareAlerts(a, b Alert) int {
	return cmp.Or(a.Raised.Compare(b.Raised), compareSeries(a.Series, b.Series), a.Onset.Compare(b.Onset))
}

func compareSeries(a, b SeriesID) int {
	return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.Instance, b.Instance))
}
