package reconcile

import (
	"strings"
	"time"
)

// Trailer is one "Key: value" line at the end of a commit message.
type Trailer struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// TrailerAction is the trailer that makes a write idempotent: a writer asked
// twice for one action id finds the first commit and makes no second.
const TrailerAction = "Action-Id"

// Commit is one commit of a desired-state repository.
type Commit struct {
	Revision string    `json:"revision"`
	Parents  []string  `json:"parents,omitempty"`
	Author   string    `json:"author"`
	Time     time.Time `json:"time"`
	// Message is the whole message without its trailers.
	Message  string    `json:"message"`
	Trailers []Trailer `json:"trailers,omitempty"`
	// Paths are the files that it changed, sorted.
	Paths []string `json:"paths,omitempty"`
	// Keys are the resources that those files declare before or after it,
	// sorted.
	Keys []Key `json:"keys,omitempty"`
}

// Subject is the message's first line.
func (c Commit) Subject() string {
	s, _, _ := strings.Cut(c.Message, "\n")
	return s
}

// Trailer gives the first trailer with that key, compared without case, or "".
func (c Commit) Trailer(key string) string {
	for _, t := range c.Trailers {
		if strings.EqualFold(t.Key, key) {
			return t.Value
		}
	}
	return ""
}

// Edit sets one field of one declared resource, or removes it.
type Edit struct {
	Key Key `json:"key"`
	// Path is the field (see [Path]).
	Path string `json:"path"`
	// Value is the new value: string, bool, int64 or float64. Ignored when
	// Remove is true.
	Value  any  `json:"value"`
	Remove bool `json:"remove,omitempty"`
	// Expect, if not nil, is the value that the field must have in the newest
	// commit: where it has another one, or none, the write is refused with
	// [ErrConflict], because what was decided was decided on something else.
	Expect any `json:"expect,omitempty"`
}

// WriteRequest asks for one commit on the branch that declares the desired
// state: either edits or the revert of one commit.
type WriteRequest struct {
	// ID names the action, for [TrailerAction]; required.
	ID string `json:"id"`
	// Message is the commit message without trailers; its first line is the
	// subject. Required, but for a revert, which has a default.
	Message string `json:"message,omitempty"`
	// Trailers are added in this order, before [TrailerAction].
	Trailers []Trailer `json:"trailers,omitempty"`
	// Edits are made together; exclusive with Revert.
	Edits []Edit `json:"edits,omitempty"`
	// Revert is the commit to take back; exclusive with Edits.
	Revert string `json:"revert,omitempty"`
}
