// Package security holds desired and live state to a policy set.
package security
