package scrape

import (
	"fmt"
	"time"
)

// Restore adds a batch that was ticked before, as a controller that comes
// back after a crash does with what it has kept, oldest first and before its
// first Tick. A batch that is not later than the newest one is refused with
// [ErrNotAfter].
func (s *Scraper) Restore(b Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := b.Time.UTC()
	if !s.ticked {
		s.origin = t.Truncate(s.o.Step)
	}
	at := floorDiv(t.Sub(s.origin), s.o.Step)
	if s.ticked && at <= s.last {
		return fmt.Errorf("scrape: restore %v: %w", t.Format(time.RFC3339Nano), ErrNotAfter)
	}
	s.last, s.ticked = at, true
	for _, x := range b.Samples {
		if x.Series.Service != Ingress {
			s.service[x.Series.Service] = true
		}
		s.put(x.Series, at, x.Value)
	}
	s.forget()
	return nil
}
