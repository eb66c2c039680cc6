//go:build !race

package main

// raceEnabled tells that processes are slow.
const raceEnabled = false
