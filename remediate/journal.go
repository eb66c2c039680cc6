package remediate

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// Journal keeps records for good, in order. Implementations are safe for
// concurrent use.
type Journal interface {
	// Append stores the records in this order behind record number after,
	// which must be the last one (0 for an empty journal), numbers them on
	// from there (it ignores their Seq), and returns only when they would
	// survive a crash of the machine. Where the last record is another one it
	// stores nothing and the error wraps [ErrConflict]: so of several writers
	// that share a journal only the one that has seen all of it goes on. After
	// any other error an unknown first part of the records may have been
	// stored.
	Append(ctx context.Context, after uint64, recs ...Record) error
	// Read yields the records from number from on (1 is the first, as is 0),
	// those that were stored when it was called; it ends with the first
	// error. Yielded records are the caller's.
	Read(ctx context.Context, from uint64) iter.Seq2[Record, error]
}

// encodeRecord gives a record's JSON, having made sure that it can be read
// back: a record that cannot would make all that follow it unreadable.
func encodeRecord(r Record) ([]byte, error) {
	b, err := json.Marshal(r)
	if err == nil {
		err = new(Record).decode(b)
	}
	if err != nil {
		return nil, fmt.Errorf("remediate: journal: record %d, %s: %w", r.Seq, r.Kind, err)
	}
	return b, nil
}

// maxRecord bounds what comes from outside: a trigger with its report, an
// operation, a commit. It leaves room for the rest of a record below what a
// [FileJournal] can hold.
const maxRecord = 4 << 20

// encodeBounded is encodeRecord for what comes from outside: an error wraps
// [ErrInvalid].
func encodeBounded(r Record) ([]byte, error) {
	b, err := encodeRecord(r)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", err, ErrInvalid)
	case len(b) > maxRecord:
		return nil, fmt.Errorf("as JSON it has %d bytes, at most %d: %w", len(b), maxRecord, ErrInvalid)
	}
	return b, nil
}

// maxText bounds one text of a record, in bytes.
const maxText = 4096

// clip makes a text from outside fit for a record.
func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText-len("…")] + "…"
	}
	return strings.ToValidUTF8(s, "")
}

// storableCommit makes what a host's writer gave fit for a record: an odd key,
// or time, must not make the journal refuse it.
func storableCommit(c reconcile.Commit) reconcile.Commit {
	c.Keys = slices.DeleteFunc(slices.Clone(c.Keys), func(k reconcile.Key) bool {
		back, err := reconcile.ParseKey(k.String())
		return err != nil || back != k
	})
	if _, err := encodeBounded(Record{Kind: ActionDone, Commit: &c}); err != nil {
		c = reconcile.Commit{Revision: clip(c.Revision)}
	}
	return c
}

// MemoryJournal is a [Journal] for tests and for hosts that do not need to
// survive a restart. Make it with [NewMemoryJournal].
type MemoryJournal struct {
	mu   sync.Mutex
	recs [][]byte
}

// NewMemoryJournal gives an empty journal.
func NewMemoryJournal() *MemoryJournal { return &MemoryJournal{} }

// conflict is the error of an Append behind a record that is not the last.
func conflict(after, last uint64) error {
	return fmt.Errorf("remediate: journal: append after record %d, the last one is %d: %w", after, last, ErrConflict)
}

// Append stores the records; it fails only when ctx has ended, the last record
// is not after, or a record cannot be written as JSON.
func (j *MemoryJournal) Append(ctx context.Context, after uint64, recs ...Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if last := uint64(len(j.recs)); after != last {
		return conflict(after, last)
	}
	var add [][]byte
	for i, r := range recs {
		r.Seq = uint64(len(j.recs) + i + 1)
		b, err := encodeRecord(r)
		if err != nil {
			return err
		}
		add = append(add, b)
	}
	j.recs = append(j.recs, add...)
	return nil
}

// Read yields the records from number from on.
func (j *MemoryJournal) Read(ctx context.Context, from uint64) iter.Seq2[Record, error] {
	j.mu.Lock()
	recs := j.recs
	j.mu.Unlock()
	return func(yield func(Record, error) bool) {
		for i := max(from, 1) - 1; i < uint64(len(recs)); i++ {
			var r Record
			err := ctx.Err()
			if err == nil {
				err = r.decode(recs[i])
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}
