// Package hygiene holds the repository to its own rules. It has tests only:
//
//   - layers: which package may import which, as the table of the design has
//     it, and which other modules each may use; a package that is not in the
//     table fails, so that the table stays complete;
//   - words: every package says what it is for, every library package has an
//     example that runs, and no tracked file has a note to do something later;
//   - state: no init functions, no package-level variables that can change,
//     no clock, randomness or output but through what the caller passes in;
//   - weight: no replace in go.mod, no Kubernetes, at most 25 modules linked.
//
// A failure names the file and line, and what the rule is for.
package hygiene
