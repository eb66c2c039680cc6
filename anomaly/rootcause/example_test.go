package rootcause_test

import (
	"context"
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
)

// Payment fails from row 50 on; checkout, which calls it, fails along.
func Example() {
	start := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	errors := func(after float64) []float64 {
		v := make([]float64, 56)
		for i := 50; i < len(v); i++ {
			v[i] = after
		}
		return v
	}
	onset := start.Add(51 * 5 * time.Second)
	report, err := rootcause.Analyzer{}.Analyze(context.Background(), rootcause.Input{
		Start: start, Step: 5 * time.Second,
		Metrics: []rootcause.Metric{
			{Service: "frontend", Name: "error_ratio", Values: errors(0.1)},
			{Service: "checkout", Name: "error_ratio", Values: errors(0.31)},
			{Service: "payment", Name: "error_ratio", Values: errors(0.31)},
			{Service: "cart", Name: "error_ratio", Values: errors(0)},
		},
		Onset:  onset,
		Target: anomaly.SeriesID{Service: "frontend", Metric: "error_ratio"},
		Graph: []rootcause.Edge{
			{Caller: "frontend", Callee: "cart"},
			{Caller: "frontend", Callee: "checkout"},
			{Caller: "checkout", Callee: "payment"},
		},
		Changes: []rootcause.Change{{
			ID: "9f2c1e7", Summary: "Release payment v2", Time: onset.Add(-20 * time.Second),
			Services: []string{"payment"}, Fields: []string{"spec.template.spec.containers[0].image"},
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	top := report.Services[0]
	fmt.Printf("%s, confidence %.2f\n", top.Service, top.Confidence)
	for _, line := range top.Evidence {
		fmt.Println(" ", line)
	}
	fmt.Println(report.Class, report.Change.Change.ID)
	for _, line := range report.Change.Evidence {
		fmt.Println(" ", line)
	}
	// Output:
	// payment, confidence 0.98
	//   payment/error_ratio 0.00 → 0.31 (score 30) since 10:04:10; callers checkout, frontend follow
	//   reached from the alert by frontend → checkout → payment
	// RollBack 9f2c1e7
	//   took effect 15s before onset
	//   touches payment, ranked 1
	//   changes spec.template.spec.containers[0].image
}
