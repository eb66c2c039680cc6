package anomaly

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"
)

// GroupOptions are the settings of a [Grouper].
type GroupOptions struct {
	// Window is how long after the last alert of an open incident a further
	// one still joins it; 0 means 5 minutes.
	Window time.Duration
	// Quiet is how long after its last alert was cleared an incident stays
	// open, so that a relapse belongs to it; 0 means 1 minute, a negative
	// number means none.
	Quiet time.Duration
	// Keep is how many closed incidents are remembered; 0 means 64, a
	// negative number means none.
	Keep int
}

func (o GroupOptions) resolve() (GroupOptions, error) {
	if o.Window < 0 {
		return o, fmt.Errorf("%w: Window %v is negative", ErrOptions, o.Window)
	}
	if o.Window == 0 {
		o.Window = 5 * time.Minute
	}
	if o.Quiet == 0 {
		o.Quiet = time.Minute
	}
	if o.Keep == 0 {
		o.Keep = 64
	}
	return o, nil
}

// Grouper collects alerts that are close in time into incidents: one outage
// makes many series unusual. It is a plain state machine and not safe for
// concurrent use. The zero value has default [GroupOptions].
type Grouper struct {
	opts GroupOptions
	open []*group
	done []Incident
}

type group struct {
	inc   Incident
	onset time.Time // the earliest
	last  time.Time // of the last alert raised
	quiet time.Time // when the last alert was cleared; zero while one is active
}

// NewGrouper makes a Grouper; it fails only with [ErrOptions].
func NewGrouper(opts GroupOptions) (*Grouper, error) {
	o, err := opts.resolve()
	if err != nil {
		return nil, err
	}
	return &Grouper{opts: o}, nil
}

// incidentID depends on the first alert's series and onset alone, so that a
// replay, or a second observer of the same stream, gives the same.
func incidentID(a Alert) string {
	h := sha256.Sum256([]byte(a.Series.Service + "\x00" + a.Series.Metric + "\x00" + a.Series.Instance + "\x00" +
		a.Onset.UTC().Format(time.RFC3339Nano)))
	return "inc-" + hex.EncodeToString(h[:6])
}

// Step takes an event of an [Alerter] and gives it back with its incident,
// after the incident's opening where it begins one.
func (g *Grouper) Step(e Event) []Event {
	if g.opts.Window == 0 {
		g.opts, _ = g.opts.resolve()
	}
	out := g.Tick(e.Time)
	switch e.Type {
	case Raised:
		gr := g.joins(e.Time)
		if gr == nil {
			gr = &group{inc: Incident{ID: incidentID(e.Alert), Opened: e.Time, OnsetLatest: e.Alert.Raised}}
			g.open = append(g.open, gr)
			out = append(out, Event{Type: IncidentOpened, Time: e.Time, Alert: e.Alert, Incident: gr.inc.ID})
		}
		e.Incident = gr.inc.ID
		gr.last, gr.quiet = e.Time, time.Time{}
		gr.inc.Alerts = append(gr.inc.Alerts, e.Alert)
		slices.SortFunc(gr.inc.Alerts, compareAlerts)
		if gr.onset.IsZero() || e.Alert.Onset.Before(gr.onset) {
			gr.onset, gr.inc.OnsetEarliest = e.Alert.Onset, e.Alert.LastNormal
			if e.Alert.LastNormal.IsZero() {
				gr.inc.OnsetEarliest = e.Alert.Onset
			}
		}
	case Updated, Cleared:
		for _, gr := range g.open {
			i := slices.IndexFunc(gr.inc.Alerts, func(a Alert) bool {
				return a.Series == e.Alert.Series && a.Raised.Equal(e.Alert.Raised)
			})
			if i < 0 {
				continue
			}
			e.Incident = gr.inc.ID
			gr.inc.Alerts[i] = e.Alert
			if !slices.ContainsFunc(gr.inc.Alerts, Alert.Active) {
				gr.quiet = e.Time
			}
			break
		}
	}
	out = append(out, e)
	if e.Type == Cleared && g.opts.Quiet < 0 {
		out = append(out, g.Tick(e.Time)...)
	}
	return out
}

// joins is the open incident that an alert raised now belongs to.
func (g *Grouper) joins(t time.Time) *group {
	for i := len(g.open) - 1; i >= 0; i-- {
		gr := g.open[i]
		if t.Sub(gr.last) <= g.opts.Window || !gr.quiet.IsZero() {
			return gr
		}
	}
	return nil
}

// Tick closes the incidents that have been quiet for long enough; it allocates
// nothing where there are none. Call it when time passes without events.
func (g *Grouper) Tick(t time.Time) []Event {
	var out []Event
	for i := 0; i < len(g.open); {
		gr := g.open[i]
		if gr.quiet.IsZero() || t.Sub(gr.quiet) < g.opts.Quiet {
			i++
			continue
		}
		gr.inc.Closed = t
		out = append(out, Event{Type: IncidentClosed, Time: t, Alert: gr.inc.Alerts[0], Incident: gr.inc.ID})
		g.open = slices.Delete(g.open, i, i+1)
		if g.opts.Keep > 0 {
			g.done = append(g.done, gr.inc)
			g.done = slices.Delete(g.done, 0, max(0, len(g.done)-g.opts.Keep))
		}
	}
	return out
}

// Incidents are the remembered closed ones and then the open ones, each in
// order of opening.
func (g *Grouper) Incidents() []Incident {
	out := make([]Incident, 0, len(g.done)+len(g.open))
	out = append(out, g.done...)
	for _, gr := range g.open {
		out = append(out, gr.inc)
	}
	for i := range out {
		out[i].Alerts = slices.Clone(out[i].Alerts)
	}
	return out
}
