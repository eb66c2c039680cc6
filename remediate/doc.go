// Package remediate turns an incident into a repair: it chooses a playbook,
// asks guards and people, journals what it intends, does it (by default with a
// commit to Git), and checks with the detector that raised the alarm that the
// trouble is over. Otherwise it tries the next action, or calls a person.
//
//	journal, err := remediate.OpenFileJournal(dir, remediate.FileJournalOptions{})
//	...
//	m, err := remediate.New(ctx, remediate.Options{
//		Journal:  journal,
//		Writer:   repo,     // commits: a repository of reconcile/gitsource
//		Source:   repo,     // what is declared now
//		Actor:    platform, // restarts and functions
//		Verifier: remediate.VerifyAlerts(monitor),
//		Approver: &remediate.TerminalApprover{In: os.Stdin, Out: os.Stdout},
//	})
//	...
//	go m.Run(ctx)
//	id, err := m.Handle(ctx, remediate.FromIncident(incident), &report)
//	...
//	c, err := m.Case(id)
//	fmt.Println(c) // what happened, when and why
//
// # What it does with a trigger
//
// [Manager.Handle] opens a [Case]. The first [Playbook] that matches gives the
// actions, which are alternatives in order. Each action becomes an [Attempt]:
// it is worked out to an [Operation] (the very field, commit or instance), held
// while a guard of [Limits] says no, approved where the playbook's [Autonomy]
// asks for it, journaled, done, and verified. A case ends as Resolved,
// Escalated, Denied (a person said no) or Observed. Handle is called again when
// an incident has grown: while its case goes on, the new alerts are verified
// too; a resolved case is opened again by an alert that was raised anew.
//
// # Guarantees
//
//  1. Intent before effect: an action is begun only after its intent, with its
//     idempotency key, is in the [Journal].
//  2. Once: after a crash at any point, the probe ([Writer.Find] by the
//     Action-Id trailer, [Actor.Done]) decides whether an intended action was
//     done. With a probe that tells the truth no action is done twice.
//     An intent that was interrupted and not done, by a crash, a pause or a
//     failed try, is never simply done later: it is worked out anew, and its
//     guards and its approval are asked anew.
//  3. Nothing is lost: a case whose Handle returned is carried to its end by
//     this run or a later one; the state is a fold over the journal and of
//     nothing else.
//  4. Nothing is stuck: every status but a pause runs out into the next action
//     or an escalation. A call that ignores its ctx is the one exception.
//  5. What was approved is what is done: an approval holds for one digest and
//     a limited time; the operation is worked out anew right before it is
//     begun, and another digest voids the approval. An edit expects the value
//     that it was decided on, so that a writer refuses it over a person's.
//  6. Guards are on by default and speak: each refusal says which guard and
//     why, and stands in the timeline. An unresolved target is never "all".
//  7. A pause holds from the moment [Manager.Pause] returns: nothing is begun
//     that changes what is in its scope, whoever is blamed, and in the middle
//     of a playbook neither. What an operation changes is known as far as
//     [Operation.Touches] says.
//  8. Success is the verifier's word, held for [Verify.Hold], and never that a
//     call returned without an error, nor ([VerifyAlerts]) that a monitor has
//     seen nothing.
//
// # Failure
//
// A call to the host's Writer, Actor, Source, Verifier or Notifier that fails
// in passing is made again with growing waits; [ErrTerminal] ends the attempt
// at once. An action of which even the probe cannot tell whether it was done is
// escalated, not repeated. Notices are kept until they are delivered, each at
// least once. A trigger that the journal could not hold is refused before
// anything is decided. If the journal fails, or another writer has appended to
// it ([ErrConflict]), the Manager begins nothing more and every call returns
// the error: open the journal again and make a new Manager.
package remediate
