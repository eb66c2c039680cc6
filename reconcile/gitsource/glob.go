package gitsource

import (
	"fmt"
	"path"
	"strings"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// matcher decides which files of a repository are manifests to read.
type matcher struct {
	include, exclude [][]string // globs by segment
}

func newMatcher(include, exclude []string) (*matcher, error) {
	m := new(matcher)
	for _, g := range []struct {
		from []string
		to   *[][]string
	}{{include, &m.include}, {exclude, &m.exclude}} {
		for _, glob := range g.from {
			segs, err := parseGlob(glob)
			if err != nil {
				return nil, err
			}
			*g.to = append(*g.to, segs)
		}
	}
	return m, nil
}

func parseGlob(glob string) ([]string, error) {
	trimmed := strings.Trim(strings.TrimPrefix(glob, "./"), "/")
	if trimmed == "" || trimmed == "." {
		if glob == "" {
			return nil, fmt.Errorf("empty glob: %w", reconcile.ErrInvalid)
		}
		return []string{"**"}, nil
	}
	segs := strings.Split(trimmed, "/")
	for _, s := range segs {
		if _, err := path.Match(s, ""); err != nil || s == "" || s == ".." {
			return nil, fmt.Errorf("bad glob %q: %w", glob, reconcile.ErrInvalid)
		}
	}
	return segs, nil
}

// file tells whether a path is to be read.
func (m *matcher) file(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".yaml", ".yml", ".json":
	default:
		return false
	}
	segs := strings.Split(name, "/")
	return (len(m.include) == 0 || matchAny(m.include, segs)) && !matchAny(m.exclude, segs)
}

// dir tells whether anything below a directory may be read.
func (m *matcher) dir(name string) bool {
	if len(m.include) == 0 {
		return true
	}
	segs := strings.Split(name, "/")
	for _, g := range m.include {
		if mayHold(g, segs) {
			return true
		}
	}
	return false
}

func matchAny(globs [][]string, segs []string) bool {
	for _, g := range globs {
		if matchGlob(g, segs) {
			return true
		}
	}
	return false
}

// matchGlob matches a whole path, or a directory above it. It is linear in
// the path for each glob segment: only the last "**" needs to be tried again.
func matchGlob(glob, segs []string) bool {
	g, s := 0, 0
	retryG, retryS := -1, 0
	for s < len(segs) {
		switch {
		case g == len(glob):
			return true // a directory's path stands for all below it
		case glob[g] == "**":
			retryG, retryS = g, s
			g++
			continue
		}
		if ok, _ := path.Match(glob[g], segs[s]); ok {
			g++
			s++
			continue
		}
		if retryG < 0 {
			return false
		}
		retryS++
		g, s = retryG+1, retryS
	}
	for g < len(glob) && glob[g] == "**" {
		g++
	}
	return g == len(glob)
}

func mayHold(glob, dir []string) bool {
	for i, d := range dir {
		if i == len(glob) || glob[i] == "**" {
			return true
		}
		if ok, _ := path.Match(glob[i], d); !ok {
			return false
		}
	}
	return true
}
