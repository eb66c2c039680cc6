package gitsource

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// problem is why a revision cannot be fetched, with how often it occurs.
type problem struct {
	count int
	err   error
}

// sound refuses a tree that has problems which the tip's has not. Field edits
// rarely make any; a revert brings back files as they were, though what
// surrounds them has moved on.
func (r *Repository) sound(ctx context.Context, tip *commit, tree plumbing.Hash) error {
	now, err := r.problems(ctx, tree)
	if err != nil || len(now) == 0 {
		return err
	}
	was, err := r.problems(ctx, tip.tree)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range sortedKeys(now) {
		if now[id].count > was[id].count {
			errs = append(errs, now[id].err)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("the commit would make a revision that cannot be fetched: %w", errors.Join(errs...))
}

// problems gives all that makes a tree unfit to be fetched, by what stays the
// same when lines move: the file that does not parse, the key that is
// declared more than once.
func (r *Repository) problems(ctx context.Context, tree plumbing.Hash) (map[string]problem, error) {
	root, err := r.scan(ctx, tree)
	if err != nil {
		if errors.Is(err, reconcile.ErrInvalid) || errors.Is(err, errTooLarge) {
			return map[string]problem{"tree": {1, err}}, nil
		}
		return nil, err
	}
	files := root.sorted()
	contents, err := r.parse(ctx, files)
	if err != nil {
		return nil, err
	}
	out := make(map[string]problem)
	first := make(map[reconcile.Key]reconcile.Origin, len(files))
	for i, p := range contents {
		if p.err != nil {
			out["file "+files[i].path] = problem{1, p.err}
			continue
		}
		for _, res := range p.resources {
			if was, dup := first[res.Key]; dup {
				id := "key " + res.Key.String()
				out[id] = problem{out[id].count + 1, &reconcile.ConflictError{Key: res.Key, First: was, Second: res.Origin}}
				continue
			}
			first[res.Key] = res.Origin
		}
	}
	if len(out) == 0 && len(first) == 0 {
		out["empty"] = problem{1, reconcile.ErrEmptySource}
	}
	return out, nil
}

// expected refuses an edit that was decided on another value than the one at
// hand. Values compare as in [reconcile.Diff]: numbers by value, and
// quantities where a resource list has them.
func expected(e reconcile.Edit, object map[string]any) error {
	if e.Expect == nil {
		return nil
	}
	p, err := reconcile.ParsePath(e.Path)
	if err != nil {
		return err
	}
	found, ok := p.Get(object)
	if ok {
		a, b := inPlace(p, e.Expect), inPlace(p, found)
		if len(reconcile.Diff(nil, a, b)) == 0 && len(reconcile.Diff(nil, b, a)) == 0 {
			return nil
		}
	}
	return fmt.Errorf("%s: %s: expected %s, found %s: %w", e.Key, e.Path, show(e.Expect, true), show(found, ok), reconcile.ErrConflict)
}

// inPlace gives a value below the last two fields of its path, from which
// [reconcile.Diff] sees whether it is a quantity.
func inPlace(p reconcile.Path, v any) map[string]any {
	for i, step := range slices.Backward(p) {
		if i < len(p)-2 || step.Key != "" || step.Index >= 0 {
			break
		}
		v = map[string]any{step.Field: v}
	}
	return map[string]any{"": v}
}
