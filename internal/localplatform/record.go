package localplatform

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

// record is a live object as it is stored in DIR/live.
type record struct {
	key reconcile.Key
	// version counts the writes of the object.
	version int64
	// object is what was declared last; it is replaced, never changed.
	object map[string]any
	// from is the precondition of the write that made this version: the same
	// change, sent again because its first try was cut off, is known by it.
	from string
	// templates are the pod templates by hash: of the object, and of the
	// processes that still run an earlier one.
	templates map[string]any
}

type recordFile struct {
	Key       reconcile.Key  `json:"key"`
	Version   int64          `json:"version"`
	Object    map[string]any `json:"object"`
	From      string         `json:"from,omitempty"`
	Templates map[string]any `json:"templates,omitempty"`
}

func (p *Platform) recordName(key reconcile.Key) string {
	return p.dir.Path("live", url.PathEscape(key.String())+".json")
}

func (p *Platform) loadRecords() error {
	files, err := os.ReadDir(p.dir.Path("live"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".json") {
			continue
		}
		b, err := os.ReadFile(p.dir.Path("live", f.Name()))
		if err != nil {
			return err
		}
		rec, err := decodeRecord(b)
		if err != nil {
			return fmt.Errorf("live/%s: %w", f.Name(), err)
		}
		p.records[rec.key] = rec
	}
	return nil
}

func decodeRecord(b []byte) (*record, error) {
	var f recordFile
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(&f); err != nil {
		return nil, err
	}
	object, err := plainNumbers(f.Object)
	if err != nil {
		return nil, err
	}
	templates, err := plainNumbers(f.Templates)
	if err != nil {
		return nil, err
	}
	rec := &record{key: f.Key, version: f.Version, from: f.From}
	rec.object, _ = object.(map[string]any)
	rec.templates, _ = templates.(map[string]any)
	key, err := reconcile.KeyOf(rec.object)
	if err != nil {
		return nil, err
	}
	if key != f.Key {
		return nil, fmt.Errorf("it is of %s and holds %s", f.Key, key)
	}
	return rec, nil
}

func (r *record) encode() ([]byte, error) {
	object, err := jsonNumbers(r.object)
	if err != nil {
		return nil, err
	}
	templates, err := jsonNumbers(r.templates)
	if err != nil {
		return nil, err
	}
	f := recordFile{Key: r.key, Version: r.version, From: r.from}
	f.Object, _ = object.(map[string]any)
	f.Templates, _ = templates.(map[string]any)
	return json.Marshal(f)
}

// plainNumbers turns JSON's numbers into int64 and float64: with a point or
// an exponent it is a float64.
func plainNumbers(v any) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			n, err := plainNumbers(e)
			if err != nil {
				return nil, err
			}
			v[k] = n
		}
		return v, nil
	case []any:
		for i, e := range v {
			n, err := plainNumbers(e)
			if err != nil {
				return nil, err
			}
			v[i] = n
		}
		return v, nil
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return v.Float64()
		}
		return v.Int64()
	}
	return v, nil
}

// jsonNumbers is its inverse: a float64 that is whole keeps its point.
func jsonNumbers(v any) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		if v == nil {
			return nil, nil
		}
		m := make(map[string]any, len(v))
		for k, e := range v {
			n, err := jsonNumbers(e)
			if err != nil {
				return nil, err
			}
			m[k] = n
		}
		return m, nil
	case []any:
		s := make([]any, len(v))
		for i, e := range v {
			n, err := jsonNumbers(e)
			if err != nil {
				return nil, err
			}
			s[i] = n
		}
		return s, nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("number %v: %w", v, reconcile.ErrInvalid)
		}
		s := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(s, ".e") {
			s += ".0"
		}
		return json.Number(s), nil
	}
	return v, nil
}

// save writes the record. The caller holds the key's lock or mu.
func (p *Platform) save(rec *record) error {
	b, err := rec.encode()
	if err != nil {
		return err
	}
	return rundir.WriteFile(p.recordName(rec.key), b)
}

func (p *Platform) erase(key reconcile.Key) error {
	if err := os.Remove(p.recordName(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// hashOf names a value; maps are written in key order, so equal values have
// equal names.
func hashOf(v any) (string, error) {
	v, err := jsonNumbers(v)
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	h := fnv.New64a()
	h.Write(b)
	return fmt.Sprintf("%016x", h.Sum64()), nil
}

func isDeployment(k reconcile.Key) bool { return k.Kind == "Deployment" && k.Group == "apps" }
