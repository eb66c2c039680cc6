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
type historyLog struct {
	f *os.File
	w *bufio.Writer
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
	return &historyLog{f: f, w: bufio.NewWriter(f)}, nil
}

// read gives all batches. A last line without its end was cut off by a crash
// and is taken away.
func (h *historyLog) read(each func(b scrape.Batch, watched bool) error) error {
	data, err := os.ReadFile(h.f.Name())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("history: %w", err)
	}
	whole := bytes.LastIndexByte(data, '\n') + 1
	if whole < len(data) {
		if err := h.f.Truncate(int64(whole)); err != nil {
			return fmt.Errorf("history: %w", err)
		}
	}
	for n, text := range bytes.Split(bytes.TrimSuffix(data[:whole], []byte("\n")), []byte("\n")) {
		if len(text) == 0 {
			continue
		}
		var l historyLine
		if err := json.Unmarshal(text, &l); err != nil {
			return fmt.Errorf("history: %s:%d: %w", h.f.Name(), n+1, err)
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
