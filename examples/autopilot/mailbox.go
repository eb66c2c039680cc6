package main

import "sync"

// mailbox takes events from anywhere without blocking and gives them to the
// loop, so that all decisions are made by one goroutine.
type mailbox struct {
	mu    sync.Mutex
	items []any
	wake  chan struct{}
}

func (m *mailbox) init() { m.wake = make(chan struct{}, 1) }

func (m *mailbox) put(v any) {
	m.mu.Lock()
	m.items = append(m.items, v)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *mailbox) take() []any {
	m.mu.Lock()
	defer m.mu.Unlock()
	items := m.items
	m.items = nil
	return items
}
