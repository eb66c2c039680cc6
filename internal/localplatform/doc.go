// Package localplatform runs Deployments as real processes of this machine.
package localplatform
