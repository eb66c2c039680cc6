package gitsource

import (
	"context"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// ReadFile gives the text of one file, manifest or not, at the reference's
// newest commit, and that commit: what [Repository.Commit] would replace, and
// the Base to say so with. The path is
// slash-separated and relative to the root. It is [reconcile.ErrNotFound] if
// there is no such file, and an error if it is larger than Options.MaxFileSize.
func (r *Repository) ReadFile(ctx context.Context, path string) (data []byte, revision string, err error) {
	if err := r.take(ctx); err != nil {
		return nil, "", r.wrap("read file", err)
	}
	defer r.turn.done()
	data, h, err := r.readFile(ctx, path)
	if err != nil {
		return nil, "", r.wrap("read file", fmt.Errorf("%s: %w", path, err))
	}
	return data, h.String(), nil
}

func (r *Repository) readFile(ctx context.Context, path string) (data []byte, h plumbing.Hash, err error) {
	if err := checkPath(path); err != nil {
		return nil, h, err
	}
	if h, err = r.tip(ctx); err != nil {
		return nil, h, err
	}
	if err := r.verify(ctx, h); err != nil {
		return nil, h, err
	}
	c, err := r.commit(h)
	if err != nil {
		return nil, h, err
	}
	blob, _, err := r.lookup(c.tree, path)
	if err != nil {
		return nil, h, err
	}
	if blob.IsZero() {
		return nil, h, reconcile.ErrNotFound
	}
	data, err = r.blob(blob, r.opts.MaxFileSize)
	return data, h, err
}
