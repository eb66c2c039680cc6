package remediate

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// Answer is what an [Approver] says.
type Answer string

// The answers. Anything else, the zero value included, is no approval.
const (
	Approved    Answer = "Approved"
	NotApproved Answer = "NotApproved"
	// Expired: nobody answered in time.
	Expired Answer = "Expired"
)

// Request asks a person for one action.
type Request struct {
	// Case is a snapshot of the case with its evidence and timeline.
	Case Case `json:"case"`
	// ActionID, Action, Risk and Operation say what would be done; Summary is
	// the same as one line.
	ActionID  string    `json:"actionId"`
	Action    Action    `json:"action"`
	Risk      Risk      `json:"risk"`
	Operation Operation `json:"operation"`
	Summary   string    `json:"summary"`
	// Track is how this action did before.
	Track TrackRecord `json:"track"`
	// Digest is what an approval is for: an answer with another digest is
	// refused, and so is the action when by then something else would be done.
	Digest string `json:"digest"`
	// Expires is when an answer is too late.
	Expires time.Time `json:"expires"`
}

// Approval is a person's answer.
type Approval struct {
	Answer Answer `json:"answer"`
	// By is who answered; Reason is one line, may be empty.
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Digest is the request's.
	Digest string `json:"digest"`
	// Time is set by the [Manager].
	Time time.Time `json:"time,omitzero"`
}

// String gives one line for a person.
func (a Approval) String() string {
	s := "no answer"
	switch a.Answer {
	case Approved:
		s = "approved"
	case NotApproved:
		s = "not approved"
	case Expired:
		s = "expired without an answer"
	}
	if a.By != "" {
		s += " by " + a.By
	}
	if a.Reason != "" {
		s += ": " + a.Reason
	}
	return s
}

// Approver asks a person, or stands in for one. Approve blocks until there is
// an answer or ctx ends, which it does when the request expires or the case
// no longer needs it. An error is no answer: the request is made again until
// it expires. After a restart the same request may come again. It is called
// concurrently for several cases.
type Approver interface {
	Approve(ctx context.Context, r Request) (Approval, error)
}

type staticApprover Approval

func (s staticApprover) Approve(_ context.Context, r Request) (Approval, error) {
	a := Approval(s)
	a.Digest = r.Digest
	return a, nil
}

// AutoApprove gives an [Approver] that approves everything in the name of by.
func AutoApprove(by string) Approver { return staticApprover{Answer: Approved, By: by} }

// DenyAll gives an [Approver] that approves nothing, in the name of by.
func DenyAll(by string) Approver { return staticApprover{Answer: NotApproved, By: by} }

// TerminalApprover asks on a terminal, one request at a time. Only "y" or
// "yes" and the token that the question shows, the first four characters of
// the request's digest, approve, in any case; any other line refuses, and the
// end of the input is an expired request.
//
// So what was typed before the question stood on the screen cannot approve it,
// nor can an answer to another question. Lines that were read before the
// question are thrown away; one that is read just after it may refuse it.
//
// The first request starts one goroutine, which reads In until In ends or
// fails; close In to end it. A request that ends by its ctx leaves nothing
// else behind. The zero value with In and Out is ready; do not copy it.
type TerminalApprover struct {
	In  io.Reader
	Out io.Writer
	// By names who sits at the terminal; the default is "terminal".
	By string
	// Timeout bounds each question, beside the request's own expiry; 0 is no
	// further bound.
	Timeout time.Duration
	// Clock is for Timeout; nil is the machine's.
	Clock reconcile.Clock

	once  sync.Once
	turn  chan struct{}
	lines chan string
	err   error // set before lines is closed
}

// Approve asks. It returns ctx.Err() when ctx ends first, and the error of a
// failed write.
func (t *TerminalApprover) Approve(ctx context.Context, r Request) (Approval, error) {
	if t.In == nil || t.Out == nil {
		return Approval{}, invalid("approve", "", "TerminalApprover needs In and Out")
	}
	if r.Digest == "" {
		return Approval{}, invalid("approve", r.ActionID, "the request has no digest")
	}
	t.once.Do(t.start)
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return Approval{}, ctx.Err()
	}
	by := t.By
	if by == "" {
		by = "terminal"
	}
	answer := func(a Answer, reason string) (Approval, error) {
		return Approval{Answer: a, By: by, Reason: reason, Digest: r.Digest}, nil
	}
	for stale := true; stale; {
		select {
		case _, ok := <-t.lines:
			if !ok {
				return answer(Expired, t.ended())
			}
		default:
			stale = false
		}
	}
	if _, err := io.WriteString(t.Out, prompt(r)); err != nil {
		return Approval{}, &Error{Op: "approve", Name: r.ActionID, Err: err}
	}
	var timeout <-chan time.Time
	if t.Timeout > 0 {
		clock := t.Clock
		if clock == nil {
			clock = reconcile.SystemClock{}
		}
		timeout = clock.After(t.Timeout)
	}
	select {
	case line, ok := <-t.lines:
		if !ok {
			return answer(Expired, t.ended())
		}
		words := strings.Fields(strings.ToLower(line))
		if len(words) == 2 && (words[0] == "y" || words[0] == "yes") && words[1] == strings.ToLower(token(r)) {
			return answer(Approved, "")
		}
		return answer(NotApproved, "")
	case <-timeout:
		fmt.Fprintln(t.Out, "\nno answer in time")
		return answer(Expired, fmt.Sprintf("no answer within %s", t.Timeout))
	case <-ctx.Done():
		fmt.Fprintln(t.Out, "\nno longer needed")
		return Approval{}, ctx.Err()
	}
}

func (t *TerminalApprover) ended() string {
	if t.err != nil {
		return "the input failed: " + t.err.Error()
	}
	return "the input ended"
}

func (t *TerminalApprover) start() {
	t.turn = make(chan struct{}, 1)
	t.lines = make(chan string, 1)
	in := bufio.NewReaderSize(t.In, 256)
	go func() {
		defer close(t.lines)
		for {
			line, err := in.ReadString('\n')
			if line != "" {
				// Keep only the newest line: one that nobody waits for must
				// neither block the reading nor answer a later question.
				select {
				case <-t.lines:
				default:
				}
				t.lines <- line
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.err = err
				}
				return
			}
		}
	}()
}

// clean keeps text that comes from commits and alerts to one line without
// control characters, so that it can neither repaint a question on a terminal
// nor forge a trailer.
func clean(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, s))
}

// token binds a typed answer to what was asked.
func token(r Request) string { return r.Digest[:min(4, len(r.Digest))] }

func prompt(r Request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\napproval needed: %s\n", clean(r.Summary))
	fmt.Fprintf(&b, "  case    %s: %s\n", r.Case.ID, clean(r.Case.Trigger.String()))
	if r.Case.Report != nil && r.Case.Report.Why != "" {
		fmt.Fprintf(&b, "  cause   %s\n", clean(r.Case.Report.Why))
	}
	fmt.Fprintf(&b, "  risk    %s; before: %s\n", r.Risk, r.Track)
	fmt.Fprintf(&b, "  digest  %s\n", reconcile.ShortRevision(r.Digest))
	fmt.Fprintf(&b, "type \"y %s\" to approve, anything else refuses: ", clean(token(r)))
	return b.String()
}
