package gitsource

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func deployment(name string, replicas int, image string) string {
	return fmt.Sprintf(`# %[1]s
apiVersion: apps/v1
kind: Deployment
metadata:
  name: %[1]s
  namespace: shop
spec:
  replicas: %[2]d # scaled by automation
  template:
    spec:
      containers:
      - name: main
        image: "%[3]s"
`, name, replicas, image)
}

func dep(name string) reconcile.Key {
	return reconcile.Key{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: name}
}

var dev = Author{Name: "Dev", Email: "dev@example.org"}

// newRepo makes a bare repository with files and opens it.
func newRepo(t testing.TB, files map[string]string, opts Options) (*Repository, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "repo.git")
	req := CommitRequest{Message: "Start", Author: dev, Files: map[string][]byte{}}
	for name, text := range files {
		req.Files[name] = []byte(text)
	}
	if _, err := Init(t.Context(), dir, req); err != nil {
		t.Fatal(err)
	}
	opts.URL = dir
	return open(t, opts), dir
}

func open(t testing.TB, opts Options) *Repository {
	t.Helper()
	r, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func push(t testing.TB, r *Repository, message string, files map[string]string) reconcile.Commit {
	t.Helper()
	req := CommitRequest{Message: message, Author: dev, Files: map[string][]byte{}}
	for name, text := range files {
		req.Files[name] = []byte(text)
		if text == "" {
			req.Files[name] = nil
		}
	}
	c, err := r.Commit(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func fetch(t testing.TB, r *Repository) *reconcile.State {
	t.Helper()
	s, err := r.Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func field(t testing.TB, s *reconcile.State, k reconcile.Key, path string) any {
	t.Helper()
	res, ok := s.Get(k)
	if !ok {
		t.Fatalf("no %s", k)
	}
	p, err := reconcile.ParsePath(path)
	if err != nil {
		t.Fatal(err)
	}
	v, _ := p.Get(any(res.Object))
	return v
}

func setReplicas(id, name string, n int) reconcile.WriteRequest {
	return reconcile.WriteRequest{
		ID:       id,
		Message:  fmt.Sprintf("Scale %s to %d", name, n),
		Trailers: []reconcile.Trailer{{Key: "Playbook", Value: "scale"}},
		Edits:    []reconcile.Edit{{Key: dep(name), Path: "spec.replicas", Value: int64(n)}},
	}
}

func TestFetch(t *testing.T) {
	r, dir := newRepo(t, map[string]string{
		"prod/cart.yaml": deployment("cart", 2, "cart:1"),
		"prod/all.json":  `{"kind":"Service","metadata":{"name":"cart"}}`,
		"test/cart.yaml": deployment("cart", 1, "cart:0"),
		"README.md":      "x",
	}, Options{Paths: []string{"prod"}})
	s := fetch(t, r)
	if s.Len() != 2 {
		t.Fatalf("%d resources", s.Len())
	}
	res, _ := s.Get(dep("cart"))
	want := reconcile.Origin{Repo: dir, Revision: s.Revision(), Path: "prod/cart.yaml", Line: 2, Column: 1}
	if d := cmp.Diff(want, res.Origin); d != "" {
		t.Error(d)
	}
	if got := res.Locate("spec.template.spec.containers[name=main].image"); got.Line != 13 || got.Column != 9 {
		t.Errorf("image at %v", got)
	}
	if again := fetch(t, r); again != s {
		t.Error("an unchanged fetch gave another state")
	}
	c := push(t, r, "Outside", map[string]string{"README.md": "y"})
	s2 := fetch(t, r)
	if s2.Revision() != c.Revision {
		t.Errorf("revision %s, want %s", s2.Revision(), c.Revision)
	}
	push(t, r, "Scale", map[string]string{"prod/cart.yaml": deployment("cart", 5, "cart:1")})
	if got := field(t, fetch(t, r), dep("cart"), "spec.replicas"); got != int64(5) {
		t.Errorf("replicas %v", got)
	}
	old, err := r.FetchRevision(t.Context(), s.Revision())
	if err != nil {
		t.Fatal(err)
	}
	if got := field(t, old, dep("cart"), "spec.replicas"); got != int64(2) {
		t.Errorf("replicas of the old revision %v", got)
	}
	if _, err := r.FetchRevision(t.Context(), strings.Repeat("a", 40)); !errors.Is(err, reconcile.ErrNotFound) {
		t.Errorf("unknown revision: %v", err)
	}
}

func TestFetchReportsAllErrors(t *testing.T) {
	r, _ := newRepo(t, map[string]string{
		"a.yaml": deployment("cart", 1, "x"),
		"b.yaml": "# again\n" + deployment("cart", 1, "x"),
		"c.yaml": "kind: A\nkind: B\n",
		"d.yaml": "kind: A\nmetadata: {name: b}\nx: [\n",
		"e.json": `{"kind": "A"}`,
	}, Options{})
	_, err := r.Fetch(t.Context())
	if !errors.Is(err, reconcile.ErrInvalid) {
		t.Fatalf("got %v", err)
	}
	var conflict *reconcile.ConflictError
	if !errors.As(err, &conflict) || conflict.First.Path != "a.yaml" || conflict.Second.Path != "b.yaml" || conflict.Second.Line != 3 {
		t.Errorf("conflict %+v", conflict)
	}
	for _, want := range []string{"b.yaml:3:1", "c.yaml:2:1: kind: duplicate key, first at line 1", "d.yaml:", "e.json:1:1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	// The repair of one broken file needs no other to be whole.
	push(t, r, "Fix", map[string]string{"b.yaml": "", "c.yaml": "", "d.yaml": ""})
	if _, err := r.Write(t.Context(), setReplicas("1", "cart", 3)); err != nil {
		t.Error(err)
	}
	push(t, r, "Fix", map[string]string{"e.json": "", "a.yaml": ""})
	if _, err := r.Fetch(t.Context()); !errors.Is(err, reconcile.ErrEmptySource) {
		t.Errorf("empty source: %v", err)
	}
}

func TestWrite(t *testing.T) {
	before := deployment("cart", 2, "cart:1")
	r, dir := newRepo(t, map[string]string{"shop/cart.yaml": before, "shop/pay.yaml": deployment("pay", 1, "pay:1")}, Options{
		Clock: fixedClock{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
	})
	first, err := r.Write(t.Context(), setReplicas("scale-1", "cart", 5))
	if err != nil {
		t.Fatal(err)
	}
	want := reconcile.Commit{
		Revision: first.Revision, Parents: first.Parents,
		Author: "evenkeel <evenkeel@localhost>", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Message:  "Scale cart to 5",
		Trailers: []reconcile.Trailer{{Key: "Playbook", Value: "scale"}, {Key: "Action-Id", Value: "scale-1"}},
		Paths:    []string{"shop/cart.yaml"},
		Keys:     []reconcile.Key{dep("cart")},
	}
	if d := cmp.Diff(want, first); d != "" {
		t.Error(d)
	}
	got := show1(t, r, first.Revision, "shop/cart.yaml")
	if d := cmp.Diff(strings.Replace(before, "replicas: 2 ", "replicas: 5 ", 1), got); d != "" {
		t.Error(d)
	}
	again, err := r.Write(t.Context(), setReplicas("scale-1", "cart", 9))
	if err != nil || again.Revision != first.Revision {
		t.Errorf("the same action again: %v %v", again.Revision, err)
	}
	if _, err := r.Write(t.Context(), setReplicas("scale-2", "cart", 5)); !errors.Is(err, reconcile.ErrNoChange) {
		t.Errorf("no change: %v", err)
	}
	other := open(t, Options{URL: "file://" + dir})
	again, err = other.Write(t.Context(), setReplicas("scale-1", "cart", 9))
	if err != nil || again.Revision != first.Revision {
		t.Errorf("the same action from another handle: %v %v", again.Revision, err)
	}
	c, ok, err := other.Find(t.Context(), "playbook", "scale")
	if err != nil || !ok || c.Revision != first.Revision {
		t.Errorf("find: %v %v %v", c, ok, err)
	}
	changes, err := r.Changes(t.Context(), first.Revision)
	if d := cmp.Diff([]KeyChange{{Key: dep("cart"), Path: "shop/cart.yaml", Fields: []string{"spec.replicas"}}}, changes); d != "" || err != nil {
		t.Error(err, d)
	}
	log, err := r.Log(t.Context(), LogOptions{})
	if err != nil || len(log) != 2 || log[0].Revision != first.Revision || len(log[1].Keys) != 2 {
		t.Errorf("log %v %v", log, err)
	}
	for name, req := range map[string]reconcile.WriteRequest{
		"no id":      {Message: "x", Edits: []reconcile.Edit{{}}},
		"nothing":    {ID: "1", Message: "x"},
		"both":       {ID: "1", Message: "x", Revert: "a", Edits: []reconcile.Edit{{}}},
		"no message": {ID: "1", Edits: []reconcile.Edit{{Key: dep("cart"), Path: "x"}}},
		"trailer":    {ID: "1", Message: "x", Trailers: []reconcile.Trailer{{Key: "a b"}}, Edits: []reconcile.Edit{{}}},
		"action id":  {ID: "1", Message: "x", Trailers: []reconcile.Trailer{{Key: "action-id"}}, Edits: []reconcile.Edit{{}}},
	} {
		if _, err := r.Write(t.Context(), req); !errors.Is(err, reconcile.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.Write(t.Context(), setReplicas("x", "nobody", 1)); !errors.Is(err, reconcile.ErrNotFound) {
		t.Errorf("unknown key: %v", err)
	}
	if _, err := r.Write(t.Context(), reconcile.WriteRequest{ID: "r", Revert: strings.Repeat("b", 40)}); !errors.Is(err, reconcile.ErrNotFound) {
		t.Errorf("unknown commit: %v", err)
	}
}

type fixedClock struct{ now time.Time }

func (c fixedClock) Now() time.Time                         { return c.now }
func (c fixedClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// show1 reads a file at a revision.
func show1(t testing.TB, r *Repository, revision, name string) string {
	t.Helper()
	if err := r.turn.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer r.turn.done()
	h, err := r.revision(t.Context(), revision)
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.commit(h)
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := r.lookup(c.tree, name)
	if err != nil {
		t.Fatal(err)
	}
	data, err := r.blob(b, maxFileSize)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestRevertKeepsLaterChanges(t *testing.T) {
	r, _ := newRepo(t, map[string]string{"cart.yaml": deployment("cart", 2, "cart:1")}, Options{})
	bad := push(t, r, "Release cart 2", map[string]string{"cart.yaml": deployment("cart", 2, "cart:2")})
	for i := range 3 {
		if _, err := r.Write(t.Context(), setReplicas(fmt.Sprint("scale-", i), "cart", 4+i)); err != nil {
			t.Fatal(err)
		}
	}
	c, err := r.Write(t.Context(), reconcile.WriteRequest{ID: "revert-1", Revert: bad.Revision})
	if err != nil {
		t.Fatal(err)
	}
	if want := "Revert \"Release cart 2\"\n\nThis reverts commit " + bad.Revision + "."; c.Message != want {
		t.Errorf("message %q", c.Message)
	}
	if d := cmp.Diff(deployment("cart", 6, "cart:1"), show1(t, r, c.Revision, "cart.yaml")); d != "" {
		t.Error(d)
	}
	if _, err := r.Write(t.Context(), reconcile.WriteRequest{ID: "revert-2", Revert: bad.Revision}); !errors.Is(err, reconcile.ErrNoChange) {
		t.Errorf("reverted twice: %v", err)
	}
	push(t, r, "Release cart 3", map[string]string{"cart.yaml": deployment("cart", 6, "cart:3")})
	_, err = r.Write(t.Context(), reconcile.WriteRequest{ID: "revert-3", Revert: bad.Revision})
	var conflict *RevertConflictError
	if !errors.As(err, &conflict) || conflict.Path != "cart.yaml" || conflict.Field != "spec.template.spec.containers[name=main].image" || !errors.Is(err, reconcile.ErrConflict) {
		t.Errorf("conflict: %v", err)
	}
}

func TestRevert(t *testing.T) {
	two := deployment("cart", 2, "cart:1") + "---\n" + deployment("pay", 1, "pay:1")
	for _, tc := range []struct {
		name                string
		start, bad, later   string // cart.yaml; empty is absent
		want, conflict, key string
	}{
		{"restored", "a: 1\n", "a: 2\n", "a: 2\n", "a: 1\n", "", ""},
		{"adjoining lines", "kind: A\nmetadata: {name: b}\nx: 1\nw: 1\n", "kind: A\nmetadata: {name: b}\nx: 2\nw: 1\n", "kind: A\nmetadata: {name: b}\nx: 2 # c\nw: 2\n", "kind: A\nmetadata: {name: b}\nx: 1 # c\nw: 2\n", "", ""},
		{"same line", "kind: A\nmetadata: {name: b}\nx: {a: 1, b: 1}\n", "kind: A\nmetadata: {name: b}\nx: {a: 2, b: 1}\n", "kind: A\nmetadata: {name: b}\nx: {a: 2, b: 3}\n", "kind: A\nmetadata: {name: b}\nx: {a: 1, b: 3}\n", "", ""},
		{"document added", deployment("cart", 2, "cart:1"), two, strings.Replace(two, "replicas: 2", "replicas: 7", 1), deployment("cart", 7, "cart:1"), "", ""},
		{"document removed", two, deployment("cart", 2, "cart:1"), deployment("cart", 7, "cart:1"), strings.Replace(two, "replicas: 2", "replicas: 7", 1), "", ""},
		{"document changed since", deployment("cart", 2, "cart:1"), two, strings.Replace(two, "replicas: 1", "replicas: 7", 1), "", "a later commit changed it", "pay"},
		{"unparsable release", deployment("cart", 2, "cart:1"), deployment("cart", 2, "[}"), deployment("cart", 2, "[}"), deployment("cart", 2, "cart:1"), "", ""},
		{"broken, then scaled by hand", deployment("cart", 2, "cart:1"), deployment("cart", 2, "cart:1\"\"}"), deployment("cart", 3, "cart:1\"\"}"), deployment("cart", 3, "cart:1"), "", ""},
		{"deleted since", deployment("cart", 2, "cart:1"), deployment("cart", 2, "cart:2"), "", "", "a later commit deleted the file", ""},
		{"file added", "", deployment("cart", 2, "cart:2"), deployment("cart", 2, "cart:2"), "", "", ""},
		{"file added, changed", "", deployment("cart", 2, "cart:2"), deployment("cart", 3, "cart:2"), "", "added or deleted", ""},
		{"map removed", "kind: A\nmetadata: {name: b}\nspec:\n  l:\n    a: 1\n  z: 1\n", "kind: A\nmetadata: {name: b}\nspec:\n  z: 1\n", "kind: A\nmetadata: {name: b}\nspec:\n  z: 2\n", "kind: A\nmetadata: {name: b}\nspec:\n  z: 2\n  l:\n    a: 1\n", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := map[string]string{"other.txt": "x", "keep.yaml": deployment("keep", 1, "keep:1")}
			if tc.start != "" {
				files["cart.yaml"] = tc.start
			}
			r, _ := newRepo(t, files, Options{})
			bad := push(t, r, "Bad", map[string]string{"cart.yaml": tc.bad})
			if tc.later != tc.bad {
				push(t, r, "Later", map[string]string{"cart.yaml": tc.later})
			}
			c, err := r.Write(t.Context(), reconcile.WriteRequest{ID: "r", Revert: bad.Revision})
			if tc.conflict != "" {
				var conflict *RevertConflictError
				if !errors.As(err, &conflict) || !strings.Contains(err.Error(), tc.conflict) || conflict.Key.Name != tc.key {
					t.Fatalf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tc.want == "" {
				files, err := r.Log(t.Context(), LogOptions{Limit: 1})
				if err != nil || !cmp.Equal(files[0].Paths, []string{"cart.yaml"}) {
					t.Fatal(files, err)
				}
				return
			}
			if d := cmp.Diff(tc.want, show1(t, r, c.Revision, "cart.yaml")); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestConcurrentWriters(t *testing.T) {
	const writers, commits = 8, 5
	files := map[string]string{}
	for i := range writers {
		files[fmt.Sprintf("shop/svc%d.yaml", i)] = deployment(fmt.Sprint("svc", i), 1, "x:1")
	}
	first, dir := newRepo(t, files, Options{})
	var wg sync.WaitGroup
	for w := range writers {
		r := open(t, Options{URL: dir}) // as another process would
		wg.Go(func() {
			for i := range commits {
				id := fmt.Sprintf("w%d-%d", w, i)
				if _, err := r.Write(context.Background(), setReplicas(id, fmt.Sprint("svc", w), i+2)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	log, err := first.Log(t.Context(), LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(log) != writers*commits+1 {
		t.Fatalf("%d commits", len(log))
	}
	ids := map[string]bool{}
	for i, c := range log[:len(log)-1] {
		if len(c.Parents) != 1 {
			t.Errorf("%s has %d parents", c.Revision, len(c.Parents))
		}
		ids[c.Trailer("action-id")] = true
		_ = i
	}
	if len(ids) != writers*commits {
		t.Errorf("%d different actions", len(ids))
	}
	s := fetch(t, first)
	for w := range writers {
		if got := field(t, s, dep(fmt.Sprint("svc", w)), "spec.replicas"); got != int64(commits+1) {
			t.Errorf("svc%d has %v replicas", w, got)
		}
	}
	runGit(t, dir, "fsck", "--strict", "--full")
	out := runGit(t, dir, "log", "--format=%(trailers:key=Action-Id,valueonly)", "main")
	if got := len(strings.Fields(out)); got != writers*commits {
		t.Errorf("git sees %d trailers:\n%s", got, out)
	}
}

// runGit runs the program, where there is one.
func runGit(t testing.TB, dir string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Log("git is not installed")
		t.SkipNow()
	}
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=a", "-c", "user.email=a@b", "-c", "safe.directory=*", "-C", dir}, args...)...)
	cmd.Env = append(cmd.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return string(out)
}

var _ = manifest.MaxSize
