package remediate

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

// IncidentTrigger is the [Trigger.Kind] of an [anomaly.Incident].
const IncidentTrigger = "Incident"

// Trigger is what asks for a repair: an incident, or anything else of the
// host's that has a stable id, such as a security finding.
type Trigger struct {
	// Kind is IncidentTrigger or the host's own word: "Finding".
	Kind string `json:"kind"`
	// ID is unique within the kind, stable, and one line of at most 200 bytes.
	ID string `json:"id"`
	// Incident is set for IncidentTrigger.
	Incident *anomaly.Incident `json:"incident,omitempty"`
	// Summary is one line for a person; incidents have a default.
	Summary string `json:"summary,omitempty"`
	// Labels are what playbooks match and take values from. The label
	// "service" names the service to repair where no report does.
	Labels map[string]string `json:"labels,omitempty"`
}

// FromIncident makes the trigger of an incident.
func FromIncident(inc anomaly.Incident) Trigger {
	return Trigger{Kind: IncidentTrigger, ID: inc.ID, Incident: &inc}
}

// caseID is the id of the trigger's case.
func (t Trigger) caseID() string {
	if t.Kind == IncidentTrigger {
		return t.ID
	}
	return t.Kind + "/" + t.ID
}

func (t Trigger) validate() error {
	switch {
	case t.Kind == "" || strings.Contains(t.Kind, "/") || !oneLine(t.Kind):
		return invalid("handle", t.ID, "trigger kind %q is empty, has a slash or is not one line", t.Kind)
	case t.ID == "" || len(t.ID) > 200 || !oneLine(t.ID) || strings.TrimSpace(t.ID) != t.ID:
		return invalid("handle", t.ID, "trigger id is empty, longer than 200 bytes or not one trimmed line")
	case t.Kind == IncidentTrigger && t.Incident == nil:
		return invalid("handle", t.ID, "trigger of kind %s has no Incident", t.Kind)
	case t.Incident != nil && t.Kind == IncidentTrigger && t.Incident.ID != t.ID:
		return invalid("handle", t.ID, "trigger id is not its incident's, %q", t.Incident.ID)
	}
	return nil
}

// Alerts are the trigger's alerts, nil where it has none.
func (t Trigger) Alerts() []anomaly.Alert {
	if t.Incident == nil {
		return nil
	}
	return t.Incident.Alerts
}

// String gives one line for a person.
func (t Trigger) String() string {
	if t.Summary != "" {
		return t.Summary
	}
	if alerts := t.Alerts(); len(alerts) > 0 {
		s := fmt.Sprintf("%s %s", alerts[0].Series, alerts[0].Kind)
		if n := len(alerts) - 1; n > 0 {
			s += fmt.Sprintf(" and %d more", n)
		}
		return s
	}
	return t.Kind + " " + t.ID
}

// Status is where a [Case] stands.
type Status string

// The statuses. The last four are final.
const (
	// Open: the next action is being worked out.
	Open Status = "Open"
	// Held: a guard holds the next action back; [Case.Held] says which.
	Held Status = "Held"
	// AwaitingApproval: a person is asked.
	AwaitingApproval Status = "AwaitingApproval"
	// Acting: the action is being done.
	Acting Status = "Acting"
	// Verifying: the action is done, its effect is being looked at.
	Verifying Status = "Verifying"
	// Undoing: the action did not help and is being taken back.
	Undoing Status = "Undoing"

	// Resolved: the trouble is over.
	Resolved Status = "Resolved"
	// Escalated: a person has to look.
	Escalated Status = "Escalated"
	// Denied: a person refused the action.
	Denied Status = "Denied"
	// Observed: the playbook may only watch; the timeline says what it would
	// have done.
	Observed Status = "Observed"
)

// Final tells whether nothing will happen any more.
func (s Status) Final() bool {
	switch s {
	case Resolved, Escalated, Denied, Observed:
		return true
	case Open, Held, AwaitingApproval, Acting, Verifying, Undoing:
	}
	return false
}

// inFlight tells whether the target counts as unhealthy because of an action.
func (s Status) inFlight() bool { return s == Acting || s == Verifying || s == Undoing }

// Outcome is how an [Attempt] ended.
type Outcome string

// The outcomes; an attempt that goes on has the empty one.
const (
	// Skipped: there was nothing for the action to do; it was not begun.
	Skipped Outcome = "Skipped"
	// Refused: a person or a guard refused it; it was not begun.
	Refused Outcome = "Refused"
	// Verified: it was done and the trouble went away.
	Verified Outcome = "Verified"
	// NotVerified: it was done and did not help.
	NotVerified Outcome = "NotVerified"
	// Failed: it could not be done.
	Failed Outcome = "Failed"
	// NotNeeded: the trouble went away before it began.
	NotNeeded Outcome = "NotNeeded"
)

// Target is what an action is for, and what per-target limits count.
type Target struct {
	Service  string `json:"service"`
	Instance string `json:"instance,omitempty"`
	// Key is the resource that a commit changes; zero for a revert and for
	// direct actions.
	Key reconcile.Key `json:"key,omitzero"`
}

// String gives service or service/instance.
func (t Target) String() string {
	if t.Instance != "" {
		return t.Service + "/" + t.Instance
	}
	return t.Service
}

// DirectAction is an action that is not a commit.
type DirectAction struct {
	// ID is the action's idempotency key: [Actor.Done] is asked for it.
	ID string `json:"id"`
	// Kind is "restart" or a function's name.
	Kind string `json:"kind"`
	// Target is the service, Instance the one replica; Instance is never
	// empty for "restart".
	Target   string `json:"target"`
	Instance string `json:"instance,omitempty"`
}

// Operation is an [Action] worked out to the last detail: what exactly would
// be done, as data. Exactly one of Edit, Revert and Direct is set.
type Operation struct {
	Target Target `json:"target"`
	// Touches are what it changes, as far as is known, the target's service
	// first, the rest sorted: services, and for an edit also the resource's
	// key as [reconcile.Key] prints it. A revert touches the services that the
	// report says its commit touched; an edit touches the service that the
	// resource is named after and those in its labels app.kubernetes.io/name
	// and app. A pause of any of them holds the operation, and limits count it
	// for each.
	Touches []string `json:"touches,omitempty"`
	// Edit is the field to set, and From its declared value, nil if missing;
	// the edit expects that value, so that a writer refuses it over another.
	Edit *reconcile.Edit `json:"edit,omitempty"`
	From any             `json:"from,omitempty"`
	// Revert is the commit to take back.
	Revert string `json:"revert,omitempty"`
	// Direct is for the [Actor].
	Direct *DirectAction `json:"direct,omitempty"`
	// Summary is one line for a person.
	Summary string `json:"summary"`
	// Digest binds all of the above to the case and the playbook.
	Digest string `json:"digest"`
}

// touches gives what guards count; nil without a target.
func (op *Operation) touches() []string {
	switch {
	case op.Target.Service == "":
		return nil
	case len(op.Touches) == 0:
		// A record of before Touches was written.
		return []string{op.Target.Service}
	}
	return op.Touches
}

// touch sets Touches.
func (op *Operation) touch(names ...string) {
	slices.Sort(names)
	op.Touches = []string{op.Target.Service}
	for _, n := range slices.Compact(names) {
		if n != "" && n != op.Target.Service {
			op.Touches = append(op.Touches, n)
		}
	}
}

// Attempt is one action of a case, from plan to outcome. Zero times have not
// come.
type Attempt struct {
	// ID is the idempotency key: the case's id, a dot and the attempt's
	// number from 1. Commits carry it as [reconcile.TrailerAction].
	ID     string `json:"id"`
	Action Action `json:"action"`
	Risk   Risk   `json:"risk"`
	// Operation is what would be done, or was.
	Operation Operation `json:"operation"`
	// Track is how this action did before, when it was planned.
	Track TrackRecord `json:"track"`
	// Approval is a person's answer, nil where none was given.
	Approval *Approval `json:"approval,omitempty"`
	// Tries counts how often it failed in passing and will be tried again.
	Tries int `json:"tries,omitempty"`

	Planned time.Time `json:"planned,omitzero"`
	// Started is when the intent was journaled; Done when the action was done.
	Started time.Time `json:"started,omitzero"`
	Done    time.Time `json:"done,omitzero"`
	// Commit is what a commit action made; zero for others.
	Commit  reconcile.Commit `json:"commit,omitzero"`
	Ended   time.Time        `json:"ended,omitzero"`
	Outcome Outcome          `json:"outcome,omitempty"`
	// Undone is when it was taken back, by commit Undo.
	Undone time.Time        `json:"undone,omitzero"`
	Undo   reconcile.Commit `json:"undo,omitzero"`
	// Error says why it was skipped, failed or did not help.
	Error string `json:"error,omitempty"`
}

// Entry is one line of a timeline.
type Entry struct {
	Time time.Time `json:"time"`
	What string    `json:"what"`
	Why  string    `json:"why,omitempty"`
}

// Case is the handling of one trigger from beginning to end, as data. What
// the pointers lead to is shared and must not be changed.
type Case struct {
	// ID is the incident's id; for other triggers kind/id.
	ID      string            `json:"id"`
	Trigger Trigger           `json:"trigger"`
	Report  *rootcause.Report `json:"report,omitempty"`
	// Service is the one to repair: the report's first, else the label
	// "service", else the only one that alerts; may be empty.
	Service string `json:"service,omitempty"`
	// Playbook is the one that matched, as it stood, with defaults filled in;
	// nil for none.
	Playbook *Playbook `json:"playbook,omitempty"`
	// Choice says why this playbook, and why not those before it.
	Choice []string `json:"choice,omitempty"`
	Status Status   `json:"status"`
	// Opened is when the case was opened; Since when it took on Status.
	Opened time.Time `json:"opened"`
	Since  time.Time `json:"since"`
	// Reopened is when the trouble came back after the case was resolved, the
	// last time; zero for never. Returns counts how often.
	Reopened time.Time `json:"reopened,omitzero"`
	Returns  int       `json:"returns,omitempty"`
	// Held is the guard that holds it, while Status is Held.
	Held *Refusal `json:"held,omitempty"`
	// Attempts are the playbook's actions so far, in order.
	Attempts []Attempt `json:"attempts,omitempty"`
	Timeline []Entry   `json:"timeline"`

	// Deadline is when the present status runs out: of an approval, of the
	// wait for an effect, or until the next try; zero for none.
	Deadline time.Time `json:"deadline,omitzero"`
	// Recovered is since when the verifier says that the trouble is over;
	// zero while it is not.
	Recovered time.Time `json:"recovered,omitzero"`
	// Untold are the notices that have not been delivered, oldest first.
	Untold []DueNotice `json:"untold,omitempty"`

	heldSince time.Time // first refusal of the present attempt, pauses left out
	// reserved are the targets of an action that a guard let go and that has
	// not begun: it counts as in flight, so that one free place lets go one
	// case and not all that wait for it.
	reserved []string
	// base is the number of attempts before the case was last reopened: the
	// playbook begins anew behind them.
	base int
}

// Acted is when something was last done about the case: the end of its newest
// action or undo, else when it was opened or last reopened. Whether the
// trouble is over can only be seen in what was measured after it.
func (c *Case) Acted() time.Time {
	at := c.Opened
	if c.Reopened.After(at) {
		at = c.Reopened
	}
	for i := range c.Attempts {
		for _, t := range []time.Time{c.Attempts[i].Done, c.Attempts[i].Undone} {
			if t.After(at) {
				at = t
			}
		}
	}
	return at
}

// Ended is when the case came to its end, zero before.
func (c *Case) Ended() time.Time {
	if c.Status.Final() {
		return c.Since
	}
	return time.Time{}
}

func (c *Case) clone() Case {
	d := *c
	d.Attempts = slices.Clone(c.Attempts)
	d.Timeline = slices.Clip(c.Timeline)
	d.Untold = slices.Clip(c.Untold)
	return d
}

// attempt is the attempt that goes on, or nil.
func (c *Case) attempt() *Attempt {
	if n := len(c.Attempts); n > 0 && c.Attempts[n-1].Outcome == "" {
		return &c.Attempts[n-1]
	}
	return nil
}

// next is the action to plan: the one of the attempt that goes on, else the
// next alternative. n is its attempt's number from 1; ok is false when there
// is none left.
func (c *Case) next() (a Action, n int, ok bool) {
	if at := c.attempt(); at != nil {
		return at.Action, len(c.Attempts), true
	}
	i := len(c.Attempts) - c.base
	if c.Playbook == nil || i < 0 || i >= len(c.Playbook.Actions) {
		return Action{}, 0, false
	}
	return c.Playbook.Actions[i], len(c.Attempts) + 1, true
}

func (c *Case) begun() int {
	n := 0
	for _, at := range c.Attempts {
		if !at.Started.IsZero() {
			n++
		}
	}
	return n
}

func (c *Case) class() rootcause.Class {
	if c.Report == nil || c.Report.Class == "" {
		return rootcause.Escalate
	}
	return c.Report.Class
}

func (c *Case) confidence() float64 {
	if c.Report == nil || len(c.Report.Services) == 0 {
		return 0
	}
	return c.Report.Services[0].Confidence
}

// instance is the one replica to blame, or "".
func (c *Case) instance() string {
	if c.Report != nil && len(c.Report.Services) > 0 {
		return c.Report.Services[0].Instance
	}
	found := ""
	for _, a := range c.Trigger.Alerts() {
		in := a.Series.Instance
		if a.Series.Service != c.Service || in == "" || (found != "" && found != in) {
			return ""
		}
		found = in
	}
	return found
}

// joined gives the trigger with those of its alerts that the case does not
// know yet; false if there are none. While the case goes on these are the
// alerts of further series, since a known one is looked at whatever it does;
// with again, they are the active alerts of further series, and of known ones
// that alerted anew.
func (c *Case) joined(t Trigger, again bool) (Trigger, bool) {
	newest := make(map[anomaly.SeriesID]time.Time, len(c.Trigger.Alerts()))
	for _, a := range c.Trigger.Alerts() {
		if at, ok := newest[a.Series]; !ok || a.Raised.After(at) {
			newest[a.Series] = a.Raised
		}
	}
	var add []anomaly.Alert
	for _, a := range t.Alerts() {
		at, known := newest[a.Series]
		if again && a.Active() && (!known || a.Raised.After(at)) || !again && !known {
			add = append(add, a)
			newest[a.Series] = a.Raised
		}
	}
	if len(add) == 0 {
		return t, false
	}
	inc := *t.Incident
	inc.Alerts = add
	return Trigger{Kind: t.Kind, ID: t.ID, Incident: &inc}, true
}

// join takes in the alerts of more, which may hold known ones: a journal of
// an earlier version has whole incidents.
func (c *Case) join(more Trigger) {
	if c.Trigger.Incident == nil || more.Incident == nil {
		return
	}
	type key struct {
		series anomaly.SeriesID
		raised int64
	}
	keyOf := func(a anomaly.Alert) key { return key{a.Series, a.Raised.UnixNano()} }
	inc := *more.Incident
	inc.Alerts = slices.Clone(c.Trigger.Incident.Alerts)
	at := make(map[key]int, len(inc.Alerts))
	for i, a := range inc.Alerts {
		at[keyOf(a)] = i
	}
	for _, a := range more.Incident.Alerts {
		if i, ok := at[keyOf(a)]; ok {
			inc.Alerts[i] = a
			continue
		}
		at[keyOf(a)] = len(inc.Alerts)
		inc.Alerts = append(inc.Alerts, a)
		if a.Active() {
			c.Recovered = time.Time{}
		}
	}
	// What pointers of a case lead to is shared with its snapshots.
	c.Trigger.Incident = &inc
}

// serviceOf finds the service to repair.
func serviceOf(t Trigger, r *rootcause.Report) string {
	if r != nil && len(r.Services) > 0 {
		return r.Services[0].Service
	}
	if s := t.Labels["service"]; s != "" {
		return s
	}
	found := ""
	for _, a := range t.Alerts() {
		if found != "" && a.Series.Service != found {
			return ""
		}
		found = a.Series.Service
	}
	return found
}

// String gives the case as a timeline for people.
func (c Case) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "case %s: %s", c.ID, c.Status)
	if c.Service != "" {
		fmt.Fprintf(&b, ", service %s", c.Service)
	}
	if end := c.Ended(); !end.IsZero() {
		fmt.Fprintf(&b, ", after %s", short(end.Sub(c.Opened)))
	}
	fmt.Fprintf(&b, "\n  opened %s\n", c.Opened.UTC().Format(time.RFC3339))
	for _, e := range c.Timeline {
		fmt.Fprintf(&b, "  %8s  %s\n", "+"+short(e.Time.Sub(c.Opened)), e.What)
		if e.Why != "" {
			fmt.Fprintf(&b, "            because %s\n", e.Why)
		}
	}
	return b.String()
}

// Explain gives the reasons behind the case for people: the evidence, the
// ranked causes, the choice of playbook, and for each action what it was, who
// approved it, how it did before and what came of it.
func (c Case) Explain() string {
	var b strings.Builder
	fmt.Fprintf(&b, "case %s: %s\n", c.ID, c.Status)
	fmt.Fprintf(&b, "trigger: %s\n", c.Trigger)
	for _, a := range c.Trigger.Alerts() {
		fmt.Fprintf(&b, "  %s %s: %.4g, expected %.4g in [%.4g, %.4g]\n", a.Series, a.Kind, a.Value, a.Expected, a.Lower, a.Upper)
	}
	if r := c.Report; r != nil {
		fmt.Fprintf(&b, "cause: %s", c.class())
		if r.Why != "" {
			fmt.Fprintf(&b, ": %s", r.Why)
		}
		b.WriteByte('\n')
		for i, s := range r.Services {
			if i == 3 {
				fmt.Fprintf(&b, "  and %d less likely\n", len(r.Services)-i)
				break
			}
			name := Target{Service: s.Service, Instance: s.Instance}
			fmt.Fprintf(&b, "  %d. %s, confidence %.2f\n", i+1, name, s.Confidence)
			for _, e := range s.Evidence {
				fmt.Fprintf(&b, "     %s\n", e)
			}
		}
		if ch := r.Change; ch != nil {
			fmt.Fprintf(&b, "  change %s %q, confidence %.2f\n", reconcile.ShortRevision(ch.Change.ID), ch.Change.Summary, ch.Confidence)
			for _, e := range ch.Evidence {
				fmt.Fprintf(&b, "     %s\n", e)
			}
		}
	}
	if c.Playbook != nil {
		fmt.Fprintf(&b, "playbook: %s (%s)\n", c.Playbook.Name, c.Playbook.Autonomy)
	} else {
		b.WriteString("playbook: none\n")
	}
	for _, s := range c.Choice {
		fmt.Fprintf(&b, "  %s\n", s)
	}
	for i, at := range c.Attempts {
		what := at.Operation.Summary
		if what == "" {
			what = at.Action.String()
		}
		fmt.Fprintf(&b, "action %d: %s\n  risk %s; before: %s\n", i+1, what, at.Risk, at.Track)
		if ap := at.Approval; ap != nil {
			fmt.Fprintf(&b, "  %s\n", ap)
		}
		switch {
		case at.Outcome == "":
			b.WriteString("  in progress\n")
		case at.Error != "":
			fmt.Fprintf(&b, "  %s: %s\n", at.Outcome, at.Error)
		default:
			fmt.Fprintf(&b, "  %s\n", at.Outcome)
		}
	}
	return b.String()
}

// TrackRecord counts how an action of a playbook did for one class of cause,
// over the whole journal.
type TrackRecord struct {
	// Verified helped, NotVerified did not, Failed could not be done.
	Verified    int `json:"verified"`
	NotVerified int `json:"notVerified"`
	Failed      int `json:"failed"`
}

// String gives "helped 3 of 4 times".
func (t TrackRecord) String() string {
	n := t.Verified + t.NotVerified + t.Failed
	if n == 0 {
		return "never tried"
	}
	return fmt.Sprintf("helped %d of %d times", t.Verified, n)
}

// short prints a duration as people do, to a tenth of a second.
func short(d time.Duration) string {
	switch {
	case d == 0:
		return "0s"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// finite makes numbers that JSON cannot hold 0, in a copy: a journal must
// never refuse a case because a detector was still warming up.
func finite(v *float64) {
	if math.IsNaN(*v) || math.IsInf(*v, 0) {
		*v = 0
	}
}

func storableTrigger(t Trigger) Trigger {
	t.Labels = maps.Clone(t.Labels)
	if t.Incident == nil {
		return t
	}
	inc := *t.Incident
	inc.Alerts = slices.Clone(inc.Alerts)
	for i := range inc.Alerts {
		a := &inc.Alerts[i]
		for _, v := range []*float64{&a.Value, &a.Expected, &a.Lower, &a.Upper, &a.Score} {
			finite(v)
		}
	}
	t.Incident = &inc
	return t
}

func storableReport(r *rootcause.Report) *rootcause.Report {
	if r == nil {
		return nil
	}
	c := *r
	c.Services = slices.Clone(r.Services)
	for i := range c.Services {
		s := &c.Services[i]
		finite(&s.Score)
		finite(&s.Confidence)
		s.Path, s.Evidence = slices.Clone(s.Path), slices.Clone(s.Evidence)
		s.Metrics = slices.Clone(s.Metrics)
		for j := range s.Metrics {
			m := &s.Metrics[j]
			finite(&m.Score)
			finite(&m.Before)
			finite(&m.After)
		}
	}
	c.Changes = slices.Clone(r.Changes)
	for i := range c.Changes {
		finite(&c.Changes[i].Confidence)
	}
	if r.Change != nil {
		ch := *r.Change
		finite(&ch.Confidence)
		c.Change = &ch
	}
	return &c
}
