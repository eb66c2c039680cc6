package remediate

import (
	"fmt"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
)

// engine decides. It has no state of its own, does no I/O and reads no clock:
// step turns a state and an event into records and the effects that are now
// wanted. The caller journals the records before it begins any effect.
type engine struct {
	limits    Limits
	timings   Timings
	playbooks []Playbook
	// tells is false where nobody listens to notices.
	tells bool
}

// event is what happened outside. Exactly one of the pointers is set, or none
// for a tick, which only lets time pass.
type event struct {
	now    time.Time
	handle *handleEvent
	done   *outcome // an effect came to an end
	pause  *Pause
	resume *Pause
}

type handleEvent struct {
	trigger Trigger
	report  *rootcause.Report
}

// effectKind is what the outside is asked to do for a case.
type effectKind string

const (
	doPrepare effectKind = "prepare" // work out the next operation
	doApprove effectKind = "approve" // ask a person
	doAct     effectKind = "act"     // do it, or take it back
	doVerify  effectKind = "verify"  // look whether the trouble is over
	doNotify  effectKind = "notify"  // tell people
)

// effect is one thing that the outside is asked to do. At most one with a
// given key is ever under way.
type effect struct {
	kind    effectKind
	caseID  string
	attempt string // its id; empty for verify before any attempt and notify
	n       int    // the attempt's number
	action  Action
	status  Status // of the case when the effect was asked for
	undo    bool
	tell    DueNotice
	expires time.Time // approve: when the answer is too late; act: zero
	c       Case      // snapshot, taken when the effect begins
}

func (e effect) key() string {
	k := string(e.kind) + " " + e.caseID
	if e.kind == doAct {
		k = string(e.kind) + " " + e.attempt
		if e.undo {
			k += " undo"
		}
	}
	return k
}

// outcome is how an effect ended. Which fields are set depends on its kind.
type outcome struct {
	effect effect
	op     Operation    // prepare
	answer Approval     // approve
	result actionResult // act
	ok     bool         // verify
	why    string       // verify
	// err is why it did not come off. skip says, for a prepare, that there is
	// nothing for the action to do.
	err  error
	skip bool
}

// step folds an event into s and gives the records to journal and the effects
// wanted after it. An error is a defect of the engine or a state that was
// tampered with; s must then not be used any more.
func (e *engine) step(s *state, ev event) ([]Record, []effect, error) {
	x := &stepper{engine: e, s: s, now: ev.now}
	if s.now.After(x.now) {
		// A clock that was set back must not reopen budgets.
		x.now = s.now
	}
	switch {
	case ev.handle != nil:
		x.handle(ev.handle)
	case ev.done != nil:
		x.done(ev.done)
	case ev.pause != nil:
		x.emit(Record{Kind: Paused, Scope: ev.pause.Scope, By: ev.pause.By, Why: ev.pause.Why})
	case ev.resume != nil:
		if _, ok := s.pauses[ev.resume.Scope]; ok {
			x.emit(Record{Kind: Resumed, Scope: ev.resume.Scope, By: ev.resume.By, Why: ev.resume.Why})
		}
	}
	// The list of live cases shrinks while they are advanced.
	for _, id := range append([]string(nil), s.live...) {
		x.advance(s.cases[id])
	}
	var wanted []effect
	for _, id := range s.live {
		wanted = e.wants(s, s.cases[id], x.now, wanted)
	}
	return x.records, wanted, x.err
}

// stepper is one step under way.
type stepper struct {
	*engine
	s       *state
	now     time.Time
	records []Record
	err     error
}

func (x *stepper) emit(r Record) {
	if x.err != nil {
		return
	}
	r.Time = x.now
	r.Why = clip(r.Why)
	if !x.tells {
		r.Tell = ""
	}
	if x.err = x.s.apply(r); x.err == nil {
		x.records = append(x.records, r)
	}
}

func (x *stepper) handle(h *handleEvent) {
	id := h.trigger.caseID()
	r := Record{Kind: CaseOpened, Case: id, Trigger: &h.trigger, Report: h.report}
	probe := &Case{Trigger: h.trigger, Report: h.report}
	if c := x.s.cases[id]; c != nil {
		more, ok := c.joined(h.trigger, c.Status == Resolved)
		switch {
		case !ok || c.Status.Final() && c.Status != Resolved:
			return
		case c.Status != Resolved:
			x.emit(Record{Kind: CaseGrew, Case: id, Trigger: &more})
			return
		}
		r.Kind, r.Trigger = CaseReopened, &more
		probe.Trigger.Labels = c.Trigger.Labels
		if probe.Report == nil {
			probe.Report = c.Report
		}
	}
	probe.Service = serviceOf(probe.Trigger, probe.Report)
	r.Playbook, r.Choice = x.choose(probe)
	if h.report != nil {
		r.Why = h.report.Why
	}
	x.emit(r)
}

// choose gives the first playbook that matches, nil for none, and why.
func (x *stepper) choose(probe *Case) (chosen *Playbook, choice []string) {
	for _, p := range x.playbooks {
		why := p.Match.why(probe)
		if why == "" {
			choice = append(choice, fmt.Sprintf("%s: chosen, the first that matches", p.Name))
			chosen = &p
			break
		}
		choice = append(choice, fmt.Sprintf("%s: no, %s", p.Name, why))
	}
	return chosen, choice
}

// done takes in how an effect ended, unless the case has moved on since.
func (x *stepper) done(o *outcome) {
	c := x.s.cases[o.effect.caseID]
	if c == nil {
		return
	}
	at := c.attempt()
	current := at != nil && at.ID == o.effect.attempt
	switch o.effect.kind {
	case doPrepare:
		if c.Status == Open && (current || at == nil) && o.effect.n == c.planning() {
			x.prepared(c, o)
		}
	case doApprove:
		if c.Status == AwaitingApproval && current && o.err == nil {
			x.answered(c, at, o.answer)
		}
	case doAct:
		if current && (c.Status == Acting && !o.effect.undo || c.Status == Undoing && o.effect.undo) {
			x.acted(c, at, o)
		}
	case doVerify:
		if c.Status == o.effect.status && (current || at == nil && o.effect.attempt == "") {
			x.verified(c, o)
		}
	case doNotify:
		if o.err == nil && slices.Contains(c.Untold, o.effect.tell) {
			x.emit(Record{Kind: NoticeSent, Case: c.ID, Notice: o.effect.tell.ID})
		}
	}
}

// planning is the number of the attempt to plan, 0 for none.
func (c *Case) planning() int {
	_, n, _ := c.next()
	return n
}

func (x *stepper) prepared(c *Case, o *outcome) {
	id := attemptID(c.ID, o.effect.n)
	if o.err != nil {
		if o.skip || x.now.Sub(c.Since) >= x.timings.GuardWithin {
			x.emit(Record{Kind: ActionSkipped, Case: c.ID, Action: id, Why: o.err.Error()})
		}
		return
	}
	if at := c.attempt(); at == nil || at.Operation.Digest != o.op.Digest {
		if at != nil && at.Approval != nil {
			x.emit(Record{Kind: ApprovalVoided, Case: c.ID, Action: id,
				Why: "what would be done is no longer what was approved: " + o.op.Summary})
		}
		x.emit(Record{Kind: ActionPlanned, Case: c.ID, Action: id, Operation: &o.op})
	}
	if x.err != nil {
		return
	}
	at := c.attempt()
	if at.Approval != nil && x.now.Sub(at.Approval.Time) > x.timings.ApprovalWithin {
		x.emit(Record{Kind: ApprovalVoided, Case: c.ID, Action: id, Why: "it is older than " + short(x.timings.ApprovalWithin)})
	}
	if c.Playbook.Autonomy == Observe {
		x.emit(Record{Kind: CaseObserved, Case: c.ID, Action: id, Why: "the playbook may only observe"})
		return
	}
	if r := x.limits.guard(x.s, o.op.touches(), c.reserved, x.now); r != nil {
		if r.Guard == GuardTarget {
			x.emit(Record{Kind: ActionSkipped, Case: c.ID, Action: id, Why: r.String()})
			return
		}
		x.emit(Record{Kind: ActionHeld, Case: c.ID, Action: id, Refusal: r})
		return
	}
	if c.Playbook.Autonomy == ActWithApproval && at.Approval == nil {
		x.emit(Record{Kind: ApprovalAsked, Case: c.ID, Action: id, Until: x.now.Add(x.timings.ApprovalWithin)})
		return
	}
	x.emit(Record{Kind: ActionIntended, Case: c.ID, Action: id, Operation: &o.op})
}

func (x *stepper) answered(c *Case, at *Attempt, a Approval) {
	a.Time, a.By, a.Reason = x.now, clip(a.By), clip(a.Reason)
	switch a.Answer {
	case Approved:
		if a.Digest != at.Operation.Digest {
			// Not an answer to this question; the question stays open.
			return
		}
	case NotApproved, Expired:
		a.Digest = at.Operation.Digest
	default:
		return
	}
	x.emit(Record{Kind: ApprovalAnswered, Case: c.ID, Action: at.ID, Approval: &a})
}

func (x *stepper) acted(c *Case, at *Attempt, o *outcome) {
	if o.err == nil && o.result.undone {
		x.emit(Record{Kind: ActionReopened, Case: c.ID, Action: at.ID, Why: "it was interrupted, and what it was decided on may have changed"})
		return
	}
	if o.err == nil {
		r := Record{Kind: ActionDone, Case: c.ID, Action: at.ID}
		if o.effect.undo {
			r.Kind = UndoDone
		} else {
			r.Until = x.now.Add(c.Playbook.Verify.Within)
			if c.Playbook.Autonomy == ActAndTell && !o.result.already {
				r.Tell = NoticeActed
			}
		}
		if o.result.commit.Revision != "" {
			commit := storableCommit(o.result.commit)
			r.Commit = &commit
		}
		switch {
		case o.result.found:
			r.Why = "it had been done before a restart or a lost answer"
		case o.result.already:
			r.Why = "it was so already: nothing had to change"
		}
		x.emit(r)
		return
	}
	why := o.err.Error()
	_, paused := x.s.pausedBy(at.Operation.touches())
	if !o.result.final && (at.Tries+1 < x.timings.EffectTries || o.result.unknown && paused) {
		kind := ActionRetried
		if o.effect.undo {
			kind = UndoRetried
		}
		wait := x.timings.RetryAfter << min(at.Tries, 10)
		x.emit(Record{Kind: kind, Case: c.ID, Action: at.ID, Why: why, Until: x.now.Add(wait)})
		return
	}
	switch {
	case o.effect.undo:
		x.escalate(c, "it could not be taken back: "+why)
	case o.result.unknown:
		x.escalate(c, "whether it was done is not known: "+why)
	default:
		x.emit(Record{Kind: ActionFailed, Case: c.ID, Action: at.ID, Why: why})
	}
}

func (x *stepper) verified(c *Case, o *outcome) {
	switch {
	case o.ok && o.err == nil && c.Recovered.IsZero():
		x.emit(Record{Kind: TroubleOver, Case: c.ID, Why: o.why})
	case (!o.ok || o.err != nil) && !c.Recovered.IsZero():
		why := o.why
		if o.err != nil {
			why = o.err.Error()
		}
		x.emit(Record{Kind: TroubleBack, Case: c.ID, Why: why})
	}
}

func (x *stepper) escalate(c *Case, why string) {
	id := ""
	if at := c.attempt(); at != nil {
		id = at.ID
	}
	x.emit(Record{Kind: CaseEscalated, Case: c.ID, Action: id, Why: why, Tell: NoticeEscalated})
}

// advance makes every decision about a case that needs only the state and
// the time.
func (x *stepper) advance(c *Case) {
	for range 8 { // each round makes at least one decision; chains are short
		n := len(x.records)
		x.advanceOnce(c)
		if len(x.records) == n || x.err != nil {
			return
		}
	}
}

func (x *stepper) advanceOnce(c *Case) {
	at := c.attempt()
	hold := time.Duration(0)
	if c.Playbook != nil {
		hold = c.Playbook.Verify.Hold
	}
	over := !c.Recovered.IsZero() && x.now.Sub(c.Recovered) >= hold
	switch c.Status {
	case Open:
		a, _, ok := c.next()
		switch {
		case c.Playbook == nil:
			x.escalate(c, "no playbook matches")
		case !ok:
			x.escalate(c, "no action is left to try")
		case at != nil && at.Approval != nil && at.Approval.Answer == NotApproved:
			x.emit(Record{Kind: CaseDenied, Case: c.ID, Action: at.ID, Why: at.Approval.String()})
		case at != nil && at.Approval != nil && at.Approval.Answer == Expired:
			x.escalate(c, "nobody answered the request for approval")
		case a.Type == Escalate:
			why := "the playbook says so"
			if c.Report != nil && c.Report.Why != "" {
				why = c.Report.Why
			}
			x.escalate(c, why)
		case at == nil && x.limits.MaxAttempts >= 0 && c.begun() >= x.limits.MaxAttempts:
			x.escalate(c, fmt.Sprintf("%d of at most %d actions were tried", c.begun(), x.limits.MaxAttempts))
		}
	case Held:
		if over {
			x.emit(Record{Kind: CaseResolved, Case: c.ID, Why: "the trouble went away by itself"})
			return
		}
		r := x.limits.guard(x.s, at.Operation.touches(), nil, x.now)
		switch {
		case r == nil:
			x.emit(Record{Kind: ActionReleased, Case: c.ID, Action: at.ID})
		case r.Guard != GuardPause && c.Held.Guard != GuardPause && x.now.Sub(c.heldSince) >= x.timings.GuardWithin:
			x.escalate(c, fmt.Sprintf("held for %s by %s", short(x.now.Sub(c.heldSince)), r))
		case r.Guard != c.Held.Guard:
			x.emit(Record{Kind: ActionHeld, Case: c.ID, Action: at.ID, Refusal: r})
		}
	case AwaitingApproval:
		if over {
			x.emit(Record{Kind: CaseResolved, Case: c.ID, Why: "the trouble went away by itself"})
			return
		}
		if !x.now.Before(c.Deadline) {
			x.emit(Record{Kind: ApprovalAnswered, Case: c.ID, Action: at.ID,
				Approval: &Approval{Answer: Expired, Digest: at.Operation.Digest, Time: x.now}})
		}
	case Verifying:
		switch {
		case over:
			x.emit(Record{Kind: ActionVerified, Case: c.ID, Action: at.ID, Why: "the trouble stayed away for " + short(hold)})
		case c.Recovered.IsZero() && !x.now.Before(c.Deadline):
			why := fmt.Sprintf("still unusual %s after it was done", short(x.now.Sub(at.Done)))
			if at.Action.Undo && at.Commit.Revision != "" {
				x.emit(Record{Kind: UndoIntended, Case: c.ID, Action: at.ID, Why: why})
				return
			}
			x.emit(Record{Kind: ActionNoEffect, Case: c.ID, Action: at.ID, Why: why})
		}
	case Acting, Undoing, Resolved, Escalated, Denied, Observed:
	}
}

// wants appends the effects that a case wants now. They follow from the state
// alone, so that after a restart the same ones are wanted again.
func (e *engine) wants(s *state, c *Case, now time.Time, to []effect) []effect {
	base := effect{caseID: c.ID, status: c.Status}
	if at := c.attempt(); at != nil {
		base.attempt, base.action, base.n = at.ID, at.Action, len(c.Attempts)
	}
	add := func(k effectKind, set func(*effect)) {
		x := base
		x.kind = k
		if set != nil {
			set(&x)
		}
		to = append(to, x)
	}
	switch c.Status {
	case Open:
		if a, n, ok := c.next(); ok && c.Playbook != nil {
			add(doPrepare, func(x *effect) { x.action, x.n, x.attempt = a, n, attemptID(c.ID, n) })
		}
	case Held:
		add(doVerify, nil)
	case AwaitingApproval:
		add(doApprove, func(x *effect) { x.expires = c.Deadline })
		add(doVerify, nil)
	case Acting:
		// Under a pause only the probe is asked, see driver.begin.
		if !now.Before(c.Deadline) {
			add(doAct, nil)
		}
	case Undoing:
		if _, paused := s.pausedBy(c.attempt().Operation.touches()); !paused && !now.Before(c.Deadline) {
			add(doAct, func(x *effect) { x.undo = true })
		}
	case Verifying:
		add(doVerify, nil)
	case Resolved, Escalated, Denied, Observed:
	}
	if len(c.Untold) > 0 {
		// One after the other, so that they arrive in order.
		add(doNotify, func(x *effect) { x.tell, x.attempt = c.Untold[0], "" })
	}
	return to
}

// wake is when a case next needs a decision by time alone; zero, or a time
// that is not after now, for never.
func (e *engine) wake(s *state, c *Case, now time.Time) time.Time {
	var at time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	hold := time.Duration(0)
	if c.Playbook != nil {
		hold = c.Playbook.Verify.Hold
	}
	switch c.Status {
	case Held:
		// Asked anew: while it was held, others may have moved the time.
		if r := e.limits.guard(s, c.attempt().Operation.touches(), nil, now); r != nil {
			sooner(r.Until)
		}
		if c.Held.Guard != GuardPause {
			sooner(c.heldSince.Add(e.timings.GuardWithin))
		}
	case AwaitingApproval:
		sooner(c.Deadline)
	case Verifying:
		if c.Recovered.IsZero() {
			sooner(c.Deadline)
		}
	case Acting, Undoing:
		sooner(c.Deadline)
	case Open, Resolved, Escalated, Denied, Observed:
	}
	if !c.Recovered.IsZero() && !c.Status.Final() {
		sooner(c.Recovered.Add(hold))
	}
	return at
}
