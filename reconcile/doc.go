// Package reconcile makes what runs equal to what Git declares, and keeps it
// so. It compares three versions of every object (last applied, desired,
// live), puts what has to change into a plan, has gates review the plan, and
// applies it. It is tied to no platform: a [Source] tells what should run, an
// [Actuator] makes single changes, and both are interfaces of one or two
// methods. Sources and targets come in gitsource, memory and the host's own
// code; manifests are read by manifest.
//
//	store := reconcile.FileStore{Path: "inventory.json"}
//	r, err := reconcile.New(reconcile.Options{
//		Source:   git,    // what should run
//		Actuator: target, // what runs
//		Store:    store,  // what is ours
//		Gates:    []reconcile.Gate{policies},
//	})
//	if err != nil {
//		return err
//	}
//	plan, err := r.Plan(ctx) // changes nothing
//	if err != nil {
//		return err
//	}
//	fmt.Print(plan)
//	_, err = r.Apply(ctx, plan) // this plan, or ErrStale
//	return errors.Join(err, r.Run(ctx)) // from here on by itself
//
// # Guarantees
//
//  1. Only what is declared is written. Fields and list elements that only
//     the live side has are left alone; fields that were applied and are no
//     longer declared are taken away ([Diff]). Ceded fields are written at
//     creation and never again ([AnnotationCeded], [Options].Ceded).
//  2. Only what is in the inventory is ever deleted, and only when Git no
//     longer declares it. More than ten deletions, or more than half, are
//     held ([Brake]), where a namespace counts with all that is in it; a source
//     that declares nothing is refused.
//  3. The inventory knows of each write before it happens, so a crash at any
//     point leaves neither an orphaned object nor an orphaned field, and the
//     next start goes on from there ([Store]). A resource leaves it when the
//     target does not show it any more.
//  4. What a [Gate] holds or denies is not written, nor what depends on it;
//     the rest goes on. A denied resource is kept as it was last accepted, if
//     the gates let that pass, also when somebody makes by hand what was
//     denied. A gate that fails holds everything. Gates are asked when a plan
//     is made, and again before one that was made earlier is applied.
//  5. Plans are data and deterministic: equal inputs give equal plans with
//     equal digests. A plan whose base has moved is refused ([ErrStale]), and
//     an object that moved meanwhile is not overwritten ([ErrConflict]). A
//     part of a plan may be applied; the rest stays due.
//  6. Order: by kind, then as [AnnotationDependsOn] says; deletions go last
//     and the other way round. A circle is an error that names it.
//  7. The values of Secrets show in no plan's text or JSON, and a plan that
//     was approved as JSON writes no others than it was made with.
//  8. A round that finds nothing to do writes nothing, to target or store.
//  9. A broken push or an unreachable server does not stop drift correction:
//     what the source declared last, and could be planned, stays in force
//     until it declares something better. A call that hangs ends after
//     [Options].CallTimeout and delays a round no longer.
//  10. A newer revision waits for no older one: changes that wait, and those
//     that failed, are not tried any more; those being made whose declaration
//     it changes are cut off; and a new plan is made at once.
//  11. No goroutine outlives the call that started it, inputs are never
//     changed, and time is [Options].Clock, CallTimeout alone excepted.
//
// # What happens on failure
//
// A change that fails for a passing reason is tried again with growing pauses
// ([Retry]). [ErrConflict] and [ErrForbidden] end it for this round,
// [ErrTerminal] until its declaration or its differences change. What
// depends on it is skipped, everything else goes on. When the source fails,
// the round goes on with what it declared last; when the target or the store
// fails, it ends before anything is written and is tried again;
// [Reconciler.Run] itself ends only with its context. All of it is told to
// [Options].Observer as [Event] values. A damaged inventory is an error and is
// never taken for an empty one.
package reconcile
