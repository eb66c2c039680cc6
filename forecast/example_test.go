package forecast_test

import (
	"context"
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/forecast"
)

// A queue that fills by day and drains by night, seen for two days of eight
// 3-hour steps.
func Example() {
	history := forecast.Series{
		Name:   "orders",
		Start:  time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC),
		Step:   3 * time.Hour,
		Values: []float64{12, 10, 40, 90, 110, 105, 60, 20, 14, 11, 42, 95, 118, 110, 64, 22},
	}
	fitted, err := forecast.Profile{Period: 8}.Fit(context.Background(), history)
	if err != nil {
		fmt.Println(err)
		return
	}
	fitted.Update(13)

	var next forecast.Forecast
	if err := fitted.Forecast(&next, 4, forecast.Options{Levels: []float64{0.95}, NonNegative: true}); err != nil {
		fmt.Println(err)
		return
	}
	for h, mean := range next.Mean {
		at := next.Start.Add(time.Duration(h) * next.Step)
		fmt.Printf("%s  %3.0f, below %3.0f\n", at.Format("Mon 15:04"), mean, next.Quantiles[0][h])
	}
	fmt.Println(next.Model, next.Fallbacks)
	// Output:
	// Wed 03:00   20, below  37
	// Wed 06:00   48, below  89
	// Wed 09:00   87, below 140
	// Wed 12:00  109, below 164
	// Profile[8] []
}

func ExampleCrossValidate() {
	week := forecast.Series{Name: "sales", Start: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC), Step: 24 * time.Hour}
	for day := range 70 {
		week.Values = append(week.Values, []float64{50, 48, 51, 60, 75, 90, 40}[day%7]+float64(day*day%11))
	}
	for _, model := range []forecast.Model{forecast.SeasonalNaive{Period: 7}, forecast.ETS{Season: forecast.AdditiveSeason, Period: 7}} {
		e, err := forecast.CrossValidate(context.Background(), model, week, forecast.EvalOptions{Horizon: 7, Windows: 4, Period: 7})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(e)
	}
	// Output:
	// SeasonalNaive[7] over 4 windows: MASE 0.955, sMAPE 6.15 %, pinball 1.425, WQL 0.045, coverage 82.1 %
	// ETS(A,N,A)[7] over 4 windows: MASE 0.670, sMAPE 4.36 %, pinball 0.9489, WQL 0.030, coverage 82.1 %
}
