package reconcile

import (
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFileStoreRoundTrip(t *testing.T) {
	s := FileStore{Path: filepath.Join(t.TempDir(), "inventory.json")}
	if v, err := s.Load(t.Context()); err != nil || len(v.Items) != 0 {
		t.Fatalf("a missing file gives %v, %v", v, err)
	}
	r := random{rand.New(rand.NewPCG(5, 6))}
	for range 30 {
		v := (*Inventory)(nil).Clone()
		for _, k := range []string{"Job/a", "Deployment.apps/s/b", "Service/s/c"} {
			key, _ := ParseKey(k)
			v.Items[key] = Item{Applied: r.object(3), Writing: object{"x": int64(1<<62 + 1), "y": int64(math.MinInt64), "f": 0.1, "g": 1e300, "n": nil}, Pending: true, Origin: Origin{Path: "a.yaml", Line: 3}}
		}
		if err := s.Save(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		got, err := s.Load(t.Context())
		if err != nil || len(got.Items) != len(v.Items) {
			t.Fatal(err, got)
		}
		for k, want := range v.Items {
			item := got.Items[k]
			if item.Origin != want.Origin || item.Pending != want.Pending || !same(item.Writing, want.Writing) {
				t.Fatalf("%v\n%v", item, want)
			}
			if len(Diff(want.Applied, want.Applied, item.Applied)) > 0 || len(Diff(item.Applied, item.Applied, want.Applied)) > 0 {
				t.Fatalf("%v\n%v", item.Applied, want.Applied)
			}
			for name, typed := range item.Writing {
				if _, isInt := want.Writing[name].(int64); isInt {
					if _, ok := typed.(int64); !ok {
						t.Fatalf("%s is a %T", name, typed)
					}
				}
			}
		}
	}
	if fi, err := os.Stat(s.Path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

func TestFileStoreNamesADamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inventory.json")
	s := FileStore{Path: path}
	for name, content := range map[string]string{
		"empty": "", "cut off": `{"version":1,"items":{"Job/a":{"appl`, "more": `{"version":1,"items":{}} {}`, "no version": `{"items":{}}`,
		"from the future": `{"version":2,"items":{}}`, "bad key": `{"version":1,"items":{"Job":{}}}`, "another thing": `[1]`,
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s.Load(t.Context())
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if b, _ := os.ReadFile(path); string(b) != content {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func TestFileStoreSavesAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	s := FileStore{Path: filepath.Join(dir, "inventory.json")}
	key := Key{Kind: "Job", Name: "a"}
	good := &Inventory{Items: map[Key]Item{key: {Applied: object{"a": "1"}}}}
	// What a crash in the middle of an earlier save left behind is no obstacle.
	if err := os.WriteFile(s.Path+".tmp", []byte(`{"half`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	bad := &Inventory{Items: map[Key]Item{key: {Applied: object{"a": math.NaN()}}}}
	if err := s.Save(t.Context(), bad); err == nil || !strings.Contains(err.Error(), s.Path) {
		t.Errorf("saving NaN: %v", err)
	}
	if v, err := s.Load(t.Context()); err != nil || v.Items[key].Applied["a"] != "1" {
		t.Errorf("%v, %v", v, err)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
	missing := FileStore{Path: filepath.Join(dir, "no", "such", "dir")}
	if err := missing.Save(t.Context(), good); err == nil || !strings.Contains(err.Error(), missing.Path) {
		t.Errorf("%v", err)
	}
}

func FuzzInventoryFile(f *testing.F) {
	f.Add([]byte(`{"version":1,"items":{"Job/a":{"applied":{"a":[1,0.5,null]},"pending":true}}}`))
	f.Add([]byte(`{"version":1,"items":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := FileStore{Path: filepath.Join(t.TempDir(), "i")}
		if err := os.WriteFile(s.Path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := s.Load(t.Context())
		if err != nil {
			if !strings.Contains(err.Error(), s.Path) {
				t.Fatal(err)
			}
			return
		}
		if err := s.Save(t.Context(), v); err != nil {
			return // an infinity
		}
		if again, err := s.Load(t.Context()); err != nil || len(again.Items) != len(v.Items) {
			t.Fatalf("%v: %v, %v", v, again, err)
		}
	})
}
