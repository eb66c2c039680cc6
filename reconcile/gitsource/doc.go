// Package gitsource makes a Git repository the source of desired state, and
// writes automation's decisions back to it as commits.
//
// A [Repository] is opened on a URL and a reference. It is a
// [reconcile.Source]: Fetch gives the manifests at the newest commit as a
// [reconcile.State], in which every resource knows its file, line and commit.
// Write makes one commit from a [reconcile.WriteRequest]: field edits, or the
// revert of an earlier commit.
//
// Guarantees:
//
//  1. A State is whole or absent. All errors of a revision are reported
//     together, each with file, line and column; two files that declare one
//     key are a [*reconcile.ConflictError] that names both.
//  2. Cost follows change. Objects are read from bare storage, never through
//     a work tree; only subtrees that differ are walked, and a blob is parsed
//     once. The same tree gives the same *State.
//  3. A [Verifier] judges a commit before anything of it is read, and one that
//     Write makes, signed by Options.Signer, before the branch moves to it.
//  4. A write changes the bytes of its fields and no others.
//  5. A write is idempotent: an Action-Id that is among the newest
//     [HistoryLimit] commits gives that commit back and makes no second.
//  6. A write is atomic. The branch moves by compare-and-swap from the commit
//     that the edit was made on, or not at all; when someone else was first,
//     the edit is made again on the new tip. A crash at any moment leaves the
//     branch at the old or the new commit, at worst with unreferenced objects.
//  7. A revert takes back what the commit changed and keeps what came after:
//     a later change of another field in the same file survives. Where later
//     commits changed the same fields it fails with a [*RevertConflictError].
//  8. Write makes no revision that Fetch refuses, unless Fetch refuses the tip
//     for the same reasons.
//
// Local repositories (a path or file://) are read and written in place, bare
// or not, without the git program. References are updated under Git's own
// lock file, so that other processes, git itself among them, may work on the
// repository at the same time. A lock file that a killed process left behind
// is taken away after it has stood unchanged for ten seconds. Everything else
// (https, http, ssh, git) is cloned into Options.Dir or memory and pushed to.
//
//	repo, err := gitsource.Open(ctx, gitsource.Options{
//		URL:       "https://git.example.org/shop.git",
//		Reference: "main",
//		Paths:     []string{"prod/**"},
//		Auth:      gitsource.TokenAuth(token),
//	})
//	if err != nil {
//		return err
//	}
//	state, err := repo.Fetch(ctx)
//	...
//	commit, err := repo.Write(ctx, reconcile.WriteRequest{
//		ID:      "scale-cart-7",
//		Message: "Scale cart to 5",
//		Edits:   []reconcile.Edit{{Key: cart, Path: "spec.replicas", Value: int64(5)}},
//	})
//
// Failures: a reference, revision, key or repository that does not exist is
// [reconcile.ErrNotFound]; refused credentials and a Verifier's no are
// [reconcile.ErrForbidden]; bad requests and bad manifests are
// [reconcile.ErrInvalid]; a branch that moved on through all retries is
// [reconcile.ErrConflict], as are an edit or a Commit decided on what is no
// longer so; a write with nothing to do is [reconcile.ErrNoChange]. Network
// errors are returned as they are, and the call can be made again. A server
// that does not answer is given up after Options.Timeout.
package gitsource
