// Package anomaly notices unusual values in streams of metrics.
package anomaly
