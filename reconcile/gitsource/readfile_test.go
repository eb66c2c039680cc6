package gitsource_test

import (
	"errors"
	"testing"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/gitsource"
)

func TestReadFile(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	const text = "kind: Namespace\napiVersion: v1\nmetadata: {name: shop} # kept\n"
	first, err := gitsource.Init(ctx, dir, gitsource.CommitRequest{Message: "Start", Files: map[string][]byte{"a/b.yaml": []byte(text), "README": []byte("hello")}})
	if err != nil {
		t.Fatal(err)
	}
	repo, err := gitsource.Open(ctx, gitsource.Options{URL: dir})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a/b.yaml": text, "README": "hello"} {
		got, revision, err := repo.ReadFile(ctx, name)
		if err != nil || string(got) != want || revision != first.Revision {
			t.Errorf("ReadFile(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
	for name, want := range map[string]error{"a/c.yaml": reconcile.ErrNotFound, "a": reconcile.ErrNotFound, "../x": reconcile.ErrInvalid, "": reconcile.ErrInvalid} {
		if _, _, err := repo.ReadFile(ctx, name); !errors.Is(err, want) {
			t.Errorf("ReadFile(%q): %v, want %v", name, err, want)
		}
	}
}
