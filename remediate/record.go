package remediate

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

// RecordKind is what a [Record] tells.
type RecordKind string

// The record kinds, in the order in which a case may see them. The state of a
// [Manager] is a fold over its records and of nothing else.
const (
	CaseOpened RecordKind = "CaseOpened"
	// CaseGrew brings the alerts that joined the incident.
	CaseGrew RecordKind = "CaseGrew"
	// CaseReopened: a resolved incident is back; the playbook begins anew.
	CaseReopened  RecordKind = "CaseReopened"
	ActionPlanned RecordKind = "ActionPlanned"
	ActionSkipped RecordKind = "ActionSkipped"
	ActionHeld    RecordKind = "ActionHeld"
	// ActionReleased: the guard opened; the action is worked out again.
	ActionReleased   RecordKind = "ActionReleased"
	ApprovalAsked    RecordKind = "ApprovalAsked"
	ApprovalAnswered RecordKind = "ApprovalAnswered"
	// ApprovalVoided: what was approved is no longer what would be done.
	ApprovalVoided RecordKind = "ApprovalVoided"
	// ActionIntended stands in the journal before the effect is begun.
	ActionIntended RecordKind = "ActionIntended"
	// ActionReopened: an intent was interrupted and the probe says that it was
	// not done; it counts no more and is worked out anew.
	ActionReopened RecordKind = "ActionReopened"
	ActionRetried  RecordKind = "ActionRetried"
	ActionDone     RecordKind = "ActionDone"
	ActionFailed   RecordKind = "ActionFailed"
	TroubleOver    RecordKind = "TroubleOver"
	TroubleBack    RecordKind = "TroubleBack"
	ActionVerified RecordKind = "ActionVerified"
	ActionNoEffect RecordKind = "ActionNoEffect"
	UndoIntended   RecordKind = "UndoIntended"
	UndoRetried    RecordKind = "UndoRetried"
	UndoDone       RecordKind = "UndoDone"
	CaseResolved   RecordKind = "CaseResolved"
	CaseEscalated  RecordKind = "CaseEscalated"
	CaseDenied     RecordKind = "CaseDenied"
	CaseObserved   RecordKind = "CaseObserved"
	NoticeSent     RecordKind = "NoticeSent"
	Paused         RecordKind = "Paused"
	Resumed        RecordKind = "Resumed"
)

// Record is one fact of the journal. Which fields are set depends on Kind.
type Record struct {
	// Seq counts from 1 without gaps; the journal sets it.
	Seq  uint64     `json:"seq"`
	Time time.Time  `json:"time"`
	Kind RecordKind `json:"kind"`
	// Case is the case's id, Action the attempt's; empty for Paused, Resumed.
	Case   string `json:"case,omitempty"`
	Action string `json:"action,omitempty"`
	// Why is one line for a person.
	Why string `json:"why,omitempty"`

	Trigger   *Trigger          `json:"trigger,omitempty"`
	Report    *rootcause.Report `json:"report,omitempty"`
	Playbook  *Playbook         `json:"playbook,omitempty"`
	Choice    []string          `json:"choice,omitempty"`
	Operation *Operation        `json:"operation,omitempty"`
	Approval  *Approval         `json:"approval,omitempty"`
	Commit    *reconcile.Commit `json:"commit,omitempty"`
	Refusal   *Refusal          `json:"refusal,omitempty"`
	// Until is the new deadline.
	Until time.Time `json:"until,omitzero"`
	// Tell is the notice that is now due; Notice the id of the one that was
	// sent.
	Tell   NoticeKind `json:"tell,omitempty"`
	Notice string     `json:"notice,omitempty"`
	// Scope and By belong to Paused and Resumed.
	Scope string `json:"scope,omitempty"`
	By    string `json:"by,omitempty"`
}

// UnmarshalJSON reads a record such that field values keep the types of a
// manifest: whole numbers come back as int64.
func (r *Record) UnmarshalJSON(b []byte) error { return r.decode(b) }

// decode is UnmarshalJSON without the scan that encoding/json makes before it
// calls one: recovery reads many records.
func (r *Record) decode(b []byte) error {
	type plain Record
	if err := json.Unmarshal(b, (*plain)(r)); err != nil {
		return err
	}
	var err error
	fix := func(v *any) {
		if *v == nil || err != nil {
			return
		}
		*v, err = scalar(*v)
	}
	if r.Operation != nil {
		if r.Operation.Edit != nil {
			fix(&r.Operation.Edit.Value)
			fix(&r.Operation.Edit.Expect)
		}
		if _, e := scalar(r.Operation.From); e == nil {
			fix(&r.Operation.From)
		}
	}
	if r.Playbook != nil {
		for i := range r.Playbook.Actions {
			fix(&r.Playbook.Actions[i].Value)
		}
	}
	return err
}

// Pause is one scope in which nothing new is begun.
type Pause struct {
	// Scope is a service, a resource's key, or [Everything]; what
	// [Operation.Touches] names can be paused.
	Scope string    `json:"scope"`
	By    string    `json:"by"`
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
}

// Everything is the scope of a pause that holds every target. It has to be
// said: an empty scope is an error.
const Everything = "*"

// start is one begun action, for the guards.
type start struct {
	at      time.Time
	targets []string
	attempt string
}

type trackKey struct {
	playbook, action string
	class            rootcause.Class
}

// state is the fold over the records.
type state struct {
	now    time.Time // of the newest record
	cases  map[string]*Case
	order  []string // all case ids, in opening order
	live   []string // ids of the cases that still want something, same order
	pauses map[string]Pause

	starts   []start        // in time order, at most historyKept old
	failures map[string]int // per target: actions since the last that helped
	last     map[string]time.Time
	inFlight map[string]int
	flying   int
	track    map[trackKey]TrackRecord
}

// historyKept bounds what the guards can look back on.
const historyKept = 7 * 24 * time.Hour

func newState() *state {
	return &state{
		cases: map[string]*Case{}, pauses: map[string]Pause{},
		failures: map[string]int{}, last: map[string]time.Time{}, inFlight: map[string]int{},
		track: map[trackKey]TrackRecord{},
	}
}

func (s *state) trackOf(c *Case, a Action) TrackRecord {
	return s.track[trackKeyOf(c, a)]
}

func trackKeyOf(c *Case, a Action) trackKey {
	k := trackKey{action: a.String(), class: c.class()}
	if c.Playbook != nil {
		k.playbook = c.Playbook.Name
	}
	return k
}

func (s *state) count(c *Case, a Action, add TrackRecord) {
	k := trackKeyOf(c, a)
	t := s.track[k]
	t.Verified += add.Verified
	t.NotVerified += add.NotVerified
	t.Failed += add.Failed
	s.track[k] = t
}

// apply folds one record into the state. It reports a record that does not
// fit the state before it, and then leaves the state as it was.
func (s *state) apply(r Record) error {
	misfit := func(why string) error {
		return fmt.Errorf("record %d, %s of case %q: %s: %w", r.Seq, r.Kind, r.Case, why, ErrCorrupt)
	}
	if r.Time.After(s.now) {
		s.now = r.Time
	}
	switch r.Kind {
	case Paused:
		s.pauses[r.Scope] = Pause{Scope: r.Scope, By: r.By, Why: r.Why, Since: r.Time}
		return nil
	case Resumed:
		delete(s.pauses, r.Scope)
		return nil
	case CaseOpened:
		if s.cases[r.Case] != nil || r.Trigger == nil {
			return misfit("opened twice or without a trigger")
		}
		c := &Case{
			ID: r.Case, Trigger: *r.Trigger, Report: r.Report, Service: serviceOf(*r.Trigger, r.Report),
			Playbook: r.Playbook, Choice: r.Choice, Status: Open, Opened: r.Time, Since: r.Time,
		}
		c.note(r)
		s.cases[r.Case] = c
		s.order = append(s.order, r.Case)
		s.live = append(s.live, r.Case)
		return nil
	}

	c := s.cases[r.Case]
	if c == nil {
		return misfit("no such case")
	}
	at := c.attempt()
	switch r.Kind {
	case CaseGrew:
		if r.Trigger == nil {
			return misfit("no trigger")
		}
		c.join(*r.Trigger)
	case CaseReopened:
		if r.Trigger == nil || c.Status != Resolved || at != nil {
			return misfit("no trigger, or it is not resolved")
		}
		c.join(*r.Trigger)
		if r.Report != nil {
			c.Report = r.Report
		}
		c.Service = serviceOf(c.Trigger, c.Report)
		c.Playbook, c.Choice = r.Playbook, r.Choice
		c.base = len(c.Attempts)
		c.Reopened = r.Time
		c.Returns++
		s.to(c, Open, r)
		if !slices.Contains(s.live, c.ID) {
			s.live = append(s.live, c.ID)
		}
	case ActionPlanned, ActionSkipped:
		a, n, ok := c.next()
		if !ok {
			return misfit("no action left")
		}
		if at == nil {
			c.Attempts = append(c.Attempts, Attempt{
				ID: attemptID(c.ID, n), Action: a, Risk: a.risk(), Planned: r.Time, Track: s.trackOf(c, a),
			})
			at = c.attempt()
		}
		if r.Kind == ActionSkipped {
			at.end(r, Skipped)
			s.to(c, Open, r)
			break
		}
		if r.Operation == nil {
			return misfit("no operation")
		}
		at.Operation = *r.Operation
	case NoticeSent:
		// A journal of an earlier version does not say which, and had only one.
		c.Untold = slices.DeleteFunc(slices.Clone(c.Untold), func(n DueNotice) bool { return r.Notice == "" || n.ID == r.Notice })
	case CaseResolved:
		if at != nil {
			at.end(r, NotNeeded)
			at.Error = ""
		}
		s.to(c, Resolved, r)
	case CaseEscalated:
		if at != nil {
			switch {
			case at.Started.IsZero():
				at.end(r, Refused)
			case at.Done.IsZero():
				s.count(c, at.Action, TrackRecord{Failed: 1})
				at.end(r, Failed)
			default:
				s.count(c, at.Action, TrackRecord{NotVerified: 1})
				at.end(r, NotVerified)
			}
		}
		s.to(c, Escalated, r)
	case TroubleOver:
		c.Recovered = r.Time
	case TroubleBack:
		c.Recovered = time.Time{}
	default:
		if at == nil {
			return misfit("no attempt goes on")
		}
		if err := s.applyAttempt(c, at, r, misfit); err != nil {
			return err
		}
	}
	if r.Tell != "" {
		c.Untold = append(c.Untold, DueNotice{ID: c.noticeID(r), Kind: r.Tell})
	}
	c.note(r)
	if c.Status.Final() && len(c.Untold) == 0 {
		s.live = slices.DeleteFunc(s.live, func(id string) bool { return id == c.ID })
	}
	return nil
}

func (s *state) applyAttempt(c *Case, at *Attempt, r Record, misfit func(string) error) error {
	targets := at.Operation.touches()
	switch r.Kind {
	case ActionHeld:
		if r.Refusal == nil {
			return misfit("no refusal")
		}
		if c.heldSince.IsZero() || (c.Held != nil && c.Held.Guard == GuardPause) {
			c.heldSince = r.Time
		}
		s.to(c, Held, r)
		c.Held = r.Refusal
	case ActionReleased:
		if c.Held != nil && c.Held.Guard == GuardPause {
			c.heldSince = time.Time{}
		}
		s.to(c, Open, r)
		c.reserved = targets
		s.fly(targets, 1)
	case ApprovalAsked:
		at.Approval = nil
		s.to(c, AwaitingApproval, r)
	case ApprovalAnswered:
		if r.Approval == nil {
			return misfit("no approval")
		}
		at.Approval = r.Approval
		s.to(c, Open, r)
	case ApprovalVoided:
		at.Approval = nil
		s.to(c, Open, r)
	case ActionIntended:
		if r.Operation == nil || r.Operation.touches() == nil {
			return misfit("no operation or target")
		}
		at.Operation = *r.Operation
		at.Started = r.Time
		c.heldSince = time.Time{}
		s.begin(r.Time, at.Operation.touches(), at.ID)
		s.to(c, Acting, r)
	case ActionReopened:
		if c.Status != Acting {
			return misfit("it is not under way")
		}
		s.unbegin(at)
		at.Started = time.Time{}
		s.to(c, Open, r)
	case ActionRetried, UndoRetried:
		at.Tries++
		c.Deadline = r.Until
	case ActionDone:
		at.Done = r.Time
		at.Tries = 0
		if r.Commit != nil {
			at.Commit = *r.Commit
		}
		s.to(c, Verifying, r)
	case ActionFailed:
		s.count(c, at.Action, TrackRecord{Failed: 1})
		at.end(r, Failed)
		s.to(c, Open, r)
	case ActionVerified:
		s.count(c, at.Action, TrackRecord{Verified: 1})
		for _, t := range targets {
			delete(s.failures, t)
		}
		at.end(r, Verified)
		s.to(c, Resolved, r)
	case ActionNoEffect:
		s.count(c, at.Action, TrackRecord{NotVerified: 1})
		at.end(r, NotVerified)
		s.to(c, Open, r)
	case UndoIntended:
		at.Tries = 0
		at.Error = r.Why
		s.to(c, Undoing, r)
	case UndoDone:
		s.count(c, at.Action, TrackRecord{NotVerified: 1})
		why := at.Error
		at.end(r, NotVerified)
		at.Error = why
		at.Undone = r.Time
		if r.Commit != nil {
			at.Undo = *r.Commit
		}
		s.to(c, Open, r)
	case CaseDenied:
		at.end(r, Refused)
		s.to(c, Denied, r)
	case CaseObserved:
		at.end(r, Refused)
		s.to(c, Observed, r)
	default:
		return misfit("the kind is not known; was it written by a newer version?")
	}
	return nil
}

// to moves a case to a status and keeps the in-flight counts.
func (s *state) to(c *Case, st Status, r Record) {
	if c.reserved != nil {
		s.fly(c.reserved, -1)
		c.reserved = nil
	}
	if n := len(c.Attempts); n > 0 && c.Status.inFlight() != st.inFlight() {
		d := 1
		if c.Status.inFlight() {
			d = -1
		}
		s.fly(c.Attempts[n-1].Operation.touches(), d)
	}
	c.to(st, r)
}

func (s *state) fly(targets []string, d int) {
	s.flying += d
	for _, t := range targets {
		if s.inFlight[t] += d; s.inFlight[t] == 0 {
			delete(s.inFlight, t)
		}
	}
}

func (c *Case) to(st Status, r Record) {
	c.Status, c.Since, c.Deadline, c.Held = st, r.Time, r.Until, nil
	if st != Held && st != AwaitingApproval {
		c.Recovered = time.Time{}
	}
	if st == Open && c.attempt() == nil {
		c.heldSince = time.Time{}
	}
}

// begin counts an action for the guards.
func (s *state) begin(at time.Time, targets []string, attempt string) {
	s.starts = append(s.starts, start{at, targets, attempt})
	if old := at.Add(-historyKept); s.starts[0].at.Before(old) {
		s.starts = slices.DeleteFunc(s.starts, func(x start) bool { return x.at.Before(old) })
	}
	for _, t := range targets {
		s.last[t] = at
		s.failures[t]++
	}
}

// unbegin takes back what begin counted, for an action that was not done.
func (s *state) unbegin(at *Attempt) {
	s.starts = slices.DeleteFunc(s.starts, func(x start) bool { return x.attempt == at.ID && x.at.Equal(at.Started) })
	for _, t := range at.Operation.touches() {
		// An action on the target that helped meanwhile has cleared the count.
		if s.failures[t]--; s.failures[t] <= 0 {
			delete(s.failures, t)
		}
		if !s.last[t].Equal(at.Started) {
			continue
		}
		delete(s.last, t)
		for _, x := range s.starts {
			if slices.Contains(x.targets, t) {
				s.last[t] = x.at
			}
		}
	}
}

func (at *Attempt) end(r Record, o Outcome) {
	at.Ended, at.Outcome, at.Error = r.Time, o, r.Why
}

// noticeID names the notice that a record makes due, differently from every
// other of the case: each attempt tells of each thing once.
func (c *Case) noticeID(r Record) string {
	id := r.Action
	if id == "" {
		id = c.ID
		if c.Returns > 0 {
			id += fmt.Sprintf("#%d", c.Returns)
		}
	}
	return id + "/" + string(r.Tell)
}

func attemptID(caseID string, n int) string { return fmt.Sprintf("%s.%d", caseID, n) }

// note adds the record's line to the timeline.
func (c *Case) note(r Record) {
	e := Entry{Time: r.Time, Why: clean(r.Why)}
	var at Attempt
	if n := len(c.Attempts); n > 0 {
		at = c.Attempts[n-1]
	}
	what := at.Operation.Summary
	if what == "" {
		what = at.Action.String()
	}
	switch r.Kind {
	case CaseOpened:
		e.What = "opened: " + c.Trigger.String()
		if c.Playbook != nil {
			e.What += "; playbook " + c.Playbook.Name
		}
	case CaseGrew:
		e.What = fmt.Sprintf("now %d alerts", len(c.Trigger.Alerts()))
	case CaseReopened:
		e.What = "opened again: " + r.Trigger.String()
		if c.Playbook != nil {
			e.What += "; playbook " + c.Playbook.Name
		}
	case ActionPlanned:
		e.What = fmt.Sprintf("planned: %s (risk %s, %s)", what, at.Risk, at.Track)
	case ActionSkipped:
		e.What = "skipped: " + what
	case ActionHeld:
		e.What = fmt.Sprintf("held by guard %s: %s", c.Held.Guard, what)
		e.Why = clean(c.Held.Reason)
	case ActionReleased:
		e.What = "guard opened: " + what
	case ApprovalAsked:
		e.What = "asked for approval: " + what
	case ApprovalAnswered:
		e.What = strings.TrimSuffix(Approval{Answer: r.Approval.Answer, By: r.Approval.By}.String(), ": ")
		e.Why = clean(r.Approval.Reason)
	case ApprovalVoided:
		e.What = "approval is void: " + what
	case ActionIntended:
		e.What = "began: " + what
	case ActionReopened:
		e.What = "not begun, worked out anew: " + what
	case ActionRetried, UndoRetried:
		e.What = fmt.Sprintf("failed, try %d follows in %s", at.Tries+1, short(r.Until.Sub(r.Time)))
	case ActionDone:
		e.What = "done: " + what
		if at.Commit.Revision != "" {
			e.What += ", commit " + reconcile.ShortRevision(at.Commit.Revision)
		}
	case ActionFailed:
		e.What = "failed: " + what
	case TroubleOver:
		e.What = "back to normal"
	case TroubleBack:
		e.What = "unusual again"
	case ActionVerified:
		e.What = "verified: " + what
	case ActionNoEffect:
		e.What = "did not help: " + what
	case UndoIntended:
		e.What = "did not help, taking it back: " + what
	case UndoDone:
		e.What = "taken back: " + what
		if at.Undo.Revision != "" {
			e.What += ", commit " + reconcile.ShortRevision(at.Undo.Revision)
		}
	case CaseResolved:
		e.What = "resolved without an action"
	case CaseEscalated:
		e.What = "escalated"
	case CaseDenied:
		e.What = "ended: a person said no"
	case CaseObserved:
		e.What = "only observed, would have done: " + what
	case NoticeSent:
		e.What = "people were told"
		if r.Notice != "" {
			e.What += ": " + r.Notice
		}
	case Paused, Resumed:
		return
	}
	e.What = clean(e.What)
	c.Timeline = append(c.Timeline, e)
}
