// Package security holds what Git declares to a policy set before it runs:
// policies are Go values, findings are data with the file, line, column and
// commit of the field, and [Gate] refuses the changes of a plan that break an
// enforced policy.
//
// [Default] gives the built-in rules: the Kubernetes Pod Security Standards
// ([Baseline] enforced, [Restricted] warned of, as of v1.37), image tags that
// move, missing limits, secrets in plain, and RBAC wildcards. They read pods
// and the pod template of every workload kind.
//
//	set, err := security.NewSet(security.Config{
//		Exceptions: []security.Exception{{
//			Policy:   "pod-host-path",
//			Selector: security.Selector{Kinds: []string{"DaemonSet"}, Names: []string{"node-agent"}},
//			Owner:    "platform", Reason: "reads the nodes' logs",
//			Expires:  time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
//		}},
//	})
//	if err != nil {
//		return err // every faulty rule and exception, by name
//	}
//	findings := set.Evaluate(state)
//	security.WriteTable(os.Stdout, findings)
//	reconciler, err := reconcile.New(reconcile.Options{Gates: []reconcile.Gate{security.Gate{Set: set}}, ...})
//
// # Guarantees
//
//  1. Findings are deterministic: sorted by place, without repetitions, and
//     the same bytes as JSON for the same resources and time, in whatever
//     order those come.
//  2. Each finding has the place of its field, or, for a field that is
//     missing, of the nearest one around it that is there.
//  3. No output holds the value of a secret: messages say which entry holds
//     what sort of secret, and how long it is in three steps.
//  4. The rules of [Baseline] and [Restricted] decide as the API server's
//     admission does on the object with its defaults applied, and each fault
//     is reported by one rule only.
//  5. Nothing is excepted by accident: an exception names a policy, picks
//     resources by more than a kind, and has an owner, a reason and an end; an
//     empty selector is an error. Past its end it has no effect and is itself
//     reported. What is excepted stays among the findings.
//  6. What a [Gate] reviews is the object that the change would write. It
//     lets deletions pass, and denies only for enforced policies.
//  7. Built-in policies take objects of any shape: missing fields, nulls and
//     wrong types are never a panic.
//
// # On failure
//
// [NewSet] refuses a faulty configuration as a whole and names all faults. A
// [Gate] that has no set, or whose ctx has ended, returns an error, which
// holds the plan: no answer is never a yes. Evaluation itself cannot fail; a
// host's own policy that panics takes its caller with it.
//
// # Limits
//
// A policy sees one resource: what a LimitRange, a service account or a
// namespace adds is not known. Secrets are told by the names of variables and
// entries and by the look of well-known tokens.
package security
