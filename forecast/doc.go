// Package forecast foresees operational metrics.
package forecast
