package memory_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type object = map[string]any

func config(name, value string) object {
	return object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": name}, "data": object{"k": value}}
}

func key(name string) reconcile.Key { return reconcile.Key{Kind: "ConfigMap", Name: name} }

func TestApply(t *testing.T) {
	change := func(a reconcile.Action, version string, desired object) reconcile.Change {
		return reconcile.Change{Action: a, Key: key("a"), Desired: desired, LiveVersion: version}
	}
	edited := config("a", "1")
	edited["theirs"] = true
	tests := []struct {
		name   string
		live   object
		change reconcile.Change
		err    error
		want   object
	}{
		{"create", nil, change(reconcile.Create, "", config("a", "1")), nil, config("a", "1")},
		{"create what is there as desired", config("a", "1"), change(reconcile.Create, "", config("a", "1")), nil, config("a", "1")},
		{"create what is there otherwise", config("a", "2"), change(reconcile.Create, "", config("a", "1")), reconcile.ErrConflict, config("a", "2")},
		{"update keeps what others set", edited, change(reconcile.Update, "1", config("a", "2")), nil, object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": "a"}, "data": object{"k": "2"}, "theirs": true}},
		{"update of another version", config("a", "1"), change(reconcile.Update, "7", config("a", "2")), reconcile.ErrConflict, config("a", "1")},
		{"update of nothing", nil, change(reconcile.Update, "1", config("a", "2")), reconcile.ErrConflict, nil},
		{"update without precondition", config("a", "1"), change(reconcile.Update, "", config("a", "2")), nil, config("a", "2")},
		{"delete", config("a", "1"), change(reconcile.Delete, "1", nil), nil, nil},
		{"delete another version", config("a", "1"), change(reconcile.Delete, "7", nil), reconcile.ErrConflict, config("a", "1")},
		{"delete nothing", nil, change(reconcile.Delete, "1", nil), nil, nil},
		{"unknown action", config("a", "1"), change("Explode", "", nil), reconcile.ErrTerminal, config("a", "1")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var target memory.Target
			if tt.live != nil {
				if err := target.Edit(key("a"), func(object) object { return tt.live }); err != nil {
					t.Fatal(err)
				}
			}
			before := observe(t, &target)
			if err := target.DryRun(t.Context(), tt.change); !errors.Is(err, tt.err) {
				t.Errorf("DryRun: %v, want %v", err, tt.err)
			}
			if d := cmp.Diff(before, observe(t, &target)); d != "" {
				t.Errorf("DryRun changed (-before +after):\n%s", d)
			}
			if err := target.Apply(t.Context(), tt.change); !errors.Is(err, tt.err) {
				t.Errorf("Apply: %v, want %v", err, tt.err)
			}
			if d := cmp.Diff(tt.want, observe(t, &target)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			if tt.err == nil { // a second time succeeds or conflicts, and changes nothing
				if err := target.Apply(t.Context(), tt.change); err != nil && !errors.Is(err, reconcile.ErrConflict) {
					t.Errorf("again: %v", err)
				}
				if d := cmp.Diff(tt.want, observe(t, &target)); d != "" {
					t.Errorf("again (-want +got):\n%s", d)
				}
			}
		})
	}
}

func observe(t *testing.T, target *memory.Target) object {
	t.Helper()
	s, err := target.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, _ := s.Get(key("a"))
	return r.Object
}

func TestObservedStatesStayAsTheyAre(t *testing.T) {
	var target memory.Target
	kept := config("a", "1")
	_ = target.Edit(key("a"), func(object) object { return kept })
	kept["data"].(object)["k"] = "changed by its maker"
	first, err := target.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if same, _ := target.Observe(t.Context()); same != first {
		t.Error("nothing changed and there is another State")
	}
	r, _ := first.Get(key("a"))
	_ = target.Edit(key("a"), func(o object) object { o["data"].(object)["k"] = "2"; return o })
	if err := target.Apply(t.Context(), reconcile.Change{Action: reconcile.Update, Key: key("a"), Desired: config("a", "3")}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(config("a", "1"), r.Object); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestEditRefuses(t *testing.T) {
	var target memory.Target
	for name, bad := range map[string]object{"another key": config("b", "1"), "no kind": {"metadata": object{"name": "a"}}} {
		if err := target.Edit(key("a"), func(object) object { return bad }); !errors.Is(err, reconcile.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(target.Keys()) != 0 {
		t.Errorf("%v", target.Keys())
	}
}

func TestFailChangesNothing(t *testing.T) {
	refused := errors.New("refused")
	target := memory.Target{Fail: func(reconcile.Change) error { return refused }}
	if err := target.Apply(t.Context(), reconcile.Change{Action: reconcile.Create, Key: key("a"), Desired: config("a", "1")}); !errors.Is(err, refused) {
		t.Errorf("%v", err)
	}
	if len(target.Keys())+len(target.Applied()) != 0 {
		t.Error("something was made")
	}
}

func TestWatchTellsOfEverything(t *testing.T) {
	var target memory.Target
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	got := make(chan reconcile.Key, 4096)
	ended := make(chan error, 1)
	wg.Go(func() {
		ended <- target.Watch(ctx, func(k reconcile.Key) {
			select {
			case got <- k:
			case <-ctx.Done():
			}
		})
	})
	edit := func(i int) {
		_ = target.Edit(key("a"), func(object) object { return config("a", fmt.Sprint(i)) })
	}
	edit(0)
	for i := 1; len(got) == 0; i++ { // until the watch has begun
		edit(i)
	}
	for i := range 2000 { // faster than it may be read: then a zero key tells
		edit(i)
	}
	<-got
	cancel()
	wg.Wait()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	edit(1) // nobody listens, nothing blocks
}

func TestSource(t *testing.T) {
	var s memory.Source
	if st, err := s.Fetch(t.Context()); st.Len() != 0 || err != nil {
		t.Errorf("%v, %v", st, err)
	}
	down := errors.New("down")
	s.Set(nil, down)
	if _, err := s.Fetch(t.Context()); !errors.Is(err, down) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Fetch(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
