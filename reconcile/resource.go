package reconcile

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// Resource is one object, desired or live, in Kubernetes shape. A Resource
// that is in a [State] is shared and must not be changed; [Resource.Clone]
// gives one that may be.
type Resource struct {
	// Key names the resource.
	Key Key `json:"key"`
	// Object is the whole document: apiVersion, kind, metadata and the rest.
	// It holds only map[string]any, []any, string, bool, int64, float64 and nil.
	Object map[string]any `json:"object"`
	// Origin is where Git declares it; zero for live resources.
	Origin Origin `json:"origin,omitzero"`
	// Fields gives the place of each field in Origin.Path, by field path (see
	// [Path]); nil where it is not known.
	Fields map[string]Position `json:"-"`
	// Version is the live object's version, opaque, compared only for
	// equality; empty for desired resources.
	Version string `json:"version,omitempty"`
	// Health is the live object's health; zero for desired resources and
	// where the Actuator does not tell.
	Health Health `json:"health,omitzero"`
}

// Origin is the place in a repository that declares a resource or a field.
type Origin struct {
	// Repo is the repository's URL or name.
	Repo string `json:"repo,omitempty"`
	// Revision is the commit that was read.
	Revision string `json:"revision,omitempty"`
	// Path is the file, slash-separated, relative to the repository's root.
	Path string `json:"path,omitempty"`
	// Line and Column count from 1; 0 is unknown.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
}

// String gives path:line:column at revision, leaving out what is not known.
func (o Origin) String() string {
	var b strings.Builder
	b.WriteString(o.Path)
	if o.Line > 0 {
		fmt.Fprintf(&b, ":%d", o.Line)
		if o.Column > 0 {
			fmt.Fprintf(&b, ":%d", o.Column)
		}
	}
	if o.Revision != "" {
		if b.Len() > 0 {
			b.WriteString(" at ")
		}
		b.WriteString(ShortRevision(o.Revision))
	}
	return b.String()
}

// ShortRevision abbreviates a revision for people: the first ten characters.
func ShortRevision(rev string) string {
	if len(rev) > 10 {
		return rev[:10]
	}
	return rev
}

// Position is a place in a file; both count from 1.
type Position struct {
	Line   int `json:"line"`
	Column int `json:"column"`
}

// Locate gives the place that declares the field at path: the field's own
// where it is known, else that of the nearest enclosing field, else the
// resource's.
func (r Resource) Locate(path string) Origin {
	o := r.Origin
	if len(r.Fields) == 0 {
		return o
	}
	for p := path; p != ""; p = parentPath(p) {
		if pos, ok := r.Fields[p]; ok {
			o.Line, o.Column = pos.Line, pos.Column
			return o
		}
	}
	return o
}

// Clone gives a copy that shares nothing that can be changed.
func (r Resource) Clone() Resource {
	r.Object = CloneObject(r.Object)
	r.Fields = maps.Clone(r.Fields)
	return r
}

// KeyOf reads the key of an object in Kubernetes shape. It is an error if
// kind or metadata.name is missing or not a string.
func KeyOf(object map[string]any) (Key, error) {
	var k Key
	apiVersion, _ := object["apiVersion"].(string)
	if group, _, ok := strings.Cut(apiVersion, "/"); ok {
		k.Group = group
	}
	if k.Kind, _ = object["kind"].(string); k.Kind == "" {
		return Key{}, fmt.Errorf("reconcile: object has no kind: %w", ErrInvalid)
	}
	meta, _ := object["metadata"].(map[string]any)
	if k.Name, _ = meta["name"].(string); k.Name == "" {
		return Key{}, fmt.Errorf("reconcile: %s has no metadata.name: %w", k.Kind, ErrInvalid)
	}
	k.Namespace, _ = meta["namespace"].(string)
	for _, part := range []string{k.Group, k.Kind, k.Namespace, k.Name} {
		if strings.ContainsAny(part, "/ \t\n") {
			return Key{}, fmt.Errorf("reconcile: %s: name part %q has a slash or white space: %w", k.Kind, part, ErrInvalid)
		}
	}
	if strings.Contains(k.Kind, ".") {
		return Key{}, fmt.Errorf("reconcile: kind %q has a dot: %w", k.Kind, ErrInvalid)
	}
	return k, nil
}

// State is a set of resources at one revision. It is immutable and safe for
// concurrent use; the zero value is empty.
type State struct {
	revision string
	list     []Resource // sorted by key
	index    map[Key]int
}

// NewState makes a State. Two resources with one key are refused with a
// [*ConflictError] that names both places.
func NewState(revision string, resources []Resource) (*State, error) {
	s := &State{revision: revision, list: slices.Clone(resources), index: make(map[Key]int, len(resources))}
	slices.SortStableFunc(s.list, func(a, b Resource) int { return a.Key.Compare(b.Key) })
	for i, r := range s.list {
		if j, ok := s.index[r.Key]; ok {
			return nil, &ConflictError{Key: r.Key, First: s.list[j].Origin, Second: r.Origin}
		}
		s.index[r.Key] = i
	}
	return s, nil
}

// Revision is the commit or the live state's version; it may be empty.
func (s *State) Revision() string {
	if s == nil {
		return ""
	}
	return s.revision
}

// Len is the number of resources.
func (s *State) Len() int {
	if s == nil {
		return 0
	}
	return len(s.list)
}

// Get finds a resource by key.
func (s *State) Get(k Key) (Resource, bool) {
	if s == nil {
		return Resource{}, false
	}
	i, ok := s.index[k]
	if !ok {
		return Resource{}, false
	}
	return s.list[i], true
}

// All yields the resources in key order.
func (s *State) All() iter.Seq[Resource] {
	return func(yield func(Resource) bool) {
		if s == nil {
			return
		}
		for _, r := range s.list {
			if !yield(r) {
				return
			}
		}
	}
}

// CloneObject copies an object deeply.
func CloneObject(o map[string]any) map[string]any {
	if o == nil {
		return nil
	}
	return cloneValue(o).(map[string]any)
}

func cloneValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = cloneValue(e)
		}
		return m
	case []any:
		s := make([]any, len(v))
		for i, e := range v {
			s[i] = cloneValue(e)
		}
		return s
	default:
		return v
	}
}
