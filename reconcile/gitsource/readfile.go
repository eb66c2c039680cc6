package gitsource

import (
	"context"
	"fmt"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// ReadFile gives the text of one file, manifest or not, at the reference's
// newest commit: what [Repository.Commit] would replace. The path is
// slash-separated and relative to the root. It is [reconcile.ErrNotFound] if
// there is no such file, and an error if it is larger than Options.MaxFileSize.
func (r *Repository) ReadFile(ctx context.Context, path string) ([]byte, error) {
	if err := r.turn.take(ctx); err != nil {
		return nil, r.wrap("read file", err)
	}
	defer r.turn.done()
	data, err := r.readFile(ctx, path)
	if err != nil {
		return nil, r.wrap("read file", fmt.Errorf("%s: %w", path, err))
	}
	return data, nil
}

func (r *Repository) readFile(ctx context.Context, path string) ([]byte, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	h, err := r.tip(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.verify(ctx, h); err != nil {
		return nil, err
	}
	c, err := r.commit(h)
	if err != nil {
		return nil, err
	}
	blob, _, err := r.lookup(c.tree, path)
	if err != nil {
		return nil, err
	}
	if blob.IsZero() {
		return nil, reconcile.ErrNotFound
	}
	return r.blob(blob, r.opts.MaxFileSize)
}
