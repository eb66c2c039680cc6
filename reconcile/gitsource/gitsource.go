package gitsource

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/http"
	"github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"github.com/go-git/go-git/v5/storage"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/memory"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// Options say which repository, and what of it. Only URL is required.
type Options struct {
	// URL is a local path, or a file, https, http, ssh or git URL, or
	// git@host:path.
	URL string
	// Dir keeps the clone of a repository that is not local, so that the next
	// start does not download it again. It is created if it does not exist,
	// and serves one process at a time. Empty keeps the clone in memory.
	Dir string
	// Reference is a branch, a tag, a full name under refs/ or a commit's
	// full hash. Empty is the branch that the repository's HEAD names.
	// Write and Commit need a branch.
	Reference string
	// Paths are globs of the files to read; a file is read if any of them
	// matches and its name ends in .yaml, .yml or .json. In a glob, "**"
	// stands for any number of directories, and the rest is as in
	// [path.Match], one directory level at a time. A directory's path stands
	// for all below it. Empty is everything.
	Paths []string
	// Exclude are globs of files to leave out though Paths match them.
	Exclude []string
	// MaxFileSize is the largest manifest, in bytes; a larger one is an error
	// of the revision. Default and maximum: [manifest.MaxSize].
	MaxFileSize int64
	// MaxFiles is how many manifests a revision may have. Default 100,000.
	MaxFiles int
	// Auth is how to log in; see [BasicAuth], [TokenAuth] and [SSHKey].
	// Nil uses what the URL holds, and for ssh the agent.
	Auth transport.AuthMethod
	// CABundle are PEM certificates to trust for https, beside the system's.
	CABundle []byte
	// Author is who the commits are by. Default "evenkeel <evenkeel@localhost>".
	Author Author
	// Timeout bounds each exchange with the server: listing its references,
	// downloading, pushing. Default 30 s; negative leaves it to the context.
	// Its end is a [context.DeadlineExceeded].
	Timeout time.Duration
	// Retries is how often Write starts again after somebody else moved the
	// branch. Default 50.
	Retries int
	// Verifier judges each commit before it is read. Nil accepts all.
	//
	// It judges what Write and Commit make too, before the branch moves, so
	// that they cannot leave a commit there that Fetch then refuses.
	Verifier Verifier
	// Signer signs each commit that Write and Commit make. Nil leaves them
	// unsigned.
	Signer Signer
	// Clock dates the commits. Default [reconcile.SystemClock].
	Clock reconcile.Clock
	// Logger gets a line per new revision and per commit made, and one per
	// retry at debug level. Nil logs nothing.
	Logger *slog.Logger
}

// Author is who a commit is by.
type Author struct {
	Name  string
	Email string
}

// String gives "Name <email>".
func (a Author) String() string { return a.Name + " <" + a.Email + ">" }

// Verifier decides whether a commit may be used. payload is the commit object
// without its signature and signature what was taken out, empty for an
// unsigned commit. An error refuses the revision; the caller sees it wrapped
// together with [reconcile.ErrForbidden].
type Verifier interface {
	Verify(ctx context.Context, revision string, payload, signature []byte) error
}

// Signer signs commits. payload is the commit object without a signature, as
// a [Verifier] gets it; what comes back is an armoured signature, OpenPGP,
// X.509 or SSH, which becomes the commit's gpgsig header. A write that is made
// again because the branch moved is signed again. An error refuses the write.
type Signer interface {
	Sign(ctx context.Context, payload []byte) (signature []byte, err error)
}

// BasicAuth logs in over https with a user name and a password.
func BasicAuth(user, password string) transport.AuthMethod {
	return &http.BasicAuth{Username: user, Password: password}
}

// TokenAuth logs in over https with an access token, sent as the password of
// a user whose name the common hosts ignore.
func TokenAuth(token string) transport.AuthMethod {
	return &http.BasicAuth{Username: "x-access-token", Password: token}
}

// SSHKey logs in over ssh with a private key in PEM form; passphrase is
// empty for an open key. The server's key must be in one of the knownHosts
// files; with none given, in the user's and the system's.
func SSHKey(user string, pem []byte, passphrase string, knownHosts ...string) (transport.AuthMethod, error) {
	keys, err := ssh.NewPublicKeys(user, pem, passphrase)
	if err != nil {
		return nil, fmt.Errorf("gitsource: ssh key: %w: %w", reconcile.ErrInvalid, err)
	}
	known, err := ssh.NewKnownHostsDb(knownHosts...)
	if err != nil {
		if len(knownHosts) == 0 {
			return keys, nil // fails when a server is asked, which may never be
		}
		return nil, fmt.Errorf("gitsource: known hosts: %w: %w", reconcile.ErrInvalid, err)
	}
	keys.HostKeyCallback = known.HostKeyCallback()
	return &sshKey{keys, known.HostKeyAlgorithms}, nil
}

// sshKey is a key with what is known of servers. A server with keys of
// several kinds has to be asked for the one that is known.
type sshKey struct {
	*ssh.PublicKeys
	kinds func(hostPort string) []string
}

// forHost gives the key to show one server.
func (k *sshKey) forHost(e *transport.Endpoint) transport.AuthMethod {
	port := e.Port
	if port <= 0 {
		port = ssh.DefaultPort
	}
	keys := *k.PublicKeys
	keys.HostKeyAlgorithms = k.kinds(net.JoinHostPort(e.Host, strconv.Itoa(port)))
	return &keys
}

// Repository is an open repository: a [reconcile.Source], a
// [reconcile.Revisioner] and the writer of commits. It is safe for concurrent
// use; its calls take turns.
type Repository struct {
	opts  Options
	name  string // the URL without a password
	match *matcher

	// turn guards everything below, and the storage, which go-git does not
	// make safe for concurrent use.
	turn turn
	// stuck is closed when an exchange ends that was given up. Until then
	// nothing else may use the storage. Nil if there is none.
	stuck chan struct{}

	store    storage.Storer
	endpoint *transport.Endpoint
	gitDir   string                 // of a local repository; empty for others
	bare     bool                   // of a local repository
	ref      plumbing.ReferenceName // empty when pinned to a commit
	pinned   plumbing.Hash

	cur      *snapshot
	scanned  *dir // the last tree that was walked
	blobs    map[blobKey]*parsed
	commits  map[plumbing.Hash]*commit
	verified map[plumbing.Hash]bool
}

var (
	_ reconcile.Source     = (*Repository)(nil)
	_ reconcile.Revisioner = (*Repository)(nil)
)

// turn is a lock whose wait ends with a context.
type turn chan struct{}

func (t turn) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) done() { <-t }

// Open finds the repository and its reference, which for a URL that is not
// local asks the server. Errors: [reconcile.ErrInvalid] for bad options,
// [reconcile.ErrNotFound] for a repository or reference that does not exist,
// [reconcile.ErrForbidden] for refused credentials.
func Open(ctx context.Context, opts Options) (*Repository, error) {
	if opts.URL == "" {
		return nil, fmt.Errorf("gitsource: open: no URL: %w", reconcile.ErrInvalid)
	}
	match, err := newMatcher(opts.Paths, opts.Exclude)
	if err != nil {
		return nil, fmt.Errorf("gitsource: open: %w", err)
	}
	opts = withDefaults(opts)
	r := &Repository{
		opts:     opts,
		name:     redact(opts.URL),
		match:    match,
		turn:     make(turn, 1),
		blobs:    make(map[blobKey]*parsed),
		commits:  make(map[plumbing.Hash]*commit),
		verified: make(map[plumbing.Hash]bool),
	}
	if err := ctx.Err(); err != nil {
		return nil, r.wrap("open", err)
	}
	if r.endpoint, err = transport.NewEndpoint(opts.URL); err != nil {
		return nil, r.wrap("open", fmt.Errorf("bad URL: %w", reconcile.ErrInvalid))
	}
	r.endpoint.CaBundle = opts.CABundle
	if key, ok := opts.Auth.(*sshKey); ok {
		r.opts.Auth = key.forHost(r.endpoint)
	}
	switch r.endpoint.Protocol {
	case "file":
		err = r.openLocal()
	case "https", "http", "ssh", "git":
		err = r.openRemote(ctx)
	default:
		err = fmt.Errorf("unknown scheme %q: %w", r.endpoint.Protocol, reconcile.ErrInvalid)
	}
	if err != nil {
		return nil, r.wrap("open", err)
	}
	return r, nil
}

func redact(raw string) string {
	if u, err := url.Parse(raw); err == nil && u.User != nil {
		if _, has := u.User.Password(); has {
			u.User = url.User(u.User.Username())
			return u.String()
		}
	}
	return raw
}

// wrap says what was done to which repository, and gives the errors of the
// transports the meaning that callers look for.
func (r *Repository) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	var noRef git.NoMatchingRefSpecError
	kind := error(nil)
	switch {
	case errors.Is(err, reconcile.ErrNotFound), errors.Is(err, reconcile.ErrForbidden):
	case errors.Is(err, transport.ErrRepositoryNotFound), errors.Is(err, git.ErrRepositoryNotExists),
		errors.Is(err, transport.ErrEmptyRemoteRepository), errors.Is(err, plumbing.ErrReferenceNotFound),
		errors.As(err, &noRef):
		kind = reconcile.ErrNotFound
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		kind = reconcile.ErrForbidden
	}
	if kind != nil {
		err = fmt.Errorf("%w: %w", kind, err)
	}
	return fmt.Errorf("gitsource: %s %s: %w", op, r.name, err)
}

func (r *Repository) openLocal() error {
	repo, err := git.PlainOpenWithOptions(r.endpoint.Path, &git.PlainOpenOptions{EnableDotGitCommonDir: true})
	if err != nil {
		return err
	}
	fs, ok := repo.Storer.(*filesystem.Storage)
	if !ok {
		return fmt.Errorf("unexpected storage %T: %w", repo.Storer, reconcile.ErrInvalid)
	}
	r.store = repo.Storer
	r.gitDir = fs.Filesystem().Root()
	if b, err := os.ReadFile(filepath.Join(r.gitDir, "commondir")); err == nil {
		dir := strings.TrimSpace(string(b))
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(r.gitDir, dir)
		}
		r.gitDir = dir
	}
	cfg, err := repo.Config()
	if err != nil {
		return err
	}
	r.bare = cfg.Core.IsBare
	find := func(name plumbing.ReferenceName) bool {
		_, err := r.store.Reference(name)
		return err == nil
	}
	if r.opts.Reference == "" {
		head, err := r.store.Reference(plumbing.HEAD)
		if err != nil {
			return fmt.Errorf("HEAD: %w", err)
		}
		if head.Type() == plumbing.SymbolicReference {
			r.ref = head.Target() // may be unborn in a new repository
		} else {
			r.pinned = head.Hash()
		}
		return nil
	}
	return r.choose(find)
}

func (r *Repository) openRemote(ctx context.Context) error {
	if r.opts.Dir == "" {
		r.store = memory.NewStorage()
	} else {
		repo, err := git.PlainOpen(r.opts.Dir)
		if errors.Is(err, git.ErrRepositoryNotExists) {
			repo, err = git.PlainInit(r.opts.Dir, true)
		}
		if err != nil {
			return fmt.Errorf("clone in %s: %w", r.opts.Dir, err)
		}
		r.store = repo.Storer
	}
	var refs []*plumbing.Reference
	err := r.network(ctx, func(ctx context.Context) (err error) {
		refs, err = r.remote().ListContext(ctx, &git.ListOptions{Auth: r.opts.Auth, CABundle: r.opts.CABundle})
		return err
	})
	if err != nil {
		return ctxFirst(ctx, err)
	}
	names := make(map[plumbing.ReferenceName]*plumbing.Reference, len(refs))
	for _, ref := range refs {
		names[ref.Name()] = ref
	}
	if r.opts.Reference == "" {
		head := names[plumbing.HEAD]
		switch {
		case head == nil:
			return fmt.Errorf("the repository has no HEAD: %w", reconcile.ErrNotFound)
		case head.Type() == plumbing.SymbolicReference:
			r.ref = head.Target()
		default:
			r.pinned = head.Hash()
		}
		return nil
	}
	return r.choose(func(name plumbing.ReferenceName) bool { return names[name] != nil })
}

// choose finds the full name of the reference that was asked for.
func (r *Repository) choose(exists func(plumbing.ReferenceName) bool) error {
	want := r.opts.Reference
	for _, name := range []string{want, "refs/heads/" + want, "refs/tags/" + want} {
		if strings.HasPrefix(name, "refs/") && exists(plumbing.ReferenceName(name)) {
			r.ref = plumbing.ReferenceName(name)
			return nil
		}
	}
	if plumbing.IsHash(want) {
		r.pinned = plumbing.NewHash(want)
		return nil
	}
	return fmt.Errorf("no branch or tag %q: %w", want, reconcile.ErrNotFound)
}

func (r *Repository) remote() *git.Remote {
	return git.NewRemote(r.store, &config.RemoteConfig{Name: "origin", URLs: []string{r.opts.URL}})
}

// tracking is where the clone keeps a reference of the server.
func tracking(name plumbing.ReferenceName) plumbing.ReferenceName {
	return plumbing.ReferenceName("refs/evenkeel/" + strings.TrimPrefix(string(name), "refs/"))
}

// pull brings the objects of the references in specs into the clone.
func (r *Repository) pull(ctx context.Context, specs ...config.RefSpec) error {
	err := r.network(ctx, func(ctx context.Context) error {
		return r.remote().FetchContext(ctx, &git.FetchOptions{
			RefSpecs: specs,
			Auth:     r.opts.Auth,
			CABundle: r.opts.CABundle,
			Tags:     git.NoTags,
			Force:    true,
		})
	})
	if err == nil || errors.Is(err, git.NoErrAlreadyUpToDate) {
		return nil
	}
	return ctxFirst(ctx, err)
}

// ctxFirst prefers the context's error to what its end made of the transport.
func ctxFirst(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// tip asks for the newest commit of the reference and brings it here.
func (r *Repository) tip(ctx context.Context) (plumbing.Hash, error) {
	if err := ctx.Err(); err != nil {
		return plumbing.ZeroHash, err
	}
	if r.ref == "" {
		if err := r.bring(ctx, r.pinned); err != nil {
			return plumbing.ZeroHash, err
		}
		return r.peel(r.pinned)
	}
	name := r.ref
	if r.gitDir == "" {
		name = tracking(r.ref)
		if err := r.pull(ctx, config.RefSpec("+"+string(r.ref)+":"+string(name))); err != nil {
			return plumbing.ZeroHash, fmt.Errorf("%s: %w", r.ref.Short(), err)
		}
	}
	ref, err := r.store.Reference(name)
	if err != nil {
		return plumbing.ZeroHash, fmt.Errorf("%s: %w", r.ref.Short(), err)
	}
	if ref.Type() != plumbing.HashReference {
		return plumbing.ZeroHash, fmt.Errorf("%s is a symbolic reference: %w", r.ref, reconcile.ErrInvalid)
	}
	return r.peel(ref.Hash())
}

// bring makes sure that an object is in the clone.
func (r *Repository) bring(ctx context.Context, h plumbing.Hash) error {
	if r.has(h) {
		return nil
	}
	if r.gitDir == "" {
		if err := r.pull(ctx, "+refs/heads/*:refs/evenkeel/heads/*", "+refs/tags/*:refs/evenkeel/tags/*"); err != nil {
			return err
		}
		if r.has(h) {
			return nil
		}
	}
	return fmt.Errorf("commit %s: %w", h, reconcile.ErrNotFound)
}

func withDefaults(o Options) Options {
	if o.MaxFileSize <= 0 || o.MaxFileSize > maxFileSize {
		o.MaxFileSize = maxFileSize
	}
	if o.MaxFiles <= 0 {
		o.MaxFiles = 100_000
	}
	if o.Author.Name == "" {
		o.Author.Name = "evenkeel"
	}
	if o.Author.Email == "" {
		o.Author.Email = "evenkeel@localhost"
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Retries <= 0 {
		o.Retries = 50
	}
	if o.Clock == nil {
		o.Clock = reconcile.SystemClock{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
