// Package manifest reads and edits files of manifests: YAML with any number
// of documents, and JSON, in Kubernetes shape.
//
// Guarantees:
//
//  1. Values are map[string]any, []any, string, bool, int64, float64 and nil,
//     and nothing else. Scalars resolve as they do in the Kubernetes tools:
//     unquoted yes, no, on, off, y and n are booleans, 0777 and 0o777 are
//     octal, and dates stay strings. An integer beyond 64 bits, NaN and
//     infinity are errors rather than something near.
//  2. Every resource and every field has its line and column. Field paths are
//     those of [reconcile.Path]; list elements are named by
//     [reconcile.ListKey], as in diffs. A field that an alias or a merge key
//     brings in has the place where it is written.
//  3. Nothing ambiguous passes: duplicate keys, keys that are not strings and
//     unknown tags are errors. All errors of a file are reported together,
//     each with its place.
//  4. Hostile input is refused at small cost: see [MaxSize], [MaxDepth] and
//     [MaxExpansion], which stops aliases that multiply.
//  5. [Edit] changes a field's own bytes and no other, and proves it by
//     decoding the result; what it cannot do so it refuses.
//
// A byte order mark and any line ends are accepted. Everything here is a pure
// function, safe for concurrent use.
//
//	resources, err := manifest.Decode("shop/cart.yaml", data)
//	if err != nil {
//		return err // every line names file, line and column
//	}
//	for _, r := range resources {
//		fmt.Println(r.Key, r.Locate("spec.replicas"))
//	}
//	data, err = manifest.Set("shop/cart.yaml", data, key, "spec.replicas", int64(5))
//
// On failure Decode returns no resources at all and Edit returns no bytes, so
// a caller cannot act on half a file.
package manifest
