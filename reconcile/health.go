package reconcile

// HealthStatus is a small closed vocabulary for how a live resource is doing.
type HealthStatus string

// The health statuses.
const (
	// Unknown: nothing tells. The zero value.
	Unknown HealthStatus = ""
	// Progressing: on its way to what is declared, not there yet.
	Progressing HealthStatus = "Progressing"
	// Healthy: as declared, and works.
	Healthy HealthStatus = "Healthy"
	// Degraded: does not work, or does not get where it should.
	Degraded HealthStatus = "Degraded"
	// Suspended: stopped on purpose.
	Suspended HealthStatus = "Suspended"
	// Missing: does not exist.
	Missing HealthStatus = "Missing"
	// Terminating: being deleted.
	Terminating HealthStatus = "Terminating"
)

// Health is a status with its reason.
type Health struct {
	Status HealthStatus `json:"status,omitempty"`
	// Reason is one line for a person: "2 of 3 replicas ready".
	Reason string `json:"reason,omitempty"`
}

// String gives the status and the reason.
func (h Health) String() string {
	s := string(h.Status)
	if s == "" {
		s = "Unknown"
	}
	if h.Reason != "" {
		s += ": " + h.Reason
	}
	return s
}
