// Command rootcause asks who is to blame when a shop's frontend is slow and
// fails: it makes up a minute of metrics of six services, of which payment
// went bad after a release, and prints the report that a host would attach to
// the incident.
package main

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
)

const before, after = 60, 8 // rows, one a second

func main() {
	start := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	onset := start.Add(before * time.Second)
	in := rootcause.Input{
		Start: start, Step: time.Second,
		Onset:  onset.Add(2 * time.Second), // when the alert was raised
		Target: anomaly.SeriesID{Service: "frontend", Metric: "error_ratio"},
		Graph: []rootcause.Edge{
			{Caller: "frontend", Callee: "catalogue"}, {Caller: "frontend", Callee: "cart"},
			{Caller: "frontend", Callee: "checkout"}, {Caller: "checkout", Callee: "payment"},
			{Caller: "checkout", Callee: "shipping"},
		},
		Changes: []rootcause.Change{
			{ID: "4d1fa02", Summary: "Release payment v2", Author: "kim", Time: onset.Add(-3 * time.Second), Services: []string{"payment"}, Fields: []string{"spec.template.spec.containers[0].image"}},
			{ID: "b7730c9", Summary: "Release shipping v5", Author: "lee", Time: onset.Add(-9 * time.Second), Services: []string{"shipping"}, Fields: []string{"spec.template.spec.containers[0].image"}},
			{ID: "e02d6aa", Summary: "Scale cart 3 -> 4", Time: onset.Add(-time.Second), Services: []string{"cart"}, Automatic: true, Fields: []string{"spec.replicas"}},
		},
	}
	rng := rand.New(rand.NewPCG(1, 2))
	add := func(service, name string, quiet, bad, noise float64) {
		v := make([]float64, before+after)
		for i := range v {
			v[i] = quiet
			if i >= before {
				v[i] = bad
			}
			v[i] = max(0, v[i]+noise*rng.NormFloat64())
		}
		in.Metrics = append(in.Metrics, rootcause.Metric{Service: service, Name: name, Values: v})
	}
	for _, s := range []struct {
		service                string
		errors, latency, worse float64
	}{
		{"frontend", 0.10, 42, 95}, {"catalogue", 0, 12, 12}, {"cart", 0, 8, 8},
		{"checkout", 0.33, 24, 190}, {"payment", 0.34, 6, 172}, {"shipping", 0, 5, 5},
	} {
		add(s.service, "error_ratio", 0.001, s.errors, 0.004)
		add(s.service, "latency_ms", s.latency, s.worse, 0.1*s.latency)
		add(s.service, "request_rate", 100, 100-60*s.errors, 6)
	}

	report, err := rootcause.Analyzer{}.Analyze(context.Background(), in)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%-9s %s\n%-9s %s\n%-9s %s\n\n", "onset", report.Onset.Format("15:04:05"), "remedy", report.Class, "why", report.Why)
	for i, s := range report.Services {
		fmt.Printf("%d. %-10s score %5.1f  confidence %.2f\n", i+1, s.Service, s.Score, s.Confidence)
		for _, line := range s.Evidence {
			fmt.Printf("     %s\n", line)
		}
	}
	fmt.Println()
	for _, c := range report.Changes {
		fmt.Printf("%-8s %-20s confidence %.2f  %s\n", c.Change.ID, c.Change.Summary, c.Confidence, strings.Join(c.Evidence, "; "))
	}
}
