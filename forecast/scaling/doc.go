// Package scaling turns quantile forecasts of demand into replicas.
package scaling
