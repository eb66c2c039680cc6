package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/memory"
)

// mortal ends a process at one of its effects: the effect with number at is
// either not made any more or made and not told, and nothing after it is.
type mortal struct {
	at     int
	after  bool // the last effect is made
	n      int
	cancel context.CancelFunc
}

var errKilled = errors.New("killed")

func (m *mortal) effect(do func() error) error {
	m.n++
	switch {
	case m.at == 0 || m.n < m.at:
		return do()
	case m.n == m.at && m.after:
		_ = do()
	}
	m.cancel()
	return errKilled
}

type mortalStore struct {
	*mortal
	reconcile.Store
}

func (s mortalStore) Save(ctx context.Context, v *reconcile.Inventory) error {
	return s.effect(func() error { return s.Store.Save(context.WithoutCancel(ctx), v) })
}

type mortalTarget struct {
	*mortal
	*memory.Target
}

func (a mortalTarget) Apply(ctx context.Context, c reconcile.Change) error {
	return a.effect(func() error { return a.Target.Apply(context.WithoutCancel(ctx), c) })
}

// TestCrashAnywhere ends the process at every effect of every scenario,
// starts it anew on what is left, and wants everything as if nothing had
// happened.
func TestCrashAnywhere(t *testing.T) {
	res := func(rs ...reconcile.Resource) []reconcile.Resource { return rs }
	theirs := thing("Job/theirs", "n", int64(1))
	scenarios := map[string][][]reconcile.Resource{
		"created":                         {res(thing("Job/a", "n", int64(1)), thing("Job/b", "depends-on", "Job/a"), thing("Namespace/s"))},
		"created, withdrawn":              {res(thing("Job/a"), thing("Job/b"), thing("Job/c")), res(thing("Job/b"), thing("Job/d"))},
		"field added, withdrawn":          {res(thing("Job/a", "n", int64(1))), res(thing("Job/a", "n", int64(1), "extra", "x")), res(thing("Job/a", "n", int64(1)))},
		"created with a field, withdrawn": {res(thing("Job/a", "n", int64(1), "extra", "x")), res(thing("Job/a", "n", int64(1)))},
		"updated, pruned":                 {res(thing("Job/a", "n", int64(1)), thing("Job/b"), thing("Job/c")), res(thing("Job/a", "n", int64(2)), thing("Job/d")), res(thing("Job/d", "n", int64(1)))},
		"moved":                           {res(thing("Job/a", "n", int64(1)), thing("ConfigMap/a")), res(thing("Job/b", "n", int64(1)), thing("ConfigMap/a", "x", "y")), res(thing("Job/a", "n", int64(3)))},
	}
	for name, revisions := range scenarios {
		t.Run(name, func(t *testing.T) {
			points := 0
			// at says in which revision's life the process ends.
			for at := range revisions {
				for n := 1; ; n++ {
					before := crash(t, fmt.Sprintf("revision %d, before effect %d", at, n), revisions, at, n, false, theirs)
					crash(t, fmt.Sprintf("revision %d, after effect %d", at, n), revisions, at, n, true, theirs)
					if !before {
						break
					}
					points++
				}
			}
			if t.Log(points, "points"); points < 5 {
				t.Errorf("only %d points", points)
			}
		})
	}
}

// crash plays the revisions, with an end at effect n of revision at, and
// tells whether there was such an effect.
func crash(t *testing.T, what string, revisions [][]reconcile.Resource, at, n int, after bool, theirs reconcile.Resource) bool {
	t.Helper()
	src, target := &memory.Source{}, &memory.Target{}
	store := reconcile.FileStore{Path: filepath.Join(t.TempDir(), "inventory.json")}
	if err := target.Edit(theirs.Key, func(object) object { return theirs.Object }); err != nil {
		t.Fatal(err)
	}
	ever := map[reconcile.Key]bool{}
	reached := false
	live := func(m *mortal) *reconcile.Reconciler {
		return newReconciler(t, reconcile.Options{Source: src, Actuator: mortalTarget{m, target}, Store: mortalStore{m, store}, Brake: reconcile.Brake{Off: true}, Concurrency: 1})
	}
	check := func() {
		t.Helper()
		inv, err := store.Load(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for _, k := range target.Keys() {
			if _, ours := inv.Items[k]; !ours && ever[k] {
				t.Fatalf("%s: %s is an orphan", what, k)
			}
		}
	}
	for i, rs := range revisions {
		src.Set(state(fmt.Sprint("r", i), rs...), nil)
		for _, r := range rs {
			ever[r.Key] = true
		}
		if i != at {
			r := live(&mortal{})
			mustSync(t, r)
			mustSync(t, r)
			check()
			continue
		}
		ctx, cancel := context.WithCancel(t.Context())
		m := &mortal{at: n, after: after, cancel: cancel}
		r := live(m)
		_, _ = r.Sync(ctx)
		if ctx.Err() == nil {
			_, _ = r.Sync(ctx)
		}
		reached = m.n >= n
		cancel()
		check()
		// Often the next process finds a newer revision already.
		if i == len(revisions)-1 || !reached {
			r := live(&mortal{})
			mustSync(t, r)
			mustSync(t, r)
			check()
		}
	}
	// Converged: exactly the last revision, and what is somebody else's.
	if p := mustSync(t, live(&mortal{})); !p.Empty() {
		t.Fatalf("%s: not settled:\n%s", what, p)
	}
	want := map[reconcile.Key]object{theirs.Key: theirs.Object}
	for _, r := range revisions[len(revisions)-1] {
		want[r.Key] = r.Object
	}
	got, err := target.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for r := range got.All() {
		w, ok := want[r.Key]
		if !ok {
			t.Fatalf("%s: %s is left over", what, r.Key)
		}
		if len(reconcile.Diff(r.Object, w, r.Object)) > 0 {
			t.Fatalf("%s: %s is %v, want %v", what, r.Key, r.Object, w)
		}
		delete(want, r.Key)
	}
	if len(want) > 0 {
		t.Fatalf("%s: missing %v", what, want)
	}
	for _, c := range target.Applied() {
		if c.Action == reconcile.Delete && !ever[c.Key] {
			t.Fatalf("%s: unplanned deletion of %s", what, c.Key)
		}
	}
	return reached
}
