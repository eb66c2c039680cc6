package gitsource

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// HistoryLimit is how many of the newest commits Write and Find search for a
// trailer.
const HistoryLimit = 1000

// maxOld is how many commits before LogOptions.Since end a log.
const maxOld = 20

// LogOptions bound what Log returns. The zero value gives the 100 newest
// commits.
type LogOptions struct {
	// Limit is the largest number of commits. Default 100.
	Limit int
	// Since leaves out commits committed before it. The search ends at 20
	// such commits in a row, since the clocks of committers differ.
	Since time.Time
}

// KeyChange is what one commit did to one resource.
type KeyChange struct {
	Key reconcile.Key `json:"key"`
	// Path is the file that declares it after the commit, or did before.
	Path string `json:"path"`
	// Added and Removed say that the commit declared the resource or stopped
	// declaring it; Fields is then empty.
	Added   bool `json:"added,omitempty"`
	Removed bool `json:"removed,omitempty"`
	// Fields are the paths (see [reconcile.Path]) of the values that differ,
	// sorted. A list whose elements have no key of their own, and that
	// changed its length, is one field.
	Fields []string `json:"fields,omitempty"`
}

// commit is what is kept of a commit object; the changes are filled in when
// somebody asks.
type commit struct {
	hash     plumbing.Hash
	tree     plumbing.Hash
	parents  []plumbing.Hash
	author   Author
	when     time.Time // of the committer
	message  string
	trailers []reconcile.Trailer

	diffed  bool
	files   []fileChange
	changes []KeyChange
}

// fileChange is a path whose content differs between two trees; the zero hash
// stands for absent.
type fileChange struct {
	path     string
	from, to plumbing.Hash
	fromMode filemode.FileMode
	toMode   filemode.FileMode
}

func (r *Repository) commit(h plumbing.Hash) (*commit, error) {
	if c := r.commits[h]; c != nil {
		return c, nil
	}
	obj, err := r.get(plumbing.CommitObject, h)
	if err != nil {
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			err = fmt.Errorf("%w: %w", reconcile.ErrNotFound, err)
		}
		return nil, fmt.Errorf("commit %s: %w", h, err)
	}
	var o object.Commit
	if err := o.Decode(obj); err != nil {
		return nil, fmt.Errorf("commit %s: %w", h, err)
	}
	c := &commit{
		hash:    h,
		tree:    o.TreeHash,
		parents: o.ParentHashes,
		author:  Author{o.Author.Name, o.Author.Email},
		when:    o.Committer.When.UTC(),
	}
	c.message, c.trailers = parseMessage(o.Message)
	if len(r.commits) > 10*HistoryLimit {
		clear(r.commits)
	}
	r.commits[h] = c
	return c, nil
}

// byTime is a heap of commits, the newest first.
type byTime []*commit

func (q byTime) Len() int { return len(q) }
func (q byTime) Less(i, j int) bool {
	if c := q[j].when.Compare(q[i].when); c != 0 {
		return c < 0
	}
	return bytes.Compare(q[i].hash[:], q[j].hash[:]) < 0
}
func (q byTime) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *byTime) Push(x any)   { *q = append(*q, x.(*commit)) }
func (q *byTime) Pop() any {
	old := *q
	c := old[len(old)-1]
	*q = old[:len(old)-1]
	return c
}

// history calls visit with the commits that lead to h, the newest first, as
// git log orders them, until visit says false or there are no more.
func (r *Repository) history(ctx context.Context, h plumbing.Hash, visit func(*commit) (bool, error)) error {
	seen := map[plumbing.Hash]bool{h: true}
	first, err := r.commit(h)
	if err != nil {
		return err
	}
	q := byTime{first}
	for q.Len() > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := heap.Pop(&q).(*commit)
		more, err := visit(c)
		if err != nil || !more {
			return err
		}
		for _, p := range c.parents {
			if seen[p] {
				continue
			}
			seen[p] = true
			pc, err := r.commit(p)
			if errors.Is(err, reconcile.ErrNotFound) {
				continue // where a shallow clone ends
			}
			if err != nil {
				return err
			}
			heap.Push(&q, pc)
		}
	}
	return nil
}

// Log gives the commits that lead to the reference, the newest first, each
// with the files it changed against its first parent, and as Keys the
// resources whose objects really differ. A change of comments alone changes
// no key. A version of a file that cannot be parsed counts as declaring
// nothing.
func (r *Repository) Log(ctx context.Context, opts LogOptions) ([]reconcile.Commit, error) {
	if opts.Limit <= 0 {
		opts.Limit = 100
	}
	if err := r.take(ctx); err != nil {
		return nil, r.wrap("log", err)
	}
	defer r.turn.done()
	h, err := r.tip(ctx)
	if err != nil {
		return nil, r.wrap("log", err)
	}
	var out []reconcile.Commit
	old := 0 // in a row
	err = r.history(ctx, h, func(c *commit) (bool, error) {
		if c.when.Before(opts.Since) {
			// Clocks differ between authors: a commit that seems old may have
			// newer parents.
			old++
			return old < maxOld, nil
		}
		old = 0
		p, err := r.public(ctx, c)
		if err != nil {
			return false, err
		}
		out = append(out, p)
		return len(out) < opts.Limit, nil
	})
	return out, r.wrap("log", err)
}

// Find gives the newest commit, among the [HistoryLimit] newest of the
// reference, that has a trailer with this key, compared without case, and
// this value.
func (r *Repository) Find(ctx context.Context, trailerKey, value string) (reconcile.Commit, bool, error) {
	if err := r.take(ctx); err != nil {
		return reconcile.Commit{}, false, r.wrap("find", err)
	}
	defer r.turn.done()
	h, err := r.tip(ctx)
	if err != nil {
		return reconcile.Commit{}, false, r.wrap("find", err)
	}
	c, err := r.find(ctx, h, trailerKey, value)
	if err != nil || c == nil {
		return reconcile.Commit{}, false, r.wrap("find", err)
	}
	p, err := r.public(ctx, c)
	return p, err == nil, r.wrap("find", err)
}

func (r *Repository) find(ctx context.Context, tip plumbing.Hash, key, value string) (*commit, error) {
	var found *commit
	n := 0
	err := r.history(ctx, tip, func(c *commit) (bool, error) {
		for _, t := range c.trailers {
			if strings.EqualFold(t.Key, key) && t.Value == value {
				found = c
				return false, nil
			}
		}
		n++
		return n < HistoryLimit, nil
	})
	return found, err
}

// Changes tells what a commit did to each resource, against its first parent,
// sorted by key. The revision is named as for FetchRevision.
func (r *Repository) Changes(ctx context.Context, revision string) ([]KeyChange, error) {
	if err := r.take(ctx); err != nil {
		return nil, r.wrap("changes", err)
	}
	defer r.turn.done()
	h, err := r.revision(ctx, revision)
	if err != nil {
		return nil, r.wrap("changes", err)
	}
	c, err := r.commit(h)
	if err != nil {
		return nil, r.wrap("changes", err)
	}
	if err := r.diff(ctx, c); err != nil {
		return nil, r.wrap("changes", err)
	}
	out := slices.Clone(c.changes)
	for i := range out {
		out[i].Fields = slices.Clone(out[i].Fields)
	}
	return out, nil
}

// public gives a commit as callers see it.
func (r *Repository) public(ctx context.Context, c *commit) (reconcile.Commit, error) {
	if err := r.diff(ctx, c); err != nil {
		return reconcile.Commit{}, err
	}
	p := reconcile.Commit{
		Revision: c.hash.String(),
		Author:   c.author.String(),
		Time:     c.when,
		Message:  c.message,
		Trailers: slices.Clone(c.trailers),
	}
	for _, h := range c.parents {
		p.Parents = append(p.Parents, h.String())
	}
	for _, f := range c.files {
		p.Paths = append(p.Paths, f.path)
	}
	for _, k := range c.changes {
		p.Keys = append(p.Keys, k.Key)
	}
	return p, nil
}

// diff fills in what a commit changed.
func (r *Repository) diff(ctx context.Context, c *commit) error {
	if c.diffed {
		return nil
	}
	var parent plumbing.Hash
	if len(c.parents) > 0 {
		pc, err := r.commit(c.parents[0])
		switch {
		case err == nil:
			parent = pc.tree
		case !errors.Is(err, reconcile.ErrNotFound):
			return err
		}
	}
	files, err := r.diffTrees(ctx, parent, c.tree)
	if err != nil {
		return fmt.Errorf("commit %s: %w", c.hash, err)
	}
	before, after := map[reconcile.Key]declared{}, map[reconcile.Key]declared{}
	for _, f := range files {
		for _, side := range []struct {
			hash plumbing.Hash
			mode filemode.FileMode
			into map[reconcile.Key]declared
		}{{f.from, f.fromMode, before}, {f.to, f.toMode, after}} {
			if side.hash == plumbing.ZeroHash || !side.mode.IsFile() || side.mode == filemode.Symlink || !r.match.file(f.path) {
				continue
			}
			ps, err := r.parse(ctx, []file{{f.path, side.hash}})
			if err != nil {
				return fmt.Errorf("commit %s: %w", c.hash, err)
			}
			for _, res := range ps[0].resources {
				side.into[res.Key] = declared{f.path, res.Object}
			}
		}
	}
	var changes []KeyChange
	for k, b := range before {
		a, ok := after[k]
		if !ok {
			changes = append(changes, KeyChange{Key: k, Path: b.path, Removed: true})
			continue
		}
		if fs := compare(b.object, a.object); len(fs) > 0 {
			kc := KeyChange{Key: k, Path: a.path}
			for _, f := range fs {
				kc.Fields = append(kc.Fields, f.path)
			}
			slices.Sort(kc.Fields)
			changes = append(changes, kc)
		}
	}
	for k, a := range after {
		if _, ok := before[k]; !ok {
			changes = append(changes, KeyChange{Key: k, Path: a.path, Added: true})
		}
	}
	slices.SortFunc(changes, func(a, b KeyChange) int { return a.Key.Compare(b.Key) })
	c.files, c.changes, c.diffed = files, changes, true
	return nil
}

type declared struct {
	path   string
	object map[string]any
}

// diffTrees gives the files that differ, sorted by path. It reads only the
// directories that differ.
func (r *Repository) diffTrees(ctx context.Context, from, to plumbing.Hash) ([]fileChange, error) {
	var out []fileChange
	if err := r.diffDirs(ctx, from, to, "", 0, &out); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b fileChange) int { return strings.Compare(a.path, b.path) })
	return out, nil
}

func (r *Repository) diffDirs(ctx context.Context, from, to plumbing.Hash, prefix string, depth int, out *[]fileChange) error {
	if from == to {
		return nil
	}
	if depth > maxTreeDepth {
		return fmt.Errorf("%s: more than %d directories deep: %w", prefix, maxTreeDepth, reconcile.ErrInvalid)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	a, err := r.tree(from)
	if err != nil {
		return err
	}
	b, err := r.tree(to)
	if err != nil {
		return err
	}
	type pair struct{ a, b object.TreeEntry }
	all := make(map[string]pair, len(a))
	for _, e := range a {
		all[e.Name] = pair{a: e}
	}
	for _, e := range b {
		p := all[e.Name]
		if p.a.Hash == e.Hash && p.a.Mode == e.Mode {
			delete(all, e.Name)
			continue
		}
		p.b = e
		all[e.Name] = p
	}
	for _, name := range sortedKeys(all) {
		p := all[name]
		var dirA, dirB plumbing.Hash
		f := fileChange{path: prefix + name}
		if p.a.Mode == filemode.Dir {
			dirA = p.a.Hash
		} else {
			f.from, f.fromMode = p.a.Hash, p.a.Mode
		}
		if p.b.Mode == filemode.Dir {
			dirB = p.b.Hash
		} else {
			f.to, f.toMode = p.b.Hash, p.b.Mode
		}
		if f.from != f.to || f.fromMode != f.toMode {
			*out = append(*out, f)
		}
		if err := r.diffDirs(ctx, dirA, dirB, prefix+name+"/", depth+1, out); err != nil {
			return err
		}
	}
	return nil
}

// fieldChange is one value that differs between two objects.
type fieldChange struct {
	path           string
	from, to       any
	hasFrom, hasTo bool
}

// compare gives the values that differ, as far down as both sides have maps,
// or lists with the same key or length.
func compare(from, to map[string]any) []fieldChange {
	var out []fieldChange
	compareValues("", from, to, &out)
	return out
}

func compareValues(path string, from, to any, out *[]fieldChange) {
	switch a := from.(type) {
	case map[string]any:
		b, ok := to.(map[string]any)
		if !ok {
			break
		}
		keys := maps.Clone(a)
		maps.Copy(keys, b)
		for _, k := range sortedKeys(keys) {
			at := reconcile.JoinField(path, k)
			x, inA := a[k]
			y, inB := b[k]
			if inA && inB {
				compareValues(at, x, y, out)
				continue
			}
			*out = append(*out, fieldChange{at, x, y, inA, inB})
		}
		return
	case []any:
		b, ok := to.([]any)
		if !ok || len(a) == 0 || len(b) == 0 {
			break
		}
		key := reconcile.ListKey(a, b)
		if key == "" {
			if len(a) != len(b) {
				break
			}
			for i := range a {
				compareValues(reconcile.JoinIndex(path, i), a[i], b[i], out)
			}
			return
		}
		named := func(l []any) map[string]any {
			m := make(map[string]any, len(l))
			for _, e := range l {
				m[fmt.Sprint(e.(map[string]any)[key])] = e
			}
			return m
		}
		ma, mb := named(a), named(b)
		keys := maps.Clone(ma)
		maps.Copy(keys, mb)
		for _, k := range sortedKeys(keys) {
			at := reconcile.JoinElement(path, key, k)
			x, inA := ma[k]
			y, inB := mb[k]
			if inA && inB {
				compareValues(at, x, y, out)
				continue
			}
			*out = append(*out, fieldChange{at, x, y, inA, inB})
		}
		return
	}
	if !reflect.DeepEqual(from, to) {
		*out = append(*out, fieldChange{path, from, to, true, true})
	}
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
