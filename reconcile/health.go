package reconcile

import "fmt"

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

// CheckHealth reads the health of an object in Kubernetes shape from its
// status, for the built-in workload kinds and for every kind with standard
// conditions (Ready, Available, Stalled, Failed). Objects without a status
// that says anything are Healthy: existing is all that they do.
func CheckHealth(object map[string]any) Health {
	meta, _ := object["metadata"].(map[string]any)
	if meta["deletionTimestamp"] != nil {
		return Health{Status: Terminating, Reason: "deletion requested"}
	}
	status, _ := object["status"].(map[string]any)
	spec, _ := object["spec"].(map[string]any)
	if generation, ok := number(meta["generation"]); ok {
		if seen, ok := number(status["observedGeneration"]); ok && seen < generation {
			return Health{Status: Progressing, Reason: "newest specification not observed yet"}
		}
	}
	switch kind, _ := object["kind"].(string); kind {
	case "Deployment", "StatefulSet", "ReplicaSet":
		return replicaHealth(spec, status)
	case "Job":
		if h, ok := conditionHealth(status, map[string]HealthStatus{"Failed": Degraded, "Complete": Healthy, "Suspended": Suspended}); ok {
			return h
		}
		return Health{Status: Progressing, Reason: "not complete"}
	case "Pod":
		switch phase, _ := status["phase"].(string); phase {
		case "Succeeded":
			return Health{Status: Healthy}
		case "Failed":
			return Health{Status: Degraded, Reason: "failed"}
		case "", "Pending":
			return Health{Status: Progressing, Reason: "pending"}
		}
	}
	if h, ok := conditionHealth(status, map[string]HealthStatus{"Stalled": Degraded, "Failed": Degraded, "Reconciling": Progressing}); ok {
		return h
	}
	for _, want := range []string{"Ready", "Available"} {
		if c := condition(status, want); c != nil && c["status"] != "True" {
			reason, _ := c["message"].(string)
			return Health{Status: Progressing, Reason: reason}
		}
	}
	return Health{Status: Healthy}
}

func replicaHealth(spec, status map[string]any) Health {
	want := 1.0
	if n, ok := number(spec["replicas"]); ok {
		want = n
	}
	ready, _ := number(status["readyReplicas"])
	updated, known := number(status["updatedReplicas"])
	if c := condition(status, "Progressing"); c != nil && c["reason"] == "ProgressDeadlineExceeded" {
		reason, _ := c["message"].(string)
		return Health{Status: Degraded, Reason: reason}
	}
	if ready < want || known && updated < want {
		return Health{Status: Progressing, Reason: fmt.Sprintf("%v of %v replicas ready", ready, want)}
	}
	return Health{Status: Healthy}
}

func condition(status map[string]any, kind string) map[string]any {
	list, _ := status["conditions"].([]any)
	for _, e := range list {
		if c, ok := e.(map[string]any); ok && c["type"] == kind {
			return c
		}
	}
	return nil
}

// conditionHealth gives the status of the first condition that is True, in
// the order of the object's own list.
func conditionHealth(status map[string]any, means map[string]HealthStatus) (Health, bool) {
	list, _ := status["conditions"].([]any)
	for _, e := range list {
		c, _ := e.(map[string]any)
		kind, _ := c["type"].(string)
		if h, ok := means[kind]; ok && c["status"] == "True" {
			reason, _ := c["message"].(string)
			return Health{Status: h, Reason: reason}, true
		}
	}
	return Health{}, false
}
