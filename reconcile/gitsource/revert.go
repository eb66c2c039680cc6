package gitsource

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/manifest"
)

// RevertConflictError says that a commit cannot be reverted without losing a
// later change. errors.Is(err, reconcile.ErrConflict) holds for it.
type RevertConflictError struct {
	// Revision is the commit that was to be reverted.
	Revision string
	// Path is the file.
	Path string
	// Key and Field are the resource and the field that changed again since;
	// zero where it is about the file's text.
	Key   reconcile.Key
	Field string
	// Reason is one line for a person.
	Reason string
}

func (e *RevertConflictError) Error() string {
	s := fmt.Sprintf("revert %s: %s", reconcile.ShortRevision(e.Revision), e.Path)
	if e.Key != (reconcile.Key{}) {
		s += ": " + e.Key.String()
	}
	if e.Field != "" {
		s += ": " + e.Field
	}
	return s + ": " + e.Reason
}

// Is makes errors.Is(err, reconcile.ErrConflict) true.
func (e *RevertConflictError) Is(target error) bool { return target == reconcile.ErrConflict }

// revert gives the files that take back what a commit changed against its
// first parent, as they have to be on tip, and the default message.
func (r *Repository) revert(ctx context.Context, tip *commit, revision string) (map[string]blobEdit, string, error) {
	h, err := r.revision(ctx, revision)
	if err != nil {
		return nil, "", err
	}
	c, err := r.commit(h)
	if err != nil {
		return nil, "", err
	}
	if err := r.diff(ctx, c); err != nil {
		return nil, "", err
	}
	out := make(map[string]blobEdit, len(c.files))
	for _, f := range c.files {
		now, mode, err := r.lookup(tip.tree, f.path)
		if err != nil {
			return nil, "", err
		}
		switch {
		case now == f.from && (now == plumbing.ZeroHash || mode == f.fromMode):
			continue // taken back already
		case now == f.to && (now == plumbing.ZeroHash || mode == f.toMode):
			if f.from == plumbing.ZeroHash {
				out[f.path] = blobEdit{remove: true}
			} else {
				out[f.path] = blobEdit{hash: f.from, mode: f.fromMode}
			}
			continue
		}
		conflict := func(key reconcile.Key, field, reason string) error {
			return &RevertConflictError{Revision: h.String(), Path: f.path, Key: key, Field: field, Reason: reason}
		}
		switch {
		case now == plumbing.ZeroHash:
			return nil, "", conflict(reconcile.Key{}, "", "a later commit deleted the file")
		case f.from == plumbing.ZeroHash || f.to == plumbing.ZeroHash:
			return nil, "", conflict(reconcile.Key{}, "", "a later commit changed the file that this one added or deleted")
		case !plain(mode) || !plain(f.fromMode) || !plain(f.toMode):
			return nil, "", conflict(reconcile.Key{}, "", "not a plain file")
		}
		data, err := r.revertFile(f, now, conflict)
		if err != nil {
			return nil, "", err
		}
		out[f.path] = blobEdit{data: data}
	}
	subject := reconcile.Commit{Message: c.message}.Subject()
	return out, fmt.Sprintf("Revert %q\n\nThis reverts commit %s.", subject, h), nil
}

func plain(m filemode.FileMode) bool { return m.IsRegular() || m == filemode.Executable }

// lookup finds a file in a tree; the zero hash if there is none.
func (r *Repository) lookup(tree plumbing.Hash, name string) (plumbing.Hash, filemode.FileMode, error) {
	for {
		entries, err := r.tree(tree)
		if err != nil {
			return plumbing.ZeroHash, 0, err
		}
		first, rest, deep := strings.Cut(name, "/")
		i := slices.IndexFunc(entries, func(e object.TreeEntry) bool { return e.Name == first })
		if i < 0 || deep != (entries[i].Mode == filemode.Dir) {
			return plumbing.ZeroHash, 0, nil
		}
		if !deep {
			return entries[i].Hash, entries[i].Mode, nil
		}
		tree, name = entries[i].Hash, rest
	}
}

// revertFile takes the change from f.from to f.to out of what the file is
// now. It merges lines first, since that brings comments back as well, and
// takes the result if it says exactly what the fields should; where lines
// that lie side by side get in each other's way, it sets the fields.
func (r *Repository) revertFile(f fileChange, now plumbing.Hash, conflict func(reconcile.Key, string, string) error) ([]byte, error) {
	var text [3][]byte
	for i, h := range []plumbing.Hash{f.from, f.to, now} {
		var err error
		if text[i], err = r.blob(h, maxFileSize); err != nil {
			return nil, fmt.Errorf("%s: %w", f.path, err)
		}
	}
	before, after, tip := text[0], text[1], text[2]
	merged, clean := merge3(after, before, tip)
	if !r.match.file(f.path) {
		if !clean {
			return nil, conflict(reconcile.Key{}, "", "later commits changed the same lines")
		}
		return merged, nil
	}
	was, err1 := decode(f.path, before)
	did, err2 := decode(f.path, after)
	is, err3 := decode(f.path, tip)
	if err1 != nil || err2 != nil || err3 != nil {
		// A version that does not parse has lines only.
		if !clean {
			return nil, conflict(reconcile.Key{}, "", "later commits changed the same lines")
		}
		return merged, nil
	}
	want, edits, whole, err := plan(was, did, is, conflict)
	if err != nil {
		return nil, err
	}
	if clean {
		if got, err := decode(f.path, merged); err == nil && equal(got, want) {
			return merged, nil
		}
	}
	if whole != (reconcile.Key{}) {
		return nil, conflict(whole, "", "later commits changed lines around the resource")
	}
	out, err := manifest.Edit(f.path, tip, edits)
	if err != nil {
		return nil, conflict(reconcile.Key{}, "", err.Error())
	}
	if got, err := decode(f.path, out); err != nil || !equal(got, want) {
		return nil, conflict(reconcile.Key{}, "", "the fields cannot be set back one by one")
	}
	return out, nil
}

func decode(name string, data []byte) (map[reconcile.Key]map[string]any, error) {
	resources, err := manifest.Decode(name, data)
	if err != nil {
		return nil, err
	}
	m := make(map[reconcile.Key]map[string]any, len(resources))
	for _, res := range resources {
		if _, dup := m[res.Key]; dup {
			return nil, fmt.Errorf("%s: %s twice: %w", name, res.Key, reconcile.ErrInvalid)
		}
		m[res.Key] = res.Object
	}
	return m, nil
}

func equal(a, b map[reconcile.Key]map[string]any) bool {
	return reflect.DeepEqual(a, b)
}

// plan tells what the resources of a file must become: as they are now, with
// every field that differs between was and did set back. Each such field must
// still be as did has it, or be back already. whole is a resource that comes
// or goes as a whole, if any.
func plan(was, did, is map[reconcile.Key]map[string]any, conflict func(reconcile.Key, string, string) error) (want map[reconcile.Key]map[string]any, edits []reconcile.Edit, whole reconcile.Key, err error) {
	want = make(map[reconcile.Key]map[string]any, len(is))
	for k, o := range is {
		want[k] = o
	}
	keys := make([]reconcile.Key, 0, len(was)+len(did))
	for k := range was {
		keys = append(keys, k)
	}
	for k := range did {
		if _, ok := was[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, reconcile.Key.Compare)
	const changed = "a later commit changed it"
	for _, k := range keys {
		w, inWas := was[k]
		d, inDid := did[k]
		n, inNow := is[k]
		switch {
		case !inWas: // the commit added it
			if !inNow {
				continue
			}
			if !reflect.DeepEqual(n, d) {
				return nil, nil, whole, conflict(k, "", changed)
			}
			delete(want, k)
			whole = k
		case !inDid: // the commit removed it
			if inNow {
				if !reflect.DeepEqual(n, w) {
					return nil, nil, whole, conflict(k, "", "a later commit declared it anew")
				}
				continue
			}
			want[k] = w
			whole = k
		case reflect.DeepEqual(w, d):
		case !inNow:
			return nil, nil, whole, conflict(k, "", "a later commit removed it")
		default:
			es, err := planFields(k, w, d, n, conflict)
			if err != nil {
				return nil, nil, whole, err
			}
			o := reconcile.CloneObject(n)
			for _, e := range es {
				p, err := reconcile.ParsePath(e.Path)
				if err == nil && !e.Remove {
					err = p.Set(o, e.Value)
				} else if err == nil {
					p.Delete(o)
				}
				if err != nil {
					return nil, nil, whole, conflict(k, e.Path, err.Error())
				}
			}
			want[k] = o
			edits = append(edits, es...)
		}
	}
	return want, edits, whole, nil
}

func planFields(k reconcile.Key, was, did, now map[string]any, conflict func(reconcile.Key, string, string) error) ([]reconcile.Edit, error) {
	var edits []reconcile.Edit
	for _, c := range compare(was, did) {
		p, err := reconcile.ParsePath(c.path)
		if err != nil {
			return nil, conflict(k, c.path, err.Error())
		}
		v, has := p.Get(now)
		switch {
		case has == c.hasFrom && (!has || reflect.DeepEqual(v, c.from)):
			continue // back already
		case has != c.hasTo || has && !reflect.DeepEqual(v, c.to):
			return nil, conflict(k, c.path, fmt.Sprintf("a later commit changed it to %s", show(v, has)))
		}
		edits = append(edits, reconcile.Edit{Key: k, Path: c.path, Value: c.from, Remove: !c.hasFrom})
	}
	return edits, nil
}

func show(v any, has bool) string {
	switch {
	case !has:
		return "nothing"
	case v == nil:
		return "null"
	}
	switch v.(type) {
	case map[string]any:
		return "another map"
	case []any:
		return "another list"
	}
	if s, ok := v.(string); ok {
		return fmt.Sprintf("%.80q", s)
	}
	return fmt.Sprintf("%.80s", fmt.Sprint(v))
}

// merge3 applies the change from base to other onto tip, line by line. clean
// is false where tip changed the same or adjoining lines in another way.
func merge3(base, other, tip []byte) (merged []byte, clean bool) {
	b, o, t := splitLines(base), splitLines(other), splitLines(tip)
	ours, ok1 := matches(b, t)
	theirs, ok2 := matches(b, o)
	if !ok1 || !ok2 {
		return nil, false
	}
	var out bytes.Buffer
	put := func(lines []string) {
		for _, l := range lines {
			out.WriteString(l)
		}
	}
	ib, io, it := 0, 0, 0
	for ib < len(b) || io < len(o) || it < len(t) {
		// Lines that are the same in all three.
		if ib < len(b) && theirs[ib] == io && ours[ib] == it {
			out.WriteString(b[ib])
			ib, io, it = ib+1, io+1, it+1
			continue
		}
		// The next base line that both sides keep ends the chunk.
		nb := ib
		for nb < len(b) && (theirs[nb] < io || ours[nb] < it) {
			nb++
		}
		no, nt := len(o), len(t)
		if nb < len(b) {
			no, nt = theirs[nb], ours[nb]
		}
		cb, co, ct := b[ib:nb], o[io:no], t[it:nt]
		switch {
		case slices.Equal(cb, ct), slices.Equal(co, ct):
			put(co)
		case slices.Equal(cb, co):
			put(ct)
		default:
			return nil, false
		}
		ib, io, it = nb, no, nt
	}
	return out.Bytes(), true
}

func splitLines(data []byte) []string {
	var out []string
	for line := range bytes.Lines(data) {
		out = append(out, string(line))
	}
	return out
}

// matches gives for each line of a the index of its partner in b, or -1, by
// the longest common subsequence. ok is false for texts too different to
// compare at small cost.
func matches(a, b []string) (out []int, ok bool) {
	out = make([]int, len(a))
	for i := range out {
		out[i] = -1
	}
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		out[head] = head
		head++
	}
	ea, eb := len(a), len(b)
	for ea > head && eb > head && a[ea-1] == b[eb-1] {
		ea--
		eb--
		out[ea] = eb
	}
	n, m := ea-head, eb-head
	if n == 0 || m == 0 {
		return out, true
	}
	if n*m > 16<<20 {
		return nil, false
	}
	// length[i*(m+1)+j] is the longest common part of a[head+i:] and b[head+j:].
	length := make([]int32, (n+1)*(m+1))
	for i := n - 1; i >= 0; i-- {
		for j := m - 1; j >= 0; j-- {
			at := i*(m+1) + j
			if a[head+i] == b[head+j] {
				length[at] = length[at+m+2] + 1
			} else {
				length[at] = max(length[at+m+1], length[at+1])
			}
		}
	}
	for i, j := 0, 0; i < n && j < m; {
		at := i*(m+1) + j
		switch {
		case a[head+i] == b[head+j]:
			out[head+i] = head + j
			i++
			j++
		case length[at+m+1] >= length[at+1]:
			i++
		default:
			j++
		}
	}
	return out, true
}
