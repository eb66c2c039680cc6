// Package scrape turns the metrics that the processes of a local platform
// expose into series on a grid.
package scrape
