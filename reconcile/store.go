package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
)

// Item is what the reconciler remembers of one resource that it manages.
type Item struct {
	// Applied is the object as it was last declared and written; nil while
	// the first write is pending. It is the base of the three-way diff, and
	// what a resource is kept as while a gate holds its change.
	Applied map[string]any `json:"applied,omitempty"`
	// Origin is where Applied was declared, or for a first write where it is;
	// its Revision is the one at which the declaration was recorded.
	Origin Origin `json:"origin,omitzero"`
	// Pending is true from before a write until its outcome is known.
	Pending bool `json:"pending,omitempty"`
	// Writing is the object that a pending write declares. After a crash it
	// may or may not have become real, so its fields count as applied, too.
	Writing map[string]any `json:"writing,omitempty"`
}

// base is what may have been applied: the first side of the three-way diff.
func (i Item) base() map[string]any {
	switch {
	case i.Writing == nil:
		return i.Applied
	case i.Applied == nil:
		return i.Writing
	}
	return overlay(CloneObject(i.Applied), i.Writing).(map[string]any)
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
// a time. Save replaces the inventory as a whole or not at all. Neither side
// changes an Inventory that it has given or got; [Inventory.Clone] gives one
// that may be.
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
// and is readable by its owner only. A file that cannot be read is an error
// that names it and, where it is damaged, matches [ErrInvalid]; it is never
// taken for an empty inventory, and never overwritten unread.
type FileStore struct {
	// Path is the file; its directory must exist. Path with ".tmp" appended
	// is used while saving.
	Path string
}

// fileFormat is the version of the file that this package writes.
const fileFormat = 1

type inventoryFile struct {
	Version int          `json:"version"`
	Items   map[Key]Item `json:"items"`
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
	bad := func(err error) error {
		return &Error{Op: "load inventory", Err: fmt.Errorf("%s: %w: %w", s.Path, ErrInvalid, err)}
	}
	var f inventoryFile
	if err := decodeJSON(b, &f); err != nil {
		return nil, bad(err)
	}
	if f.Version != fileFormat {
		return nil, bad(fmt.Errorf("version %d is not %d", f.Version, fileFormat))
	}
	v := &Inventory{Items: f.Items}
	for k, item := range v.Items {
		item.Applied = plainObject(item.Applied)
		item.Writing = plainObject(item.Writing)
		v.Items[k] = item
	}
	return v.Clone(), nil
}

// Save implements [Store].
func (s FileStore) Save(_ context.Context, v *Inventory) error {
	if err := s.save(v.Clone()); err != nil {
		return &Error{Op: "save inventory", Err: fmt.Errorf("%s: %w", s.Path, err)}
	}
	return nil
}

func (s FileStore) save(v *Inventory) (err error) {
	b, err := json.Marshal(inventoryFile{fileFormat, v.Items})
	if err != nil {
		return err
	}
	// One reconciler uses the file, so one name is enough, and a crash leaves
	// no more than one file behind, which the next save takes over.
	f, err := os.OpenFile(s.Path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
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

// decodeJSON is json.Unmarshal with numbers kept as they are written, for
// plain to type.
func decodeJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the end")
	}
	return nil
}

// plain gives numbers the types that objects have: int64 for whole ones,
// float64 for others. It changes v in place.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = plain(e)
		}
	case []any:
		for i, e := range v {
			v[i] = plain(e)
		}
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, _ := v.Float64() // out of range is an infinity, which is not equal to anything declared
		return f
	}
	return v
}

func plainObject(o map[string]any) map[string]any {
	if o == nil {
		return nil
	}
	return plain(o).(map[string]any)
}
