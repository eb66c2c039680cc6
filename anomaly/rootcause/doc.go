// Package rootcause names the cause of an incident.
package rootcause
