package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// word is what a line of the timeline is about; people scan this column.
type word string

const (
	wordStory  word = "STORY"
	wordFault  word = "FAULT"
	wordSync   word = "SYNC"
	wordDrift  word = "DRIFT"
	wordScale  word = "SCALE"
	wordAlert  word = "ALERT"
	wordCause  word = "CAUSE"
	wordRepair word = "REPAIR"
	wordVerify word = "VERIFY"
	wordPolicy word = "POLICY"
	wordAsk    word = "ASK"
	wordError  word = "ERROR"
)

func (w word) color() string {
	switch w {
	case wordStory:
		return "1" // bold
	case wordFault, wordAlert, wordError:
		return "31"
	case wordCause, wordAsk, wordPolicy:
		return "33"
	case wordVerify:
		return "32"
	case wordSync, wordDrift, wordScale, wordRepair:
		return "36"
	}
	return "0"
}

// line is one entry of the timeline, kept for the reports.
type line struct {
	Sim  time.Time `json:"simulated"`
	At   float64   `json:"wall_s"`
	Word word      `json:"kind"`
	What string    `json:"what"`
	Why  []string  `json:"why,omitempty"`
}

// timeline prints what happens, as it happens. It is safe for concurrent use.
type timeline struct {
	out   io.Writer
	color bool
	clock simClock

	mu    sync.Mutex
	lines []line
	held  []line // told while a question stood on the terminal
	asked int
}

// hold keeps lines back while somebody reads a question; the function that it
// gives prints them.
func (t *timeline) hold() (release func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.asked--; t.asked > 0 {
			return
		}
		for _, l := range t.held {
			t.print(l)
		}
		t.held = nil
	}
}

func (t *timeline) say(w word, why []string, format string, args ...any) {
	sim, wall := t.clock.now()
	l := line{Sim: sim, At: wall.Seconds(), Word: w, What: fmt.Sprintf(format, args...), Why: why}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, l)
	if t.asked > 0 {
		t.held = append(t.held, l)
		return
	}
	t.print(l)
}

// print writes one line; the caller holds the lock.
func (t *timeline) print(l line) {
	day := int(l.Sim.Sub(t.clock.load.SimStart)/(24*time.Hour)) + 1
	paint := func(code, s string) string {
		if !t.color || code == "0" {
			return s
		}
		return "\x1b[" + code + "m" + s + "\x1b[0m"
	}
	fmt.Fprintf(t.out, "day %d %s %s %s %s\n", day, l.Sim.Format("15:04"),
		paint("2", fmt.Sprintf("+%5.1fs", l.At)), paint(l.Word.color(), fmt.Sprintf("%-6s", l.Word)), l.What)
	for _, s := range l.Why {
		for _, part := range strings.Split(strings.TrimRight(s, "\n"), "\n") {
			fmt.Fprintf(t.out, "%s%s\n", strings.Repeat(" ", 28), paint("2", part))
		}
	}
}

func (t *timeline) all() []line {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]line(nil), t.lines...)
}
