// Package evenkeel is the map of a library for GitOps with automation that
// explains itself. Git declares what should run; evenkeel makes it so,
// foresees demand and scales ahead of it, notices trouble, finds its cause,
// repairs it through Git, keeps the policy, and leaves a person in command.
// Each package is useful alone; a host wires together the ones it wants. This
// package has no code.
//
// # Making it so
//
//   - [github.com/evenkeel-go/evenkeel/reconcile] compares what Git declares
//     with what runs, gives the difference as a plan, has gates review it and
//     applies it, again and again.
//   - [github.com/evenkeel-go/evenkeel/reconcile/gitsource] reads the desired
//     state from a Git repository and writes commits back to it.
//   - [github.com/evenkeel-go/evenkeel/reconcile/manifest] decodes YAML and
//     JSON manifests, with the place of every field, and edits one field of a
//     file without touching another byte.
//   - [github.com/evenkeel-go/evenkeel/reconcile/memory] is a target in
//     memory, for tests and as the smallest example of an Actuator.
//
// # Seeing ahead
//
//   - [github.com/evenkeel-go/evenkeel/forecast] foresees metrics, with
//     quantiles.
//   - [github.com/evenkeel-go/evenkeel/forecast/scaling] turns such a forecast
//     over the start-up lead time into replicas.
//
// # Noticing and understanding
//
//   - [github.com/evenkeel-go/evenkeel/anomaly] scores streams of metrics,
//     raises alerts and groups them into incidents.
//   - [github.com/evenkeel-go/evenkeel/anomaly/rootcause] ranks the services,
//     metrics and commits that may be to blame, with evidence.
//
// # Repairing, within limits
//
//   - [github.com/evenkeel-go/evenkeel/remediate] carries out a playbook under
//     guards and approvals, journals every step and verifies the effect.
//   - [github.com/evenkeel-go/evenkeel/security] checks policies on the plan,
//     as a gate, and reports findings with file and line.
//
// # How they fit
//
// Packages meet through interfaces of one to three methods that the calling
// package declares: [reconcile.Source], [reconcile.Actuator],
// [reconcile.Gate], [forecast.Model], [anomaly.Detector],
// [remediate.Approver], [remediate.Journal]. Plans, incidents, forecasts and
// findings are plain data. Nothing keeps global state, reads a clock behind
// the host's back or logs but through what the host passes in.
//
// The whole loop runs in examples/autopilot, on real processes and a real
// repository:
//
//	go run ./examples/autopilot
//
// [reconcile.Source]: https://pkg.go.dev/github.com/evenkeel-go/evenkeel/reconcile#Source
// [reconcile.Actuator]: https://pkg.go.dev/github.com/evenkeel-go/evenkeel/reconcile#Actuator
// [reconcile.Gate]: https://pkg.go.dev/github.com/evenkeel-go/evenkeel/reconcile#Gate
// [forecast.Model]: https://pkg.go.dev/github.com/evenkeel-go/evenkeel/forecast#Model
// [anomaly.Detector]: https://pkg.go.dev/github.com/evenkeel-go/evenkeel/anomaly#Detector
// [remediate.Approver]: https://pkg.go.dev/github.com/evenkeel-go/evenkeel/remediate#Approver
// [remediate.Journal]: https://pkg.go.dev/github.com/evenkeel-go/evenkeel/remediate#Journal
package evenkeel
