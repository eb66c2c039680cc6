package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/gitsource"
	"github.com/evenkeel-go/evenkeel/remediate"
	"github.com/evenkeel-go/evenkeel/security"
)

// drain handles what reconciler and manager have told.
func (a *autopilot) drain(ctx context.Context) {
	for _, v := range a.mail.take() {
		switch e := v.(type) {
		case reconcile.Event:
			a.reconciled(ctx, e)
		case remediate.Event:
			a.remediated(e)
		}
	}
}

func (a *autopilot) reconciled(ctx context.Context, e reconcile.Event) {
	switch e.Kind {
	case reconcile.RevisionSeen:
		a.tellRevision(ctx, e.Revision)
	case reconcile.Planned:
		a.planned(ctx, e.Plan)
	case reconcile.ApplyFailed:
		// A conflict, and what a newer revision overtook, is planned anew.
		if !errors.Is(e.Err, reconcile.ErrConflict) && !errors.Is(e.Err, reconcile.ErrStale) && ctx.Err() == nil {
			a.tl.say(wordError, nil, "%s: %v", e.Change.Key, e.Err)
		}
	case reconcile.Synced:
		a.mu.Lock()
		a.synced = e.Revision
		clear(a.held)
		a.mu.Unlock()
	case reconcile.CycleFailed:
		a.tl.say(wordError, strings.Split(e.Error, "\n"), "round failed")
	case reconcile.Applied, reconcile.HealthChanged:
	}
}

// tellRevision tells of a commit that somebody pushed; what automation wrote
// was told when it did.
func (a *autopilot) tellRevision(ctx context.Context, revision string) {
	log, err := a.repo.Log(ctx, gitsource.LogOptions{Limit: 20})
	if err != nil {
		return // the next round fails too, and tells
	}
	for _, c := range log {
		if c.Revision == revision && c.Trailer(reconcile.TrailerAction) == "" {
			a.tl.say(wordSync, nil, "commit %s %q by %s", reconcile.ShortRevision(c.Revision), c.Subject(), c.Author)
		}
	}
}

func (a *autopilot) planned(ctx context.Context, p *reconcile.Plan) {
	creates := 0
	for c := range p.Changes() {
		switch {
		case c.Cause == reconcile.DriftDetected && c.Action == reconcile.Update:
			var why []string
			for _, f := range c.Fields {
				why = append(why, f.String())
			}
			a.tl.say(wordDrift, why, "%s is not as declared; putting it right", c.Key)
		case c.Cause == reconcile.DriftDetected:
			a.tl.say(wordDrift, nil, "%s is gone; creating it again", c.Key)
		case c.Action == reconcile.Create:
			creates++
		}
	}
	if creates > 0 {
		a.tl.say(wordSync, nil, "plan %s creates %d resources in %d waves", reconcile.ShortRevision(strings.TrimPrefix(p.Digest(), "sha256:")), creates, len(p.Waves))
	}
	a.mu.Lock()
	clear(a.held)
	for _, h := range p.Held {
		a.held[h.Change.Key] = h
		a.refusals[p.Revision+" "+h.Change.Key.String()] = true
	}
	a.mu.Unlock()
	for _, h := range p.Held {
		if h.By == security.GateName {
			a.refused[h.Change.Key] = h
		}
		var why []string
		for _, v := range p.Verdicts {
			for _, o := range v.Objections {
				if o.Key == h.Change.Key && o.Decision == reconcile.Deny {
					at := o.Origin
					at.Revision = "" // where it was read, not who asked for it
					why = append(why, fmt.Sprintf("%s: %s: %s", at, o.Rule, o.Message))
				}
			}
		}
		if len(why) == 0 {
			why = []string{h.Reason}
		}
		told := h.Change.Key.String() + strings.Join(why, "")
		if !a.told[told] {
			a.told[told] = true
			a.tl.say(wordPolicy, why, "%s of %s refused by %s; it stays as last accepted", h.Change.Action, h.Change.Key, h.By)
		}
	}
	a.propose(ctx)
}

func (a *autopilot) remediated(e remediate.Event) {
	c, r := e.Case, e.Record
	_, wall := a.clock.now()
	a.mu.Lock()
	if rec := a.incidents[c.ID]; rec != nil {
		rec.status = c.Status
		if r.Kind == remediate.ActionDone {
			rec.actedAt = wall
			if r.Commit != nil {
				rec.revert = r.Commit.Revision
			}
		}
		if c.Status.Final() && rec.ended == 0 {
			rec.ended = wall
		}
	}
	a.mu.Unlock()
	why := []string{}
	if r.Why != "" {
		why = append(why, r.Why)
	}
	summary := ""
	if n := len(c.Attempts); n > 0 {
		summary = c.Attempts[n-1].Operation.Summary
	}
	switch r.Kind {
	case remediate.ActionHeld:
		a.tl.say(wordRepair, why, "held back: %s", summary)
	case remediate.ApprovalAsked:
		a.tl.say(wordAsk, nil, "approval asked for: %s", summary)
	case remediate.ApprovalAnswered:
		a.tl.say(wordAsk, nil, "%s: %s", summary, r.Approval)
	case remediate.ActionDone:
		if r.Commit != nil && r.Commit.Revision != "" {
			why = append(why, "commit "+reconcile.ShortRevision(r.Commit.Revision))
		}
		a.tl.say(wordRepair, why, "%s (playbook %s)", summary, c.Playbook.Name)
	case remediate.ActionFailed, remediate.ActionNoEffect, remediate.ActionSkipped:
		a.tl.say(wordRepair, why, "did not work: %s", summary)
	case remediate.ActionVerified:
		a.tl.say(wordVerify, why, "it helped: %s", summary)
	case remediate.CaseResolved:
		a.tl.say(wordVerify, why, "case %s is over", c.ID)
	case remediate.CaseEscalated:
		a.tl.say(wordRepair, why, "escalated to a person: case %s", c.ID)
	case remediate.CaseDenied:
		a.tl.say(wordAsk, why, "denied: case %s", c.ID)
	}
}

// newApprover asks, or answers for the person who chose so on the command
// line.
func newApprover(cfg config, tl *timeline) remediate.Approver {
	switch cfg.approve {
	case "auto":
		return remediate.AutoApprove("-approve auto")
	case "deny":
		return remediate.DenyAll("-approve deny")
	}
	return quietApprover{tl, &remediate.TerminalApprover{In: os.Stdin, Out: tl.out, By: os.Getenv("USER"), Timeout: askWall}}
}

// askWall is how long a question stands; the story takes silence for a no.
const askWall = 20 * time.Second

// quietApprover keeps the timeline from scrolling the question away.
type quietApprover struct {
	tl    *timeline
	inner remediate.Approver
}

func (q quietApprover) Approve(ctx context.Context, r remediate.Request) (remediate.Approval, error) {
	q.tl.say(wordAsk, nil, "the next question stands for %v; no answer is a no", askWall)
	defer q.tl.hold()()
	answer, err := q.inner.Approve(ctx, r)
	if err != nil || answer.Answer == remediate.Expired {
		fmt.Fprintln(q.tl.out) // nobody pressed return
	}
	return answer, err
}
