package reconcile

import (
	"cmp"
	"fmt"
	"strings"
)

// Key names one resource within one target. It leaves out the API version on
// purpose: apps/v1 and apps/v1beta1 of one Deployment are the same object.
type Key struct {
	// Group is the API group, empty for the core group.
	Group string
	// Kind is the resource's kind, such as Deployment.
	Kind string
	// Namespace is empty for what is not namespaced.
	Namespace string
	// Name is the resource's name within its namespace.
	Name string
}

// String gives the key as Kind.group/namespace/name, leaving out an empty
// group and an empty namespace: "Deployment.apps/shop/cart", "Namespace/shop".
// [ParseKey] reads it back.
func (k Key) String() string {
	var b strings.Builder
	b.Grow(len(k.Kind) + len(k.Group) + len(k.Namespace) + len(k.Name) + 3)
	b.WriteString(k.Kind)
	if k.Group != "" {
		b.WriteByte('.')
		b.WriteString(k.Group)
	}
	if k.Namespace != "" {
		b.WriteByte('/')
		b.WriteString(k.Namespace)
	}
	b.WriteByte('/')
	b.WriteString(k.Name)
	return b.String()
}

// ParseKey reads the form that [Key.String] writes. Its errors match
// [ErrInvalid].
func ParseKey(s string) (Key, error) {
	bad := func(why string) (Key, error) {
		return Key{}, fmt.Errorf("reconcile: key %q: %s: %w", s, why, ErrInvalid)
	}
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 {
		return bad("want Kind.group/namespace/name, or without group or namespace")
	}
	for _, p := range parts {
		if p == "" {
			return bad("empty part")
		}
	}
	if strings.ContainsAny(s, " \t\n") {
		return bad("white space")
	}
	var k Key
	var grouped bool
	k.Kind, k.Group, grouped = strings.Cut(parts[0], ".")
	if k.Kind == "" {
		return bad("empty kind")
	}
	if grouped && k.Group == "" {
		return bad("empty group")
	}
	if len(parts) == 3 {
		k.Namespace = parts[1]
	}
	k.Name = parts[len(parts)-1]
	return k, nil
}

// Compare orders keys by group, kind, namespace and name.
func (k Key) Compare(o Key) int {
	return cmp.Or(
		strings.Compare(k.Group, o.Group),
		strings.Compare(k.Kind, o.Kind),
		strings.Compare(k.Namespace, o.Namespace),
		strings.Compare(k.Name, o.Name),
	)
}

// MarshalText makes a Key readable in JSON, also as a map key; the zero Key
// is the empty text.
func (k Key) MarshalText() ([]byte, error) {
	if k == (Key{}) {
		return nil, nil
	}
	return []byte(k.String()), nil
}

// UnmarshalText is the inverse of MarshalText.
func (k *Key) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*k = Key{}
		return nil
	}
	p, err := ParseKey(string(b))
	if err != nil {
		return err
	}
	*k = p
	return nil
}
