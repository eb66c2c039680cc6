package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
)

// Item is what the reconciler remembers of one resource that it manages.
type Item struct {
	// Applied is the object as it was last declared and written; nil while
	// the first write is pending. It is the base of the three-way diff.
	Applied map[string]any `json:"applied,omitempty"`
	// Origin is where Applied was declared.
	Origin Origin `json:"origin,omitzero"`
	// Pending is true from before a write until its outcome is known.
	Pending bool `json:"pending,omitempty"`
}

// Inventory is what one reconciler manages. Only what is in it is ever
// pruned. A resource enters it before it is first written and leaves it after
// its deletion is confirmed, so that a crash orphans nothing.
type Inventory struct {
	Items map[Key]Item `json:"items"`
}

// Clone copies the inventory; the applied objects, which nobody changes, are
// shared.
func (v *Inventory) Clone() *Inventory {
	if v == nil {
		return &Inventory{Items: map[Key]Item{}}
	}
	c := &Inventory{Items: maps.Clone(v.Items)}
	if c.Items == nil {
		c.Items = map[Key]Item{}
	}
	return c
}

// Store keeps an [Inventory] across restarts. One reconciler uses a Store at
// a time. Save replaces the inventory as a whole or not at all.
type Store interface {
	// Load gives what was last saved, or an empty Inventory.
	Load(ctx context.Context) (*Inventory, error)
	Save(ctx context.Context, v *Inventory) error
}

// MemoryStore is a [Store] that lives as long as the process. Its zero value
// is ready for use.
type MemoryStore struct {
	mu sync.Mutex
	v  *Inventory
}

// Load implements [Store].
func (s *MemoryStore) Load(context.Context) (*Inventory, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.v.Clone(), nil
}

// Save implements [Store].
func (s *MemoryStore) Save(_ context.Context, v *Inventory) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.v = v.Clone()
	return nil
}

// FileStore is a [Store] in one JSON file, replaced atomically and synced to
// disk at each save. It holds whole declared objects, those of Secrets too,
// and is readable by its owner only.
type FileStore struct {
	// Path is the file; its directory must exist.
	Path string
}

// Load implements [Store].
func (s FileStore) Load(context.Context) (*Inventory, error) {
	b, err := os.ReadFile(s.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return (*Inventory)(nil).Clone(), nil
	}
	if err != nil {
		return nil, &Error{Op: "load inventory", Err: err}
	}
	var v Inventory
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, &Error{Op: "load inventory", Err: fmt.Errorf("%s: %w: %w", s.Path, ErrInvalid, err)}
	}
	for k, item := range v.Items {
		item.Applied, _ = integers(item.Applied).(map[string]any)
		v.Items[k] = item
	}
	return v.Clone(), nil
}

// Save implements [Store].
func (s FileStore) Save(_ context.Context, v *Inventory) error {
	if err := s.save(v); err != nil {
		return &Error{Op: "save inventory", Err: err}
	}
	return nil
}

func (s FileStore) save(v *Inventory) (err error) {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(s.Path), filepath.Base(s.Path)+".*.tmp") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(b); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), s.Path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(s.Path))
	if err != nil {
		return err
	}
	err = dir.Sync()
	return errors.Join(err, dir.Close())
}

// integers gives JSON's whole numbers back the type int64 that manifests
// have.
func integers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = integers(e)
		}
	case []any:
		for i, e := range v {
			v[i] = integers(e)
		}
	case float64:
		if i := int64(v); float64(i) == v && v > -1<<53 && v < 1<<53 {
			return i
		}
	}
	return v
}
