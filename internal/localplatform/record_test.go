package localplatform

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

func TestRecordRoundTrip(t *testing.T) {
	rec := &record{
		key: reconcile.Key{Kind: "ConfigMap", Namespace: "a", Name: "b"}, version: 7, from: "6",
		object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "b", "namespace": "a"},
			"x": []any{int64(1), 1.0, 1.5, -2e30, true, nil, "s", map[string]any{}},
		},
		templates: map[string]any{"h": map[string]any{"n": 3.0}},
	}
	b, err := rec.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeRecord(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rec, got, cmp.AllowUnexported(record{})); diff != "" {
		t.Error(diff)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add([]byte(`{"key":"ConfigMap/a/b","version":1,"object":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b","namespace":"a"},"x":1.0}}`))
	f.Add([]byte(`{"key":"","object":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := decodeRecord(b)
		if err != nil {
			return
		}
		out, err := rec.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeRecord(out)
		if err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if diff := cmp.Diff(rec.object, again.object); diff != "" {
			t.Error(diff)
		}
	})
}

func TestVictims(t *testing.T) {
	mk := func(id, owner string, ready bool) *proc {
		return &proc{entry: rundir.Entry{ID: id, Owner: owner}, ready: ready}
	}
	// Oldest first.
	procs := []*proc{
		mk("old", rundir.OwnerPlatform, true), mk("hand", rundir.OwnerHand, true),
		mk("warming", rundir.OwnerPlatform, false), mk("young", rundir.OwnerPlatform, true),
	}
	var got []string
	for _, v := range victims(procs, 4) {
		got = append(got, v.entry.ID)
	}
	if diff := cmp.Diff([]string{"hand", "warming", "young", "old"}, got); diff != "" {
		t.Error(diff)
	}
	if len(victims(procs, -1)) != 0 {
		t.Error("victims without surplus")
	}
}

func TestMegabytes(t *testing.T) {
	for s, want := range map[string]int{"256Mi": 256, "1Gi": 1024, "1M": 1, "3000000": 3, "0.5Gi": 512} {
		if got, err := megabytes(s); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "Mi", "-1Mi", "1Mib", "NaN", "1e99", "12 Mi"} {
		if got, err := megabytes(s); !errors.Is(err, reconcile.ErrInvalid) {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
}
