package gitsource

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/storage"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/manifest"
)

// No write may make a revision that cannot be fetched.
func TestRevertKeepsTheBranchFetchable(t *testing.T) {
	const broken = "kind: [\n"
	keep := deployment("keep", 1, "keep:1")
	type files = map[string]string
	isManifestError := func(err error) bool { return errors.As(err, new(*manifest.Error)) }
	for name, tc := range map[string]struct {
		start, bad, later files
		refused           func(error) bool // nil where the revert is made
		fetchable         bool
	}{
		"the key is declared elsewhere by now": {
			start: files{"a.yaml": deployment("cart", 2, "c:1"), "keep.yaml": keep},
			bad:   files{"a.yaml": ""},
			later: files{"b.yaml": deployment("cart", 5, "c:2")},
			refused: func(err error) bool {
				var dup *reconcile.ConflictError
				return errors.As(err, &dup) && dup.Key == dep("cart") && dup.First.Path == "a.yaml" && dup.Second.Path == "b.yaml"
			},
			fetchable: true,
		},
		"it did not parse": {
			start:     files{"a.yaml": broken, "keep.yaml": keep},
			bad:       files{"a.yaml": deployment("cart", 5, "c:2")},
			refused:   isManifestError,
			fetchable: true,
		},
		"nothing was declared": {
			start:     files{"README.md": "x"},
			bad:       files{"a.yaml": deployment("cart", 5, "c:2")},
			refused:   func(err error) bool { return errors.Is(err, reconcile.ErrEmptySource) },
			fetchable: true,
		},
		"the tip does not parse either": {
			start: files{"a.yaml": deployment("cart", 2, "c:1"), "keep.yaml": keep},
			bad:   files{"a.yaml": deployment("cart", 2, "c:2")},
			later: files{"keep.yaml": broken},
		},
		"one more of a problem that the tip has": {
			start:   files{"a.yaml": deployment("cart", 2, "c:1"), "keep.yaml": keep},
			bad:     files{"a.yaml": ""},
			later:   files{"b.yaml": deployment("cart", 2, "c:1"), "c.yaml": deployment("cart", 2, "c:1")},
			refused: func(err error) bool { return errors.As(err, new(*reconcile.ConflictError)) },
		},
		"it takes the problem away": {
			start:     files{"a.yaml": deployment("cart", 2, "c:1"), "keep.yaml": keep},
			bad:       files{"a.yaml": broken},
			fetchable: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, dir := newRepo(t, tc.start, Options{})
			bad := push(t, r, "Bad", tc.bad)
			last := bad
			if tc.later != nil {
				last = push(t, r, "Later", tc.later)
			}
			c, err := r.Write(t.Context(), reconcile.WriteRequest{ID: "revert", Revert: bad.Revision})
			switch {
			case tc.refused == nil && err != nil:
				t.Error(err)
			case tc.refused != nil && (err == nil || !tc.refused(err)):
				t.Errorf("made %s: %v", c.Revision, err)
			}
			if _, err := r.Fetch(t.Context()); (err == nil) != tc.fetchable {
				t.Errorf("fetch: %v", err)
			}
			log, err := open(t, Options{URL: dir}).Log(t.Context(), LogOptions{Limit: 1})
			if err != nil || (log[0].Revision == last.Revision) != (tc.refused != nil) {
				t.Errorf("the branch is at %q: %v", log[0].Subject(), err)
			}
		})
	}
}

// An edit can break the branch too, where it changes what a resource is.
func TestEditOfANameIntoAnother(t *testing.T) {
	r, _ := newRepo(t, map[string]string{"a.yaml": deployment("a", 1, "x"), "b.yaml": deployment("b", 1, "x")}, Options{})
	_, err := r.Write(t.Context(), reconcile.WriteRequest{ID: "1", Message: "x", Edits: []reconcile.Edit{{Key: dep("a"), Path: "metadata.name", Value: "b"}}})
	if !errors.As(err, new(*reconcile.ConflictError)) {
		t.Error(err)
	}
	fetch(t, r)
}

func TestExpect(t *testing.T) {
	const file = `kind: Deployment
apiVersion: apps/v1
metadata: {name: cart, namespace: shop}
spec:
  replicas: 3
  paused: false
  ratio: 0.5
  nothing: null
  template:
    spec:
      containers:
      - name: main
        image: cart:1
        resources: {limits: {cpu: "1", memory: 1Gi}}
`
	const container = "spec.template.spec.containers[name=main]."
	for _, tc := range []struct {
		path   string
		expect any
		ok     bool
	}{
		{"spec.replicas", nil, true},
		{"spec.replicas", int64(3), true},
		{"spec.replicas", 3.0, true}, // as JSON gives it back
		{"spec.replicas", 3, true},
		{"spec.replicas", int64(2), false},
		{"spec.replicas", "3", false},
		{"spec.ratio", 0.5, true},
		{"spec.paused", false, true},
		{"spec.paused", true, false},
		{"spec.nothing", int64(0), false},
		{"spec.missing", int64(0), false},
		{"spec.missing", "", false},
		{container + "image", "cart:1", true},
		{container + "image", "cart:2", false},
		{container + "resources.limits.cpu", "1000m", true},
		{container + "resources.limits.cpu", int64(1), true},
		{container + "resources.limits.cpu", "900m", false},
	} {
		r, _ := newRepo(t, map[string]string{"cart.yaml": file}, Options{})
		before := fetch(t, r).Revision()
		_, err := r.Write(t.Context(), reconcile.WriteRequest{ID: "1", Message: "x", Edits: []reconcile.Edit{
			{Key: dep("cart"), Path: "metadata.labels.by", Value: "x"},
			{Key: dep("cart"), Path: tc.path, Value: "new", Expect: tc.expect},
		}})
		if tc.ok {
			if err != nil {
				t.Errorf("%s expected to be %v: %v", tc.path, tc.expect, err)
			}
			continue
		}
		if !errors.Is(err, reconcile.ErrConflict) || fetch(t, r).Revision() != before {
			t.Errorf("%s expected to be %v: %v", tc.path, tc.expect, err)
		}
	}

	// The error tells all that is needed to decide anew.
	r, _ := newRepo(t, map[string]string{"cart.yaml": file}, Options{})
	_, err := r.Write(t.Context(), reconcile.WriteRequest{ID: "1", Message: "x", Edits: []reconcile.Edit{{Key: dep("cart"), Path: "spec.replicas", Value: 5, Expect: 2}}})
	if want := dep("cart").String() + ": spec.replicas: expected 2, found 3: conflict"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q in it", err, want)
	}
}

// What is decided on is what the newest tip has, also when a write starts
// again; and a write that was made is made, whatever the field is now.
func TestExpectOnTheNewestTip(t *testing.T) {
	r, dir := newRepo(t, map[string]string{"a.yaml": deployment("a", 1, "x")}, Options{})
	fetch(t, r)
	req := setReplicas("1", "a", 3)
	req.Edits[0].Expect = int64(2)
	other := open(t, Options{URL: dir})
	push(t, other, "Two", map[string]string{"a.yaml": deployment("a", 2, "x")})
	c, err := r.Write(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.Write(t.Context(), req)
	if err != nil || again.Revision != c.Revision {
		t.Errorf("asked twice: %s, %v", again.Revision, err)
	}
}

func TestCommitBase(t *testing.T) {
	r, dir := newRepo(t, map[string]string{"a.yaml": deployment("a", 1, "x"), "b.yaml": deployment("b", 1, "x")}, Options{})
	text, base, err := r.ReadFile(t.Context(), "a.yaml")
	if err != nil {
		t.Fatal(err)
	}
	req := func(name string) CommitRequest {
		return CommitRequest{Message: "Release", Author: dev, Base: base, Files: map[string][]byte{
			name: []byte(strings.Replace(string(text), `"x"`, `"y"`, 1)),
		}}
	}
	if _, err := r.Write(t.Context(), setReplicas("1", "a", 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Commit(t.Context(), req("a.yaml")); !errors.Is(err, reconcile.ErrConflict) || !strings.Contains(err.Error(), "a.yaml") {
		t.Errorf("a whole file over a later edit: %v", err)
	}
	if _, err := r.Commit(t.Context(), req("c.yaml")); err != nil {
		t.Errorf("another file: %v", err)
	}
	if _, err := r.Commit(t.Context(), req("c.yaml")); !errors.Is(err, reconcile.ErrConflict) {
		t.Errorf("a file that is new since: %v", err)
	}
	text, base, err = r.ReadFile(t.Context(), "a.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Commit(t.Context(), req("a.yaml")); err != nil {
		t.Errorf("read anew: %v", err)
	}
	if got := field(t, fetch(t, open(t, Options{URL: dir, Exclude: []string{"c.yaml"}})), dep("a"), "spec.replicas"); got != int64(2) {
		t.Errorf("the edit is lost: %v", got)
	}
	base = strings.Repeat("1", 40)
	if _, err := r.Commit(t.Context(), req("a.yaml")); !errors.Is(err, reconcile.ErrNotFound) {
		t.Errorf("no such base: %v", err)
	}
}

func TestLogOldClock(t *testing.T) {
	r, _ := newRepo(t, map[string]string{"a.yaml": deployment("a", 1, "x")}, Options{})
	at := func(name string, when time.Time) {
		t.Helper()
		if _, err := r.Commit(t.Context(), CommitRequest{Message: name, Time: when, Files: map[string][]byte{name: []byte(name)}}); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	since := now.Add(-time.Minute)
	count := func(want ...string) {
		t.Helper()
		log, err := r.Log(t.Context(), LogOptions{Since: since})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range log {
			got = append(got, c.Subject())
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	at("bad", now)
	at("laptop", now.Add(-2*time.Hour))
	count("bad", "Start")
	at("good", now.Add(time.Second))
	count("good", "bad", "Start")
	for i := range maxOld {
		at("old"+strings.Repeat("x", i), now.Add(-2*time.Hour))
	}
	count()
}

// What has been read of the history is not read again.
func TestLogIsRemembered(t *testing.T) {
	r, _ := newRepo(t, map[string]string{"a.yaml": deployment("a", 1, "x")}, Options{})
	for i := range 5 {
		push(t, r, "Change", map[string]string{"a.yaml": deployment("a", 2+i, "x")})
	}
	look := func() {
		t.Helper()
		log, err := r.Log(t.Context(), LogOptions{})
		if err != nil || len(log) != 6 {
			t.Fatal(len(log), err)
		}
		for _, c := range log {
			if _, err := r.Changes(t.Context(), c.Revision); err != nil {
				t.Fatal(err)
			}
		}
	}
	look()
	counter := &countingStore{Storer: r.store}
	r.store = counter
	look()
	if counter.reads != 0 {
		t.Errorf("%d objects read again", counter.reads)
	}
}

type countingStore struct {
	storage.Storer
	reads int
}

func (c *countingStore) EncodedObject(k plumbing.ObjectType, h plumbing.Hash) (plumbing.EncodedObject, error) {
	c.reads++
	return c.Storer.EncodedObject(k, h)
}

// A branch with more files than may be read can still be repaired by a revert.
func TestRevertWithTooManyFiles(t *testing.T) {
	_, dir := newRepo(t, map[string]string{"a.yaml": deployment("a", 1, "x"), "b.yaml": deployment("b", 1, "x")}, Options{})
	r := open(t, Options{URL: dir, MaxFiles: 1})
	bad := push(t, r, "Bad", map[string]string{"a.yaml": deployment("a", 2, "x")})
	if _, err := r.Write(t.Context(), reconcile.WriteRequest{ID: "1", Revert: bad.Revision}); err != nil {
		t.Error(err)
	}
	one := open(t, Options{URL: dir, MaxFiles: 2})
	bad = push(t, one, "Remove", map[string]string{"b.yaml": ""})
	one = open(t, Options{URL: dir, MaxFiles: 1})
	if _, err := one.Write(t.Context(), reconcile.WriteRequest{ID: "2", Revert: bad.Revision}); !errors.Is(err, reconcile.ErrInvalid) {
		t.Errorf("a revert past the limit: %v", err)
	}
}
