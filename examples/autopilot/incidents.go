package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
	"github.com/evenkeel-go/evenkeel/internal/localplatform"
	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/gitsource"
	"github.com/evenkeel-go/evenkeel/remediate"
)

// diagnosis is an incident that waits for its cause to be looked for: a few
// samples more make the picture clear.
type diagnosis struct {
	incident string
	due      time.Time // wall
}

// incidentRecord is what the summary tells of one incident. Times are wall
// times since the start.
type incidentRecord struct {
	id                             string
	onset, alerted, named, actedAt time.Duration
	ended                          time.Duration
	report                         *rootcause.Report
	status                         remediate.Status
	revert                         string // commit that the repair made
}

// alerted tells of alerts, and has each new incident looked into.
func (a *autopilot) alerted(events []anomaly.Event, live bool) {
	for _, e := range events {
		switch e.Type {
		case anomaly.IncidentOpened:
			_, wall := a.clock.now()
			a.mu.Lock()
			if _, ok := a.incidents[e.Incident]; !ok {
				a.incidents[e.Incident] = &incidentRecord{id: e.Incident, onset: a.clock.sinceStart(e.Alert.Onset), alerted: wall}
			}
			a.pending = append(a.pending, diagnosis{e.Incident, time.Now().Add(evidenceWall)})
			a.mu.Unlock()
		case anomaly.Raised:
			if live {
				a.tl.say(wordAlert, nil, "%s", e.Alert)
			}
			a.mu.Lock()
			if rec := a.incidents[e.Incident]; rec != nil && rec.report != nil {
				a.pending = append(a.pending, diagnosis{e.Incident, time.Now()})
			}
			a.mu.Unlock()
		case anomaly.Cleared:
			if live {
				a.tl.say(wordVerify, nil, "%s: %s", e.Alert.Series, e.Reason)
			}
		}
	}
}

// evidenceWall is how long after the first alert the cause is named.
const evidenceWall = 900 * time.Millisecond

// diagnose names the cause of each incident that is due and hands it to the
// manager.
func (a *autopilot) diagnose(ctx context.Context) {
	a.mu.Lock()
	var due []string
	a.pending = slices.DeleteFunc(a.pending, func(d diagnosis) bool {
		if time.Now().Before(d.due) {
			return false
		}
		due = append(due, d.incident)
		return true
	})
	a.mu.Unlock()
	for _, id := range due {
		if err := a.name(ctx, id); err != nil && ctx.Err() == nil {
			a.tl.say(wordError, nil, "incident %s: %v", id, err)
			a.mu.Lock()
			a.pending = append(a.pending, diagnosis{id, time.Now().Add(evidenceWall)})
			a.mu.Unlock()
		}
	}
}

func (a *autopilot) name(ctx context.Context, id string) error {
	list := a.monitor.Incidents()
	i := slices.IndexFunc(list, func(i anomaly.Incident) bool { return i.ID == id })
	if i < 0 {
		return nil
	}
	incident := list[i]
	if !incident.Closed.IsZero() {
		return nil // over before anybody looked
	}
	a.mu.Lock()
	known := a.incidents[id].report
	a.mu.Unlock()
	if known != nil { // it grew: its case has more to verify, or is open again
		_, err := a.manager.Handle(ctx, remediate.FromIncident(incident), known)
		return err
	}
	if c, err := a.manager.Case(id); err == nil && c.Status.Final() {
		return nil // handled before a restart
	}
	report, err := a.analyse(ctx, incident)
	if err != nil {
		return err
	}
	_, wall := a.clock.now()
	a.mu.Lock()
	rec := a.incidents[id]
	rec.named, rec.report = wall, report
	a.mu.Unlock()
	a.tellCause(report)
	_, err = a.manager.Handle(ctx, remediate.FromIncident(incident), report)
	return err
}

func (a *autopilot) analyse(ctx context.Context, incident anomaly.Incident) (*rootcause.Report, error) {
	now := a.clock.Now()
	from := now.Add(-a.clock.sim(45 * time.Second))
	// What is usual is judged by what the detectors learned from.
	a.mu.Lock()
	if watched := a.clock.load.SimTime(a.watched); from.Before(watched) {
		from = watched
	}
	a.mu.Unlock()
	w := a.scraper.Window(from, now.Add(a.clock.step()))
	changes, err := a.changes(ctx, incident.OnsetLatest)
	if err != nil {
		return nil, err
	}
	// The target is what users are closest to: the first alert of a whole
	// service, else the first.
	target := incident.Alerts[0].Series
	for _, al := range incident.Alerts {
		if al.Series.Instance == "" {
			target = al.Series
			break
		}
	}
	analyzer := rootcause.Analyzer{Options: rootcause.Options{
		OnsetWindow:  a.clock.sim(3 * time.Second),
		ChangeWindow: a.clock.sim(24 * time.Second),
	}}
	return analyzer.Analyze(ctx, rootcause.Input{
		Start: w.Start, Step: w.Step, Metrics: w.Metrics,
		Onset: incident.OnsetEarliest, Target: target,
		Graph: a.scraper.Graph(), Changes: changes,
	})
}

// changes are the commits of the last while, with what they did to which
// service.
func (a *autopilot) changes(ctx context.Context, until time.Time) ([]rootcause.Change, error) {
	log, err := a.repo.Log(ctx, gitsource.LogOptions{Limit: 50, Since: until.Add(-a.clock.sim(30 * time.Second))})
	if err != nil {
		return nil, err
	}
	var out []rootcause.Change
	for _, c := range log {
		keys, err := a.repo.Changes(ctx, c.Revision)
		if err != nil {
			return nil, err
		}
		ch := rootcause.Change{
			ID: c.Revision, Time: c.Time, Summary: c.Subject(), Author: c.Author,
			Automatic: c.Trailer(reconcile.TrailerAction) != "",
		}
		for _, k := range keys {
			if k.Key.Kind == "Deployment" && !slices.Contains(ch.Services, k.Key.Name) {
				ch.Services = append(ch.Services, k.Key.Name)
			}
			ch.Fields = append(ch.Fields, k.Fields...)
		}
		if len(ch.Services) > 0 {
			out = append(out, ch)
		}
	}
	return out, nil
}

func (a *autopilot) tellCause(r *rootcause.Report) {
	if len(r.Services) == 0 {
		a.tl.say(wordCause, nil, "no cause found: %s", r.Why)
		return
	}
	s := r.Services[0]
	name := s.Service
	if s.Instance != "" {
		name = "instance " + s.Instance + " of " + s.Service
	}
	why := slices.Clone(s.Evidence)
	if r.Change != nil {
		c := r.Change.Change
		why = append(why, fmt.Sprintf("commit %s %q by %s (confidence %.2f)", reconcile.ShortRevision(c.ID), c.Summary, c.Author, r.Change.Confidence))
		why = append(why, r.Change.Evidence...)
	}
	for i, other := range r.Services[1:] {
		if i == 2 || other.Confidence < 0.05 {
			break
		}
		why = append(why, fmt.Sprintf("not %s: confidence %.2f", other.Service, other.Confidence))
	}
	a.tl.say(wordCause, why, "%s (confidence %.2f), remedy: %s", name, s.Confidence, r.Class)
}

// findingTrigger is the kind of trigger for a change that policy refused.
const findingTrigger = "Finding"

// propose opens a case for each refusal that has none yet. What fails is tried
// again with the next round.
func (a *autopilot) propose(ctx context.Context) {
	for k, h := range a.refused {
		if err := a.proposeRevert(ctx, h); err != nil {
			if ctx.Err() == nil {
				a.tl.say(wordError, nil, "%s: %v", k, err)
			}
			continue
		}
		delete(a.refused, k)
	}
}

// proposeRevert proposes to take back the commit that asks for a refused
// change, so that the branch can be deployed as a whole again. A person
// decides.
func (a *autopilot) proposeRevert(ctx context.Context, h reconcile.Held) error {
	log, err := a.repo.Log(ctx, gitsource.LogOptions{Limit: 50})
	if err != nil {
		return err
	}
	i := slices.IndexFunc(log, func(c reconcile.Commit) bool {
		return slices.Contains(c.Keys, h.Change.Key) && c.Trailer(reconcile.TrailerAction) == ""
	})
	if i < 0 {
		return nil
	}
	c := log[i]
	service := h.Change.Key.Name
	change := rootcause.RankedChange{
		Change:     rootcause.Change{ID: c.Revision, Time: c.Time, Services: []string{service}, Summary: c.Subject(), Author: c.Author},
		Confidence: 1,
		Evidence:   []string{h.Reason},
	}
	report := &rootcause.Report{
		Onset:    c.Time,
		Services: []rootcause.RankedService{{Service: service, Confidence: 1, Evidence: []string{h.Reason}}},
		Change:   &change, Changes: []rootcause.RankedChange{change},
		Class: rootcause.RollBack, Why: "policy refuses what the commit asks for",
	}
	_, err = a.manager.Handle(ctx, remediate.Trigger{
		Kind: findingTrigger, ID: reconcile.ShortRevision(c.Revision) + "-" + service,
		Summary: fmt.Sprintf("%s of commit %s is refused by %s", h.Change.Key, reconcile.ShortRevision(c.Revision), h.By),
		Labels:  map[string]string{"service": service, "key": h.Change.Key.String()},
	}, report)
	return err
}

// recovered is the manager's verifier: an incident is over when no series of
// it is unusual any more, a refusal when nothing of its resource is held.
func (a *autopilot) recovered(ctx context.Context, c remediate.Case) (bool, string, error) {
	if c.Trigger.Kind != findingTrigger {
		return remediate.VerifyAlerts(wallAlerts{a.monitor, a.clock}).Recovered(ctx, c)
	}
	k, err := reconcile.ParseKey(c.Trigger.Labels["key"])
	if err != nil {
		return false, "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if h, ok := a.held[k]; ok {
		return false, "still held by " + h.By, nil
	}
	return true, "nothing of " + k.String() + " is held any more", nil
}

// wallAlerts is the monitor in the manager's time: the detectors see simulated
// time.
type wallAlerts struct {
	*anomaly.Monitor
	clock simClock
}

func (w wallAlerts) Latest(id anomaly.SeriesID) (anomaly.Observation, bool) {
	o, ok := w.Monitor.Latest(id)
	o.Time = w.clock.load.WallTime(o.Time)
	return o, ok
}

func (w wallAlerts) Newest(match anomaly.Match) (time.Time, bool) {
	t, ok := w.Monitor.Newest(match)
	return w.clock.load.WallTime(t), ok
}

// restarter lets the manager restart instances.
type restarter struct{ platform *localplatform.Platform }

func (r restarter) Do(ctx context.Context, d remediate.DirectAction) error {
	if d.Kind != "restart" {
		return fmt.Errorf("%s is not something this platform can do: %w", d.Kind, remediate.ErrTerminal)
	}
	err := r.platform.RestartInstance(ctx, d.ID, d.Instance)
	if errors.Is(err, reconcile.ErrNotFound) {
		return fmt.Errorf("%w: %w", remediate.ErrTerminal, err)
	}
	return err
}

func (r restarter) Done(ctx context.Context, id string) (bool, error) {
	return r.platform.RestartDone(ctx, id)
}

// notifyingWriter tells the reconciler of a commit at once, as a webhook
// would.
type notifyingWriter struct {
	*gitsource.Repository
	notify func()
}

func (w notifyingWriter) Write(ctx context.Context, r reconcile.WriteRequest) (reconcile.Commit, error) {
	c, err := w.Repository.Write(ctx, r)
	if err == nil {
		w.notify()
	}
	return c, err
}
