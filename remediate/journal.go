package remediate

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"sync"
)

// Journal keeps records for good, in order. Implementations are safe for
// concurrent use.
type Journal interface {
	// Append stores the records in this order, numbers them on from the last
	// one (it ignores their Seq), and returns only when they would survive a
	// crash of the machine. After an error an unknown first part of them may
	// have been stored.
	Append(ctx context.Context, recs ...Record) error
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
		return nil, fmt.Errorf("remediate: journal: record %d: %w", r.Seq, err)
	}
	return b, nil
}

// MemoryJournal is a [Journal] for tests and for hosts that do not need to
// survive a restart. Make it with [NewMemoryJournal].
type MemoryJournal struct {
	mu   sync.Mutex
	recs [][]byte
}

// NewMemoryJournal gives an empty journal.
func NewMemoryJournal() *MemoryJournal { return &MemoryJournal{} }

// Append stores the records; it fails only when ctx has ended or a record
// cannot be written as JSON.
func (j *MemoryJournal) Append(ctx context.Context, recs ...Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
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
