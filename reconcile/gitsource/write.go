package gitsource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport/client"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/manifest"
)

// CommitRequest asks for one commit of whole files.
type CommitRequest struct {
	// Message is the commit's message; required.
	Message string
	// Trailers are added to it.
	Trailers []reconcile.Trailer
	// Author of this commit; zero is Options.Author.
	Author Author
	// Time of this commit; zero is the clock's.
	Time time.Time
	// Files are the new contents by path, slash-separated, relative to the
	// root; nil deletes the file.
	Files map[string][]byte
	// Base, if not empty, is the commit at which the files were read (see
	// [Repository.ReadFile]). Where one of them has changed since, the commit
	// is refused with [reconcile.ErrConflict], as Git refuses a push, so that
	// it cannot take a later edit back unseen.
	Base string
}

// Init makes a new bare repository in dir, with the branch main and a first
// commit. It is an error if there is a repository already.
func Init(ctx context.Context, dir string, req CommitRequest) (reconcile.Commit, error) {
	fail := func(err error) (reconcile.Commit, error) {
		return reconcile.Commit{}, fmt.Errorf("gitsource: init %s: %w", dir, err)
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	_, err := git.PlainInitWithOptions(dir, &git.PlainInitOptions{
		InitOptions: git.InitOptions{DefaultBranch: plumbing.Main},
		Bare:        true,
	})
	if errors.Is(err, git.ErrRepositoryAlreadyExists) {
		err = fmt.Errorf("%w: %w", reconcile.ErrConflict, err)
	}
	if err != nil {
		return fail(err)
	}
	r, err := Open(ctx, Options{URL: dir})
	if err != nil {
		return fail(err)
	}
	return r.Commit(ctx, req)
}

// Commit makes one commit of whole files on the branch, as a person's push
// would. Other files stay as they are on the tip, whoever changed them
// meanwhile. [reconcile.ErrNoChange] if all files are so already, and deleting
// what is not there is no change; otherwise errors are as for Write.
func (r *Repository) Commit(ctx context.Context, req CommitRequest) (reconcile.Commit, error) {
	text, err := formatMessage(req.Message, req.Trailers)
	if err != nil {
		return reconcile.Commit{}, r.wrap("commit", err)
	}
	for name := range req.Files {
		if err := checkPath(name); err != nil {
			return reconcile.Commit{}, r.wrap("commit", err)
		}
	}
	c, err := r.commitOn(ctx, func(tip *commit) (*proposal, error) {
		if err := r.unchanged(ctx, req.Base, tip, req.Files); err != nil {
			return nil, err
		}
		p := &proposal{text: text, author: req.Author, when: req.Time, files: map[string]blobEdit{}}
		for name, data := range req.Files {
			p.files[name] = blobEdit{data: data, remove: data == nil}
		}
		return p, nil
	})
	return c, r.wrap("commit", err)
}

// unchanged refuses the files that differ between base and tip.
func (r *Repository) unchanged(ctx context.Context, base string, tip *commit, files map[string][]byte) error {
	if base == "" || tip != nil && tip.hash.String() == base {
		return nil
	}
	h, err := r.revision(ctx, base)
	if err != nil {
		return fmt.Errorf("base: %w", err)
	}
	from, err := r.commit(h)
	if err != nil {
		return fmt.Errorf("base: %w", err)
	}
	if tip == nil {
		return fmt.Errorf("base %s: the branch has no commits: %w", reconcile.ShortRevision(base), reconcile.ErrConflict)
	}
	for _, name := range sortedKeys(files) {
		was, wasMode, err := r.lookup(from.tree, name)
		if err != nil {
			return err
		}
		is, isMode, err := r.lookup(tip.tree, name)
		if err != nil {
			return err
		}
		if was != is || wasMode != isMode {
			return fmt.Errorf("%s changed between %s and %s: %w", name,
				reconcile.ShortRevision(h.String()), reconcile.ShortRevision(tip.hash.String()), reconcile.ErrConflict)
		}
	}
	return nil
}

// Write makes one commit on the branch: all edits of the request together, or
// the revert of one commit. It is made on the newest tip, and made anew when
// somebody else moves the branch first, so a request says what is to change
// and not from which state.
//
// If a commit with this Action-Id is among the newest [HistoryLimit] ones,
// that commit is returned and nothing is written. Errors:
// [reconcile.ErrNoChange],
// [reconcile.ErrNotFound] for a key or commit that does not exist,
// [reconcile.ErrInvalid] for a bad request, [reconcile.ErrForbidden] where the
// Verifier would refuse the commit, [*RevertConflictError],
// [manifest.ErrNotEditable], and [reconcile.ErrConflict] for an edit whose
// Expect is not what the tip has, and when all retries were lost to other
// writers. A commit that would break the branch, such as a revert that brings
// back a file that does not parse or a key that is declared elsewhere by now,
// is refused with the errors that Fetch would give; those that the tip has
// already do not count.
func (r *Repository) Write(ctx context.Context, req reconcile.WriteRequest) (reconcile.Commit, error) {
	trailers, err := checkWrite(&req)
	if err != nil {
		return reconcile.Commit{}, r.wrap("write", fmt.Errorf("action %q: %w", req.ID, err))
	}
	c, err := r.commitOn(ctx, func(tip *commit) (*proposal, error) {
		if tip == nil {
			return nil, fmt.Errorf("the branch has no commits: %w", reconcile.ErrNotFound)
		}
		made, err := r.find(ctx, tip.hash, reconcile.TrailerAction, req.ID)
		if err != nil || made != nil {
			return &proposal{made: made}, err
		}
		p := &proposal{sound: true}
		message := req.Message
		if req.Revert != "" {
			var subject string
			p.files, subject, err = r.revert(ctx, tip, req.Revert)
			if message == "" {
				message = subject
			}
		} else {
			p.files, err = r.edit(ctx, tip, req.Edits)
		}
		if err != nil {
			return nil, err
		}
		p.text, err = formatMessage(message, trailers)
		return p, err
	})
	if err != nil {
		return c, r.wrap("write", fmt.Errorf("action %q: %w", req.ID, err))
	}
	return c, nil
}

func checkWrite(req *reconcile.WriteRequest) ([]reconcile.Trailer, error) {
	bad := func(format string, args ...any) ([]reconcile.Trailer, error) {
		return nil, fmt.Errorf(format+": %w", append(args, reconcile.ErrInvalid)...)
	}
	if id := strings.Join(strings.Fields(req.ID), " "); id == "" || id != req.ID {
		return bad("the id is empty or has odd white space")
	}
	if (len(req.Edits) == 0) == (req.Revert == "") {
		return bad("want either edits or a revert")
	}
	if req.Message == "" && req.Revert == "" {
		return bad("no message")
	}
	for _, t := range req.Trailers {
		if strings.EqualFold(t.Key, reconcile.TrailerAction) {
			return bad("the trailer %s is the writer's own", t.Key)
		}
	}
	trailers := append(slices.Clone(req.Trailers), reconcile.Trailer{Key: reconcile.TrailerAction, Value: req.ID})
	if _, err := formatMessage("x", trailers); err != nil {
		return nil, err
	}
	return trailers, nil
}

// proposal is a commit to be made on one tip.
type proposal struct {
	made   *commit // instead of all below
	text   string
	author Author
	when   time.Time
	files  map[string]blobEdit
	sound  bool // refuse it if it would break the branch
}

// blobEdit is the new content of a file: data, a blob that exists already, or
// nothing.
type blobEdit struct {
	data   []byte
	hash   plumbing.Hash
	mode   filemode.FileMode // 0 keeps the mode there is
	remove bool
}

// commitOn asks propose for a commit on the tip and moves the branch to it,
// again and again until nobody was faster.
func (r *Repository) commitOn(ctx context.Context, propose func(tip *commit) (*proposal, error)) (reconcile.Commit, error) {
	var none reconcile.Commit
	if err := r.take(ctx); err != nil {
		return none, err
	}
	defer r.turn.done()
	if !r.ref.IsBranch() {
		return none, fmt.Errorf("%q is not a branch: %w", r.opts.Reference, reconcile.ErrInvalid)
	}
	if err := r.checkedOut(); err != nil {
		return none, err
	}
	for attempt := 0; ; attempt++ {
		tip, err := r.writableTip(ctx)
		if err != nil {
			return none, err
		}
		p, err := propose(tip)
		if err != nil {
			return none, err
		}
		if p.made != nil {
			return r.public(ctx, p.made)
		}
		b := newBuilder(r)
		tree, err := b.root(tip, p)
		if err != nil {
			return none, err
		}
		if p.sound {
			if err := r.sound(ctx, tip, tree); err != nil {
				return none, err
			}
			if r.scanned != nil {
				r.trim(r.scanned)
			}
		}
		h, err := b.commit(ctx, tip, tree, p)
		if err != nil {
			return none, err
		}
		var old plumbing.Hash
		if tip != nil {
			old = tip.hash
		}
		err = r.push(ctx, old, h, b.made)
		if err == nil {
			c, err := r.commit(h)
			if err != nil {
				return none, err
			}
			r.opts.Logger.InfoContext(ctx, "commit made", "repository", r.name, "revision", h.String(), "subject", reconcile.Commit{Message: c.message}.Subject())
			return r.public(ctx, c)
		}
		if !errors.Is(err, errMoved) {
			return none, err
		}
		if attempt >= r.opts.Retries {
			return none, fmt.Errorf("%s moved on through %d attempts: %w", r.ref.Short(), attempt+1, reconcile.ErrConflict)
		}
		r.opts.Logger.DebugContext(ctx, "branch moved, trying again", "repository", r.name, "attempt", attempt+1)
		if attempt > 0 {
			if err := sleep(ctx, rand.N(min(time.Millisecond<<attempt, 250*time.Millisecond))); err != nil {
				return none, err
			}
		}
	}
}

// checkedOut refuses the branch that a work tree shows, as git push does: the
// tree would seem to take every new commit back.
func (r *Repository) checkedOut() error {
	if r.gitDir == "" || r.bare {
		return nil
	}
	head, err := r.store.Reference(plumbing.HEAD)
	if err == nil && head.Type() == plumbing.SymbolicReference && head.Target() == r.ref {
		return fmt.Errorf("%s is checked out in a work tree; use a bare repository: %w", r.ref.Short(), reconcile.ErrInvalid)
	}
	return nil
}

// writableTip is the tip to write on, nil on an unborn branch.
func (r *Repository) writableTip(ctx context.Context) (*commit, error) {
	h, err := r.tip(ctx)
	if err != nil {
		if r.gitDir != "" && errors.Is(err, plumbing.ErrReferenceNotFound) {
			return nil, nil
		}
		return nil, err
	}
	if err := r.verify(ctx, h); err != nil {
		return nil, err
	}
	return r.commit(h)
}

// edit applies field edits to the files that declare the keys at tip. Files
// with errors are left out, so that they do not stop the repair of another.
func (r *Repository) edit(ctx context.Context, tip *commit, edits []reconcile.Edit) (map[string]blobEdit, error) {
	root, err := r.scan(ctx, tip.tree)
	if err != nil {
		return nil, err
	}
	files := root.sorted()
	contents, err := r.parse(ctx, files)
	if err != nil {
		return nil, err
	}
	wanted := make(map[reconcile.Key]int, len(edits))
	for _, e := range edits {
		wanted[e.Key] = -1
	}
	found := make(map[reconcile.Key]reconcile.Resource, len(wanted))
	for i, p := range contents {
		for _, res := range p.resources {
			was, ok := wanted[res.Key]
			if !ok {
				continue
			}
			if was >= 0 {
				return nil, &reconcile.ConflictError{Key: res.Key, First: found[res.Key].Origin, Second: res.Origin}
			}
			wanted[res.Key], found[res.Key] = i, res
		}
	}
	byFile := make(map[string][]reconcile.Edit)
	hashes := make(map[string]plumbing.Hash)
	for _, e := range edits {
		i := wanted[e.Key]
		if i < 0 {
			return nil, fmt.Errorf("no file declares %s: %w", e.Key, reconcile.ErrNotFound)
		}
		if err := expected(e, found[e.Key].Object); err != nil {
			return nil, err
		}
		byFile[files[i].path] = append(byFile[files[i].path], e)
		hashes[files[i].path] = files[i].hash
	}
	out := make(map[string]blobEdit, len(byFile))
	for _, name := range sortedKeys(byFile) {
		data, err := r.blob(hashes[name], r.opts.MaxFileSize)
		if err != nil {
			return nil, err
		}
		if data, err = manifest.Edit(name, data, byFile[name]); err != nil {
			return nil, err
		}
		out[name] = blobEdit{data: data}
	}
	return out, nil
}

// checkPath refuses paths that Git itself would not check out.
func checkPath(name string) error {
	bad := name == "" || len(name) > 4096 || path.IsAbs(name) || path.Clean(name) != name || strings.ContainsAny(name, "\x00\\")
	segs := strings.Split(name, "/")
	for _, seg := range segs {
		bad = bad || seg == "." || seg == ".." || strings.EqualFold(seg, ".git")
	}
	if bad || len(segs) > maxTreeDepth {
		return fmt.Errorf("file path %q: %w", name, reconcile.ErrInvalid)
	}
	return nil
}

// root writes the tree of a proposal.
func (b *builder) root(tip *commit, p *proposal) (plumbing.Hash, error) {
	var base plumbing.Hash
	if tip != nil {
		base = tip.tree
	}
	tree, err := b.tree(base, p.files, "")
	if err != nil {
		return plumbing.ZeroHash, err
	}
	if tip != nil && tree == base {
		return plumbing.ZeroHash, reconcile.ErrNoChange
	}
	if tree == plumbing.ZeroHash { // the last file is gone
		return b.put(plumbing.TreeObject, nil)
	}
	return tree, nil
}

// commit signs and writes the commit of a tree, once the Verifier has
// accepted it: a commit that only other people may not use would stop this
// branch for us too.
func (b *builder) commit(ctx context.Context, tip *commit, tree plumbing.Hash, p *proposal) (plumbing.Hash, error) {
	r := b.r
	author, when := p.author, p.when
	if author == (Author{}) {
		author = r.opts.Author
	}
	if when.IsZero() {
		when = r.opts.Clock.Now()
	}
	by := object.Signature{Name: clean(author.Name), Email: clean(author.Email), When: when}
	c := &object.Commit{Author: by, Committer: by, Message: p.text, TreeHash: tree}
	if tip != nil {
		c.ParentHashes = []plumbing.Hash{tip.hash}
	}
	if r.opts.Signer != nil {
		var err error
		if c.PGPSignature, err = r.sign(ctx, c); err != nil {
			return plumbing.ZeroHash, err
		}
	}
	var obj plumbing.MemoryObject
	if err := c.Encode(&obj); err != nil {
		return plumbing.ZeroHash, err
	}
	raw, err := content(&obj)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	if err := r.judge(ctx, obj.Hash(), raw); err != nil {
		if r.opts.Signer == nil {
			return plumbing.ZeroHash, fmt.Errorf("nothing was written: the new, unsigned %w (see Options.Signer)", err)
		}
		return plumbing.ZeroHash, fmt.Errorf("nothing was written: the new %w", err)
	}
	return b.store(&obj)
}

// sign gives the signature of a commit as its header holds it.
func (r *Repository) sign(ctx context.Context, c *object.Commit) (string, error) {
	var obj plumbing.MemoryObject
	if err := c.EncodeWithoutSignature(&obj); err != nil {
		return "", err
	}
	payload, err := content(&obj)
	if err != nil {
		return "", err
	}
	raw, err := r.opts.Signer.Sign(ctx, payload)
	if err != nil {
		return "", fmt.Errorf("sign the commit: %w", err)
	}
	// A blank first or last line, a carriage return or a zero byte would not
	// survive the header.
	signature := strings.Trim(strings.ReplaceAll(string(raw), "\r\n", "\n"), "\n")
	if signature == "" || strings.ContainsAny(signature, "\x00\r") {
		return "", fmt.Errorf("sign the commit: the Signer gave %d bytes that are no armoured signature: %w", len(raw), reconcile.ErrInvalid)
	}
	return signature, nil
}

func content(obj plumbing.EncodedObject) (data []byte, err error) {
	rd, err := obj.Reader()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rd.Close()) }()
	return io.ReadAll(rd)
}

// clean takes out of a name what would end it in a commit object.
func clean(s string) string {
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if c < ' ' || c == '<' || c == '>' {
			return -1
		}
		return c
	}, s))
}

// builder writes the objects of one commit.
type builder struct {
	r *Repository
	// made are the objects that a push has to send, each once: a pack with
	// one object twice is corrupt for Git.
	made []plumbing.Hash
	seen map[plumbing.Hash]bool
}

func newBuilder(r *Repository) *builder {
	return &builder{r: r, seen: make(map[plumbing.Hash]bool)}
}

func (b *builder) put(t plumbing.ObjectType, data []byte) (plumbing.Hash, error) {
	var obj plumbing.MemoryObject
	obj.SetType(t)
	if _, err := obj.Write(data); err != nil {
		return plumbing.ZeroHash, err
	}
	return b.store(&obj)
}

func (b *builder) store(obj plumbing.EncodedObject) (plumbing.Hash, error) {
	h := obj.Hash()
	if b.seen[h] {
		return h, nil
	}
	b.seen[h] = true
	b.made = append(b.made, h)
	if b.r.store.HasEncodedObject(h) == nil {
		return h, nil
	}
	if _, err := b.r.store.SetEncodedObject(obj); err != nil {
		return plumbing.ZeroHash, fmt.Errorf("store object %s: %w", h, err)
	}
	return h, nil
}

// tree gives the tree that results from base and the edits, whose paths are
// relative to it; the zero hash if nothing is left. Only directories on the
// way to an edit are read or written.
func (b *builder) tree(base plumbing.Hash, edits map[string]blobEdit, prefix string) (plumbing.Hash, error) {
	entries, err := b.r.tree(base)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	entries = slices.Clone(entries)
	dirs := make(map[string]map[string]blobEdit)
	find := func(name string) int {
		return slices.IndexFunc(entries, func(e object.TreeEntry) bool { return e.Name == name })
	}
	changed := false
	set := func(i int, e object.TreeEntry) {
		if i < 0 {
			entries = append(entries, e)
			changed = true
		} else if entries[i] != e {
			entries[i] = e
			changed = true
		}
	}
	for _, name := range sortedKeys(edits) {
		e := edits[name]
		if first, rest, deep := strings.Cut(name, "/"); deep {
			if dirs[first] == nil {
				dirs[first] = make(map[string]blobEdit)
			}
			dirs[first][rest] = e
			continue
		}
		i := find(name)
		if i >= 0 && entries[i].Mode == filemode.Dir {
			if e.remove {
				continue
			}
			return plumbing.ZeroHash, fmt.Errorf("%s is a directory: %w", prefix+name, reconcile.ErrInvalid)
		}
		if e.remove {
			if i >= 0 {
				entries = slices.Delete(entries, i, i+1)
				changed = true
			}
			continue
		}
		h := e.hash
		if h == plumbing.ZeroHash {
			if h, err = b.put(plumbing.BlobObject, e.data); err != nil {
				return plumbing.ZeroHash, err
			}
		}
		mode := e.mode
		if mode == 0 {
			mode = filemode.Regular
			if i >= 0 && entries[i].Mode.IsRegular() || i >= 0 && entries[i].Mode == filemode.Executable {
				mode = entries[i].Mode
			}
		}
		set(i, object.TreeEntry{Name: name, Mode: mode, Hash: h})
	}
	for _, name := range sortedKeys(dirs) {
		i := find(name)
		var sub plumbing.Hash
		if i >= 0 {
			if entries[i].Mode != filemode.Dir {
				if onlyRemovals(dirs[name]) {
					continue
				}
				return plumbing.ZeroHash, fmt.Errorf("%s is a file, not a directory: %w", prefix+name, reconcile.ErrInvalid)
			}
			sub = entries[i].Hash
		}
		h, err := b.tree(sub, dirs[name], prefix+name+"/")
		if err != nil {
			return plumbing.ZeroHash, err
		}
		switch {
		case h != plumbing.ZeroHash:
			set(i, object.TreeEntry{Name: name, Mode: filemode.Dir, Hash: h})
		case i >= 0:
			entries = slices.Delete(entries, i, i+1)
			changed = true
		}
	}
	if !changed {
		return base, nil
	}
	if len(entries) == 0 {
		return plumbing.ZeroHash, nil
	}
	// Git sorts a directory as if its name ended in a slash.
	sortName := func(e object.TreeEntry) string {
		if e.Mode == filemode.Dir {
			return e.Name + "/"
		}
		return e.Name
	}
	slices.SortFunc(entries, func(x, y object.TreeEntry) int { return strings.Compare(sortName(x), sortName(y)) })
	var obj plumbing.MemoryObject
	if err := (&object.Tree{Entries: entries}).Encode(&obj); err != nil {
		return plumbing.ZeroHash, fmt.Errorf("tree %q: %w", prefix, err)
	}
	return b.store(&obj)
}

func onlyRemovals(edits map[string]blobEdit) bool {
	for _, e := range edits {
		if !e.remove {
			return false
		}
	}
	return true
}

// push moves the branch from old to new where the repository lives, or gives
// errMoved.
func (r *Repository) push(ctx context.Context, old, new plumbing.Hash, objects []plumbing.Hash) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.gitDir != "" {
		return r.moveLocal(ctx, old, new)
	}
	err := r.network(ctx, func(ctx context.Context) error { return r.pushRemote(ctx, old, new, objects) })
	if err == nil {
		return r.store.SetReference(plumbing.NewHashReference(tracking(r.ref), new))
	}
	if errors.Is(err, errMoved) || ctx.Err() != nil {
		return ctxFirst(ctx, err)
	}
	// The server may have refused because somebody was faster, or have done
	// it and lost its answer: where the branch is now tells.
	now, tipErr := r.tip(ctx)
	switch {
	case tipErr != nil:
		return errors.Join(err, tipErr)
	case now == new:
		return nil
	case now != old:
		return errMoved
	}
	return err
}

// pushRemote sends exactly the objects that the commit is made of. go-git's
// own push looks through the history for them.
func (r *Repository) pushRemote(ctx context.Context, old, new plumbing.Hash, objects []plumbing.Hash) (err error) {
	c, err := client.NewClient(r.endpoint)
	if err != nil {
		return err
	}
	session, err := c.NewReceivePackSession(r.endpoint, r.opts.Auth)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	adv, err := session.AdvertisedReferencesContext(ctx)
	if err != nil {
		return err
	}
	if adv.References[string(r.ref)] != old {
		return errMoved
	}
	var pack bytes.Buffer
	if _, err := packfile.NewEncoder(&pack, r.store, false).Encode(objects, 0); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	// The server compares with Old once more, under its lock.
	req := packp.NewReferenceUpdateRequestFromCapabilities(adv.Capabilities)
	req.Commands = []*packp.Command{{Name: r.ref, Old: old, New: new}}
	req.Packfile = io.NopCloser(&pack)
	status, err := session.ReceivePack(ctx, req)
	if err != nil {
		return err
	}
	if status != nil {
		return status.Error()
	}
	return nil
}
