package gitsource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

func TestOpenErrors(t *testing.T) {
	_, dir := newRepo(t, map[string]string{"a.yaml": deployment("a", 1, "x")}, Options{})
	for name, tc := range map[string]struct {
		opts Options
		want error
	}{
		"no URL":        {Options{}, reconcile.ErrInvalid},
		"bad scheme":    {Options{URL: "ftp://example.org/x"}, reconcile.ErrInvalid},
		"bad URL":       {Options{URL: "http://[::1"}, reconcile.ErrInvalid},
		"no repository": {Options{URL: t.TempDir()}, reconcile.ErrNotFound},
		"no directory":  {Options{URL: filepath.Join(dir, "none")}, reconcile.ErrNotFound},
		"no branch":     {Options{URL: dir, Reference: "nope"}, reconcile.ErrNotFound},
		"no full name":  {Options{URL: dir, Reference: "refs/x/y"}, reconcile.ErrNotFound},
		"bad glob":      {Options{URL: dir, Paths: []string{"a[", "b"}}, reconcile.ErrInvalid},
		"bad exclude":   {Options{URL: dir, Exclude: []string{"../x"}}, reconcile.ErrInvalid},
	} {
		if _, err := Open(t.Context(), tc.opts); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Init(t.Context(), dir, CommitRequest{Message: "x"}); !errors.Is(err, reconcile.ErrConflict) {
		t.Errorf("init twice: %v", err)
	}
	r := open(t, Options{URL: dir, Reference: strings.Repeat("c", 40)})
	if _, err := r.Fetch(t.Context()); !errors.Is(err, reconcile.ErrNotFound) {
		t.Errorf("unknown commit: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Fetch(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestReferences(t *testing.T) {
	r, dir := newRepo(t, map[string]string{"a.yaml": deployment("a", 1, "x")}, Options{})
	first := fetch(t, r).Revision()
	runGit(t, dir, "tag", "-a", "v1", "-m", "one", "main")
	runGit(t, dir, "tag", "light", "main")
	push(t, r, "Two", map[string]string{"a.yaml": deployment("a", 2, "x")})
	for _, ref := range []string{"v1", "light", "refs/tags/v1", first} {
		if got := fetch(t, open(t, Options{URL: dir, Reference: ref})).Revision(); got != first {
			t.Errorf("%s is %s", ref, got)
		}
	}
	// Git may pack everything behind our back.
	runGit(t, dir, "gc", "-q", "--prune=now")
	push(t, r, "Three", map[string]string{"a.yaml": deployment("a", 3, "x")})
	if got := field(t, fetch(t, r), dep("a"), "spec.replicas"); got != int64(3) {
		t.Errorf("after gc: %v", got)
	}
	if _, err := r.FetchRevision(t.Context(), "v1"); err != nil {
		t.Error(err)
	}
	runGit(t, dir, "fsck", "--strict", "--full")
}

func TestWorkTreeIsNotWrittenUnder(t *testing.T) {
	dir := t.TempDir()
	runGit(t, dir, "init", "-q", "-b", "main")
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(deployment("a", 1, "x")), 0o600); err != nil {
		t.Fatal(err)
	}
	runGit(t, dir, "add", ".")
	runGit(t, dir, "commit", "-q", "-m", "x")
	runGit(t, dir, "branch", "other")
	r := open(t, Options{URL: dir})
	if fetch(t, r).Len() != 1 {
		t.Error("read")
	}
	if _, err := r.Write(t.Context(), setReplicas("1", "a", 2)); !errors.Is(err, reconcile.ErrInvalid) {
		t.Errorf("write: %v", err)
	}
	if _, err := open(t, Options{URL: dir, Reference: "other"}).Write(t.Context(), setReplicas("1", "a", 2)); err != nil {
		t.Error(err)
	}
}

func TestMergeHistory(t *testing.T) {
	r, dir := newRepo(t, map[string]string{"a.yaml": deployment("a", 1, "x:1"), "b.yaml": deployment("b", 1, "x:1")}, Options{})
	work := t.TempDir()
	runGit(t, work, "clone", "-q", dir, ".")
	runGit(t, work, "checkout", "-q", "-b", "feature")
	if err := os.WriteFile(filepath.Join(work, "a.yaml"), []byte(deployment("a", 1, "x:2")), 0o600); err != nil {
		t.Fatal(err)
	}
	runGit(t, work, "commit", "-q", "-am", "Feature")
	c, err := r.Write(t.Context(), setReplicas("s", "b", 4))
	if err != nil {
		t.Fatal(err)
	}
	// The merge has our commit as its second parent.
	runGit(t, work, "fetch", "-q")
	runGit(t, work, "merge", "-q", "--no-ff", "-m", "Merge", "origin/main")
	runGit(t, work, "push", "-q", "origin", "HEAD:main")
	again, err := r.Write(t.Context(), setReplicas("s", "b", 9))
	if err != nil || again.Revision != c.Revision {
		t.Errorf("the action behind a merge: %v %v", again, err)
	}
	log, err := r.Log(t.Context(), LogOptions{})
	if err != nil || len(log) != 4 || log[0].Subject() != "Merge" || fmt.Sprint(log[0].Paths) != "[b.yaml]" {
		t.Fatal(log, err)
	}
	// Against its first parent the merge brought b's replicas.
	if _, err := r.Write(t.Context(), reconcile.WriteRequest{ID: "r", Revert: log[0].Revision}); err != nil {
		t.Fatal(err)
	}
	s := fetch(t, r)
	if field(t, s, dep("b"), "spec.replicas") != int64(1) || field(t, s, dep("a"), "spec.template.spec.containers[0].image") != "x:2" {
		t.Error("revert of a merge")
	}
}

func TestStaleLock(t *testing.T) {
	r, dir := newRepo(t, map[string]string{"a.yaml": deployment("a", 1, "x")}, Options{})
	lock := filepath.Join(dir, "refs", "heads", "main.lock")
	if err := os.WriteFile(lock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// Reading goes on, writing waits as long as its context.
	fetch(t, r)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.Write(ctx, setReplicas("1", "a", 2)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	f, err := acquire(t.Context(), lock, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close(), os.Remove(lock)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Write(t.Context(), setReplicas("1", "a", 2)); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(lock + "*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A crash between the objects and the reference leaves the branch as it was,
// and the write can be made again.
func TestCrashBeforeTheReference(t *testing.T) {
	r, dir := newRepo(t, map[string]string{"a.yaml": deployment("a", 1, "x")}, Options{})
	before := fetch(t, r).Revision()
	tip, err := r.commit(plumbing.NewHash(before))
	if err != nil {
		t.Fatal(err)
	}
	files, err := r.edit(t.Context(), tip, setReplicas("1", "a", 2).Edits)
	if err != nil {
		t.Fatal(err)
	}
	lost, b := &proposal{text: "Lost\n", files: files}, newBuilder(r)
	tree, err := b.root(tip, lost)
	if err != nil {
		t.Fatal(err)
	}
	h, err := b.commit(t.Context(), tip, tree, lost)
	if err != nil {
		t.Fatal(err)
	}
	other := open(t, Options{URL: dir})
	if got := fetch(t, other).Revision(); got != before {
		t.Fatalf("the branch is at %s", got)
	}
	if _, err := other.Write(t.Context(), setReplicas("1", "a", 2)); err != nil {
		t.Fatal(err)
	}
	if err := r.moveLocal(t.Context(), plumbing.NewHash(before), h); !errors.Is(err, errMoved) {
		t.Errorf("the late write: %v", err)
	}
	runGit(t, dir, "fsck", "--strict", "--full")
}

type verifier struct {
	bad  string
	seen int
}

func (v *verifier) Verify(_ context.Context, revision string, payload, signature []byte) error {
	v.seen++
	if revision == v.bad {
		return errors.New("unknown key")
	}
	if !strings.HasPrefix(string(payload), "tree ") || len(signature) > 0 {
		return fmt.Errorf("payload %q, signature %q", payload, signature)
	}
	return nil
}

func TestVerifier(t *testing.T) {
	v := new(verifier)
	r, dir := newRepo(t, map[string]string{"a.yaml": deployment("a", 1, "x")}, Options{Verifier: v})
	fetch(t, r)
	fetch(t, r)
	if v.seen != 1 {
		t.Errorf("asked %d times", v.seen)
	}
	v.bad = push(t, open(t, Options{URL: dir}), "Bad", map[string]string{"a.yaml": deployment("a", 2, "x")}).Revision
	if _, err := r.Fetch(t.Context()); !errors.Is(err, reconcile.ErrForbidden) || !strings.Contains(err.Error(), "unknown key") {
		t.Errorf("fetch: %v", err)
	}
	if _, err := r.Write(t.Context(), setReplicas("1", "a", 3)); !errors.Is(err, reconcile.ErrForbidden) {
		t.Errorf("write: %v", err)
	}
	payload, sig := splitSignature([]byte("tree a\ngpgsig -----BEGIN\n x\n -----END\nauthor b\n\nbody\ngpgsig no\n"))
	if string(payload) != "tree a\nauthor b\n\nbody\ngpgsig no\n" || string(sig) != "-----BEGIN\nx\n-----END\n" {
		t.Errorf("%q %q", payload, sig)
	}
}

func TestLimits(t *testing.T) {
	r, dir := newRepo(t, map[string]string{"a.yaml": deployment("a", 1, "x") + "#" + strings.Repeat("x", 1000), "b.yaml": deployment("b", 1, "x")}, Options{MaxFileSize: 500})
	if _, err := r.Fetch(t.Context()); !errors.Is(err, reconcile.ErrInvalid) || !strings.Contains(err.Error(), "a.yaml") {
		t.Errorf("large file: %v", err)
	}
	if _, err := open(t, Options{URL: dir, MaxFiles: 1}).Fetch(t.Context()); !errors.Is(err, reconcile.ErrInvalid) {
		t.Errorf("many files: %v", err)
	}
}

func TestCommitPaths(t *testing.T) {
	r, dir := newRepo(t, map[string]string{"a/b/c.yaml": deployment("a", 1, "x"), "a-b": "y", "a.b": "z"}, Options{})
	for _, name := range []string{"", "/a", "../a", "a/../b", "a//b", ".git/config", "a/.GIT/x", "a\\b", "a/b", "a-b/c"} {
		_, err := r.Commit(t.Context(), CommitRequest{Message: "x", Files: map[string][]byte{name: []byte("1")}})
		if !errors.Is(err, reconcile.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := r.Commit(t.Context(), CommitRequest{Message: "x", Files: map[string][]byte{"no": nil, "no/no": nil, "a-b/c": nil, "a": nil}}); !errors.Is(err, reconcile.ErrNoChange) {
		t.Errorf("deleting nothing: %v", err)
	}
	if _, err := r.Commit(t.Context(), CommitRequest{Files: map[string][]byte{"no": {}}}); !errors.Is(err, reconcile.ErrInvalid) {
		t.Errorf("no message: %v", err)
	}
	push(t, r, "Delete", map[string]string{"a/b/c.yaml": "", "a0": "1", "a/z": "2"})
	if out := runGit(t, dir, "ls-tree", "-r", "--name-only", "main"); out != "a-b\na.b\na/z\na0\n" {
		t.Errorf("tree:\n%s", out)
	}
	push(t, r, "Delete all", map[string]string{"a-b": "", "a.b": "", "a0": "", "a/z": ""})
	runGit(t, dir, "fsck", "--strict", "--full")
}

func TestGlobs(t *testing.T) {
	for _, tc := range []struct {
		glob, path string
		want       bool
	}{
		{"**", "a.yaml", true},
		{".", "x/a.yaml", true},
		{"prod", "prod/x/a.yaml", true},
		{"prod/", "prod/a.yaml", true},
		{"prod", "production/a.yaml", false},
		{"prod/*", "prod/x/a.yaml", true},
		{"prod/*.yaml", "prod/x/a.yaml", false},
		{"prod/**/a.yaml", "prod/a.yaml", true},
		{"prod/**/a.yaml", "prod/x/y/a.yaml", true},
		{"**/prod/*.yaml", "a/prod/x/prod/b.yaml", true},
		{"*.yaml", "a.yaml", true},
		{"*.yaml", "x/a.yaml", false},
		{"**/*.yaml", "x/a.json", false},
		{"*/a.yaml", "x/a.yaml", true},
		{"**", "a.txt", false},
	} {
		m, err := newMatcher([]string{tc.glob}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.file(tc.path); got != tc.want {
			t.Errorf("%s on %s: %v", tc.glob, tc.path, got)
		}
		if i := strings.LastIndex(tc.path, "/"); tc.want && i > 0 && !m.dir(tc.path[:i]) {
			t.Errorf("%s does not enter the directory of %s", tc.glob, tc.path)
		}
	}
}
