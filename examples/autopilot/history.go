package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/scrape"
)

// historyLog keeps what was scraped, one line a batch, so that a controller
// that comes back has its metrics and, by feeding them to new detectors, its
// alerts: the same input gives the same incidents with the same ids.
//
// It is two files: when the newer one holds as many batches as are remembered,
// it takes the older one's place.
type historyLog struct {
	name string
	f    *os.File
	w    *bufio.Writer
	n    int // batches in f
}

type historyLine struct {
	Time    time.Time       `json:"t"`
	Watched bool            `json:"w"` // the detectors saw it
	Samples []historySample `json:"s"`
}

type historySample struct {
	anomaly.SeriesID
	Value *float64 `json:"v"` // nil is missing
}

func openHistory(name string) (*historyLog, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return &historyLog{name: name, f: f, w: bufio.NewWriter(f)}, nil
}

// rotate begins a new file.
func (h *historyLog) rotate() error {
	if err := h.close(); err != nil {
		return err
	}
	if err := os.Rename(h.name, h.name+".old"); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	next, err := openHistory(h.name)
	if err == nil {
		*h = *next
	}
	return err
}

// read gives all batches. A last line without its end was cut off by a crash
// and is taken away.
func (h *historyLog) read(each func(b scrape.Batch, watched bool) error) error {
	old, err := os.ReadFile(h.name + ".old")
	if err == nil {
		err = parseHistory(h.name+".old", old, each)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("history: %w", err)
	}
	data, err := os.ReadFile(h.name)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	whole := bytes.LastIndexByte(data, '\n') + 1
	if whole < len(data) {
		if err := h.f.Truncate(int64(whole)); err != nil {
			return fmt.Errorf("history: %w", err)
		}
	}
	return parseHistory(h.name, data[:whole], func(b scrape.Batch, watched bool) error {
		h.n++
		return each(b, watched)
	})
}

func parseHistory(name string, data []byte, each func(b scrape.Batch, watched bool) error) error {
	for n, text := range bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")) {
		if len(text) == 0 {
			continue
		}
		var l historyLine
		if err := json.Unmarshal(text, &l); err != nil {
			return fmt.Errorf("history: %s:%d: %w", name, n+1, err)
		}
		b := scrape.Batch{Time: l.Time}
		for _, s := range l.Samples {
			v := math.NaN()
			if s.Value != nil {
				v = *s.Value
			}
			b.Samples = append(b.Samples, scrape.Sample{Series: s.SeriesID, Value: v})
		}
		if err := each(b, l.Watched); err != nil {
			return err
		}
	}
	return nil
}

func (h *historyLog) append(b scrape.Batch, watched bool) error {
	if h.n >= kept {
		if err := h.rotate(); err != nil {
			return err
		}
	}
	h.n++
	l := historyLine{Time: b.Time, Watched: watched}
	for _, s := range b.Samples {
		hs := historySample{SeriesID: s.Series}
		if !math.IsNaN(s.Value) && !math.IsInf(s.Value, 0) {
			v := s.Value
			hs.Value = &v
		}
		l.Samples = append(l.Samples, hs)
	}
	text, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	_, _ = h.w.Write(append(text, '\n')) // bufio keeps the error for Flush
	return h.w.Flush()
}

func (h *historyLog) close() error { return errors.Join(h.w.Flush(), h.f.Close()) }
