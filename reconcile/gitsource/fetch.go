package gitsource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"golang.org/x/sync/errgroup"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/manifest"
)

const (
	maxFileSize = manifest.MaxSize
	// maxTreeSize bounds one directory's object: about 50,000 entries.
	maxTreeSize = 4 << 20
	// maxTreeDepth bounds how deep directories nest.
	maxTreeDepth = 64
)

// snapshot is what was read of one commit. Its directories share all that is
// the same as in the snapshot before.
type snapshot struct {
	commit, tree plumbing.Hash
	root         *dir
	state        *reconcile.State
}

// dir is a directory with the manifests in it.
type dir struct {
	hash  plumbing.Hash
	files []file // in this directory
	dirs  map[string]*dir
	count int // files in it and below
}

type file struct {
	path string
	hash plumbing.Hash
}

// walk yields the files in it and below, sorted within each directory.
func (d *dir) walk(yield func(file)) {
	if d == nil {
		return
	}
	for _, f := range d.files {
		yield(f)
	}
	for _, name := range sortedKeys(d.dirs) {
		d.dirs[name].walk(yield)
	}
}

// sorted gives the files in it and below by path.
func (d *dir) sorted() []file {
	files := make([]file, 0, d.count)
	d.walk(func(f file) { files = append(files, f) })
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.path, b.path) })
	return files
}

// blobKey is what a parsed file depends on: its bytes, and its path, which is
// in every origin.
type blobKey struct {
	hash plumbing.Hash
	path string
}

type parsed struct {
	resources []reconcile.Resource // without repository and revision
	err       error
}

// Fetch gives the desired state at the reference's newest commit. When
// neither the commit nor its tree has changed it is the same *State as the
// time before.
//
// The error joins everything that is wrong with the revision:
// [*manifest.Error] and [*reconcile.ConflictError]; it is
// [reconcile.ErrEmptySource] if no resource is declared.
func (r *Repository) Fetch(ctx context.Context) (*reconcile.State, error) {
	if err := r.take(ctx); err != nil {
		return nil, r.wrap("fetch", err)
	}
	defer r.turn.done()
	h, err := r.tip(ctx)
	if err != nil {
		return nil, r.wrap("fetch", err)
	}
	snap, err := r.read(ctx, h)
	if err != nil {
		return nil, r.wrap("fetch", err)
	}
	if r.cur == nil || r.cur.commit != snap.commit {
		r.opts.Logger.InfoContext(ctx, "new revision", "repository", r.name, "revision", h.String(), "resources", snap.state.Len())
	}
	if snap != r.cur {
		r.cur = snap
		r.trim(snap.root)
	}
	return snap.state, nil
}

// FetchRevision gives the desired state at a commit, named by its full hash,
// or by a branch or tag of a local repository. Errors are as for Fetch, and
// [reconcile.ErrNotFound].
func (r *Repository) FetchRevision(ctx context.Context, revision string) (*reconcile.State, error) {
	if err := r.take(ctx); err != nil {
		return nil, r.wrap("fetch", err)
	}
	defer r.turn.done()
	h, err := r.revision(ctx, revision)
	if err != nil {
		return nil, r.wrap("fetch", err)
	}
	snap, err := r.read(ctx, h)
	if err != nil {
		return nil, r.wrap("fetch", err)
	}
	return snap.state, nil
}

// revision finds the commit that a caller names.
func (r *Repository) revision(ctx context.Context, name string) (plumbing.Hash, error) {
	if plumbing.IsHash(name) {
		h := plumbing.NewHash(name)
		if err := r.bring(ctx, h); err != nil {
			return plumbing.ZeroHash, err
		}
		return r.peel(h)
	}
	for _, prefix := range []string{"", "refs/heads/", "refs/tags/"} {
		full := plumbing.ReferenceName(prefix + name)
		if !strings.HasPrefix(string(full), "refs/") {
			continue
		}
		if r.gitDir == "" {
			full = tracking(full)
		}
		if ref, err := r.store.Reference(full); err == nil && ref.Type() == plumbing.HashReference {
			return r.peel(ref.Hash())
		}
	}
	return plumbing.ZeroHash, fmt.Errorf("revision %q: %w", name, reconcile.ErrNotFound)
}

// read gives the snapshot of a commit.
func (r *Repository) read(ctx context.Context, h plumbing.Hash) (*snapshot, error) {
	if r.cur != nil && r.cur.commit == h {
		return r.cur, nil
	}
	if err := r.verify(ctx, h); err != nil {
		return nil, err
	}
	c, err := r.commit(h)
	if err != nil {
		return nil, err
	}
	if r.cur != nil && r.cur.tree == c.tree {
		return &snapshot{commit: h, tree: c.tree, root: r.cur.root, state: r.cur.state}, nil
	}
	root, err := r.scan(ctx, c.tree)
	if err != nil {
		return nil, fmt.Errorf("revision %s: %w", h, err)
	}
	state, err := r.assemble(ctx, h, root)
	if err != nil {
		return nil, fmt.Errorf("revision %s: %w", h, err)
	}
	return &snapshot{commit: h, tree: c.tree, root: root, state: state}, nil
}

// scan walks a tree, but only where it differs from the one before.
func (r *Repository) scan(ctx context.Context, tree plumbing.Hash) (*dir, error) {
	root, err := r.scanDir(ctx, tree, "", r.scanned, 0)
	if err == nil && root.count > r.opts.MaxFiles {
		err = fmt.Errorf("%d manifests, more than the limit of %d: %w", root.count, r.opts.MaxFiles, reconcile.ErrInvalid)
	}
	if err != nil {
		return nil, err
	}
	r.scanned = root
	return root, nil
}

func (r *Repository) scanDir(ctx context.Context, h plumbing.Hash, prefix string, old *dir, depth int) (*dir, error) {
	if old != nil && old.hash == h {
		return old, nil
	}
	if depth > maxTreeDepth {
		return nil, fmt.Errorf("%s: more than %d directories deep: %w", prefix, maxTreeDepth, reconcile.ErrInvalid)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := r.tree(h)
	if err != nil {
		return nil, fmt.Errorf("directory %q: %w", prefix, err)
	}
	d := &dir{hash: h, dirs: make(map[string]*dir)}
	for _, e := range entries {
		name := prefix + e.Name
		switch e.Mode {
		case filemode.Dir:
			if !r.match.dir(name) {
				continue
			}
			var was *dir
			if old != nil {
				was = old.dirs[e.Name]
			}
			sub, err := r.scanDir(ctx, e.Hash, name+"/", was, depth+1)
			if err != nil {
				return nil, err
			}
			// A directory without manifests is kept too: its hash saves the
			// next walk.
			d.dirs[e.Name] = sub
			d.count += sub.count
		case filemode.Regular, filemode.Executable, filemode.Deprecated:
			if r.match.file(name) {
				d.files = append(d.files, file{name, e.Hash})
				d.count++
			}
		}
		// Links and submodules are never followed out of the tree.
		if d.count > r.opts.MaxFiles {
			return nil, fmt.Errorf("more than %d manifests: %w", r.opts.MaxFiles, reconcile.ErrInvalid)
		}
	}
	return d, nil
}

// assemble makes the state of the files below root.
func (r *Repository) assemble(ctx context.Context, h plumbing.Hash, root *dir) (*reconcile.State, error) {
	files := root.sorted()
	contents, err := r.parse(ctx, files)
	if err != nil {
		return nil, err
	}
	revision := h.String()
	n := 0
	for _, p := range contents {
		n += len(p.resources)
	}
	all := make([]reconcile.Resource, 0, n)
	seen := make(map[reconcile.Key]int, n)
	var errs []error
	for _, p := range contents {
		if p.err != nil {
			errs = append(errs, p.err)
			continue
		}
		for _, res := range p.resources {
			res.Origin.Repo, res.Origin.Revision = r.name, revision
			if i, dup := seen[res.Key]; dup {
				errs = append(errs, &reconcile.ConflictError{Key: res.Key, First: all[i].Origin, Second: res.Origin})
				continue
			}
			seen[res.Key] = len(all)
			all = append(all, res)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if len(all) == 0 {
		return nil, reconcile.ErrEmptySource
	}
	return reconcile.NewState(revision, all)
}

// parse gives the contents of files, of which it parses in parallel those
// that it has not seen. The error is about reading, not about contents.
func (r *Repository) parse(ctx context.Context, files []file) ([]*parsed, error) {
	out := make([]*parsed, len(files))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, f := range files {
		if out[i] = r.blobs[blobKey{f.hash, f.path}]; out[i] != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, errors.Join(err, g.Wait())
		}
		data, err := r.blob(f.hash, r.opts.MaxFileSize)
		if err != nil && !errors.Is(err, errTooLarge) {
			return nil, errors.Join(fmt.Errorf("file %s: %w", f.path, err), g.Wait())
		}
		p := new(parsed)
		out[i] = p
		if err != nil {
			p.err = &manifest.Error{Path: f.path, Err: err}
			continue
		}
		g.Go(func() error {
			p.resources, p.err = manifest.Decode(f.path, data)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, f := range files {
		r.blobs[blobKey{f.hash, f.path}] = out[i]
	}
	return out, nil
}

// trim bounds the parse cache: what the files below root do not use is kept
// only while it is not much more than what they use.
func (r *Repository) trim(root *dir) {
	limit := 2*root.count + 1024
	if len(r.blobs) <= limit {
		return
	}
	keep := make(map[blobKey]*parsed, root.count)
	root.walk(func(f file) {
		k := blobKey{f.hash, f.path}
		if p := r.blobs[k]; p != nil {
			keep[k] = p
		}
	})
	r.blobs = keep
}

var errTooLarge = errors.New("too large")

// get reads an object. Another process may have packed the repository since
// its packs were listed, so a miss looks once more.
func (r *Repository) get(t plumbing.ObjectType, h plumbing.Hash) (plumbing.EncodedObject, error) {
	obj, err := r.store.EncodedObject(t, h)
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		if re, ok := r.store.(interface{ Reindex() }); ok {
			re.Reindex()
			obj, err = r.store.EncodedObject(t, h)
		}
	}
	return obj, err
}

func (r *Repository) has(h plumbing.Hash) bool {
	if r.store.HasEncodedObject(h) == nil {
		return true
	}
	_, err := r.get(plumbing.AnyObject, h)
	return err == nil
}

// blob reads a file. The size is looked up first, so that a huge one is
// never loaded.
func (r *Repository) blob(h plumbing.Hash, limit int64) ([]byte, error) {
	return r.bytes(plumbing.BlobObject, h, limit)
}

func (r *Repository) bytes(t plumbing.ObjectType, h plumbing.Hash, limit int64) (data []byte, err error) {
	size, err := r.store.EncodedObjectSize(h)
	if err == nil && size > limit {
		return nil, fmt.Errorf("%w: %d bytes, more than the limit of %d", errTooLarge, size, limit)
	}
	obj, err := r.get(t, h)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", h, err)
	}
	if obj.Size() > limit {
		return nil, fmt.Errorf("%w: %d bytes, more than the limit of %d", errTooLarge, obj.Size(), limit)
	}
	rd, err := obj.Reader()
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", h, err)
	}
	defer func() { err = errors.Join(err, rd.Close()) }()
	data = make([]byte, obj.Size())
	if _, err := io.ReadFull(rd, data); err != nil {
		return nil, fmt.Errorf("object %s: %w", h, err)
	}
	return data, nil
}

// tree reads the entries of a tree object; the zero hash is the empty tree.
func (r *Repository) tree(h plumbing.Hash) ([]object.TreeEntry, error) {
	if h == plumbing.ZeroHash {
		return nil, nil
	}
	if size, err := r.store.EncodedObjectSize(h); err == nil && size > maxTreeSize {
		return nil, fmt.Errorf("%w: %d bytes, more than the limit of %d", errTooLarge, size, maxTreeSize)
	}
	obj, err := r.get(plumbing.TreeObject, h)
	if err != nil {
		return nil, fmt.Errorf("tree %s: %w", h, err)
	}
	var t object.Tree
	if err := t.Decode(obj); err != nil {
		return nil, fmt.Errorf("tree %s: %w", h, err)
	}
	return t.Entries, nil
}

// peel follows annotated tags to their commit.
func (r *Repository) peel(h plumbing.Hash) (plumbing.Hash, error) {
	if r.commits[h] != nil {
		return h, nil
	}
	for range 10 {
		obj, err := r.get(plumbing.AnyObject, h)
		if err != nil {
			return plumbing.ZeroHash, fmt.Errorf("object %s: %w: %w", h, reconcile.ErrNotFound, err)
		}
		switch obj.Type() {
		case plumbing.CommitObject:
			return h, nil
		case plumbing.TagObject:
			var t object.Tag
			if err := t.Decode(obj); err != nil {
				return plumbing.ZeroHash, fmt.Errorf("tag %s: %w", h, err)
			}
			h = t.Target
		default:
			return plumbing.ZeroHash, fmt.Errorf("%s is a %s, not a commit: %w", h, obj.Type(), reconcile.ErrInvalid)
		}
	}
	return plumbing.ZeroHash, fmt.Errorf("%s: tags of tags: %w", h, reconcile.ErrInvalid)
}

// verify asks the Verifier, once for each commit.
func (r *Repository) verify(ctx context.Context, h plumbing.Hash) error {
	if r.opts.Verifier == nil || r.verified[h] {
		return nil
	}
	raw, err := r.bytes(plumbing.CommitObject, h, maxFileSize)
	if err != nil {
		return err
	}
	return r.judge(ctx, h, raw)
}

// judge asks the Verifier about the bytes of a commit.
func (r *Repository) judge(ctx context.Context, h plumbing.Hash, raw []byte) error {
	if r.opts.Verifier == nil {
		return nil
	}
	payload, signature := splitSignature(raw)
	if err := r.opts.Verifier.Verify(ctx, h.String(), payload, signature); err != nil {
		return fmt.Errorf("commit %s is not accepted: %w: %w", h, reconcile.ErrForbidden, err)
	}
	if len(r.verified) > 10_000 {
		clear(r.verified)
	}
	r.verified[h] = true
	return nil
}

// splitSignature takes the signature headers out of a commit object. What is
// signed is exactly the rest, so it is cut from the bytes and not encoded
// anew.
func splitSignature(raw []byte) (payload, signature []byte) {
	payload = make([]byte, 0, len(raw))
	in := false
	for len(raw) > 0 {
		line := raw
		if i := slices.Index(raw, '\n'); i >= 0 {
			line = raw[:i+1]
		}
		if len(line) == 1 && line[0] == '\n' {
			return append(payload, raw...), signature
		}
		text := string(line)
		switch {
		case in && text[0] == ' ':
			signature = append(signature, line[1:]...)
		case strings.HasPrefix(text, "gpgsig "):
			in = true
			signature = append(signature, line[len("gpgsig "):]...)
		default:
			in = false
			payload = append(payload, line...)
		}
		raw = raw[len(line):]
	}
	return payload, signature
}
